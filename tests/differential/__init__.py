"""Our GIC and CPU interface against QEMU's: the same random programs on both, compared after each step."""
