"""The host's software between test doubles: PEs, redistributors, distributor, SMMU and endpoint that remember what was done to
them; the ITSs and the memory are the real models, so that what a driver queues is what an ITS decodes."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from cosim.api import Bank, Channel, Instant, MmioTarget, Node, Peer, Request, Span, ns, on, seconds
from cosim.testing import Bench
from nodes.arch.gic_net import GIC_NET
from nodes.arch.its_commands import Command, decode
from nodes.arch.trap import TRAP
from nodes.distributor.regs import GICD
from nodes.hypervisor.host.host import Host
from nodes.hypervisor.host.node import HostNode
from nodes.its.model import Its
from nodes.memory.model import Memory
from nodes.redistributor.regs import TABLES
from nodes.smmu.regs import SMMU

GICD_BASE, GICR_BASE, SMMU_BASE = 0x3000_0000, 0x3010_0000, 0x4000_0000
ITS_BASES = [0x3004_0000, 0x3008_0000]
ECAM, PCI_MMIO = 0x10_1000_0000, 0x40_0000_0000
STREAM = 0x3_0801
SECONDS = seconds(2)


class Recorder(Node):
    """A block of registers that notes each access as ("r" | "w", offset, value, secure)."""

    regs = MmioTarget()
    block: Any = None

    def setup(self) -> None:
        self.log_: list[tuple[str, int, int, bool]] = []
        self.bank = Bank(self.block_of())
        self.configure()
        self.regs.serve(self._read, self._write)

    def block_of(self) -> Any:
        return self.block

    def configure(self) -> None:
        """Set ID registers."""

    def _read(self, access: Request) -> int:
        value = self.bank.read(access.addr, access.size, secure=access.secure)
        self.log_.append(("r", access.addr, value, access.secure))
        return value

    def _write(self, access: Request) -> None:
        assert isinstance(access.data, int)
        self.log_.append(("w", access.addr, access.data, access.secure))
        self.bank.write(access.addr, access.size, access.data, secure=access.secure)

    def writes(self, offset: int) -> list[int]:
        """Values written to an offset, in order."""
        return [value for kind, addr, value, _ in self.log_ if kind == "w" and addr == offset]


class Gicd(Recorder):
    kind = "gicd"
    block = GICD

    def configure(self) -> None:
        self.bank.configure("GICD_TYPER", 15 | 1 << 10 | 1 << 17 | 1 << 18 | 15 << 19)


class Rd(Recorder):
    """A Redistributor: its registers, and an acknowledge for every Sync and VSync; `net_log` has what ITSs sent."""

    kind = "rd"
    net = Channel(GIC_NET)

    def block_of(self) -> Any:
        return TABLES[self.params["gic_version"]]

    def configure(self) -> None:
        self.net_log: list[tuple[str, tuple[Any, ...]]] = []
        self.held: list[tuple[Any, ...]] | None = None
        n, version = self.params["index"], self.params["gic_version"]
        typer = 1 | n << 8 | n << 48 | (1 << 4 if self.params["last"] else 0)
        typer |= {"3": 0, "4.0": 0b1110, "4.1": 0b10110 & 0b110 | 1 << 7 | 1 << 26}[version]
        self.bank.configure("GICR_TYPER", typer)
        self.bank.on_write("GICR_WAKER", self._waker)

    def _waker(self, index: int, old: int, new: int, mask: int) -> None:
        self.bank["GICR_WAKER"] = 0 if not new & 2 else 6

    def _note(self, name: str, fields: tuple[Any, ...]) -> None:
        self.net_log.append((name, fields))

    @on(GIC_NET.Sync)
    def sync(self, peer: Peer, tag: int) -> None:
        if self.held is None:
            self.net.send(peer, GIC_NET.SyncAck, tag)
        else:
            self.held.append((peer, GIC_NET.SyncAck, tag))

    @on(GIC_NET.VSync)
    def vsync(self, peer: Peer, tag: int, vpeid: int) -> None:
        if self.held is None:
            self.net.send(peer, GIC_NET.VSyncAck, tag, vpeid)
        else:
            self.held.append((peer, GIC_NET.VSyncAck, tag, vpeid))

    async def release(self) -> None:
        """Send the acknowledges that were held back (in `held`, once that is a list)."""
        held, self.held = self.held or [], None
        for acknowledge in held:
            self.net.send(*acknowledge)


def _noter(kind: Any) -> Any:
    @on(kind)
    def note(self: Rd, peer: Peer, *fields: Any) -> None:
        self._note(str(kind).rpartition(".")[2], fields)

    return note


NOTED = (
    "InvAll InvLpi ClearLpi MoveLpi SetLpi MapVpe UnmapVpe MoveVpe VInvAll InvDb "
    "CfgVsgi ClearVsgi SetVsgi SetVlpi ClearVlpi InvVlpi MoveVlpi"
).split()
NetRd = type("NetRd", (Rd,), {f"note_{name}": _noter(getattr(GIC_NET, name)) for name in NOTED})


class Smmu(Recorder):
    """Acknowledges CR0 and IRQ_CTRL at once, and consumes commands at once."""

    kind = "smmu"
    block = SMMU

    def configure(self) -> None:
        self.error = 0
        self.bank.configure("SMMU_IDR0", 1)
        self.bank.configure("SMMU_IDR1", 20)
        self.bank.configure("SMMU_IDR5", 5)
        self.bank.on_write("SMMU_CR0", lambda i, old, new, mask: self._set("SMMU_CR0ACK", new))
        self.bank.on_write("SMMU_IRQ_CTRL", lambda i, old, new, mask: self._set("SMMU_IRQ_CTRLACK", new))
        self.bank.on_write(
            "SMMU_CMDQ_PROD", lambda i, old, new, mask: self._set("SMMU_CMDQ_CONS", new | self.error << 24)
        )

    def _set(self, name: str, value: int) -> None:
        self.bank[name] = value


class Endpoint(Node):
    """Bus 8: functions 0 and 1 of one device, 64-bit BARs of 256, 32 and 4 KiB, MSI-X of 2048 vectors."""

    kind = "endpoint"
    ecam = MmioTarget()
    mmio = MmioTarget()
    SIZES = {0x10: 0x4_0000, 0x18: 0x8000, 0x20: 0x1000}

    def setup(self) -> None:
        self.config = {0: self._function(), 1: self._function()}
        self.written: dict[int, int] = {}
        self.ecam.serve(self._read, self._write)
        self.mmio.serve(lambda access: self.written.get(access.addr, 0), self._mmio_write)

    def _function(self) -> bytearray:
        config = bytearray(4096)

        def put(offset: int, value: int, size: int = 4) -> None:
            config[offset : offset + size] = value.to_bytes(size, "little")

        put(0x00, 0xFF80_13B5)
        put(0x04, 0x0010_0000)
        put(0x08, 0xFF00_000F)
        put(0x0C, 0x80_0000)
        for offset in self.SIZES:
            put(offset, 0b0100)
        put(0x2C, 0x0000_13B5)
        put(0x34, 0x40, 1)
        put(0x40, 0x07FF_0011 & ~0xFF00)
        put(0x44, 2)
        put(0x48, 4)
        return config

    def _read(self, access: Request) -> int:
        config = self.config.get(access.addr >> 12 & 7) if access.addr >> 15 == 8 << 5 else None
        if config is None:
            return (1 << 8 * access.size) - 1
        offset = access.addr & 0xFFF
        return int.from_bytes(config[offset : offset + access.size], "little")

    def _write(self, access: Request) -> None:
        config, offset = self.config[access.addr >> 12 & 7], access.addr & 0xFFF
        assert isinstance(access.data, int)
        value = access.data
        if 0x10 <= offset < 0x28:
            size = self.SIZES.get(offset & ~7, 0)
            mask = ~(size - 1) & 0xFFFF_FFFF if not offset & 4 else 0xFFFF_FFFF
            value = value & mask | (0b0100 if not offset & 4 else 0) if size else 0
        config[offset : offset + access.size] = value.to_bytes(access.size, "little")

    def _mmio_write(self, access: Request) -> None:
        assert isinstance(access.data, int)
        self.written[access.addr] = access.data


class PeDouble(Node):
    """A PE in host context: notes system-register writes; `answers` are the results of reads by name, first to last."""

    kind = "pe"
    trap = Channel(TRAP)

    def setup(self) -> None:
        self.sysregs: list[tuple[str, int, int, int]] = []
        self.answers: dict[str, list[int]] = {}
        self.entered: list[tuple[Any, ...]] = []
        self.contexts: list[tuple[Any, ...]] = []

    @on(TRAP.SysregRead)
    def read(self, peer: Peer, tag: int, name: str, el: int, secure: int) -> None:
        answers = self.answers.get(name)
        value = answers.pop(0) if answers else 1023
        if name == "ICC_IAR1_EL1" and not answers:
            self.trap.send(peer, TRAP.Irq, 0)
        self.trap.send(peer, TRAP.SysregValue, tag, value)

    @on(TRAP.SysregWrite)
    def write(self, peer: Peer, tag: int, name: str, value: int, el: int, secure: int) -> None:
        self.sysregs.append((name, value, el, secure))
        self.trap.send(peer, TRAP.SysregDone, tag)

    @on(TRAP.Enter)
    def enter(self, peer: Peer, *fields: Any) -> None:
        self.entered.append(fields)

    @on(TRAP.LoadContext)
    def load(self, peer: Peer, *fields: Any) -> None:
        self.contexts.append(fields)

    def raise_irqs(self, *intids: int) -> None:
        """Have interrupts pending, to be acknowledged in this order."""
        self.answers.setdefault("ICC_IAR1_EL1", []).extend(intids)
        self.trap.send(None, TRAP.Irq, 1)


class HostUnderTest(HostNode):
    kind = "hypervisor"

    def setup(self) -> None:
        self.host = Host(self)


class Rig:
    """A machine of `pes` PEs; `boot()` brings it up."""

    def __init__(
        self,
        pes: int = 3,
        version: str = "4.1",
        its_params: dict[str, Any] | None = None,
        memory_latency: Span = ns(40),
        params: dict[str, Any] | None = None,
    ) -> None:
        self.bench = bench = Bench()
        self.version = version
        stride = 0x2_0000 if version == "3" else 0x4_0000
        mpidrs = [0x8100_0000 | n << 16 for n in range(pes)]
        self.node = bench.add("hypervisor", HostUnderTest, {"mpidrs": mpidrs, "its": ITS_BASES, **(params or {})})
        self.memory = bench.add("memory", Memory)
        self.gicd = bench.add("distributor", Gicd)
        self.smmu = bench.add("smmu0", Smmu)
        self.endpoint = bench.add("smmute", Endpoint)
        self.pes = [bench.add(f"pe{n}", PeDouble) for n in range(pes)]
        self.rds: list[Rd] = []
        for n in range(pes):
            rd_params = {"index": n, "last": n == pes - 1, "gic_version": version}
            self.rds.append(bench.add(f"redistributor{n}", NetRd, rd_params))
        options = {"gic_version": version, **(its_params or {})}
        self.its = [bench.add(f"its{n}", Its, {"index": n, **options}) for n in range(2)]
        regions: list[Any] = [(GICD_BASE, 0x1_0000, "distributor.regs"), (SMMU_BASE, 0x2_0000, "smmu0.regs")]
        regions += [(GICR_BASE + n * stride, stride, f"redistributor{n}.regs") for n in range(pes)]
        regions += [(base, 0x4_0000, f"its{n}.regs") for n, base in enumerate(ITS_BASES)]
        regions += [(ECAM, 0x1000_0000, "smmute.ecam"), (PCI_MMIO, 1 << 38, "smmute.mmio", PCI_MMIO)]
        ram = [(0x8000_0000, 0x7EF0_0000, "memory.bus", 0x8000_0000)]
        ram += [(0x80_8000_0000, 0x1_8000_0000, "memory.bus", 0x80_8000_0000)]
        bench.map("hypervisor.bus", regions, latency=ns(40))
        bench.map("hypervisor.bus", ram, latency=memory_latency)
        for n in range(2):
            bench.map(f"its{n}.bus", ram, latency=ns(60))
            for rd in range(pes):
                bench.link(f"its{n}.net", f"redistributor{rd}.net", ns(20), both=True)
        for n in range(pes):
            bench.link(f"pe{n}.trap", "hypervisor.trap", ns(300), both=True)

    @property
    def host(self) -> Host:
        return self.node.host

    def soon(self, span: Span) -> Instant:
        """The time in `span` ps."""
        assert self.bench.kernel is not None
        return self.bench.kernel.now + span

    def call(self, coroutine: Coroutine[Any, Any, Any], limit: Span = SECONDS) -> Any:
        """Run a coroutine of the host to its end; at most `limit` ps of simulated time."""
        return self.bench.call("hypervisor", coroutine, self.soon(limit))

    def boot(self) -> Rig:
        self.bench.run(0)
        self.call(self.host.boot())
        return self

    def commands(self, index: int = 0, first: int = 0) -> list[Command]:
        """What the host has queued on an ITS, from command number `first` on (the queue has not wrapped)."""
        queue = self.host.its[index].queue
        data = self.memory.peek(queue.memory + 32 * first, 32 * (queue.issued - first))
        return [decode(data[at : at + 32]) for at in range(0, len(data), 32)]

    def console(self) -> str:
        """What the host printed so far."""
        return "".join(record[4][1] for record in self.node.side if record[3] == 1)


def names(commands: list[Command]) -> list[str]:
    """What the commands are."""
    return [command.name for command in commands]
