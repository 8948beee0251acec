"""Ports: bus initiators and targets, protocol channels and level lines.

Bus semantics: an awaited read or write ends at its completion; a posted write returns at once and `dsb()` waits until all of
them are complete. Addresses are decoded at the initiator from the plan's address map; an access to nowhere ends with DECERR
and is counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, cast

from cosim.core.kernel import Outlet
from cosim.core.message import (
    ATTR_NONSECURE,
    ATTR_PRIVILEGED,
    DECERR,
    EXOKAY,
    MMIO,
    OKAY,
    SLVERR,
    STATUS_NAMES,
    WIRE,
    Protocol,
    from_bus,
    to_bus,
)
from cosim.core.regs import AccessError, Bank
from cosim.core.route import AddressMap, Region
from cosim.core.tasks import Future
from cosim.core.time import Span
from cosim.node.node import ModelError, Peer, Port

_READ, _WRITE, _COMPLETION = MMIO.Read.code, MMIO.Write.code, MMIO.Completion.code
_WRITE_POSTED = MMIO.WritePosted.code

_SIZES = frozenset((1, 2, 4, 8))

MAX_TRANSFER = 4096
"""Largest access in bytes; longer blocks are split, and none crosses a 4 KiB boundary."""

NONSECURE = ATTR_NONSECURE | ATTR_PRIVILEGED
"""Attributes of an EL1 or EL2 access in Non-secure state."""
SECURE = ATTR_PRIVILEGED
"""Attributes of an EL3 access in Secure state."""


class BusFault(Exception):
    """An access ended with SLVERR or DECERR; `status`, `address` (bytes) and direction tell which."""

    def __init__(self, status: int, address: int, write: bool) -> None:
        super().__init__(f"{'write to' if write else 'read of'} {address:#x} ended with {STATUS_NAMES[status]}")
        self.status = status
        self.address = address
        self.write = write


class BusError(Exception):
    """Raised by a target's handler: the access completes with `status` (SLVERR or DECERR)."""

    def __init__(self, status: int = SLVERR, why: str = "") -> None:
        super().__init__(why or STATUS_NAMES[status])
        self.status = status


