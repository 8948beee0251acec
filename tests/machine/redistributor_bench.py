"""A GIC for tests: real redistributors and distributor; doubles of PEs, memory and an ITS with a bus, which drives the tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from cosim.api import (
    NONSECURE,
    SECURE,
    Channel,
    Future,
    MmioInitiator,
    MmioTarget,
    Node,
    Peer,
    Request,
    Span,
    Wire,
    ns,
    on,
)
from cosim.testing.bench import Bench
from nodes.arch.gic_net import GIC_NET
from nodes.arch.gic_stream import GIC_STREAM
from nodes.arch.lpi import config_byte
from nodes.distributor.model import Distributor
from nodes.redistributor.model import Redistributor

T = TypeVar("T")

GICD = 0x3000_0000
GICR = 0x3010_0000
STRIDE = 0x4_0000
SGI_BASE = 0x1_0000
VLPI_BASE = 0x2_0000

CTLR, TYPER, WAKER, PROPBASER, PENDBASER = 0x0, 0x8, 0x14, 0x70, 0x78
INVLPIR, INVALLR, SYNCR = 0xA0, 0xB0, 0xC0
VPROPBASER, VPENDBASER, VSGIR, VSGIPENDR = (VLPI_BASE + offset for offset in (0x70, 0x78, 0x80, 0x88))

VALID, DOORBELL, PENDING_LAST, DIRTY, VGRP0, VGRP1 = (1 << bit for bit in (63, 62, 61, 60, 59, 58))

PROP = 0x9000_0000
PEND = 0x9100_0000
VCONF = 0x9200_0000
VPT = 0x9300_0000
VTABLE = 0x9400_0000

DOORBELL_LPI = 8192 + 100
NO_DOORBELL = 1023
V, W = 8192, 8200
"""vLPIs of `mapped`."""
PE_LINK = ns(5)


class PeDouble(Node):
    """Holds what Set and VSet bring, as a CPU interface does, and gives it back by rules of the stream protocol."""

    kind = "pe"
    gic = Channel(GIC_STREAM)
    ppi = Wire()
    spi = Wire()

    def setup(self) -> None:
        self.held: tuple[int, int, int] | None = None
        self.vheld: tuple[int, int, int, int] | None = None
        self.log_sets: list[tuple[int, int, int]] = []
        self.taken: list[int] = []
        self.vtaken: list[tuple[int, int]] = []
        self.acks: Counter[str] = Counter()
        self.auto = False

    def start(self) -> None:
        if self.params.get("groups", 7):
            self.up("UpstreamControl", "GroupEnables", int(self.params.get("groups", 7)))

    def up(self, kind: str, *fields: Any) -> None:
        self.gic.send(None, getattr(GIC_STREAM, kind), *fields)

    @on(GIC_STREAM.Set)
    def _set(self, peer: Peer, intid: int, priority: int, group: int) -> None:
        if self.held is not None and self.held[0] != intid:
            self.up("Release", -1, self.held[0])
        self.held = (intid, priority, group)
        self.log_sets.append(self.held)
        if self.auto:
            self.take()

    @on(GIC_STREAM.Clear)
    def _clear(self, peer: Peer, intid: int) -> None:
        if self.held is not None and self.held[0] == intid:
            self.held = None
            self.up("Release", -1, intid)
        self.up("ClearAck", intid)

    @on(GIC_STREAM.VSet)
    def _vset(self, peer: Peer, vpeid: int, intid: int, priority: int, group: int) -> None:
        if self.vheld is not None and self.vheld[:2] != (vpeid, intid):
            self.up("Release", *self.vheld[:2])
        self.vheld = (vpeid, intid, priority, group)
        if self.auto:
            self.vtake()

    @on(GIC_STREAM.VClear)
    def _vclear(self, peer: Peer, vpeid: int, intid: int) -> None:
        if self.vheld is not None and self.vheld[:2] == (vpeid, intid):
            self.vheld = None
            self.up("Release", vpeid, intid)
        self.up("VClearAck", vpeid, intid)

    @on(GIC_STREAM.Quiesce)
    def _quiesce(self, peer: Peer) -> None:
        if self.held is not None:
            self.up("Release", -1, self.held[0])
        if self.vheld is not None:
            self.up("Release", *self.vheld[:2])
        self.held = self.vheld = None
        self.up("QuiesceAck")

    def take(self) -> int:
        """Acknowledge the physical interrupt: its INTID, or 1023."""
        if self.held is None:
            return 1023
        intid, self.held = self.held[0], None
        self.taken.append(intid)
        self.up("Activate", -1, intid)
        return intid

    def vtake(self) -> int:
        """The guest acknowledges: its INTID, or 1023."""
        if self.vheld is None:
            return 1023
        vpeid, intid = self.vheld[:2]
        self.vheld = None
        self.vtaken.append((vpeid, intid))
        self.up("Activate", vpeid, intid)
        return intid


class MemoryDouble(Node):
    """Sparse bytes; counts its accesses."""

    kind = "memory"
    bus = MmioTarget()

    def setup(self) -> None:
        self.data: dict[int, int] = {}
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, bytes]] = []
        self.bus.serve(self._read, self._write)

    def _read(self, access: Request) -> bytes:
        self.reads.append((access.addr, access.size))
        return bytes(self.data.get(access.addr + n, 0) for n in range(access.size))

    def _write(self, access: Request) -> None:
        self.writes.append((access.addr, access.bytes))
        for n, byte in enumerate(access.bytes):
            self.data[access.addr + n] = byte

    def set_pending_bit(self, table: int, intid: int) -> None:
        self.data[table + intid // 8] = self.data.get(table + intid // 8, 0) | 1 << intid % 8

    def pending_bit(self, table: int, intid: int) -> bool:
        return bool(self.data.get(table + intid // 8, 0) >> intid % 8 & 1)


class Driver(Node):
    """Stands for an ITS (on `net`) and for software (on `bus`)."""

    kind = "its"
    net = Channel(GIC_NET)
    bus = MmioInitiator()
    spi = Wire()

    def setup(self) -> None:
        self._acks: dict[int, Future[None]] = {}
        self._tag = 0

    def send(self, rd: int, kind: str, *fields: Any) -> None:
        """A gic_net message to redistributor `rd`."""
        self.net.send(f"redistributor{rd}", getattr(GIC_NET, kind), *fields)

    async def sync(self, rd: int = 0) -> None:
        self._tag += 1
        future = self._acks[self._tag] = self.future("SyncAck")
        self.send(rd, "Sync", self._tag)
        await future

    async def vsync(self, vpeid: int, rd: int = 0) -> None:
        self._tag += 1
        future = self._acks[self._tag] = self.future("VSyncAck")
        self.send(rd, "VSync", self._tag, vpeid)
        await future

    @on(GIC_NET.SyncAck)
    def _sync_ack(self, peer: Peer, tag: int) -> None:
        self._acks.pop(tag).set(None)

    @on(GIC_NET.VSyncAck)
    def _vsync_ack(self, peer: Peer, tag: int, vpeid: int) -> None:
        self._acks.pop(tag).set(None)


class Gic:
    """`n` PEs with redistributors, awake and with all groups enabled unless `boot` is False. LPI tables at PROP and PEND."""

    def __init__(self, n: int = 1, *, boot: bool = True, affinities: list[int] | None = None, **params: Any) -> None:
        self.n = n
        self.bench = bench = Bench()
        self.affinities = affinities or [i << 16 for i in range(n)]
        common = {"gic_version": "4.1", **params}
        self.dist = bench.add("distributor", Distributor, {"affinities": self.affinities, "spis": 64, **common})
        self.memory = bench.add("memory", MemoryDouble)
        self.its = bench.add("its0", Driver)
        self.pes: list[PeDouble] = []
        self.rds: list[Redistributor] = []
        for i in range(n):
            last = i == n - 1
            own = {"index": i, "affinity": self.affinities[i], "last": last, **common}
            self.pes.append(bench.add(f"pe{i}", PeDouble, common))
            self.rds.append(bench.add(f"redistributor{i}", Redistributor, own))
            bench.link(f"pe{i}.gic", f"redistributor{i}.cpu", PE_LINK, both=True)
            bench.link(f"pe{i}.ppi", f"redistributor{i}.ppi", PE_LINK)
            bench.link(f"pe{i}.spi", "distributor.spi", ns(20))
            bench.link(f"redistributor{i}.net", "distributor.net", ns(20), both=True)
            bench.link(f"redistributor{i}.net", "its0.net", ns(20), both=True)
            bench.map(f"redistributor{i}.bus", [(0, 1 << 40, "memory.bus")], latency=ns(60))
        regions: list[tuple[int, int, str]] = [(GICD, 0x1_0000, "distributor.regs")]
        regions += [(GICR + i * STRIDE, STRIDE, f"redistributor{i}.regs") for i in range(n)]
        bench.map("its0.bus", regions, latency=ns(40))
        bench.link("its0.spi", "distributor.spi", ns(20))
        if boot:
            self.run(self._boot())

    async def _boot(self) -> None:
        bus = self.its.bus
        for i in range(self.n):
            await bus.write32(GICR + i * STRIDE + WAKER, 0, SECURE)
            await bus.write32(GICR + i * STRIDE + SGI_BASE + 0x80, 0xFFFF_FFFF, SECURE)
            await self.enable_lpis(i)
            if self.rds[i].v41:
                await bus.write64(GICR + i * STRIDE + VPROPBASER, VALID | VTABLE)
        await bus.write32(GICD, 0x7, SECURE)
        await self.its.sleep(ns(100))

    async def enable_lpis(self, i: int, *, ptz: bool = True) -> None:
        bus = self.its.bus
        await bus.write64(GICR + i * STRIDE + PROPBASER, PROP | 15)
        await bus.write64(GICR + i * STRIDE + PENDBASER, PEND + i * 0x1_0000 | int(ptz) << 62)
        await bus.write32(GICR + i * STRIDE + CTLR, 1)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as software, until all is quiet."""
        result: T = self.bench.call("its0", coroutine)
        return result

    def also(self, node: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Have a node run a coroutine beside the next `run`."""
        self.bench._pending.append((node, coroutine))

    def send(self, kind: str, *fields: Any, rd: int = 0) -> None:
        """A gic_net message, and everything that follows from it."""
        self.run(self._send(kind, fields, rd))

    async def _send(self, kind: str, fields: tuple[Any, ...], rd: int) -> None:
        self.its.send(rd, kind, *fields)

    def on_pe(self, method: Any) -> Any:
        """Call a method of a PE double at the present time, and run what follows."""

        async def call() -> Any:
            return method()

        return self.bench.call(method.__self__.name, call())

    def holds(self, i: int = 0) -> bool:
        """Whether the PE has been sent a physical interrupt that it has neither taken nor given back."""
        return self.pes[i].held is not None

    def take(self, i: int = 0) -> int:
        return int(self.on_pe(self.pes[i].take))

    def vtake(self, i: int = 0) -> int:
        return int(self.on_pe(self.pes[i].vtake))

    def read(self, offset: int, size: int = 4, *, rd: int = 0, attr: int = NONSECURE) -> int:
        return self.run(self.its.bus.read(GICR + rd * STRIDE + offset, size, attr))

    def write(self, offset: int, value: int, size: int = 4, *, rd: int = 0, attr: int = NONSECURE) -> None:
        self.run(self.its.bus.write(GICR + rd * STRIDE + offset, value, size, attr))

    def write_and_watch(self, offset: int, value: int, watched: int, span: Span) -> tuple[int, int]:
        """Write 32 bits; the register `watched` right behind the write, and `span` later."""

        async def software() -> tuple[int, int]:
            bus = self.its.bus
            bus.post32(GICR + offset, value)
            first = await bus.read32(GICR + watched)
            await self.its.sleep(span)
            return first, await bus.read32(GICR + watched)

        return self.run(software())

    def gicd_read(self, offset: int, size: int = 4, *, attr: int = NONSECURE) -> int:
        return self.run(self.its.bus.read(GICD + offset, size, attr))

    def gicd_write(self, offset: int, value: int, size: int = 4, *, attr: int = NONSECURE) -> None:
        self.run(self.its.bus.write(GICD + offset, value, size, attr))

    def config(self, intid: int, priority: int = 0xA0, enable: bool = True, *, base: int = PROP) -> None:
        """Software writes an LPI's configuration byte (no INV)."""
        self.memory.data[base + intid - 8192] = config_byte(priority, enable)

    # -- vPEs ------------------------------------------------------------------------------------------------------------

    def map_vpe(self, vpeid: int = 1, *, rd: int = 0, ptz: int = 1, doorbell: int = DOORBELL_LPI) -> None:
        self.config(DOORBELL_LPI)
        self.send("MapVpe", vpeid, 1, ptz, VCONF, VPT + vpeid * 0x1_0000, 15, doorbell, rd=rd)

    def schedule(self, vpeid: int = 1, *, rd: int = 0, groups: int = VGRP0 | VGRP1) -> None:
        self.write(VPENDBASER, VALID | PENDING_LAST | groups | vpeid, 8, rd=rd)

    def deschedule(self, *, rd: int = 0, pending_last: bool = False, doorbell: bool = False) -> int:
        """Take the vPE off the PE; VPENDBASER as read when Dirty is 0."""
        value = self.read(VPENDBASER, 8, rd=rd) & ~(VALID | PENDING_LAST | DOORBELL | DIRTY)
        value |= (PENDING_LAST if pending_last else 0) | (DOORBELL if doorbell else 0)
        self.write(VPENDBASER, value, 8, rd=rd)
        after = self.read(VPENDBASER, 8, rd=rd)
        assert not after & DIRTY
        return after


def mapped(*, enable: bool = True, **params: object) -> Gic:
    """vPE 1 mapped, vLPIs V and W configured."""
    gic = Gic(**params)  # type: ignore[arg-type]
    gic.map_vpe(1)
    gic.config(V, 0xA0, enable, base=VCONF)
    gic.config(W, 0x80, enable, base=VCONF)
    return gic


def enable_vsgi(gic: Gic, sgi: int, *, vpeid: int = 1, enable: int = 1, group: int = 1, priority: int = 0xA0) -> None:
    """Configure a vSGI of a vPE."""
    gic.send("CfgVsgi", vpeid, sgi, enable, group, priority)
