"""Workloads that measure the runtime itself, one module each, and what they share: `harness` runs and measures them.

`catalogue` names them; ``cosim bench`` shows them. Each row is taken beside a floor that was measured in the same
invocation, interleaved with the runs, because rates on a shared machine mean nothing without one.
"""
