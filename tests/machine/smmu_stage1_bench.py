"""Stage-1 tables, context descriptors and stream table entries in memory, for tests of the SMMU (IHI 0070 chapter 5)."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import BusFault
from tests.machine.smmute_bench import (
    AF,
    IOVA,
    RAM,
    SIDS,
    TABLES,
    VALID,
    VMID,
    Rig,
)

CONTEXTS = RAM + 0x70_0000
TTB = RAM + 0x71_0000
SPARE = RAM + 0x74_0000
ASID = 0x21
READ, INSTRUCTION, PRIVILEGED = 1 << 35, 1 << 34, 1 << 33
S2, CLASS_TT, CLASS_IN = 1 << 39, 1 << 40, 2 << 40
USER, READ_ONLY, NG, PXN, UXN = 1 << 6, 1 << 7, 1 << 11, 1 << 53, 1 << 54
PAGE = AF | NG | USER
GRANULE = {12: (0, 2), 14: (2, 1), 16: (1, 3)}
"""TG0 and TG1 (S2TG is as TG0)."""
CFGI_CD, CFGI_CD_ALL, NH_ALL, NH_ASID, NH_VA, NH_VAA, S12, S2_IPA, NSNH = (
    5, 6, 0x10, 0x11, 0x12, 0x13, 0x28, 0x2A, 0x30,
)  # fmt: skip


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in (*values, *[0] * (8 - len(values))))


def cd(ttb: int = TTB, *, granule: int = 12, tsz: int = 16, flip: int = 0, asid: int = ASID, upper: int = 0) -> bytes:
    """A CD of the lower half (TTB0); EPD1 unless `upper` is a TTB1. `flip` toggles bits of DW0."""
    low = tsz | GRANULE[granule][0] << 6 | (1 << 30 if not upper else tsz << 16 | GRANULE[granule][1] << 22)
    low |= 1 << 31 | 5 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | asid << 48
    return words(low ^ flip, ttb, upper)


def ste1(
    *, config: int = 5, root: int = TABLES, cdmax: int = 0, form: int = 0, dss: int = 0, low: int = 0, high: int = 0
) -> bytes:
    """An STE of stage 1 (5) or both (7); stage 2 as in smmute_bench. `low`, `high` toggle bits of DW0, DW1."""
    word0 = VALID | config << 1 | form << 4 | CONTEXTS | cdmax << 59
    return words(word0 ^ low, dss ^ high, VMID | 16 << 32 | 2 << 38 | 5 << 48 | 1 << 51 | 1 << 58, root)


class Tables:
    """Places stage-1 tables in memory."""

    def __init__(self, rig: Rig, root: int = TTB, granule: int = 12) -> None:
        self.rig, self.root, self.granule = rig, root, granule
        self.next = root + 0x1_0000

    def map(
        self, address: int, output: int, attributes: int = PAGE, *, level: int = 3, start: int = 0, table: int = 0
    ) -> int:
        """Map one leaf; returns the address of its descriptor. `table` is or-ed into new table descriptors."""
        stride = self.granule - 3
        base = self.root
        for n in range(start, level):
            slot = base + 8 * (address >> self.granule + (3 - n) * stride & (1 << stride) - 1)
            entry = int.from_bytes(self.rig.memory.peek(slot, 8), "little")
            if not entry & 1:
                entry = self.next | 3 | table
                self.next += 1 << self.granule
                self.rig.memory.poke(slot, entry.to_bytes(8, "little"))
            base = entry & 0xFFFF_FFFF_F000
        slot = base + 8 * (address >> self.granule + (3 - level) * stride & (1 << stride) - 1)
        self.rig.memory.poke(slot, (output | attributes | (3 if level == 3 else 1)).to_bytes(8, "little"))
        return slot


def rig(entry: bytes | None = None, context: bytes | None = None, **params: Any) -> tuple[Rig, Tables]:
    """An SMMU whose stream 0 has stage 1 with one context."""
    r = Rig(endpoint=False, **params).start()
    r.ste(SIDS[0], ste1() if entry is None else entry)
    r.memory.poke(CONTEXTS, cd() if context is None else context)
    return r, Tables(r)


def refused(r: Rig, iova: int = IOVA, *, write: bool = False, attr: int = 2) -> None:
    with pytest.raises(BusFault, match="SLVERR"):
        if write:
            r.store(iova, 1, attr=attr)
        else:
            r.load(iova, attr=attr)


def kind(r: Rig, slot: int = 0) -> int:
    return r.event(slot)[0] & 0xFF
