"""The SMMUv3 test engine: a PCI Express endpoint of two functions with DMA and MSI-X."""
