"""One PCI function of a model, with a kernel of its own, as the host of a virtual machine has it before it passes it on.

As Linux' vfio-pci does, this side sizes and places the function's BARs itself and shows the client a copy of these registers;
it fills the MSI-X table itself, so that each vector that the client has given an event for leads there, and masks the others.
Time runs freely: it advances as fast as events need, in slices, between which the socket is served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from cosim.api import (
    DECERR,
    NEVER,
    NONSECURE,
    OKAY,
    BusError,
    Future,
    MmioInitiator,
    MmioTarget,
    Node,
    Request,
    fmt,
    ns,
)
from cosim.core.kernel import Kernel, ModelFault
from cosim.core.message import STATUS_NAMES, from_bus
from cosim.core.route import ADDRESS_LIMIT
from cosim.errors import NodeError, UsageError
from cosim.node.node import SIDE_LOG
from cosim.testing import Bench

CONFIG_SIZE = 4096
COMMAND, BARS, BARS_END, CAPABILITIES = 0x04, 0x10, 0x28, 0x34
COMMAND_MEMORY = 2
CAP_MSIX, MSIX_CONTROL, MSIX_TABLE = 0x11, 2, 4
MSIX_ENTRY = 16
BAR_64 = 4
PLACE = 1 << 40
"""Where the first BAR goes: above what any BAR is large."""
DOORBELL = ADDRESS_LIMIT - 0x1000
"""Where MSI-X entries point to: the last page, which no window of the client's memory covers."""
LATENCY = ns(10)
SLICE = ns(100)
MASKED = 1
PORTS = ("ecam", "mmio", "dma0")


class Memory(Protocol):
    """The client's memory; both raise BusError, or give a future that does."""

    def read(self, address: int, size: int) -> bytes | Future[bytes]:
        """Bytes at an address."""

    def write(self, address: int, data: bytes) -> Future[bytes] | None:
        """Write bytes; None when that is done."""


class Refusal(Exception):
    """An access that the function completed with an error (`by_device`), or that lies outside of what it has."""

    def __init__(self, why: str, *, by_device: bool = False) -> None:
        super().__init__(why)
        self.by_device = by_device


class Host(Node):
    """What surrounds the model: it configures, reads and writes it, gives it memory, and takes its MSIs."""

    kind = "vfio-user-host"
    ecam = MmioInitiator("configuration space")
    mmio = MmioInitiator("BARs")
    dma = MmioTarget("the client's memory")
    msi = MmioTarget("the page that MSI-X entries point to")
    memory: Memory
    signal: Callable[[int], bool]

    def setup(self) -> None:
        self.dma.serve(self._read, self._write)
        self.msi.serve(write=self._rang)

    def _read(self, request: Request) -> Any:
        found = self.memory.read(request.addr, request.size)
        return found.wait() if isinstance(found, Future) else found

    def _write(self, request: Request) -> Any:
        pending = self.memory.write(request.addr, request.bytes)
        return None if pending is None else pending.wait()

    def _rang(self, request: Request) -> None:
        if request.size != 4 or not self.signal(int.from_bytes(request.bytes, "little")):
            raise BusError(DECERR, "no event of the client's belongs to that vector")


class Table(NamedTuple):
    """Where the MSI-X table lies, and how many vectors it has."""

    bar: int
    offset: int
    vectors: int


