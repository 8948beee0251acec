"""The `ipi` test of kvm-unit-tests' arm/gic: does every SGI reach exactly those CPUs that it was sent to?

CPU 1 sends SGI 1 to itself, to the even CPUs by a target list, and to all others by broadcast; every CPU counts what it
acknowledges. Counters are words in RAM with one writer each, so the sender compares with what it read before each test where
kvm-unit-tests clears them.

Parameters: `vcpus`; `nassgireq`: every CPU sets GICD_CTLR.nASSGIreq when GICD_TYPER2 offers it, which kvm-unit-tests itself
doesn't (SGIs then go through list registers, whatever the GIC can do); `guest_wait`: "wfi", or "spin" for CPUs that wait busy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nodes.arch.cpu import BOOT_ENTRY, Cpu, vcpu_mpidr
from nodes.software import gicv3, psci, shared
from nodes.software.report import Report
from nodes.software.shared import Record

SENDER = 1
SGI = 1
SECONDARY_ENTRY = 1
"""PC that CPU_ON names: an index into this program's entry functions."""

_MS = 10**9
STEP_PS, STEPS = 100 * _MS, 50
READY_LIMIT_PS = 500 * _MS


class _Cpu:
    """This CPU's part: its own record, and the handler that keeps it."""

    def __init__(self, cpu: Cpu, params: dict[str, Any]) -> None:
        self.cpu = cpu
        self.count = int(params.get("vcpus", 8))
        self.nassgireq = bool(params.get("nassgireq", True))
        self.wait = str(params.get("guest_wait", "wfi"))
        if self.wait not in ("wfi", "spin"):
            raise ValueError(f"guest_wait must be wfi or spin, not {self.wait!r}")
        affinity = gicv3.affinity_of(cpu.mpidr)
        self.index = affinity & 0xF | (affinity >> 8 & 0xFF) << 4 | (affinity >> 16 & 0xFF) << 12
        self.record = Record()

    async def publish(self, **changes: int) -> None:
        self.record = self.record._replace(**changes)
        await shared.publish(self.cpu, self.index, self.record)

    async def handle_irq(self) -> None:
        intid = await self.cpu.mrs("ICC_IAR1_EL1") & 0xFF_FFFF
        if intid == gicv3.SPURIOUS:
            await self.publish(spurious=self.record.spurious + 1)
            return
        await self.cpu.msr("ICC_EOIR1_EL1", intid)
        await self.publish(acked=self.record.acked + 1, intid=intid)

    async def set_up_irq(self) -> None:
        await gicv3.enable_defaults(self.cpu, self.count, self.nassgireq)
        self.cpu.set_irq_handler(self.handle_irq)
        self.cpu.irq_enable()

    async def receive(self) -> None:
        """All CPUs but the sender: get ready, then take interrupts until the machine is switched off."""
        await self.set_up_irq()
        await self.publish(ready=1)
        while True:
            if self.wait == "wfi":
                await self.cpu.wfi()
            else:
                await self.cpu.delay(STEP_PS)


