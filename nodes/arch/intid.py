"""Interrupt identifiers (INTIDs): ranges and special values (IHI 0069 section 2.2)."""

from __future__ import annotations

PPI_BASE = 16
SPI_BASE = 32
SPI_LAST = 1019
SPURIOUS = 1023
"""Nothing to acknowledge; also "no doorbell"."""
NO_DOORBELL = SPURIOUS
LPI_BASE = 8192

PPI_MAINTENANCE = 25
PPI_HYP_TIMER = 26
PPI_VIRTUAL_TIMER = 27
PPI_PHYSICAL_TIMER = 30


def is_special(intid: int) -> bool:
    """INTID 1020 to 1023."""
    return 1020 <= intid <= 1023


def is_lpi(intid: int) -> bool:
    """INTID 8192 and above."""
    return intid >= LPI_BASE
