"""An ITS between test doubles: redistributors that acknowledge, an SMMU, a host on the bus, and a memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cosim.api import Peer, Span, ns
from cosim.node.node import SIDE_LOG
from cosim.testing import Bench, Probe, Received
from nodes.arch.gic_net import GIC_NET
from nodes.arch.its_commands import encode
from nodes.arch.msi import MSI
from nodes.its.entries import Vte
from nodes.its.model import Its
from nodes.memory.model import Memory

REGS, RAM, RAM_SIZE = 0x3004_0000, 0x8000_0000, 0x1000_0000
QUEUE, DEVICES, COLLECTIONS, VPES, LEVEL2 = 0x8000_0000, 0x8010_0000, 0x8020_0000, 0x8030_0000, 0x8040_0000
ITT = 0x8080_0000
VPT, VCONF = 0x8100_0000, 0x8200_0000

CTLR, TYPER, CBASER, CWRITER, CREADR, BASER = 0x0, 0x8, 0x80, 0x88, 0x90, 0x100
TRANSLATER, SGIR = 0x1_0040, 0x2_0020
VALID, INDIRECT, PAGES_64K = 1 << 63, 1 << 62, 2 << 8

DEV, DEV2, DEV3 = 0x3_0801, 0x10, 0x20
DEVICE_IDS = [[0, 0xFFFF_FFFF]]
RDS = 4

Sent = tuple[int, str, tuple[Any, ...]]
"""(redistributor, kind, fields)."""


class ItsBench:
    """One ITS with four redistributors. Messages that are not Sync, VSync are collected in the order of arrival."""

    def __init__(
        self,
        version: str = "4.1",
        *,
        queue_pages: int = 1,
        memory_latency: Span = ns(60),
        auto: bool = True,
        **params: Any,
    ) -> None:
        self.bench = Bench()
        self.its = self.bench.add("its0", Its, {"gic_version": version, **params})
        self.memory = self.bench.add("memory", Memory)
        self.host = self.bench.probe("host")
        self.smmu = self.bench.probe("smmu0")
        self.rds = [self.bench.probe(f"redistributor{n}") for n in range(RDS)]
        self.version = version
        self.ring = queue_pages * 4096
        self.sent: list[Sent] = []
        self.syncs: list[Sent] = []
        self.auto = auto
        for n, rd in enumerate(self.rds):
            self.bench.link("its0.net", f"redistributor{n}.net", ns(20), both=True)
            rd.respond = self._responder(n, rd)
        self.bench.link("smmu0.msi", "its0.msi", ns(40), device_ids=DEVICE_IDS)
        ram = [(RAM, RAM_SIZE, "memory.bus", RAM)]
        self.bench.map("its0.bus", ram, latency=memory_latency)
        self.bench.map("host.bus", [(REGS, 0x4_0000, "its0.regs"), *ram], latency=ns(40))
        self._logged = 0
        self.bench.boot()

    def _responder(self, number: int, rd: Probe) -> Any:
        def respond(peer: Peer, message: Received) -> None:
            name, fields = message.kind.name, message.fields
            if name not in ("Sync", "VSync"):
                self.sent.append((number, name, fields))
                return
            self.syncs.append((number, name, fields))
            if self.auto:
                self._ack(number, name, fields)

        return respond

    def ack(self, number: int, name: str, fields: tuple[Any, ...]) -> None:
        """Acknowledge a Sync or VSync and let everything settle."""
        self.event(self.rds[number].name, lambda: self._ack(number, name, fields))

    def event(self, node: str, function: Callable[[], None]) -> None:
        """Call a function in an event of a test double and let everything settle."""

        async def body() -> None:
            function()

        self.bench.call(node, body())

    def _ack(self, number: int, name: str, fields: tuple[Any, ...]) -> None:
        kind = GIC_NET.SyncAck if name == "Sync" else GIC_NET.VSyncAck
        self.rds[number].send("net", "its0", kind, *fields)

    # -- software ------------------------------------------------------------------------------------------------------

    def write(self, offset: int, value: int, size: int = 8) -> None:
        """Write a register and let everything settle."""
        self.bench.call("host", self.host.bus.write(REGS + offset, value, size))

    def read(self, offset: int, size: int = 8) -> int:
        """Read a register."""
        value = self.bench.call("host", self.host.bus.read(REGS + offset, size))
        assert isinstance(value, int)
        return value

    def baser(self, number: int, base: int, flags: int = 0, pages: int = 1) -> None:
        """Place a table."""
        self.write(BASER + 8 * number, VALID | flags | base | pages - 1)

    def enable(self) -> ItsBench:
        """What a driver does first: queue, tables, GITS_CTLR.Enabled. Device and vPE tables have two levels."""
        self.write(CBASER, VALID | QUEUE | self.ring // 4096 - 1)
        self.write(CWRITER, 0)
        self.baser(0, DEVICES, INDIRECT | PAGES_64K)
        self.baser(1, COLLECTIONS, PAGES_64K)
        for device in (DEV, DEV2):
            self.level2(DEVICES, device)
        if self.version != "3":
            self.baser(2, VPES, PAGES_64K)
        self.write(CTLR, 1, 4)
        return self

    def level2(self, table: int, number: int) -> None:
        """Give a two-level table of 8-byte entries and 64 KiB pages the page that entry `number` needs."""
        page = number * 8 // 0x1_0000
        self.memory.poke(table + 8 * page, (VALID | LEVEL2 + page * 0x1_0000).to_bytes(8, "little"))

    def mapped_elsewhere(self, vpeid: int, rd: int, vpt_size: int = 15) -> None:
        """What another ITS that shares the flat vPE table leaves there by VMAPP with Alloc=1."""
        self.memory.poke(VPES + 8 * vpeid, Vte(True, vpt_size, rd).pack().to_bytes(8, "little"))

    def queue(self, commands: Sequence[bytes]) -> int:
        """Put commands into the ring after CWRITER; returns the new CWRITER, which is not written."""
        at = self.its.bank["GITS_CWRITER"]
        for command in commands:
            self.memory.poke(QUEUE + at, command)
            at = (at + 32) % self.ring
        return at

    def run(self, *commands: bytes) -> list[Sent]:
        """Let the ITS execute commands; what it sent to redistributors."""
        self.write(CWRITER, self.queue(commands))
        return self.take()

    def post_commands(self, *commands: bytes) -> None:
        """CWRITER is written with the next thing that the bench runs; nothing is run yet."""
        target = self.queue(commands)

        async def body() -> None:
            self.host.bus.post(REGS + CWRITER, target)

        self.bench.spawn("host", body())

    def do(self, name: str, **fields: int) -> list[Sent]:
        """Let the ITS execute one command; what it sent to redistributors."""
        return self.run(encode(name, **fields))

    def error(self, name: str, **fields: int) -> str:
        """Syndrome of a command that fails, sends nothing, counts once and is passed over."""
        before = self.its.count["command_errors"]
        self.take_log()
        assert self.do(name, **fields) == []
        assert self.its.count["command_errors"] == before + 1
        assert self.read(CREADR) == self.read(CWRITER)
        return str(self.take_log("ITS command error")[0]["syndrome"])

    def msi(self, device_id: int, event_id: int) -> list[Sent]:
        """An MSI; what the ITS sent to redistributors."""
        self.msis((device_id, event_id))
        return self.take()

    def msis(self, *events: tuple[int, int], delay: Span = 0, every: Span = 0) -> None:
        """MSIs, the first `delay` ps from now."""

        def send() -> None:
            for number, (device_id, event_id) in enumerate(events):
                self.smmu.send("msi", "its0", MSI.Msi, device_id, event_id, delay=delay + number * every)

        self.event("smmu0", send)

    def sgir(self, vpeid: int, sgi: int) -> list[Sent]:
        """A write to GITS_SGIR; what the ITS sent to redistributors."""
        self.write(SGIR, vpeid << 32 | sgi)
        return self.take()

    def watch(self, number: int) -> list[str]:
        """Names of all kinds that a redistributor gets from now on, filled in as they come."""
        names: list[str] = []
        respond = self.rds[number].respond

        def watching(peer: Peer, message: Received) -> None:
            names.append(message.kind.name)
            respond(peer, message)

        self.rds[number].respond = watching
        return names

    # -- looking -------------------------------------------------------------------------------------------------------

    def take(self) -> list[Sent]:
        """Messages since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def take_syncs(self) -> list[Sent]:
        """Syncs and VSyncs since the last call."""
        syncs, self.syncs = self.syncs, []
        return syncs

    def take_log(self, event: str = "") -> list[dict[str, Any]]:
        """Fields of the log entries since the last call, of all or of one event."""
        records = [record[4] for record in self.its.side[self._logged :] if record[3] == SIDE_LOG]
        self._logged = len(self.its.side)
        return [fields for name, fields in records if event in ("", name)]

    @property
    def count(self) -> dict[str, int]:
        """The ITS's counters."""
        return self.its.count