class _Access:
    """First item of the label of an open access; put into words only when somebody asks who waits for what."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __str__(self) -> str:
        return self.what

    def format(self, address: int, link: int, port: MmioInitiator) -> str:
        """The label as text."""
        return f"completion of a {self.what} {address:#x} by {port.target_of(link)}"


_READ_OF, _WRITE_OF = _Access("read of"), _Access("write of")


class MmioInitiator(Port):
    """Issues reads and writes; `attr` defaults to a privileged Non-secure access."""

    def bind(self) -> None:
        self._tag = 0
        self._open: dict[int, Future[tuple[int, Any]]] = {}
        self._posted: dict[int, Future[tuple[int, Any]]] = {}
        self._fault: BusFault | None = None
        self._map: AddressMap | None = None
        self._out: dict[int, Peer] = {}
        self._window: tuple[int, int, int, int, Outlet] = (0, 0, 0, 0, self._unmapped)

    def _unmapped(self, _kind: int, _fields: tuple[Any, ...], _delay: Span = 0, _known: bool = False) -> None:
        raise AssertionError("no access lies in an empty window")

    def _decode(self, address: int, size: int) -> bool:
        """Move the window of the map that accesses go through to the region that takes this one; False: none does."""
        if not 1 <= size <= MAX_TRANSFER:
            raise ModelError(f"size of an access must be in 1..{MAX_TRANSFER} bytes, not {size} (at {address:#x})")
        if self._map is None:
            regions = self.node.region(self.name)
            self._map = AddressMap([Region(r.base, r.size, r.link, r.offset, r.name) for r in regions])
            self._out = {p.out: p for p in self.peers if p.out is not None}
        region = self._map.region_of(address, size)
        if region is None:
            return False
        base, length, target, offset, _name = region
        link = cast(int, target)
        self._window = (base, base + length, offset - base, link, self.node.kernel.outlet(link))
        return True

    def issue(self, address: int, size: int, data: int | bytes | None, attr: int) -> Future[tuple[int, Any]]:
        """Send one access of at most 4096 bytes; the future gives (status, data) at its completion.

        Raises:
            ModelError: size not in 1..4096.
        """
        low, end, shift, link, emit = self._window
        if not (low <= address and address + size <= end and size in _SIZES):
            if not self._decode(address, size):
                return self._nowhere(address, size, write=data is not None)
            _low, _end, shift, link, emit = self._window
        tag = self._tag
        self._tag = tag + 1
        future: Future[tuple[int, Any]]
        if data is None:
            future = self._open[tag] = Future((_READ_OF, address, link, self))
            emit(_READ, (tag, address + shift, size, attr), 0, type(attr) is int is type(size))
        else:
            if type(data) is not int and isinstance(data, (bytes, bytearray, memoryview)):
                data = to_bus(bytes(data))
            future = self._open[tag] = Future((_WRITE_OF, address, link, self))
            emit(_WRITE, (tag, address + shift, size, data, attr))
        return future

    def _nowhere(self, address: int, size: int, *, write: bool) -> Future[tuple[int, Any]]:
        """An access that no region takes: DECERR, counted."""
        self.node.count["decode_errors"] += 1
        self.node.log("decode error", address=f"{address:#x}", size=size, write=write, port=self.name)
        future: Future[tuple[int, Any]] = Future()
        future.set((DECERR, 0))
        return future

    def target_of(self, link: int) -> str:
        """Name of the node at the other end of a link of the map."""
        return self._out[link].name

    def handler(self, kind: int) -> Callable[..., Any] | None:
        return self._completed if kind == _COMPLETION else None

    def _completed(self, peer: Peer, tag: int, status: int, data: int | bytes) -> None:
        future = self._open.pop(tag, None)
        if future is None:
            raise ModelError(
                f"{self.node.name}.{self.name}: completion from {peer!r} with tag {tag}, which is not outstanding"
            )
        future.set((status, data))

    @property
    def outstanding(self) -> int:
        """Accesses without a completion yet."""
        return len(self._open)

    # -- awaited accesses ----------------------------------------------------------------------------------------------

    async def read(self, address: int, size: int = 8, attr: int = NONSECURE) -> int:
        """Read 1, 2, 4 or 8 bytes as a little-endian int; raises BusFault."""
        status, data = await self.issue(address, size, None, attr)
        value: int = data
        return value if status <= EXOKAY else _fail(status, address, write=False)

    async def write(self, address: int, value: int, size: int = 8, attr: int = NONSECURE) -> None:
        """Write 1, 2, 4 or 8 bytes and wait for the completion; raises BusFault."""
        status, _ = await self.issue(address, size, value, attr)
        if status > EXOKAY:
            _fail(status, address, write=True)

    async def read32(self, address: int, attr: int = NONSECURE) -> int:
        """Read 4 bytes; raises BusFault."""
        status, data = await self.issue(address, 4, None, attr)
        value: int = data
        return value if status <= EXOKAY else _fail(status, address, write=False)

    async def read64(self, address: int, attr: int = NONSECURE) -> int:
        """Read 8 bytes; raises BusFault."""
        status, data = await self.issue(address, 8, None, attr)
        value: int = data
        return value if status <= EXOKAY else _fail(status, address, write=False)

    async def write32(self, address: int, value: int, attr: int = NONSECURE) -> None:
        """Write 4 bytes; raises BusFault."""
        status, _ = await self.issue(address, 4, value, attr)
        if status > EXOKAY:
            _fail(status, address, write=True)

    async def write64(self, address: int, value: int, attr: int = NONSECURE) -> None:
        """Write 8 bytes; raises BusFault."""
        status, _ = await self.issue(address, 8, value, attr)
        if status > EXOKAY:
            _fail(status, address, write=True)

    async def read_block(self, address: int, size: int, attr: int = NONSECURE) -> bytes:
        """Read any number of bytes in accesses of up to 4 KiB, all in flight at once; raises BusFault of the first that failed."""
        parts = [(a, n, self.issue(a, n, None, attr)) for a, n in split(address, size)]
        out = []
        for a, n, future in parts:
            status, data = await future
            if status > EXOKAY:
                raise BusFault(status, a, write=False)
            out.append(from_bus(data, n))
        return b"".join(out)

    async def write_block(self, address: int, data: bytes, attr: int = NONSECURE) -> None:
        """Write bytes in accesses of up to 4 KiB, all in flight at once; raises BusFault of the first that failed."""
        parts = [(a, self.issue(a, n, data[a - address : a - address + n], attr)) for a, n in split(address, len(data))]
        for a, future in parts:
            status, _ = await future
            if status > EXOKAY:
                raise BusFault(status, a, write=True)

    # -- posted writes -------------------------------------------------------------------------------------------------

    def post(self, address: int, value: int, size: int = 8, attr: int = NONSECURE) -> None:
        """Write 1, 2, 4 or 8 bytes without waiting; `dsb` waits."""
        self._post(address, size, value, attr)

    def post32(self, address: int, value: int, attr: int = NONSECURE) -> None:
        """Write 4 bytes without waiting."""
        self._post(address, 4, value, attr)

    def post64(self, address: int, value: int, attr: int = NONSECURE) -> None:
        """Write 8 bytes without waiting."""
        self._post(address, 8, value, attr)

    def post_block(self, address: int, data: bytes, attr: int = NONSECURE) -> None:
        """Write bytes without waiting, in accesses of up to 4 KiB."""
        for a, n in split(address, len(data)):
            self._post(a, n, data[a - address : a - address + n], attr)

    def _post(self, address: int, size: int, data: int | bytes, attr: int) -> None:
        future = self.issue(address, size, data, attr)
        number = self._tag if not future.done else -1
        if future.done:
            self._fault = self._fault or BusFault(future.result()[0], address, write=True)
            return
        self._posted[number] = future

        def complete() -> None:
            self._posted.pop(number, None)
            status = future.result()[0]
            if status > EXOKAY and self._fault is None:
                self._fault = BusFault(status, address, write=True)

        future.when_done(complete)

    async def dsb(self) -> None:
        """Wait until every write posted so far is complete; raises the BusFault of the first that failed since the last dsb."""
        for future in list(self._posted.values()):
            await future
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault


def _fail(status: int, address: int, *, write: bool) -> NoReturn:
    raise BusFault(status, address, write)


def split(address: int, size: int) -> list[tuple[int, int]]:
    """(address, bytes) pieces of at most 4 KiB that cross no 4 KiB boundary."""
    pieces = []
    while size > 0:
        n = min(size, MAX_TRANSFER - address % MAX_TRANSFER)
        pieces.append((address, n))
        address += n
        size -= n
    return pieces


class Request:
    """One access as a target sees it: `addr` (offset in bytes), `size`, `data` (int or bytes; None for a read), attributes
    and the requester `peer` (name, port and the plan's attributes: the requester cannot choose them)."""

    __slots__ = ("addr", "attr", "data", "peer", "size")

    def __init__(self, peer: Peer, addr: int, size: int, data: int | bytes | None, attr: int) -> None:
        self.peer = peer
        self.addr = addr
        self.size = size
        self.data = data
        self.attr = attr

    @property
    def secure(self) -> bool:
        """Whether this is a Secure access (AxPROT bit 1 clear)."""
        return not self.attr & ATTR_NONSECURE

    @property
    def bytes(self) -> bytes:
        """The written data as bytes."""
        return from_bus(cast("int | bytes", self.data), self.size)


Served = Callable[[Request], Any]


class MmioTarget(Port):
    """Answers reads and writes with the functions given to `serve` (plain or async); a BusError becomes its status."""

    def bind(self) -> None:
        self._read: Served | None = None
        self._write: Served | None = None
        self._delay: Span = 0
        self._bank: tuple[Bank, int] | None = None

    def serve(self, read: Served | None = None, write: Served | None = None, *, delay: Span = 0) -> None:
        """`read(access)` returns int or bytes; `write(access)` returns nothing; completions leave `delay` ps later."""
        self._read, self._write, self._delay, self._bank = read, write, delay, None

    def serve_bank(self, bank: Bank, *, base: int = 0, delay: Span = 0) -> None:
        """Serve a register bank whose first register lies at offset `base`; an access it refuses ends with SLVERR."""
        self.node.banks.setdefault(bank.block.name, bank)

        def write(access: Request) -> None:
            if not isinstance(access.data, int):
                raise BusError(SLVERR, f"registers take 1, 2, 4 or 8 bytes, not {access.size}")
            bank.write(access.addr - base, access.size, access.data, access.secure)

        self.serve(None, write, delay=delay)
        self._bank = bank, base

    def handler(self, kind: int) -> Callable[..., Any] | None:
        handlers: dict[int, Callable[..., Any]] = {
            _READ: self._on_read,
            _WRITE: self._on_write,
            _WRITE_POSTED: self._on_posted,
        }
        return handlers.get(kind)

    def _on_read(self, peer: Peer, tag: int, addr: int, size: int, attr: int) -> None:
        if self._bank is None:
            self._run(self._read, Request(peer, addr, size, None, attr), tag)
            return
        bank, base = self._bank
        try:
            value = bank.read(addr - base, size, not attr & ATTR_NONSECURE)
        except (BusError, AccessError) as error:
            self._refuse(Request(peer, addr, size, None, attr), tag, error)
        else:
            emit = peer.emit
            emit(_COMPLETION, (tag, OKAY, value), self._delay, type(value) is int)

    def _on_write(self, peer: Peer, tag: int, addr: int, size: int, data: int | bytes, attr: int) -> None:
        self._run(self._write, Request(peer, addr, size, data, attr), tag)

    def _on_posted(self, peer: Peer, addr: int, size: int, data: int | bytes, attr: int) -> None:
        self._run(self._write, Request(peer, addr, size, data, attr), None)

    def _run(self, handler: Served | None, access: Request, tag: int | None) -> None:
        try:
            if handler is None:
                raise BusError(SLVERR, "this target does not serve that direction")
            result = handler(access)
        except (BusError, AccessError) as error:
            self._refuse(access, tag, error)
            return
        if type(result) is not int and hasattr(result, "send"):
            self.node.spawn(self._finish(result, access, tag), f"{self.name} access", daemon=True)
        else:
            self._complete(access, tag, OKAY, result)

    async def _finish(self, result: Awaitable[Any], access: Request, tag: int | None) -> None:
        try:
            value = await result
        except (BusError, AccessError) as error:
            self._refuse(access, tag, error)
            return
        self._complete(access, tag, OKAY, value)

    def _refuse(self, access: Request, tag: int | None, error: Exception) -> None:
        self.node.count["bus_errors"] += 1
        self.node.log(
            "bus error",
            port=self.name,
            address=f"{access.addr:#x}",
            size=access.size,
            write=access.data is not None,
            requester=access.peer.name,
            why=str(error),
        )
        self._complete(access, tag, getattr(error, "status", SLVERR), 0)

    def _complete(self, access: Request, tag: int | None, status: int, value: Any) -> None:
        if tag is None:
            return
        if access.data is not None or status != OKAY:
            value = 0
        elif type(value) is not int and isinstance(value, (bytes, bytearray)):
            value = to_bus(bytes(value))
        emit = access.peer.emit
        emit(_COMPLETION, (tag, status, value), self._delay)


class Channel(Port):
    """A port of one protocol between blocks; messages go to the node's `@on(Kind)` methods."""

    def __init__(self, protocol: Protocol, doc: str = "") -> None:
        super().__init__(doc)
        self.protocol = protocol


class Wire(Port):
    """Level-sensitive lines: `drive` sends changes only; incoming levels call the function given to `watch(peer, line, level)`."""

    def bind(self) -> None:
        self._levels: dict[tuple[int, int], int] = {}
        self._driven: dict[tuple[int, int], int] = {}
        self._watch: Callable[[Peer, int, int], None] | None = None

    def watch(self, function: Callable[[Peer, int, int], None]) -> None:
        """Call `function(peer, line, level)` whenever an incoming line changes."""
        self._watch = function

    def level(self, line: int, peer: Peer | str | None = None) -> int:
        """Last level of an incoming line; 0 before the first."""
        found = peer if isinstance(peer, Peer) else self.peer(peer)
        return self._levels.get((found.index, line), 0)

    def drive(self, line: int, level: int, peer: Peer | str | None = None) -> None:
        """Drive a line to 0 or 1; nothing is sent when it has that level already."""
        found = peer if isinstance(peer, Peer) else self.peer(peer)
        if self._driven.get((found.index, line), 0) != level:
            self._driven[(found.index, line)] = level
            self.send(found, WIRE.Level, line, level)

    def receive(self, peer: Peer, kind: int, fields: tuple[Any, ...]) -> bool:
        if kind != WIRE.Level.code:
            return False
        line, level = fields
        if self._levels.get((peer.index, line), 0) != level:
            self._levels[(peer.index, line)] = level
            if self._watch is not None:
                self._watch(peer, line, level)
        return True
