"""Guest programs that run at EL1 of vCPUs: kvm-unit-tests' gic `ipi`, and the smmute driver with its application.

They see `nodes.arch.cpu.Cpu` and kvmtool's memory map, and share nothing but simulated RAM.
"""