def mapd(device_id: int = DEV, size: int = 4, itt: int = ITT, valid: int = 1) -> bytes:
    """MAPD with 2^(size+1) events."""
    return encode("MAPD", device_id=device_id, size=size, itt=itt, valid=valid)


def mapc(icid: int, rd: int, valid: int = 1) -> bytes:
    """MAPC."""
    return encode("MAPC", icid=icid, rdbase=rd, valid=valid)


def mapti(event_id: int, pintid: int, icid: int, device_id: int = DEV) -> bytes:
    """MAPTI."""
    return encode("MAPTI", device_id=device_id, event_id=event_id, pintid=pintid, icid=icid)


def vmapp(vpeid: int, rd: int, alloc: int = 1, **fields: int) -> bytes:
    """VMAPP V=1 with a VPT of 16 INTID bits and default doorbell 8300."""
    values = {
        "ptz": 1,
        "vconf": VCONF,
        "vpt": VPT + vpeid * 0x1_0000,
        "vpt_size": 15,
        "default_doorbell": 8300,
    } | fields
    return encode("VMAPP", vpeid=vpeid, rdbase=rd, valid=1, alloc=alloc, **values)


def vmapti(event_id: int, vintid: int, vpeid: int, device_id: int = DEV, doorbell: int = 1023) -> bytes:
    """VMAPTI."""
    return encode("VMAPTI", device_id=device_id, event_id=event_id, vintid=vintid, vpeid=vpeid, doorbell=doorbell)