class Function:
    """The model `cls` under `name`, switched on. `memory` and `signal(vector)` are the client's; `note(text)` takes what the
    model logs. Raises UsageError when the model is not a PCI endpoint.
    """

    def __init__(
        self,
        name: str,
        cls: type[Node],
        memory: Memory,
        signal: Callable[[int], bool],
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        missing = [port for port in PORTS if port not in cls._ports]
        if missing:
            raise UsageError(
                f"a model to export must be a PCI endpoint with ports {', '.join(PORTS)}; {name} has no {', '.join(missing)}",
                code="export",
                next_step="cosim export smmute is one that can be",
            )
        self.name, self.cls = name, cls
        self._memory, self._signal, self._note = memory, signal, note
        self.armed: set[int] = set()
        self._nodes: tuple[Node, ...] = ()
        self._before: Counter[str] = Counter()
        self.power_on()

    def power_on(self) -> None:
        """A new model in a new kernel: what was under way is gone. Vectors that are armed stay so."""
        self._before = self.counters()
        for node in self._nodes:
            node.stop()
        bench = Bench()
        params = {k: v for k, v in (("bus", 0), ("device", 0), ("functions", 1)) if k in self.cls.parameters}
        model = bench.add(self.name, self.cls, params)
        self._host = host = bench.add("host", Host)
        self._nodes = (model, host)
        host.memory, host.signal = self._memory, self._signal
        bench.map("host.ecam", [(0, CONFIG_SIZE, f"{self.name}.ecam")], latency=LATENCY)
        bench.map("host.mmio", [(0, ADDRESS_LIMIT, f"{self.name}.mmio")], latency=LATENCY)
        bench.map(f"{self.name}.dma0", [(0, DOORBELL, "host.dma"), (DOORBELL, 0x1000, "host.msi")], latency=LATENCY)
        bench.boot()
        assert bench.kernel is not None
        self._kernel: Kernel = bench.kernel
        self._place_bars()
        self.msix = self._find_msix()
        self._shadow = bytearray((bytes(12) + MASKED.to_bytes(4, "little")) * self.msix.vectors)
        for vector in sorted(self.armed):
            self.arm(vector)

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Simulated time since it was switched on, in ps."""
        return self._kernel.now

    @property
    def busy(self) -> bool:
        """Whether there is an event to execute."""
        return self._kernel.initial()[0] < NEVER

    def advance(self) -> None:
        """Execute the next events, at most `SLICE` of simulated time; raises NodeError."""
        kernel = self._kernel
        next_event = kernel.initial()[0]
        if next_event >= NEVER:
            return
        try:
            kernel.grant(next_event + SLICE)
        except ModelFault as fault:
            raise NodeError(fault.what, code=fault.rule, node=fault.node, sim_time_ps=fault.sim_time_ps) from fault
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise NodeError(what, node=self.name, sim_time_ps=kernel.now) from error
        self._drain()

    def wake(self) -> None:
        """A future that a task of the model's surroundings waits for was set from outside of its events."""
        self._kernel.at(self._host.id, self._kernel.now, lambda: None)

    def _drain(self) -> None:
        """Hand the model's logs to `note`."""
        nodes, self._kernel.noted = self._kernel.noted, []
        for node in nodes:
            side, node.side = node.side, []
            for time, _, _, kind, payload in side:
                if kind == SIDE_LOG and node is self._nodes[0]:
                    fields = " ".join(f"{key}={value}" for key, value in payload[1].items())
                    self._note(f"{node.name} at {fmt(time)}: {payload[0]} {fields}".rstrip())

    def counters(self) -> Counter[str]:
        """The model's counters, over all resets."""
        return self._before + self._nodes[0].count if self._nodes else Counter()

    # -- accesses ------------------------------------------------------------------------------------------------------

    def _access(self, port: MmioInitiator, address: int, size: int, data: bytes | None) -> bytes:
        done: list[tuple[int, Any]] = []

        async def body() -> None:
            done.append(await port.issue(address, size, data, NONSECURE))

        self._host.spawn(body(), "access")
        self.wake()
        while not done and self.busy:
            self.advance()
        if not done:
            raise NodeError(
                f"an access of {size} bytes at {address:#x} must complete, and did not",
                node=self.name,
                sim_time_ps=self.now,
            )
        status, value = done[0]
        if status != OKAY:
            what = "write to" if data is not None else "read of"
            raise Refusal(f"{what} {size} bytes at {address:#x} ended with {STATUS_NAMES[status]}", by_device=True)
        return from_bus(value, size) if data is None else b""

    def _config(self, offset: int, size: int, value: int | None = None) -> int:
        data = None if value is None else value.to_bytes(size, "little")
        return int.from_bytes(self._access(self._host.ecam, offset, size, data), "little")

    def read_config(self, offset: int, count: int) -> bytes:
        """Bytes of configuration space; raises Refusal."""
        _within(offset, count, CONFIG_SIZE, "configuration space")
        parts = []
        for at, size in _aligned(offset, count):
            real = self._access(self._host.ecam, at, size, None)
            parts.append(bytes(self._copy.get(at + n, byte) for n, byte in enumerate(real)))
        return b"".join(parts)

    def write_config(self, offset: int, data: bytes) -> None:
        """Write configuration space; BARs have effect in the client's copy only. Raises Refusal."""
        _within(offset, len(data), CONFIG_SIZE, "configuration space")
        for at, size in _aligned(offset, len(data)):
            part = data[at - offset : at - offset + size]
            if BARS <= at < BARS_END:
                for n, byte in enumerate(part, at):
                    if n in self._copy:
                        mask = self._copy_mask[n]
                        self._copy[n] = self._copy[n] & ~mask | byte & mask
            else:
                self._access(self._host.ecam, at, size, part)

    def read_bar(self, bar: int, offset: int, count: int) -> bytes:
        """Bytes of a BAR; raises Refusal, also while memory space is disabled."""
        base, size = self._bar(bar)
        _within(offset, count, size, f"BAR {bar}")
        if self._in_table(bar, offset, count):
            at = offset - self.msix.offset
            return bytes(self._shadow[at : at + count])
        return b"".join(self._access(self._host.mmio, base + at, n, None) for at, n in _pages(offset, count))

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        """Write a BAR; raises Refusal. MSI-X addresses and data are kept for reading; masks have effect."""
        base, size = self._bar(bar)
        _within(offset, len(data), size, f"BAR {bar}")
        if self._in_table(bar, offset, len(data)):
            self._write_table(offset - self.msix.offset, data)
            return
        for at, n in _pages(offset, len(data)):
            self._access(self._host.mmio, base + at, n, data[at - offset : at - offset + n])

    def region_size(self, bar: int) -> int:
        """Bytes of a BAR; 0 of one that does not exist."""
        return self._bars.get(bar, (0, 0))[1]

    def _bar(self, bar: int) -> tuple[int, int]:
        if bar not in self._bars:
            raise Refusal(f"the function has no BAR {bar}")
        return self._bars[bar]

    # -- BARs ----------------------------------------------------------------------------------------------------------

    def _place_bars(self) -> None:
        """Size the memory BARs by writing ones, as PCI says, and place them; the client's copy begins as after reset."""
        self._bars: dict[int, tuple[int, int]] = {}
        self._copy: dict[int, int] = {}
        self._copy_mask: dict[int, int] = {}
        place, bar = PLACE, 0
        while bar < 6:
            at = BARS + 4 * bar
            width = 8 if self._config(at, 4) & 6 == BAR_64 else 4
            flags = self._config(at, 4) & 0xF
            for half in range(0, width, 4):
                self._config(at + half, 4, 0xFFFF_FFFF)
            mask = sum(self._config(at + half, 4) << 8 * half for half in range(0, width, 4)) & ~0xF
            if mask:
                size = mask & -mask
                place = (place + size - 1) & -size
                for half in range(0, width, 4):
                    self._config(at + half, 4, (place >> 8 * half) & 0xFFFF_FFFF)
                self._bars[bar] = (place, size)
                self._copy.update(enumerate(flags.to_bytes(width, "little"), at))
                self._copy_mask.update(enumerate(mask.to_bytes(width, "little"), at))
                place += size
            bar += width // 4

    # -- MSI-X ---------------------------------------------------------------------------------------------------------

    def _find_msix(self) -> Table:
        at = self._config(CAPABILITIES, 1)
        while at:
            if self._config(at, 1) == CAP_MSIX:
                vectors = (self._config(at + MSIX_CONTROL, 2) & 0x7FF) + 1
                place = self._config(at + MSIX_TABLE, 4)
                return Table(place & 7, place & ~7, vectors)
            at = self._config(at + 1, 1)
        raise UsageError(f"a model to export must have an MSI-X capability; {self.name} has none", code="export")

    def arm(self, vector: int) -> None:
        """The client has an event for this vector: its entry leads there, unmasked."""
        self.armed.add(vector)
        self.mask(vector, masked=False)

    def disarm(self, vector: int) -> None:
        """The client takes its event back: what fires stays pending."""
        self.armed.discard(vector)
        self._entry(vector, MASKED)

    def mask(self, vector: int, *, masked: bool) -> None:
        """Mask or unmask a vector as the client sees it; one without an event stays masked in the function."""
        self._shadow[vector * MSIX_ENTRY + 12] = MASKED if masked else 0
        self._entry(vector, MASKED if masked or vector not in self.armed else 0)

    def _entry(self, vector: int, control: int) -> None:
        words = (DOORBELL & 0xFFFF_FFFF, DOORBELL >> 32, vector, control)
        at = self._bars[self.msix.bar][0] + self.msix.offset + vector * MSIX_ENTRY
        command = self._config(COMMAND, 2)
        if not command & COMMAND_MEMORY:  # the host reaches the table whatever the client has disabled
            self._config(COMMAND, 2, command | COMMAND_MEMORY)
        self._access(self._host.mmio, at, MSIX_ENTRY, b"".join(word.to_bytes(4, "little") for word in words))
        if not command & COMMAND_MEMORY:
            self._config(COMMAND, 2, command)

    def _in_table(self, bar: int, offset: int, count: int) -> bool:
        """Whether an access is one to the table; raises Refusal for a part of an entry's word, or an access across its end."""
        table = self.msix
        end = table.offset + table.vectors * MSIX_ENTRY
        if bar != table.bar or offset + count <= table.offset or offset >= end:
            return False
        if offset % 4 or count % 4 or offset < table.offset or offset + count > end:
            raise Refusal(f"an access to the MSI-X table must be whole words in it, not {count} bytes at {offset:#x}")
        return True

    def _write_table(self, offset: int, data: bytes) -> None:
        for n in range(0, len(data), 4):
            at = offset + n
            if at % MSIX_ENTRY == 12:
                self.mask(at // MSIX_ENTRY, masked=bool(data[n] & MASKED))
            else:
                self._shadow[at : at + 4] = data[n : n + 4]


def _within(offset: int, count: int, size: int, what: str) -> None:
    if offset + count > size:
        raise Refusal(f"{what} has {size:#x} bytes: {count} bytes at {offset:#x} are not all in it")


def _aligned(offset: int, count: int) -> list[tuple[int, int]]:
    """(offset, bytes) pieces of 4, 2 or 1 bytes, each at a multiple of its size."""
    pieces = []
    while count:
        size = next(n for n in (4, 2, 1) if n <= count and offset % n == 0)
        pieces.append((offset, size))
        offset, count = offset + size, count - size
    return pieces


def _pages(offset: int, count: int) -> list[tuple[int, int]]:
    """(offset, bytes) pieces that cross no 4 KiB boundary."""
    pieces = []
    while count:
        size = min(count, 4096 - offset % 4096)
        pieces.append((offset, size))
        offset, count = offset + size, count - size
    return pieces
