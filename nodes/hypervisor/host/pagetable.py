"""Translation tables of both stages in simulated memory (VMSAv8-64, 4 KiB granule, 48 bits; Linux io-pgtable-arm.c).

Four levels from level 0; 1 GiB and 2 MiB blocks where IPA, PA and size allow, else 4 KiB pages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from cosim.api import MmioInitiator, ModelError
from nodes.hypervisor.host.memory import PAGE, Allocator

DESC_TABLE = 0b11
DESC_BLOCK = 0b01
DESC_PAGE = 0b11
S2AP_READ, S2AP_WRITE = 1 << 6, 1 << 7
AP_UNPRIVILEGED, AP_READ_ONLY, NOT_GLOBAL = 1 << 6, 1 << 7, 1 << 11
SH_INNER = 3 << 8
AF = 1 << 10
MEMATTR_NORMAL_WB = 0xF << 2
MEMATTR_DEVICE = 0x1 << 2
ATTR_NORMAL, ATTR_DEVICE = 1 << 2, 2 << 2
"""Indices into `MAIR`."""
MAIR = 0x44 | 0xFF << 8 | 0x04 << 16
"""Memory attributes of stage 1, as io-pgtable-arm has them: non-cacheable, write-back, Device-nGnRE."""

LEVEL_SHIFT = (39, 30, 21, 12)
LEAF_LEVELS = (1, 2, 3)
IPA_BITS = 48


class Tables(ABC):
    """One translation: `root` is the physical address of its level-0 table."""

    stage = 0

    def __init__(self, bus: MmioInitiator, memory: Allocator, owner: str) -> None:
        self._bus = bus
        self._memory = memory
        self._owner = owner
        self._tables: dict[int, dict[int, int]] = {}
        self._fresh: dict[int, set[int]] = {}
        self.root = self._new_table()

    def _new_table(self) -> int:
        base = self._memory.alloc(PAGE, PAGE, self._owner)
        self._tables[base] = {}
        self._fresh[base] = set()
        return base

    def map(self, ipa: int, size: int, pa: int, *, device: bool = False, write: bool = True) -> None:
        """Map [ipa, ipa + size) to pa; `sync` posts it to memory.

        Raises:
            ModelError: not aligned to 4 KiB, beyond 48 bits, or mapped already.
        """
        if (ipa | size | pa) % PAGE or size <= 0 or (ipa + size) >> IPA_BITS:
            raise ModelError(
                f"a stage-{self.stage} mapping must be whole 4 KiB pages below {1 << IPA_BITS:#x}, "
                f"not {ipa:#x}+{size:#x} -> {pa:#x}"
            )
        attributes = self.attributes(device, write)
        while size:
            level = next(n for n in LEAF_LEVELS if self._fits(n, ipa, size, pa))
            span = 1 << LEVEL_SHIFT[level]
            kind = DESC_PAGE if level == 3 else DESC_BLOCK
            self._set(self._walk(ipa, level), level, ipa, pa | attributes | kind)
            ipa, pa, size = ipa + span, pa + span, size - span

    @abstractmethod
    def attributes(self, device: bool, write: bool) -> int:
        """Attribute bits of a leaf."""

    @staticmethod
    def _fits(level: int, ipa: int, size: int, pa: int) -> bool:
        span = 1 << LEVEL_SHIFT[level]
        return not (ipa | pa) % span and size >= span

    def _walk(self, ipa: int, level: int) -> int:
        table = self.root
        for above in range(level):
            entry = self._tables[table].get(ipa >> LEVEL_SHIFT[above] & 511)
            if entry is None:
                entry = self._new_table() | DESC_TABLE
                self._set(table, above, ipa, entry)
            elif entry & 0b11 != DESC_TABLE:
                raise ModelError(f"IPA {ipa:#x} must not be mapped twice; a block covers it: {entry:#x}")
            table = entry & ~(PAGE - 1)
        return table

    def _set(self, table: int, level: int, ipa: int, entry: int) -> None:
        index = ipa >> LEVEL_SHIFT[level] & 511
        if index in self._tables[table]:
            raise ModelError(f"IPA {ipa:#x} must not be mapped twice (level {level}, entry {index})")
        self._tables[table][index] = entry
        self._fresh[table].add(index)

    def sync(self) -> None:
        """Post what `map` changed, runs of entries at a time; the next `dsb` makes it visible to a walker."""
        for table, indices in self._fresh.items():
            for first, last in _runs(sorted(indices)):
                data = b"".join(self._tables[table][i].to_bytes(8, "little") for i in range(first, last + 1))
                self._bus.post_block(table + 8 * first, data)
            indices.clear()

    def free(self) -> None:
        """Give every table back; nothing may walk them any more."""
        for table in self._tables:
            self._memory.free(table)
        self._tables.clear()
        self._fresh.clear()


class Stage2(Tables):
    """Stage 2: `root` is for VTTBR or STE.S2TTB."""

    stage = 2

    def attributes(self, device: bool, write: bool) -> int:
        """S2AP, MemAttr and shareability."""
        access = S2AP_READ | (S2AP_WRITE if write else 0)
        return AF | access | (MEMATTR_DEVICE if device else MEMATTR_NORMAL_WB | SH_INNER)


class Stage1(Tables):
    """Stage 1, for devices: `root` is for CD.TTB0; pages of one ASID that unprivileged accesses may use."""

    stage = 1

    def attributes(self, device: bool, write: bool) -> int:
        """AP, AttrIndx and shareability."""
        access = AP_UNPRIVILEGED | (0 if write else AP_READ_ONLY)
        return AF | NOT_GLOBAL | access | (ATTR_DEVICE if device else ATTR_NORMAL | SH_INNER)


def _runs(indices: list[int]) -> Iterator[tuple[int, int]]:
    start = previous = -2
    for index in indices:
        if index != previous + 1:
            if start >= 0:
                yield start, previous
            start = index
        previous = index
    if start >= 0:
        yield start, previous
