"""System MMU, SMMUv3 (IHI 0070): translates the DMA and the MSIs of endpoints."""
