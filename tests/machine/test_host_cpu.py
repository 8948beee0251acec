"""A host CPU: interrupts at EL2 with EOImode = 1, who holds a PE, entry and exit, system registers."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import ModelError, ms, ns, us
from cosim.testing import Bench
from nodes.arch.trap import TRAP
from nodes.hypervisor.host.cpu import HostCpu, affinity, sgi1r
from tests.machine.host_rig import HostUnderTest, PeDouble


class Pair:
    """A host with two PEs and nothing else."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.node = self.bench.add("hypervisor", HostUnderTest, {"mpidrs": [0x8100_0000, 0x8101_0000]})
        self.pes = [self.bench.add(f"pe{n}", PeDouble) for n in range(2)]
        for n in range(2):
            self.bench.link(f"pe{n}.trap", "hypervisor.trap", ns(300), both=True)
        self.bench.map("hypervisor.bus", [])
        self.bench.run(0)
        self.host = self.node.host
        self.taken: list[tuple[int, int]] = []

    @property
    def cpus(self) -> list[HostCpu]:
        return self.host.cpus

    def handler(self, result: Any = None) -> Any:
        async def handle(cpu: HostCpu, intid: int) -> Any:
            self.taken.append((cpu.index, intid))
            return result

        return handle

    def call(self, coroutine: Any, span: int = us(100)) -> Any:
        assert self.bench.kernel is not None
        return self.bench.call("hypervisor", coroutine, self.bench.kernel.now + span)

    def raise_irqs(self, n: int, *intids: int) -> None:
        """Let interrupts come up at a PE, and run until all is done."""

        async def rise() -> None:
            self.pes[n].raise_irqs(*intids)

        assert self.bench.kernel is not None
        self.bench.call(f"pe{n}", rise(), self.bench.kernel.now + us(100))

    def written(self, n: int) -> list[tuple[str, int]]:
        return [entry[:2] for entry in self.pes[n].sysregs]


def test_idle_cpu_takes_interrupts() -> None:
    """Acknowledge, priority drop, handler, deactivation for an SPI; no deactivation for an LPI, which has no active state."""
    pair = Pair()
    pair.host.request_irq(260, pair.handler())
    pair.host.request_irq(8195, pair.handler(), counter="host_lpis")
    pair.raise_irqs(0, 260, 8195)
    assert pair.taken == [(0, 260), (0, 8195)]
    assert pair.written(0) == [("ICC_EOIR1_EL1", 260), ("ICC_DIR_EL1", 260), ("ICC_EOIR1_EL1", 8195)]
    assert pair.node.count["host_lpis"] == 1 and not pair.cpus[0].held


@pytest.mark.parametrize(("forwarded", "result"), [(True, None), (False, True)])
def test_forwarded_interrupts_stay_active(forwarded: bool, result: Any) -> None:
    """An interrupt that the guest deactivates through a list register gets the priority drop only."""
    pair = Pair()
    pair.host.request_irq(27, pair.handler(result), forwarded=forwarded)
    pair.raise_irqs(1, 27)
    assert pair.written(1) == [("ICC_EOIR1_EL1", 27)]


def test_spurious_and_unexpected_interrupts_are_counted() -> None:
    """1023 ends the loop without EOIR; an INTID that nobody asked for is logged, counted and deactivated."""
    pair = Pair()
    pair.raise_irqs(0)
    assert pair.node.count["spurious_irqs"] == 1 and pair.written(0) == []
    pair.raise_irqs(0, 99)
    assert pair.node.count["unexpected_irqs"] == 1
    assert pair.written(0) == [("ICC_EOIR1_EL1", 99), ("ICC_DIR_EL1", 99)]


def test_a_held_cpu_takes_interrupts_when_its_thread_looks() -> None:
    """While a thread holds the PE nothing is acknowledged, until it waits for work or gives the PE back."""
    pair = Pair()
    pair.host.request_irq(40, pair.handler())
    woken: list[str] = []

    async def thread() -> None:
        async with pair.cpus[0] as cpu:
            await pair.node.sleep(us(20))
            assert pair.taken == [] and cpu.irq_level == 1
            await cpu.idle_until(lambda: bool(pair.taken))
            woken.append("in thread")

    async def rise() -> None:
        pair.pes[0].raise_irqs(40)

    pair.node.spawn(thread(), "thread")
    assert pair.bench.kernel is not None
    pair.bench.call("pe0", rise(), us(100))
    assert woken == ["in thread"] and pair.taken == [(0, 40)]

    async def short() -> None:
        async with pair.cpus[0]:
            await pair.node.sleep(us(5))

    pair.node.spawn(short(), "short")
    pair.raise_irqs(0, 40)
    assert pair.taken == [(0, 40)] * 2


