"""kvmtool's arm64 memory map (sheet 8.5). Guest-physical addresses, sizes in bytes."""

from __future__ import annotations

from typing import Final, NamedTuple

UART: Final = 0x0100_0000
UART_STRIDE: Final = 0x1000
UARTS: Final = 4
GICD: Final = 0x3FFF_0000
GICR_SIZE: Final = 0x2_0000
GITS_SIZE: Final = 0x2_0000
ECAM: Final = 0x4000_0000
ECAM_SIZE: Final = 0x1000_0000
PCI_MMIO: Final = 0x5000_0000
RAM: Final = 0x8000_0000
TWO_MIB: Final = 0x20_0000

FIRST_DEVICE: Final = 1
"""PCI device number of the first passed-through function on bus 0 (0 is left to a virtio transport)."""


class GicMap(NamedTuple):
    """IPAs of the virtual GIC's frames; they depend on the number of vCPUs."""

    gicd: int
    gicr: int
    gits: int


def gic_map(vcpus: int) -> GicMap:
    """Distributor, Redistributors below it, ITS below those."""
    gicr = GICD - vcpus * GICR_SIZE
    return GicMap(GICD, gicr, gicr - GITS_SIZE)
