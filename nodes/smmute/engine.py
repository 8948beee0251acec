"""The engine's arithmetic, without time: what a frame asks for, whether it may, and which bytes in which order
(TF-A-Tests, SMMUv3TestEngine.h).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nodes.arch.pcie import ATTR_INSTRUCTION, ATTR_NONSECURE, ATTR_PRIVILEGED
from nodes.smmute.regs import MEMCPY, RAND48, SUM64

PAGE = 4096
BEAT = 8
ONES64 = (1 << 64) - 1
NO_SUBSTREAM = 0xFFFF_FFFF
MAX_SUBSTREAM = 0xF_FFFF
VECTORS = 2048
ASCENDING, DESCENDING = 0, 0xFFFF_FFFF
ILLEGAL_CACHE = frozenset((4, 5, 8, 9, 0xC, 0xD))


class Job(NamedTuple):
    """A frame's registers when its command was written."""

    command: int
    begin: int
    end_incl: int
    stride: int
    seed: int
    destination: int
    attributes: int
    msiaddress: int
    msidata: int
    substreamid: int
    downstream_port_index: int


def misconfigured(job: Job) -> str:
    """Why the engine refuses a job; "" if it doesn't."""
    first, last = job.begin & ~7, job.end_incl | 7
    rules = [
        (job.command not in (MEMCPY, RAND48, SUM64), "cmd must be MEMCPY, RAND48 or SUM64"),
        (job.msiaddress not in (0, 1), "msiaddress must be 0 or 1"),
        (job.msiaddress == 1 and job.msidata >= VECTORS, f"msidata must be below {VECTORS}"),
        (job.stride == 0 or (job.stride != 1 and job.stride % BEAT != 0), "stride must be 1 or a multiple of 8"),
        (job.begin > job.end_incl, "begin must not be above end_incl"),
        (first == 0 and last == ONES64, "the range must not be the whole address space"),
        (
            job.command == SUM64 and (job.begin & 7 != 0 or job.end_incl & 7 != 7),
            "a SUM64 range must be whole 64-bit words",
        ),
        (
            job.substreamid != NO_SUBSTREAM and job.substreamid > MAX_SUBSTREAM,
            "substreamid must be all ones or have 20 bits",
        ),
        (job.downstream_port_index != 0, "downstream_port_index must be 0 under PCI Express"),
        (not all(_legal(job.attributes >> n & 0xFFFF) for n in (0, 16)), "attributes must have legal cache policies"),
    ]
    return next((why for bad, why in rules if bad), "")


def _legal(half: int) -> bool:
    outer, inner = half >> 4 & 0xF, half & 0xF
    return outer not in ILLEGAL_CACHE and (outer < 2 or inner not in ILLEGAL_CACHE)


def bus_attributes(half: int) -> int:
    """Access attributes of one halfword: what comes from PCI Express is Non-secure."""
    attr = ATTR_NONSECURE
    attr |= ATTR_PRIVILEGED if half >> 8 & 1 else 0
    return attr | (ATTR_INSTRUCTION if half >> 10 & 1 else 0)


# -- random numbers ----------------------------------------------------------------------------------------------------


class Rand48:
    """The engine's generator, seeded with 32 bits."""

    def __init__(self, seed: int) -> None:
        self._state = (seed & 0xFFFF_FFFF) << 16 | 0x330E

    def _step(self) -> int:
        self._state = (self._state * 0x5_DEEC_E66D + 0xB) & 0xFFFF_FFFF_FFFF
        return self._state

    def next(self) -> int:
        """The next 32-bit value."""
        low = self._step() >> 17 & 0x7FFF_FFFF
        return low | self._step() & 0x8000_0000


class RandomFill:
    """Bytes of a RAND48 fill by address: the generator starts anew at `begin` and at every 4 KiB boundary."""

    def __init__(self, begin: int, seed: int) -> None:
        self._begin = begin
        self._seed = seed
        self._page = -1
        self._generator = Rand48(0)
        self._bytes = bytearray()

    def bytes(self, address: int, size: int) -> bytes:
        """The bytes of a range within one 4 KiB page, at or after `begin`."""
        start = max(self._begin, address & -PAGE)
        if self._page != start:
            self._page = start
            self._generator = Rand48(self._seed ^ start >> 32 ^ start & 0xFFFF_FFFF)
            self._bytes = bytearray()
        need = address - start + size - len(self._bytes)
        self._bytes += bytes(self._generator.next() & 0xFF for _ in range(need))
        return bytes(self._bytes[address - start : address - start + size])


# -- what is accessed --------------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """One access to the range: address, bytes, and the destination of a copy."""

    address: int
    size: int
    destination: int


class Spans:
    """The accesses of a job by number, without a list of them: 4 KiB pieces for stride 1, else 64-bit beats."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._first = job.begin & ~7
        if job.stride == 1:
            self._base = job.begin & -PAGE
            self.number = (job.end_incl - self._base) // PAGE + 1
            self.total = job.end_incl - job.begin + 1
        else:
            last = job.end_incl | 7
            self.number = (last - 7 - self._first) // job.stride + 1
            self.total = self.number * BEAT

    def __getitem__(self, n: int) -> Span:
        job = self._job
        if job.stride == 1:
            address = max(job.begin, self._base + n * PAGE)
            size = min(job.end_incl + 1, self._base + (n + 1) * PAGE) - address
            return Span(address, size, job.destination + address - job.begin & ONES64)
        offset = n * job.stride
        return Span(self._first + offset, BEAT, (job.destination & ~7) + offset & ONES64)

    def order(self) -> Iterator[int]:
        """Numbers of the accesses in the order that the seed asks for: up, down, or front and back at random."""
        low, high, seed = 0, self.number - 1, self._job.seed
        generator = Rand48(seed)
        while low <= high:
            front = seed == ASCENDING or (seed != DESCENDING and not generator.next() & 1)
            if front:
                yield low
                low += 1
            else:
                yield high
                high -= 1
