"""kvmtool (lkvm): memory map, console UART, PCI bus with a passed-through function, and the run of one guest."""
