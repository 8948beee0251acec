"""Entries of the ITS's tables in memory. Their formats are the implementation's own (IHI 0069 leaves them open), all zero
is invalid, and their widths are those that GITS_BASER<n>.Entry_Size and GITS_TYPER.ITT_entry_size report.

| Entry | Bytes | Layout |
|---|---|---|
| DTE | 8 | Valid[0], Size[5:1] (EventID bits - 1), ITT address[51:8] in [49:6] |
| CTE | 2 | Valid[0], RDbase[15:1] (GICR_TYPER.ProcessorNumber) |
| VTE | 8 | Valid[0], VPT_size[5:1] (INTID bits - 1), RDbase[21:6]; the addresses of VMAPP are the redistributor's business |
| ITE | 4 or 8 | Valid[0], physical[1], INTID, ICID or vPEID, doorbell (GICv4.0); one above the other |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nodes.arch.intid import NO_DOORBELL

DTE_BYTES = 8
CTE_BYTES = 2
VTE_BYTES = 8

CTE_RDS = 1 << 15
"""A CTE can name redistributors below this number."""


class Dte(NamedTuple):
    """Device: its interrupt translation table. `size` is EventID bits - 1, `itt` a physical address."""

    valid: bool
    size: int
    itt: int

    @classmethod
    def unpack(cls, word: int) -> Dte:
        return cls(bool(word & 1), word >> 1 & 0x1F, (word >> 6 & (1 << 44) - 1) << 8)

    def pack(self) -> int:
        return 1 | self.size << 1 | self.itt >> 8 << 6 if self.valid else 0


class Cte(NamedTuple):
    """Collection: its redistributor."""

    valid: bool
    rd: int

    @classmethod
    def unpack(cls, word: int) -> Cte:
        return cls(bool(word & 1), word >> 1)

    def pack(self) -> int:
        return 1 | self.rd << 1 if self.valid else 0


class Vte(NamedTuple):
    """vPE: its home redistributor; `vpt_size` is vINTID bits - 1."""

    valid: bool
    vpt_size: int
    rd: int

    @classmethod
    def unpack(cls, word: int) -> Vte:
        return cls(bool(word & 1), word >> 1 & 0x1F, word >> 6 & 0xFFFF)

    def pack(self) -> int:
        return 1 | self.vpt_size << 1 | self.rd << 6 if self.valid else 0


class Ite(NamedTuple):
    """Event: a physical LPI of collection `target`, or a vLPI of vPE `target` with its individual doorbell."""

    valid: bool
    physical: bool
    intid: int
    target: int
    doorbell: int = NO_DOORBELL


INVALID_ITE = Ite(False, False, 0, 0)


@dataclass(frozen=True, slots=True)
class IteFormat:
    """Widths in bits of an ITE's fields; `size` in bytes."""

    id_bits: int
    target_bits: int
    doorbells: bool

    @property
    def size(self) -> int:
        """Bytes per entry: 4 or 8."""
        bits = 2 + self.id_bits + self.target_bits + (self.id_bits if self.doorbells else 0)
        return 4 if bits <= 32 else 8

    def pack(self, ite: Ite) -> int:
        if not ite.valid:
            return 0
        word = 1 | int(ite.physical) << 1 | ite.intid << 2 | ite.target << 2 + self.id_bits
        if self.doorbells:
            word |= ite.doorbell << 2 + self.id_bits + self.target_bits
        return word

    def unpack(self, word: int) -> Ite:
        if not word & 1:
            return INVALID_ITE
        intid = word >> 2 & (1 << self.id_bits) - 1
        target = word >> 2 + self.id_bits & (1 << self.target_bits) - 1
        doorbell = word >> 2 + self.id_bits + self.target_bits if self.doorbells else NO_DOORBELL
        return Ite(True, bool(word & 2), intid, target, doorbell)