class _Sender(_Cpu):
    """CPU 1: sends, waits, judges."""

    def __init__(self, cpu: Cpu, params: dict[str, Any]) -> None:
        super().__init__(cpu, params)
        self.report = Report(cpu)
        self.before: list[Record] = []

    async def run(self) -> None:
        await self.set_up_irq()
        await self.publish(ready=1)
        with self.report.prefix("gicv3"), self.report.prefix("ipi"):
            ready = await shared.poll(
                self.cpu, self.count, lambda records: all(r.ready for r in records), READY_LIMIT_PS
            )
            if not ready:
                await self.report.abort("CPUs must be ready within 500 ms")
            everyone = range(self.count)
            await self.test("self", [self.index], self.send_list)
            await self.test("target-list", [n for n in everyone if n % 2 != self.index % 2], self.send_list)
            await self.test("broadcast", [n for n in everyone if n != self.index], self.send_broadcast)
            await self.check_spurious()
        await self.report.exit(await self.report.summary())

    async def send_list(self, targets: list[int]) -> None:
        for value in gicv3.sgi1r_values([vcpu_mpidr(n) for n in targets], SGI):
            await self.cpu.msr("ICC_SGI1R_EL1", value)

    async def send_broadcast(self, targets: list[int]) -> None:
        await self.cpu.msr("ICC_SGI1R_EL1", gicv3.sgi1r_broadcast(SGI))

    async def test(self, name: str, targets: list[int], send: Callable[[list[int]], Awaitable[None]]) -> None:
        with self.report.prefix(name):
            self.before = await shared.read_all(self.cpu, self.count)
            await send(targets)
            await self.wait_for_interrupts(targets)
            await self.report.check(await self.check_acked(targets), "Interrupts received")

    async def acked(self) -> list[tuple[int, int]]:
        """(acknowledged since the test began, INTID of the last) of every CPU."""
        records = await shared.read_all(self.cpu, self.count)
        return [(now.acked - old.acked, now.intid) for now, old in zip(records, self.before, strict=True)]

    async def wait_for_interrupts(self, targets: list[int]) -> None:
        """Up to 5 s until all targets have taken the interrupt and nobody else has; then 100 ms for stray ones."""
        for step in range(STEPS):
            await self.cpu.delay(STEP_PS)
            counts = await self.acked()
            if all((count > 0) == (n in targets) for n, (count, _) in enumerate(counts)):
                if step:
                    await self.report.info(f"interrupts took more than {step * 100} ms")
                await self.cpu.delay(STEP_PS)
                return
        await self.report.info("interrupts timed-out (5s)")

    async def check_acked(self, targets: list[int]) -> bool:
        """Exactly one acknowledge of the right INTID at every target, none elsewhere; says what is wrong."""
        missing = extra = unexpected = 0
        passed = True
        for n, (count, intid) in enumerate(await self.acked()):
            if n not in targets:
                unexpected += count > 0
            elif count == 0:
                missing += 1
            else:
                extra += count > 1
            if count and intid != SGI:
                await self.report.info(f"cpu{n} received wrong irq {intid}")
                passed = False
        if missing or extra or unexpected:
            await self.report.info(f"ACKS: missing={missing} extra={extra} unexpected={unexpected}")
            passed = False
        return passed

    async def check_spurious(self) -> None:
        for n, record in enumerate(await shared.read_all(self.cpu, self.count)):
            if record.spurious:
                await self.report.info(f"WARN: cpu{n} got {record.spurious} spurious interrupts")


async def _boot(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
    """The boot CPU: reads the command line, starts the others, then takes part."""
    report = Report(cpu)
    words = args.split()
    count = int(params.get("vcpus", 8))
    if not words:
        await report.abort("no test specified")
    with report.prefix("gicv3"):
        if words[0] != "ipi":
            await report.abort(f"Unknown subtest '{words[0]}'")
        with report.prefix("ipi"):
            if count < 2:
                await report.abort("At least 2 cpus required")
    await shared.clear(cpu, count)
    for n in range(1, count):
        await psci.cpu_on(cpu, vcpu_mpidr(n), SECONDARY_ENTRY)
    await _Cpu(cpu, params).receive()


async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
    """Entry of every CPU; `args` is the command line ("ipi"), `params["entry"]` tells boot CPU and secondaries apart."""
    entry = params["entry"]
    if entry == BOOT_ENTRY:
        await _boot(cpu, args, params)
    elif entry != SECONDARY_ENTRY:
        raise ValueError(f"entry of the ipi test must be {BOOT_ENTRY:#x} or {SECONDARY_ENTRY}, not {entry:#x}")
    elif gicv3.affinity_of(cpu.mpidr) == SENDER:
        await _Sender(cpu, params).run()
    else:
        await _Cpu(cpu, params).receive()