def sync(rd: int) -> bytes:
    """SYNC."""
    return encode("SYNC", rdbase=rd)


def vsync(vpeid: int) -> bytes:
    """VSYNC."""
    return encode("VSYNC", vpeid=vpeid)


LPI, LPI2, VLPI, VLPI2 = 8200, 8201, 8195, 8196
NONE = 1023
SMALL: dict[str, Any] = {"collection_bits": 8, "vpe_bits": 8}


def standard(version: str = "4.1", **params: Any) -> ItsBench:
    """Collections 0, 1 on redistributors 1, 2 and 2 unmapped; DEV: event 0 unmapped, 1 LPI of collection 0, 2 vLPI of vPE 7, 3
    LPI of collection 2, 4 vLPI of vPE 9; DEV3: no event; vPEs 7, 8, 9 on redistributors 3, 0, 2, then 9 unmapped; DEV2 unmapped."""
    bench = ItsBench(version, **SMALL | params).enable()
    bench.run(mapc(0, 1), mapc(1, 2), mapc(2, 3), mapd(), mapd(DEV3, 15, ITT + 0x10_0000))
    bench.run(mapti(1, LPI, 0), mapti(3, LPI2, 2), mapc(2, 3, 0))
    if version != "3":
        bench.run(vmapp(7, 3), vmapp(8, 0), vmapp(9, 2), vmapti(2, VLPI, 7), vmapti(4, VLPI2, 9))
        bench.run(encode("VMAPP", vpeid=9, valid=0, alloc=1))
    assert bench.count["command_errors"] == 0
    bench.take_syncs()
    return bench


def mappings(bench: ItsBench) -> list[list[Sent]]:
    """What each event, and a vSGI of each vPE, leads to."""
    seen = [bench.msi(device, event) for device in (DEV, DEV2) for event in range(6)]
    return seen + [bench.sgir(vpeid, 3) for vpeid in (7, 8, 9) if bench.version == "4.1"]
