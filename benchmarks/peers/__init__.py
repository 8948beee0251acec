"""Other co-simulation frameworks and simulators on the workloads of `cosim.bench`, each as a script that prints one JSON line."""