def test_threads_take_turns() -> None:
    """Threads get a PE in the order in which they asked; `contended` tells the one that runs."""
    pair = Pair()
    order: list[tuple[int, bool]] = []

    async def thread(n: int) -> None:
        async with pair.cpus[0] as cpu:
            await pair.node.sleep(us(1))
            order.append((n, cpu.contended))

    async def all_of_them() -> None:
        tasks = [pair.node.spawn(thread(n), f"thread{n}") for n in range(3)]
        for task in tasks:
            await task

    pair.call(all_of_them())
    assert order == [(0, True), (1, True), (2, False)]
    assert not pair.cpus[0].held and not pair.cpus[0].contended


def test_enter_and_exit() -> None:
    """An exit carries the trap's fields and the time at which the PE sent it; a second entry meanwhile is refused."""
    pair = Pair()
    stage2 = ((0x8000_0000, 0x1000, 0x80_8000_0000),)

    async def run() -> Any:
        async with pair.cpus[1] as cpu:
            cpu.load_context("guest0.vcpu0", "ipi", "x", {"x0": 5, "entry": 1}, 0x8000_0000)
            return await cpu.enter("guest0.vcpu0", 1, stage2, (0,) * 3, 0, 0, 7)

    async def leave() -> None:
        pe = pair.pes[1]
        assert pe.entered == [("guest0.vcpu0", 1, stage2, (0,) * 3, 0, 0, 7)]
        assert pe.contexts == [("guest0.vcpu0", "ipi", "x", (("entry", 1), ("x0", 5)), 0x8000_0000)]
        pe.trap.send(None, TRAP.Exit, "guest0.vcpu0", "wfx", 1 << 26, 0, 0, 0, (1,), 2, 3)
        await pe.sleep(us(1))

    exits: list[Any] = []

    async def keep() -> None:
        exits.append(await run())

    pair.node.spawn(keep(), "vcpu")
    pair.call(pair.node.sleep(us(10)))
    assert pair.cpus[1].in_guest and pair.cpus[1].vcpu == "guest0.vcpu0"
    with pytest.raises(ModelError, match="run no guest"):
        pair.call(pair.cpus[1].enter("other", 0, (), (), 0, 0))
    assert pair.bench.kernel is not None
    sent = pair.bench.kernel.now
    pair.bench.call("pe1", leave(), sent + us(10))
    (exit_,) = exits
    assert (exit_.vcpu, exit_.reason, exit_.ich, exit_.cntv_cval) == ("guest0.vcpu0", "wfx", (1,), 3)
    assert exit_.time == sent and not pair.cpus[1].in_guest


def test_a_run_of_system_registers_takes_one_round_trip() -> None:
    """Writes of a run are in flight together and arrive in order."""
    pair = Pair()

    async def timed() -> int:
        start = pair.node.now
        await pair.cpus[0].write_sysregs([("ICC_PMR_EL1", 1), ("ICC_BPR1_EL1", 2)], el=3, secure=True)
        return pair.node.now - start

    assert pair.call(timed()) == ns(600)
    assert pair.pes[0].sysregs == [("ICC_PMR_EL1", 1, 3, 1), ("ICC_BPR1_EL1", 2, 3, 1)]


def test_ipi_values() -> None:
    """SGI 0 to one PE by affinity, as in the manual's fields; affinity drops the MT and uniprocessor bits."""
    pair = Pair()
    pair.call(pair.cpus[0].send_ipi(pair.cpus[1]))
    assert pair.written(0) == [("ICC_SGI1R_EL1", 1 << 32 | 1)]
    assert affinity(0x12_8103_0201) == 0x1203_0201
    assert sgi1r(0x1203_0221, 9) == 0x12 << 48 | 2 << 44 | 3 << 32 | 9 << 24 | 2 << 16 | 1 << 1


def test_an_irq_that_rises_with_the_spurious_answer_is_not_lost() -> None:
    """A line that goes high again while 1023 is on its way back makes the loop look once more."""
    pair = Pair()
    pair.host.request_irq(40, pair.handler())
    pe = pair.pes[0]
    reads = 0
    original = pe.answers

    class Racing(dict[str, list[int]]):
        def get(self, name: str, default: Any = None) -> Any:
            nonlocal reads
            reads += 1
            if reads == 1:
                original["ICC_IAR1_EL1"] = [40]
                pe.trap.send(None, TRAP.Irq, 1, delay=0)
                return [1023, 40]
            return original.get(name)

    pe.answers = Racing()
    pair.raise_irqs(0)
    assert pair.taken == [(0, 40)]
    assert pair.call(pair.node.sleep(ms(1)), ms(2)) is None
