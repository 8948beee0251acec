"""The host kernel's part of the hypervisor: EL3's GIC steps, GICv3 and ITS drivers, GICv4, SMMUv3, PCI and VFIO."""
