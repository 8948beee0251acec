"""A PE between test doubles: a hypervisor, a redistributor and a RAM that remembers."""

from __future__ import annotations

from typing import Any

from cosim.api import DECERR, BusError, MmioTarget, Node, Request, Span, ns
from cosim.testing import Bench, Probe, Received
from nodes.arch.cpu import Cpu, Program
from nodes.arch.trap import HCR_FMO, HCR_IMO, HCR_VM, TRAP
from nodes.pe.cpu_interface import ICH_IMAGE_FIELDS
from nodes.pe.model import Pe

RAM_IPA, RAM_PA, RAM_SIZE = 0x8000_0000, 0x80_8000_0000, 0x1_0000
HOLE_IPA = 0x8100_0000
"""A direct range behind which no memory answers."""
HCR = HCR_VM | HCR_IMO | HCR_FMO
STAGE2 = ((RAM_IPA, RAM_SIZE, RAM_PA), (HOLE_IPA, 0x1000, 0xDEAD_0000))

ICH_ON = (1, 0xF0 << 24 | 2 << 21 | 3 << 18 | 1 << 9 | 1 << 3 | 1 << 1, 0, 0, 0, 0, 0, 0)
"""ICH image: En, VPMR 0xF0, VENG1, VEOIM, minimal binary points, nothing in the list registers."""
assert len(ICH_ON) == len(ICH_IMAGE_FIELDS)

TRAP_LATENCY: Span = ns(300)
VLPI = 8195


async def idle(cpu: Cpu) -> None:
    """Wait for interrupts for ever."""
    while True:
        await cpu.wfi()


async def idle_guest(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
    """A program that only waits."""
    await idle(cpu)


def acker(log: list[Any]) -> Any:
    """A handler factory's argument: acknowledges, notes and ends one interrupt."""

    def install(cpu: Cpu) -> None:
        async def handler() -> None:
            intid = await cpu.mrs("ICC_IAR1_EL1")
            log.append(intid)
            await cpu.msr("ICC_EOIR1_EL1", intid)
            await cpu.msr("ICC_DIR_EL1", intid)

        cpu.set_irq_handler(handler)
        cpu.irq_enable()

    return install


def woken_guest(log: list[Any]) -> Program:
    """A program that sleeps until an interrupt wakes it; then it notes "woke" and waits for more."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        acker(log)(cpu)
        await cpu.wfi()
        log.append("woke")
        await idle(cpu)

    return program


def acking_guest(log: list[Any]) -> Program:
    """A program that only takes interrupts."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        acker(log)(cpu)
        await idle(cpu)

    return program


class Ram(Node):
    """Memory of 64 KiB; `delay` ps per access; every access is noted as (time, address, data or None)."""

    bus = MmioTarget()

    def setup(self) -> None:
        self.data = bytearray(RAM_SIZE)
        self.seen: list[tuple[int, int, Any]] = []
        self.bus.serve(self.read, self.write, delay=int(self.params.get("delay", 0)))

    def read(self, access: Request) -> bytes | int:
        self.seen.append((self.now, access.addr, None))
        return (
            int.from_bytes(self.data[access.addr : access.addr + access.size], "little")
            if access.size <= 8
            else bytes(self.data[access.addr : access.addr + access.size])
        )

    def write(self, access: Request) -> None:
        if access.addr >= 0xF000:
            raise BusError(DECERR)
        self.seen.append((self.now, access.addr, access.data))
        self.data[access.addr : access.addr + access.size] = access.bytes


class PeBench:
    """One PE that runs `program` as the vCPU "vm.vcpu0" once it is entered."""

    def __init__(self, program: Program, *, delay: Span = 0, **params: Any) -> None:
        self.bench = Bench()

        class TestedPe(Pe):
            programs = {"program": program}

        self.pe = self.bench.add("pe0", TestedPe, {"mpidr": 0x8001_0000, **params})
        self.ram = self.bench.add("ram", Ram, {"delay": delay})
        self.hyp: Probe = self.bench.probe("hypervisor")
        self.rd: Probe = self.bench.probe("redistributor0")
        self.bench.map("pe0.bus", [(RAM_PA, RAM_SIZE, "ram.bus")], latency=ns(60))
        self.bench.link("pe0.trap", "hypervisor.trap", TRAP_LATENCY, both=True)
        self.bench.link("pe0.gic", "redistributor0.cpu", ns(5), both=True)
        self.bench.link("pe0.ppi", "redistributor0.ppi", ns(5))
        self.bench.boot()

    def load(self, args: str = "", **params: Any) -> None:
        self.to_pe(TRAP.LoadContext, "vm.vcpu0", "program", args, tuple(params.items()), 0x8000_0000)

    def enter(
        self, *, hcr: int = HCR, ich: tuple[int, ...] = ICH_ON, ctl: int = 0, cval: int = 0, resume: Any = 0
    ) -> None:
        self.to_pe(TRAP.Enter, "vm.vcpu0", hcr, STAGE2, ich, ctl, cval, resume)

    def to_pe(self, kind: Any, *fields: Any, delay: Span = 0) -> None:
        self._at_now(self.hyp)
        self.hyp.after(delay, lambda: self.hyp.send("trap", "pe0", kind, *fields))

    def gic(self, kind: Any, *fields: Any, delay: Span = 0) -> None:
        self._at_now(self.rd)
        self.rd.after(delay, lambda: self.rd.send("cpu", "pe0", kind, *fields))

    def _at_now(self, probe: Probe) -> None:
        assert self.bench.kernel is not None
        probe.now = self.bench.kernel.now

    def run(self, span: Span) -> None:
        """Run for `span` ps more."""
        assert self.bench.kernel is not None
        until = self.bench.kernel.now + span
        probe = self.hyp
        self._at_now(probe)
        probe.after(span - 1, lambda: None)
        self.bench.run(until)

    def start(self, span: Span = ns(1000), **enter: Any) -> None:
        """Load, enter and run a while."""
        self.load()
        self.enter(**enter)
        self.run(span)

    def exits(self) -> list[dict[str, Any]]:
        """Exits that arrived at the hypervisor since the last call, as dicts with their send time."""
        taken = self.hyp.take()
        self.irqs = [m for m in taken if m.kind is TRAP.Irq]
        return [_exit(m) for m in taken if m.kind is TRAP.Exit]

    def ups(self) -> list[tuple[Any, ...]]:
        """(kind, *fields) of what the redistributor got since the last call."""
        return [(m.kind.name, *m.fields) for m in self.rd.take()]

    def marks(self, name: str) -> list[list[Any]]:
        """Identities of the PE's marks of that name."""
        return [payload[1] for _, _, _, kind, payload in self.pe.side if kind == 2 and payload[0] == name]


def _exit(message: Received) -> dict[str, Any]:
    return {**dict(zip(message.kind.fields, message.fields, strict=True)), "time": message.time - TRAP_LATENCY}
