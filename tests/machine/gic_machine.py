"""A whole GIC for tests: real ITSs, redistributors, distributor and memory; doubles of PEs, of an SMMU, and software on a bus."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from cosim.api import NONSECURE, SECURE, Instant, ns, us
from cosim.testing import Bench
from nodes.arch.its_commands import encode
from nodes.arch.lpi import config_byte
from nodes.arch.msi import MSI
from nodes.distributor.model import Distributor
from nodes.its.model import Its
from nodes.memory.model import Memory
from nodes.redistributor.model import Redistributor
from tests.machine.redistributor_bench import (
    CTLR,
    DIRTY,
    PENDBASER,
    PENDING_LAST,
    PROPBASER,
    VALID,
    VGRP1,
    VPENDBASER,
    VPROPBASER,
    WAKER,
    PeDouble,
)

T = TypeVar("T")

GICD, GICR, GITS, STRIDE = 0x3000_0000, 0x3010_0000, 0x3004_0000, 0x4_0000
RAM, RAM_SIZE = 0x8000_0000, 0x1000_0000
PROP, PEND = 0x8010_0000, 0x8020_0000
VTABLE, VCONF, VPT = 0x8030_0000, 0x8040_0000, 0x8050_0000
QUEUES, DEVICES, COLLECTIONS, VPES, ITTS = 0x8100_0000, 0x8110_0000, 0x8120_0000, 0x8130_0000, 0x8200_0000
GITS_CTLR, CBASER, CWRITER, CREADR, BASER, SGIR = 0x0, 0x80, 0x88, 0x90, 0x100, 0x2_0020
PAGES_64K = 2 << 8
DEV = 0x10
NONE = 1023
LPI, VLPI, DB = 8200, 8300, 8400
"""The interrupts of `with_lpi` and `with_vpes`."""


class GicMachine:
    """`n` PEs, `itss` ITSs, everything enabled; collection i of each ITS is redistributor i; DEV has 32 events on each.

    Software is the probe `host`; MSIs of device DEV come from the probe `smmu0`.
    """

    def __init__(self, version: str = "4.1", n: int = 2, itss: int = 1, **params: Any) -> None:
        self.version, self.n, self.itss = version, n, itss
        bench = self.bench = Bench()
        affinities = [i << 16 for i in range(n)]
        common = {"gic_version": version, **params}
        self.dist = bench.add("distributor", Distributor, {"affinities": affinities, "spis": 64, **common})
        self.memory = bench.add("memory", Memory)
        self.host = bench.probe("host")
        self.smmu = bench.probe("smmu0")
        self.its = [bench.add(f"its{k}", Its, {"index": k, **common}) for k in range(itss)]
        ram = [(RAM, RAM_SIZE, "memory.bus", RAM)]
        regs = [(GICD, 0x1_0000, "distributor.regs")]
        self.pes: list[PeDouble] = []
        self.rds: list[Redistributor] = []
        for i in range(n):
            own = {"index": i, "affinity": affinities[i], "last": i == n - 1, **common}
            self.pes.append(bench.add(f"pe{i}", PeDouble))
            self.rds.append(bench.add(f"redistributor{i}", Redistributor, own))
            bench.link(f"pe{i}.gic", f"redistributor{i}.cpu", ns(5), both=True)
            bench.link(f"redistributor{i}.net", "distributor.net", ns(20), both=True)
            bench.map(f"redistributor{i}.bus", ram, latency=ns(60))
            regs.append((GICR + i * STRIDE, STRIDE, f"redistributor{i}.regs"))
            for k in range(itss):
                bench.link(f"redistributor{i}.net", f"its{k}.net", ns(20), both=True)
        for k in range(itss):
            bench.map(f"its{k}.bus", ram, latency=ns(60))
            bench.link("smmu0.msi", f"its{k}.msi", ns(40), device_ids=[[0, 0xFFFF]])
            bench.link(f"its{k}.irq", "distributor.spi", ns(20))
            regs.append((GITS + k * STRIDE, STRIDE, f"its{k}.regs"))
        bench.map("host.bus", [*regs, *ram], latency=ns(40))
        self.offsets = [0] * itss
        bench.boot()
        self.run(self._boot())

    async def _boot(self) -> None:
        bus = self.host.bus
        for i in range(self.n):
            rd = GICR + i * STRIDE
            await bus.write32(rd + WAKER, 0, SECURE)
            await bus.write32(rd + 0x1_0080, 0xFFFF_FFFF, SECURE)
            await bus.write64(rd + PROPBASER, PROP | 15)
            await bus.write64(rd + PENDBASER, PEND + i * 0x1_0000 | 1 << 62)
            await bus.write32(rd + CTLR, 1)
            if self.version == "4.1":
                await bus.write64(rd + VPROPBASER, VALID | VTABLE)
            elif self.version == "4.0":
                await bus.write64(rd + VPROPBASER, VCONF | 15)
        await bus.write32(GICD, 0x7, SECURE)
        for k in range(self.itss):
            base = GITS + k * STRIDE
            await bus.write64(base + CBASER, VALID | QUEUES + k * 0x1_0000 | 15)
            await bus.write64(base + BASER, VALID | PAGES_64K | DEVICES + k * 0x1_0000)
            await bus.write64(base + BASER + 8, VALID | PAGES_64K | COLLECTIONS + k * 0x1_0000)
            if self.version == "4.1":
                await bus.write64(base + BASER + 16, VALID | VTABLE)
            elif self.version == "4.0":
                await bus.write64(base + BASER + 16, VALID | PAGES_64K | VPES + k * 0x1_0000)
            await bus.write32(base + GITS_CTLR, 1 | k << 4)
            setup = [encode("MAPD", device_id=DEV, size=4, itt=ITTS + k * 0x1_0000, valid=1)]
            setup += [encode("MAPC", icid=i, rdbase=i, valid=1) for i in range(self.n)]
            await self.commands(k, *setup)

    # -- software ------------------------------------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as software, and all that follows from it."""
        result: T = self.bench.call("host", coroutine)
        return result

    def also(self, node: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Have a node run a coroutine beside the next `run`."""
        self.bench.spawn(node, coroutine)

    async def commands(self, its: int, *commands: bytes, wait: bool = True) -> None:
        """Queue ITS commands; with `wait` until CREADR says that they are executed."""
        ring, base = 16 * 4096, GITS + its * STRIDE
        for command in commands:
            self.memory.poke(QUEUES + its * 0x1_0000 + self.offsets[its], command)
            self.offsets[its] = (self.offsets[its] + 32) % ring
        target = self.offsets[its]
        await self.host.bus.write64(base + CWRITER, target)
        limit = self.now + us(50)
        while wait and await self.host.bus.read64(base + CREADR) != target:
            assert self.now < limit, f"ITS {its} must execute its commands in 50 us"
            await self.host.sleep(ns(50))

    def do(self, *commands: bytes, its: int = 0) -> None:
        """Let an ITS execute commands."""
        self.run(self.commands(its, *commands))

    def write(self, address: int, value: int, size: int = 4, attr: int = NONSECURE) -> None:
        """Write a register."""
        self.run(self.host.bus.write(address, value, size, attr))

    def read(self, address: int, size: int = 4, attr: int = NONSECURE) -> int:
        """Read a register."""
        value = self.run(self.host.bus.read(address, size, attr))
        assert isinstance(value, int)
        return value

    def config(self, intid: int, priority: int = 0xA0, enable: bool = True, *, base: int = PROP) -> None:
        """An LPI's configuration byte in memory (no INV)."""
        self.memory.poke(base + intid - 8192, bytes([config_byte(priority, enable)]))

    def pending_bit(self, table: int, intid: int) -> bool:
        """A bit of a pending table in memory."""
        return bool(self.memory.peek(table + intid // 8, 1)[0] >> intid % 8 & 1)

    def msi(self, event_id: int, *, its: int = 0) -> None:
        """An MSI of DEV, and all that follows from it."""

        async def send() -> None:
            self.smmu.send("msi", f"its{its}", MSI.Msi, DEV, event_id)

        self.bench.call("smmu0", send())

    # -- PEs -----------------------------------------------------------------------------------------------------------

    def take(self, pe: int = 0) -> int:
        """The PE acknowledges its physical interrupt: the INTID, or 1023."""
        return int(self._on_pe(pe, "take"))

    def vtake(self, pe: int = 0) -> int:
        """The guest on the PE acknowledges its virtual interrupt: the INTID, or 1023."""
        return int(self._on_pe(pe, "vtake"))

    def held(self, pe: int = 0) -> int:
        """INTID of the physical interrupt that the CPU interface holds, or 1023."""
        held = self.pes[pe].held
        return NONE if held is None else held[0]

    def vheld(self, pe: int = 0) -> tuple[int, ...]:
        """(vPEID, INTID, priority, group) of the virtual interrupt that the CPU interface holds; empty if none."""
        return self.pes[pe].vheld or ()

    def _on_pe(self, pe: int, method: str) -> Any:
        async def call() -> Any:
            return getattr(self.pes[pe], method)()

        return self.bench.call(f"pe{pe}", call())

    # -- vPEs ----------------------------------------------------------------------------------------------------------

    def vmapp(self, vpeid: int, rd: int, *, alloc: int = 1, doorbell: int = NONE, valid: int = 1) -> bytes:
        """VMAPP for this version; pending tables follow one another at VPT."""
        fields = {"vpeid": vpeid, "valid": valid}
        if valid:
            fields |= {"rdbase": rd, "vpt": VPT + vpeid * 0x1_0000, "vpt_size": 15}
        if self.version == "4.1":
            fields |= {"alloc": alloc}
            if valid:
                fields |= {"vconf": VCONF, "default_doorbell": doorbell}
        return encode("VMAPP", **fields)

    async def schedule(self, vpeid: int, rd: int) -> None:
        """Make a vPE resident, and wait for Dirty = 0."""
        value = VALID | PENDING_LAST
        value |= VGRP1 | vpeid if self.version == "4.1" else VPT + vpeid * 0x1_0000
        await self.host.bus.write64(GICR + rd * STRIDE + VPENDBASER, value)
        await self._clean(rd)

    async def deschedule(self, vpeid: int, rd: int, flags: int = 0) -> int:
        """Take the vPE off the PE; VPENDBASER as read when Dirty is 0."""
        value = flags | (vpeid if self.version == "4.1" else VPT + vpeid * 0x1_0000)
        await self.host.bus.write64(GICR + rd * STRIDE + VPENDBASER, value)
        return await self._clean(rd)

    async def _clean(self, rd: int) -> int:
        limit = self.now + us(50)
        while True:
            assert self.now < limit, f"VPENDBASER.Dirty of redistributor {rd} must become 0 in 50 us"
            value = await self.host.bus.read64(GICR + rd * STRIDE + VPENDBASER)
            if not value & DIRTY:
                return value

    @property
    def now(self) -> Instant:
        """Simulated time."""
        return self.host.now

    def faults(self) -> dict[str, int]:
        """Everything that any block of the GIC counted as wrong."""
        good = {"commands", "msi_translated", "sgir_writes", "vlpi_delivered", "vsgi_delivered", "doorbells"}
        found: dict[str, int] = {}
        for node in [self.dist, *self.rds, *self.its]:
            for name, value in node.count.items():
                if name not in good and value:
                    found[f"{node.name}.{name}"] = value
        return found


def mapti(event_id: int, lpi: int, icid: int) -> bytes:
    """MAPTI of an event of DEV."""
    return encode("MAPTI", device_id=DEV, event_id=event_id, pintid=lpi, icid=icid)


def vmapti(event_id: int, vlpi: int, vpeid: int, doorbell: int = NONE) -> bytes:
    """VMAPTI of an event of DEV."""
    return encode("VMAPTI", device_id=DEV, event_id=event_id, vintid=vlpi, vpeid=vpeid, doorbell=doorbell)


def event(name: str, event_id: int, **fields: int) -> bytes:
    """A command on an event of DEV."""
    return encode(name, device_id=DEV, event_id=event_id, **fields)


def sync(rd: int) -> bytes:
    """SYNC."""
    return encode("SYNC", rdbase=rd)


def vsync(vpeid: int) -> bytes:
    """VSYNC."""
    return encode("VSYNC", vpeid=vpeid)


def with_lpi(n: int = 2, version: str = "4.1", *, enable: bool = True) -> GicMachine:
    """Event 1 is LPI of PE 0."""
    gic = GicMachine(version, n)
    gic.config(LPI, enable=enable)
    gic.do(mapti(1, LPI, 0), sync(0))
    return gic


def with_vpes(n: int = 2, version: str = "4.1") -> GicMachine:
    """vPE 1 at PE 0, vPE 2 at the last PE; event 1 is VLPI of vPE 1; doorbells DB and DB + 1."""
    gic = GicMachine(version, n)
    for lpi in (DB, DB + 1):
        gic.config(lpi, 0x80)
    gic.config(VLPI, base=VCONF)
    gic.do(gic.vmapp(1, 0, doorbell=DB), gic.vmapp(2, n - 1, doorbell=DB + 1), vmapti(1, VLPI, 1), vsync(1), vsync(2))
    if version == "4.1":
        gic.do(*[encode("VSGI", vpeid=1, sgi=s, enable=1, group=1, priority=0xA0) for s in range(16)], vsync(1))
    return gic


def sgir(gic: GicMachine, vpeid: int, sgi: int) -> None:
    """Write GITS_SGIR."""
    gic.write(GITS + SGIR, vpeid << 32 | sgi, 8)


def deschedule(gic: GicMachine, flags: int = 0, vpeid: int = 1, rd: int = 0) -> int:
    """Write GICR_VPENDBASER.Valid = 0 with `flags`; the register once Dirty is 0."""
    return gic.run(gic.deschedule(vpeid, rd, flags))
