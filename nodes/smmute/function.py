"""One function of the test engine: its frames, commands that run in simulated time, BARs and MSI-X."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from cosim.api import OKAY, SLVERR, AccessError, Bank, BusError, Future, MmioInitiator, Node, Request
from nodes.arch.pcie import with_pasid
from nodes.smmute.config_space import COMMAND, MSIX, ConfigSpace
from nodes.smmute.engine import (
    NO_SUBSTREAM,
    PAGE,
    Job,
    RandomFill,
    Span,
    Spans,
    bus_attributes,
    misconfigured,
)
from nodes.smmute.msix import PBA_SIZE, TABLE_SIZE, VECTORS, Msix
from nodes.smmute.regs import (
    ERROR,
    FRAME_MISCONFIGURED,
    FRAMES,
    HALTED,
    MEMCPY,
    NO_FRAME,
    PRIVILEGED,
    RAND48,
    SMMUTE,
    STRIDE,
    SUM64,
)

PAIR = 0x2_0000
IDLE = (NO_FRAME, HALTED, ERROR, FRAME_MISCONFIGURED)
WINDOW = 16
"""Accesses of one frame that are in flight together."""
PBA_BAR_SIZE = 4096
ALL_ONES = 0xFFFF_FFFF


class DmaError(Exception):
    """A bus access was refused; `address` is the first byte of it."""

    def __init__(self, address: int) -> None:
        super().__init__(f"access to {address:#x} was refused")
        self.address = address


class Function:
    """Function `number` of `node`, which masters the bus by `dma`. Frames' registers come to be with the first access."""

    def __init__(
        self,
        node: Node,
        number: int,
        dma: MmioInitiator,
        *,
        functions: int,
        bar0_size: int,
        latency: int,
        bytes_per_ns: int,
        pasid: bool = False,
    ) -> None:
        self.node = node
        self.number = number
        self.dma = dma
        self.latency = latency
        self.bytes_per_ns = bytes_per_ns
        bars = (bar0_size, TABLE_SIZE, PBA_BAR_SIZE)
        self.config = config = ConfigSpace(bars, VECTORS, multi_function=functions > 1, pasid=pasid)
        self.msix = Msix(
            lambda: config.msix_enabled, lambda: config.msix_masked, lambda: config.bus_master, self._send_msi
        )
        self._banks: dict[int, Bank] = {}
        self._launches: dict[tuple[int, int], int] = {}

    # -- configuration space -------------------------------------------------------------------------------------------

    def write_config(self, offset: int, size: int, value: int) -> None:
        """A configuration write, which may let pending vectors go."""
        self.config.write(offset, size, value)
        if COMMAND - size < offset < COMMAND + 2 or MSIX - size < offset < MSIX + 4:
            self.msix.control_changed()

    # -- BARs ----------------------------------------------------------------------------------------------------------

    def read_bar(self, bar: int, offset: int, request: Request) -> int | bytes:
        """An access of a multiple of 4 bytes; raises BusError."""
        if bar == 0:
            words = [self._read_frames(at, size, request.secure) for at, size in _registers(offset, request.size)]
            return words[0] if len(words) == 1 else _join(words, _registers(offset, request.size))
        read = self.msix.read_table if bar == 2 else self._read_pba
        return _join([read(at) for at in _words(offset, request.size)], None)

    def write_bar(self, bar: int, offset: int, request: Request) -> None:
        """An access of a multiple of 4 bytes; raises BusError. `cmd` is written last, whatever its place in a block."""
        data = request.bytes
        if bar == 0:
            pieces = list(_registers(offset, request.size))
            for at, size in sorted(pieces, key=lambda piece: _is_command(piece[0])):
                part = data[at - offset : at - offset + size]
                self._write_frames(at, size, int.from_bytes(part, "little"), request.secure)
            return
        words = _words(offset, request.size)
        if bar == 2:
            for at in words:
                self.msix.write_table(at, int.from_bytes(data[at - offset : at - offset + 4], "little"))
        else:
            self._report("ignored_writes", "pending bits are read only", offset=f"{offset:#x}")

    def _read_pba(self, offset: int) -> int:
        return self.msix.read_pba(offset) if offset < PBA_SIZE else 0

    # -- frames --------------------------------------------------------------------------------------------------------

    def bank(self, pair: int) -> Bank:
        """Registers of a page pair: frames are Non-secure and idle from reset."""
        bank = self._banks.get(pair)
        if bank is None:
            bank = self._banks[pair] = Bank(SMMUTE)
            for frame in range(FRAMES):
                bank.configure("cmd", HALTED, frame)
                bank.configure("pctrl", 1, frame)
        return bank

    def banks(self) -> list[tuple[int, Bank]]:
        """(page pair, its registers) of the pairs that were touched."""
        return sorted(self._banks.items())

    def _read_frames(self, offset: int, size: int, secure: bool) -> int:
        bank, frame = self.bank(offset // PAIR), _frame(offset)
        if not secure and not bank.at("pctrl", frame) & 1:
            return NO_FRAME
        return bank.read(offset % PAIR, size, secure=secure)

    def _write_frames(self, offset: int, size: int, value: int, secure: bool) -> None:
        pair, frame, inside = offset // PAIR, _frame(offset), offset % PAIR
        bank = self.bank(pair)
        if not secure and not bank.at("pctrl", frame) & 1:
            self._report("ignored_writes", "a Secure frame ignores Non-secure writes", offset=f"{offset:#x}")
            return
        if bank.at("cmd", frame) not in IDLE:
            self._report("ignored_writes", "a frame that runs ignores writes", offset=f"{offset:#x}")
            return
        if not secure and inside == PRIVILEGED + frame * STRIDE:
            value |= 1  # SSD_NS
        bank.write(inside, size, value, secure=secure)
        if _is_command(offset):
            self._command(bank, pair, frame, value)

    def _command(self, bank: Bank, pair: int, frame: int, command: int) -> None:
        launch = self._launches[pair, frame] = self._launches.get((pair, frame), 0) + 1
        if command in (NO_FRAME, HALTED):
            bank.set_at("cmd", frame, HALTED)
            return
        job = Job(
            command,
            *(bank.at(name, frame) for name in ("begin", "end_incl", "stride", "seed", "udata0", "attributes")),
            *(bank.at(name, frame) for name in ("msiaddress", "msidata", "substreamid", "downstream_port_index")),
        )
        why = misconfigured(job)
        if why:
            bank.set_at("cmd", frame, FRAME_MISCONFIGURED)
            self._report("misconfigured", "frame misconfigured", function=self.number, frame=frame, why=why)
            return
        if bank.field("uctrl", "RATE", frame):
            self._report("rate_ignored", "uctrl.RATE is not modelled: the engine does not limit itself", frame=frame)
        self.node.count["transactions"] += 1
        bank.set_at("count_of_transactions_launched", frame, 0)
        bank.set_at("count_of_transactions_returned", frame, 0)
        run = Run(self, bank, frame, job)
        name = f"frame {self.number}.{pair}.{frame}"
        self.node.spawn(self._run(run, lambda: self._launches[pair, frame] == launch), name)

    async def _run(self, run: Run, current: Callable[[], bool]) -> None:
        """The command: its result, then the status, then its interrupt."""
        bank, frame, job = run.bank, run.frame, run.job
        status = HALTED
        try:
            await run.execute()
        except DmaError as error:
            status = ERROR
            bank.set_at("udata2", frame, error.address)
            self._report("errors", "transaction failed", function=self.number, frame=frame, why=str(error))
        lost = job.msiaddress == 1 and not self.msix.can_send()
        bank.set_field("uctrl", "MSI_ABORTED", bank.field("uctrl", "MSI_ABORTED", frame) | lost, frame)
        bank.set_at("cmd", frame, status)
        if lost:
            self._report("msis_aborted", "MSI-X or bus mastering is off", function=self.number, vector=job.msidata)
        elif job.msiaddress == 1:

            def aborted() -> None:
                if current():  # else the frame is in use for something else by now
                    bank.set_field("uctrl", "MSI_ABORTED", 1, frame)

            self.msix.fire(job.msidata, aborted)

    # -- bus mastering -------------------------------------------------------------------------------------------------

    def _send_msi(self, vector: int, address: int, data: int, aborted: Callable[[], Any]) -> None:
        self.node.count["msis"] += 1
        completion = self.dma.issue(address, 4, data, bus_attributes(0))

        def check() -> None:
            if completion.result()[0] != OKAY:
                self._report("msis_aborted", "MSI write was refused", vector=vector, address=f"{address:#x}")
                aborted()

        if completion.done:
            check()
        else:
            completion.when_done(check)

    def _report(self, counter: str, text: str, **fields: Any) -> None:
        self.node.count[counter] += 1
        self.node.log(text, **fields)


class Run:
    """One command of one frame, under way."""

    def __init__(self, function: Function, bank: Bank, frame: int, job: Job) -> None:
        self.function = function
        self.bank = bank
        self.frame = frame
        self.job = job
        self._read_attr = bus_attributes(job.attributes & 0xFFFF)
        self._write_attr = bus_attributes(job.attributes >> 16)

    async def execute(self) -> None:
        """The engine's own time, then the accesses. Raises DmaError."""
        function, job = self.function, self.job
        spans = Spans(job)
        await function.node.sleep(function.latency + spans.total * 1000 // function.bytes_per_ns)
        if job.substreamid != NO_SUBSTREAM:
            if not function.config.pasid_enabled:
                function._report("pasid_refused", "PASID is off: transaction refused", pasid=f"{job.substreamid:#x}")
                raise DmaError(job.begin)
            self._read_attr = with_pasid(self._read_attr, job.substreamid)
            self._write_attr = with_pasid(self._write_attr, job.substreamid)
        order = spans.order()
        if job.command == RAND48:
            await self._fill(spans, order)
        elif job.command == SUM64:
            await self._sum(spans, order)
        else:
            assert job.command == MEMCPY
            await self._copy(spans, order)

    async def _copy(self, spans: Spans, order: Iterator[int]) -> None:
        while window := [spans[n] for n in islice(order, WINDOW)]:
            data = await self._read(window)
            await self._write([(span.destination, part) for span, part in zip(window, data, strict=True)])

    async def _sum(self, spans: Spans, order: Iterator[int]) -> None:
        total = 0
        while window := [spans[n] for n in islice(order, WINDOW)]:
            for data in await self._read(window):
                total += sum(int.from_bytes(data[n : n + 8], "little") for n in range(0, len(data), 8))
        self.bank.set_at("udata1", self.frame, total & (1 << 64) - 1)

    async def _fill(self, spans: Spans, order: Iterator[int]) -> None:
        begin = self.job.begin if self.job.stride == 1 else self.job.begin & ~7
        fill = RandomFill(begin, self.job.seed)
        while window := [spans[n] for n in islice(order, WINDOW)]:
            await self._write([(span.address, fill.bytes(span.address, span.size)) for span in window])

    async def _read(self, spans: list[Span]) -> list[bytes]:
        issued = [(s, self._issue(s.address, s.size, None, self._read_attr)) for s in spans]
        out = []
        for span, data in [(span, await self._complete(span.address, future)) for span, future in issued]:
            if data is None:
                raise DmaError(span.address)
            out.append(data.to_bytes(span.size, "little") if isinstance(data, int) else data)
        return out

    async def _write(self, parts: list[tuple[int, bytes]]) -> None:
        issued = []
        for address, data in parts:
            done = 0
            while done < len(data):
                at = address + done & (1 << 64) - 1
                size = min(len(data) - done, PAGE - at % PAGE)
                issued.append((at, self._issue(at, size, data[done : done + size], self._write_attr)))
                done += size
        for address, result in [(address, await self._complete(address, future)) for address, future in issued]:
            if result is None:
                raise DmaError(address)

    def _issue(self, address: int, size: int, data: bytes | None, attr: int) -> Future[tuple[int, Any]] | None:
        self._bump("count_of_transactions_launched")
        if not self.function.config.bus_master:
            self.function._report("master_aborts", "bus mastering is off", address=f"{address:#x}")
            return None
        return self.function.dma.issue(address, size, data, attr)

    async def _complete(self, address: int, future: Future[tuple[int, Any]] | None) -> Any:
        """Data of an access (0 of a write), or None when it was refused."""
        if future is None:
            return None
        status, data = await future
        self._bump("count_of_transactions_returned")
        return data if status == OKAY else None

    def _bump(self, name: str) -> None:
        value = self.bank.at(name, self.frame) + 1
        self.bank.set_at(name, self.frame, value & ALL_ONES)


# -- blocks of registers -----------------------------------------------------------------------------------------------


def _frame(offset: int) -> int:
    return offset % PRIVILEGED // STRIDE


def _is_command(offset: int) -> bool:
    return offset % PAIR < PRIVILEGED and offset % STRIDE == 0


def _words(offset: int, size: int) -> range:
    """Offsets of the 32-bit words of an access."""
    if offset % 4 or size % 4:
        raise BusError(SLVERR, f"an access must be whole 32-bit words, not {size} bytes at {offset:#x}")
    return range(offset, offset + size, 4)


def _registers(offset: int, size: int) -> list[tuple[int, int]]:
    """An access as (offset, bytes) of whole registers, or of halves of 64-bit registers at its ends."""
    _words(offset, size)
    if offset // PRIVILEGED != (offset + size - 1) // PRIVILEGED:
        raise BusError(SLVERR, f"an access must lie within one page of frames, not {size} bytes at {offset:#x}")
    pieces, end = [], offset + size
    while offset < end:
        found = SMMUTE.find(offset % PAIR)
        if found is None:
            raise AccessError("outside", f"no register at {offset:#x}")
        width = found[0].nbytes if offset % found[0].nbytes == 0 else 4
        width = min(width, end - offset)
        pieces.append((offset, width))
        offset += width
    return pieces


def _join(words: list[int], pieces: list[tuple[int, int]] | None) -> int | bytes:
    if pieces is None:
        if len(words) == 1:
            return words[0]
        return b"".join(word.to_bytes(4, "little") for word in words)
    return b"".join(word.to_bytes(size, "little") for word, (_, size) in zip(words, pieces, strict=True))
