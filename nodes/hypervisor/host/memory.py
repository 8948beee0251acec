"""The host's page allocator: tables of the GIC, the SMMU and PCI live in DRAM outside the guests' RAM.

RAM is zero at reset. A region that was freed is zeroed again when it is given out, by posted writes of up to 4 KiB: they
precede whatever its owner does next on the same bus, and the owner's `dsb` waits for them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import NamedTuple

from cosim.api import MmioInitiator, ModelError

PAGE = 4096
_ZEROES = bytes(PAGE)


class OutOfMemory(ModelError):
    """No free range is large enough."""


class Allocation(NamedTuple):
    """Base (physical address), size in bytes (whole pages) and what it is for."""

    base: int
    size: int
    owner: str


class Allocator:
    """First-fit over DRAM ranges [(base, size)] without the reserved ones; 4 KiB pages."""

    def __init__(
        self, bus: MmioInitiator, dram: Iterable[tuple[int, int]], reserved: Iterable[tuple[int, int]] = ()
    ) -> None:
        self._bus = bus
        self._free: list[tuple[int, int]] = []
        self._used: dict[int, Allocation] = {}
        self._dirty: list[tuple[int, int]] = []
        for base, size in sorted(dram):
            ranges = [(base, base + size)]
            for start, length in reserved:
                ranges = _without(ranges, start, start + length)
            self._free += ranges

    def alloc(self, size: int, align: int = PAGE, owner: str = "host") -> int:
        """Physical address of `size` zeroed bytes aligned to `align` (a power of two); `owner` is for `in_use`.

        Raises:
            OutOfMemory: nothing fits.
        """
        size = -(-size // PAGE) * PAGE
        align = max(align, PAGE)
        for start, end in self._free:
            base = -(-start // align) * align
            if base + size <= end:
                self._free = _without(self._free, base, base + size)
                self._used[base] = Allocation(base, size, owner)
                self._clean(base, base + size)
                return base
        raise OutOfMemory(f"{size:#x} bytes aligned to {align:#x} for {owner} do not fit; free: {self.free_bytes:#x}")

    def free(self, base: int) -> None:
        """Give a region back.

        Raises:
            ModelError: `base` is not an allocation.
        """
        region = self._used.pop(base, None)
        if region is None:
            raise ModelError(f"free must get the base of an allocation, not {base:#x}")
        end = base + region.size
        insort(self._dirty, (base, end))
        insort(self._free, (base, end))
        self._free = _merged(self._free)

    def in_use(self, owner: str | None = None) -> list[Allocation]:
        """Allocations in order of their addresses, of one owner or all."""
        return [self._used[base] for base in sorted(self._used) if owner in (None, self._used[base].owner)]

    @property
    def free_bytes(self) -> int:
        """Bytes not allocated."""
        return sum(end - start for start, end in self._free)

    def _clean(self, start: int, end: int) -> None:
        for low, high in self._dirty:
            low, high = max(low, start), min(high, end)
            for base in range(low, high, PAGE):
                self._bus.post_block(base, _ZEROES)
        self._dirty = _without(self._dirty, start, end)


def _without(ranges: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    out = []
    for low, high in ranges:
        if low < min(start, high):
            out.append((low, min(start, high)))
        if max(end, low) < high:
            out.append((max(end, low), high))
    return out


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for low, high in ranges:
        if out and out[-1][1] == low:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out
