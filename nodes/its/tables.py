"""The ITS's tables in memory, with a write-through cache of lines.

An operation of the ITS (a command, a translation) is a plain function: it looks entries up, checks, then changes things, all
at one instant. A look-up of something that is not cached raises `Miss`; `settle` fetches what is missing and runs the
function again from the start. So an operation never works with an entry that changed while it waited, and one that fails has
changed nothing.

Entries are written by the ITS only, therefore a line stays valid until a GITS_BASER<n> write or MAPD drops it. Level-1 entries
of a two-level table are software's: only valid ones are remembered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

from cosim.api import Future, Instant, MmioInitiator

T = TypeVar("T")

LINE = 256
"""Bytes fetched at once; tables and ITTs are aligned to it."""

VALID = 1 << 63
PAGE_SIZES = (0x1000, 0x4000, 0x1_0000, 0x1_0000)
"""By GITS_BASER<n>.Page_Size; 3 is reserved and means 64 KB."""
_PA = (1 << 52) - 1


class Miss(Exception):
    """Something must be waited for before an operation can run; `fetch` waits."""

    def __init__(self, fetch: Callable[[], Awaitable[object]]) -> None:
        super().__init__("not cached")
        self.fetch = fetch


class OutOfTable(Exception):
    """The table has no memory for an entry of this number."""


async def settle(operation: Callable[[], T]) -> T:
    """Run an operation, fetching what it misses; raises BusFault when memory refuses, else what the operation raises."""
    while True:
        try:
            return operation()
        except Miss as miss:
            fetch = miss.fetch
        await fetch()


class Clock(Protocol):
    """Who knows the time: the node."""

    @property
    def now(self) -> Instant:
        """Simulated time in ps."""


class Lines:
    """Cached lines of one table or of one device's ITT, by address. A line dropped while it is fetched is not kept."""

    def __init__(self, clock: Clock, bus: MmioInitiator) -> None:
        self._clock = clock
        self._bus = bus
        self.drop()

    def drop(self) -> None:
        """Forget everything."""
        self._lines: dict[int, bytearray] = {}
        self._fetched: dict[int, Instant] = {}
        self._fetching: dict[int, Future[None]] = {}

    def read(self, address: int, size: int, end: int, fresh: bool = False) -> int:
        """The entry of `size` bytes at `address`; `end` is where the table ends; `fresh`: as memory has it now. Raises Miss."""
        base = address - address % LINE
        if fresh and self._fetched.get(base) != self._clock.now:
            raise Miss(lambda: self._fetch(base, end))
        line = self._lines.get(base)
        if line is None:
            raise Miss(lambda: self._join(base, end))
        return int.from_bytes(line[address - base : address - base + size], "little")

    def write(self, address: int, value: int, size: int, post: bool = True) -> None:
        """Change an entry that has been read at this instant, in the cache and, with `post`, by a posted write."""
        base = address - address % LINE
        self._lines[base][address - base : address - base + size] = value.to_bytes(size, "little")
        if post:
            self._bus.post(address, value, size)

    async def _join(self, base: int, end: int) -> None:
        """Fetch a line, or wait for who fetches it already (and then look again)."""
        running = self._fetching.get(base)
        if running is not None:
            await running
            return
        future = self._fetching[base] = Future(("a table line at {:#x}", base))
        try:
            await self._fetch(base, end)
        finally:
            if self._fetching.get(base) is future:
                del self._fetching[base]
            future.set(None)

    async def _fetch(self, base: int, end: int) -> None:
        lines = self._lines
        data = await self._bus.read_block(base, min(LINE, end - base))
        if lines is self._lines:
            lines[base] = bytearray(data)
            self._fetched[base] = self._clock.now


class Layout(NamedTuple):
    """Where a GITS_BASER<n> value puts a table: addresses and sizes in bytes."""

    valid: bool
    indirect: bool
    base: int
    page: int
    pages: int

    @classmethod
    def of(cls, value: int) -> Layout:
        page = PAGE_SIZES[value >> 8 & 3]
        base = value & (1 << 48) - page
        if page == 0x1_0000:
            base |= (value >> 12 & 0xF) << 48
        return cls(bool(value & VALID), bool(value >> 62 & 1), base, page, (value & 0xFF) + 1)


class Table:
    """A table behind GITS_BASER<n>: flat, or with a level-1 table of pages."""

    def __init__(self, clock: Clock, bus: MmioInitiator, entry_bytes: int) -> None:
        self.entry_bytes = entry_bytes
        self._clock = clock
        self._bus = bus
        self._lines = Lines(clock, bus)
        self.configure(0)

    def configure(self, value: int) -> None:
        """Take a new GITS_BASER<n> value; what was cached is forgotten."""
        self.layout = Layout.of(value)
        self.drop()

    def drop(self) -> None:
        """Forget what is cached."""
        self._lines.drop()
        self._level1: dict[int, int] = {}
        self._absent: dict[int, Instant] = {}

    def read(self, number: int, fresh: bool = False) -> int:
        """Entry `number`, with `fresh` as memory has it now; raises Miss, or OutOfTable when the table does not reach so far."""
        address, end = self._locate(number)
        return self._lines.read(address, self.entry_bytes, end, fresh)

    def write(self, number: int, value: int, *, post: bool = True) -> None:
        """Change an entry that has been read at this instant; without `post` in the cache only."""
        address, _ = self._locate(number)
        self._lines.write(address, value, self.entry_bytes, post)

    def _locate(self, number: int) -> tuple[int, int]:
        """(address of an entry, end of the memory that it lies in)."""
        layout = self.layout
        if not layout.valid:
            raise OutOfTable
        if not layout.indirect:
            size = layout.pages * layout.page
            offset = number * self.entry_bytes
            if offset >= size:
                raise OutOfTable
            return layout.base + offset, layout.base + size
        per_page = layout.page // self.entry_bytes
        page = self._page(number // per_page)
        return page + number % per_page * self.entry_bytes, page + layout.page

    def _page(self, number: int) -> int:
        found = self._level1.get(number)
        if found is not None:
            return found
        # An invalid entry holds for the instant at which it was read: software may make it valid at any time.
        if number >= self.layout.pages * self.layout.page // 8 or self._absent.get(number) == self._clock.now:
            raise OutOfTable
        raise Miss(lambda: self._fetch_page(number))

    async def _fetch_page(self, number: int) -> None:
        layout = self.layout
        entry = await self._bus.read64(layout.base + 8 * number)
        if layout is not self.layout:
            return
        if entry & VALID:
            self._level1[number] = entry & _PA & -layout.page
        else:
            self._absent[number] = self._clock.now
