"""Address decode: which target an access goes to, and at what offset.

Addresses are physical (or IOVA) byte addresses of at most 52 bits, the limit of the Arm architecture
(DDI 0487, FEAT_LPA); sizes and lengths are bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

ADDRESS_LIMIT = 1 << 52


class Region(NamedTuple):
    """Addresses ``base`` to ``base + size - 1`` go to ``target``, whose offset at ``base`` is ``offset``."""

    base: int
    size: int
    target: int | str
    offset: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"region {self.name or self.target!r} ({self.base:#x}..{self.base + self.size - 1:#x})"


class AddressMap:
    """Disjoint regions, decoded by binary search.

    Raises ValueError, naming every bad region at once, when a size is not positive, an end lies above 2^52 or
    two regions overlap.
    """

    __slots__ = ("_bases", "regions")

    def __init__(self, regions: Iterable[Region]) -> None:
        self.regions = tuple(sorted(regions, key=lambda region: region.base))
        problems = [text for region in self.regions for text in _problems(region)]
        problems += _overlaps(self.regions)
        if problems:
            raise ValueError("; ".join(problems))
        self._bases = [region.base for region in self.regions]

    def decode(self, addr: int, length: int) -> tuple[int | str, int] | None:
        """The target of an access of ``length`` bytes at ``addr``, and its offset there.

        None when nothing is there or the access runs past the region's end, even into an adjacent region: a
        bus access has one target. Raises ValueError when ``length`` is not positive.
        """
        region = self.region_of(addr, length)
        return None if region is None else (region.target, region.offset + addr - region.base)

    def region_of(self, addr: int, length: int) -> Region | None:
        """The region that takes the whole of an access; None and ValueError as for `decode`."""
        if length <= 0:
            raise ValueError(f"length must be at least 1 byte, not {length!r}, at address {addr:#x}")
        found = bisect_right(self._bases, addr) - 1
        if found < 0:
            return None
        region = self.regions[found]
        return None if addr - region.base + length > region.size else region


def _problems(region: Region) -> list[str]:
    name = f"region {region.name or region.target!r} at {region.base:#x}"
    problems = []
    if region.base < 0:
        problems.append(f"base of {name} must be at least 0, not {region.base}")
    if region.size <= 0:
        problems.append(f"size of {name} must be at least 1 byte, not {region.size}")
    if region.offset < 0:
        problems.append(f"offset of {name} must be at least 0, not {region.offset}")
    if region.base + region.size > ADDRESS_LIMIT:
        problems.append(f"end of {name} must be at most {ADDRESS_LIMIT:#x}, not {region.base + region.size:#x}")
    return problems


def _overlaps(regions: tuple[Region, ...]) -> list[str]:
    """Each region (in order of base) that begins before the furthest end so far."""
    problems = []
    furthest: Region | None = None
    for region in regions:
        if furthest is not None and region.base < furthest.base + furthest.size:
            problems.append(f"{region} overlaps {furthest}")
        if furthest is None or region.base + region.size > furthest.base + furthest.size:
            furthest = region
    return problems
