"""Records of unmapped MSIs: GITS_STATUSR.{UMSI, Overflow, Syndrome}, GITS_UMSIR and their interrupt (GITS_TYPER.UMSI, UMSIirq).

The first MSI that finds no mapping is recorded; later ones set Overflow until software clears UMSI. While GITS_CTLR.UMSIirq is 1
and a record is there, the interrupt line is high. Syndrome is this model's: the low four bits of the cause (`nodes.its.mappings`).
"""

from __future__ import annotations

from collections.abc import Callable

from cosim.api import Bank
from nodes.its.mappings import Cause

UMSI, OVERFLOW, SYNDROME = 1 << 4, 1 << 5, 0xF << 6
UMSI_IRQ = 1 << 8


class Unmapped:
    """`drive(level)` is called with the level that the interrupt line has from now on."""

    def __init__(self, bank: Bank, drive: Callable[[int], None]) -> None:
        self._bank = bank
        self._drive = drive
        bank.on_write("GITS_STATUSR", lambda index, old, new, mask: self.update())

    def record(self, device_id: int, event_id: int, cause: Cause) -> None:
        """An MSI was dropped because its mapping is missing."""
        bank = self._bank
        status = bank["GITS_STATUSR"]
        if status & UMSI:
            bank["GITS_STATUSR"] = status | OVERFLOW
            return
        bank["GITS_STATUSR"] = status & ~SYNDROME | UMSI | (cause & 0xF) << 6
        bank["GITS_UMSIR"] = device_id << 32 | event_id
        self.update()

    def update(self) -> None:
        """GITS_STATUSR or GITS_CTLR changed."""
        self._drive(int(bool(self._bank["GITS_STATUSR"] & UMSI and self._bank["GITS_CTLR"] & UMSI_IRQ)))
