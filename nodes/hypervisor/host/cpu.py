"""One PE as the host sees it: system registers, world switch, interrupts (sheet 7.7), and who runs on it.

A thread (a vCPU's, or the idle one) runs on a PE between ``async with cpu:`` and its end; others wait in the order in which
they came, which is how more vCPUs than PEs share them. Nothing takes a PE away: its thread looks at `must_yield` whenever it
is about to enter a guest. A thread that was woken wants it at once (wake-up preemption); one that had its turn waits until
the time slice is over, which the PE's EL2 physical timer tells (`slices.py`). Only the thread that holds a PE touches its
system registers or enters a guest on it. While nobody holds it, an interrupt is taken by the idle thread; a thread that holds
it takes interrupts in `handle_irqs`, which it calls after Exit("irq"), or inside `idle_until`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from cosim.api import Future, Instant, ModelError, Peer, Signal, Span
from nodes.arch.intid import is_lpi, is_special
from nodes.arch.trap import TRAP
from nodes.hypervisor.host.slices import SliceTimer

if TYPE_CHECKING:
    from nodes.hypervisor.host.host import Host
    from nodes.hypervisor.host.node import HostNode

SGI_RESCHEDULE = 0
"""The SGI by which one host CPU makes another look at its work (Linux's IPI_RESCHEDULE)."""


class Exit(NamedTuple):
    """What TRAP.Exit carried; `time` (ps) is when the PE sent it."""

    vcpu: str
    reason: str
    esr: int
    far: int
    ipa: int
    data: Any
    ich: Any
    cntv_ctl: int
    cntv_cval: int
    time: Instant


class ContextState(NamedTuple):
    """What TRAP.ContextState and TRAP.RestoreContext carry: everything that a vCPU is, but ICH and timer."""

    vcpu: str
    program: str
    args: str
    params: Any
    vmpidr: int
    trapped: int
    fault: Any
    journal: Any


def affinity(mpidr: int) -> int:
    """Aff3.Aff2.Aff1.Aff0 of an MPIDR_EL1 value, packed into 32 bits as in GICR_TYPER[63:32]."""
    return (mpidr >> 32 & 0xFF) << 24 | (mpidr & 0xFF_FFFF)


def sgi1r(target: int, intid: int) -> int:
    """ICC_SGI1R_EL1 for one PE by packed affinity (sheet 6.2): the target list holds Aff0 modulo 16, RS the rest."""
    aff3, aff2, aff1, aff0 = target >> 24, target >> 16 & 0xFF, target >> 8 & 0xFF, target & 0xFF
    return aff3 << 48 | (aff0 >> 4) << 44 | aff2 << 32 | intid << 24 | aff1 << 16 | 1 << (aff0 & 15)


class HostCpu:
    """A PE: `index` (its number in the node's `mpidrs`), `mpidr`, `affinity` (packed), `rd_base` (physical address of its
    Redistributor's RD_base frame once discovered), `processor_number` (GICR_TYPER)."""

    def __init__(self, host: Host, index: int, mpidr: int) -> None:
        self.host = host
        self.node: HostNode = host.node
        self.index = index
        self.mpidr = mpidr
        self.affinity = affinity(mpidr)
        self.rd_base = 0
        self.processor_number = index
        self.irq_level = 0
        self.vcpu = ""
        self._irq_changes = 0
        self._peer: Peer | None = None
        self._tag = 0
        self._open: dict[int, Future[int]] = {}
        self._exit: Future[Exit] | None = None
        self._saved: dict[str, Future[ContextState]] = {}
        self._held = False
        self._turns: deque[tuple[Future[None], bool]] = deque()
        self._resched_sent = False
        self.need_resched = False
        self.stirred = False
        self.slices = SliceTimer(self)
        self._work = Signal(f"work on cpu{index}")

    def __repr__(self) -> str:
        return f"cpu{self.index}"

    @property
    def peer(self) -> Peer:
        """The PE's end of the trap channel."""
        if self._peer is None:
            self._peer = self.node.trap.peer(self.node_name)
        return self._peer

    @property
    def node_name(self) -> str:
        """Name of the PE's node."""
        return f"pe{self.index}"

    # -- who runs here -------------------------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """Whether a thread runs on this PE."""
        return self._held

    @property
    def contended(self) -> bool:
        """Whether other threads wait for this PE (then WFI and WFE of a guest must trap, sheet 7.3)."""
        return any(task for _, task in self._turns)

    @property
    def must_yield(self) -> bool:
        """Whether the thread that runs here should give way to one that waits."""
        return self.need_resched and self.contended

    async def acquire(self, *, woken: bool = True, task: bool = True) -> None:
        """Get the PE, after those that wait already. `woken`: whoever runs there should give way at its next exit, instead of
        at the end of its slice. The idle thread is no `task`: nobody gives way to it."""
        if self._held:
            turn: Future[None] = Future(f"its turn on cpu{self.index}")
            self._turns.append((turn, task))
            self.need_resched = self.need_resched or (woken and task)
            await turn
        else:
            self._held = True
            self.need_resched = self.stirred = False

    def release(self) -> None:
        """Let the next thread have the PE. What is asked of it from now on, it must see."""
        self.need_resched = self.stirred = False
        if self._turns:
            self._turns.popleft()[0].set(None)
            return
        self._held = False
        if self.irq_level:
            self._start_idle()

    async def __aenter__(self) -> HostCpu:
        await self.acquire()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.release()

    def request_resched(self, by: HostCpu) -> None:
        """A thread was woken on the PE `by` that wants this one: make the guest that runs here exit (resched_curr), or the
        thread that holds it let the other one queue before it enters a guest (`stirred`)."""
        if self.in_guest and not self._resched_sent:
            self._resched_sent = True
            self.node.count["reschedules"] += 1
            by.post_sysreg("ICC_SGI1R_EL1", sgi1r(self.affinity, SGI_RESCHEDULE))
        elif self._held:
            self.stirred = True

    def _start_idle(self) -> None:
        self.node.spawn(self._idle(), f"idle/{self.index}", daemon=True)

    async def _idle(self) -> None:
        await self.acquire(task=False)
        while self.irq_level:
            await self.handle_irqs()
        self.release()

    # -- system registers ----------------------------------------------------------------------------------------------

    def _request(self, kind: Any, what: str, name: str, *fields: Any) -> Future[int]:
        tag = self._tag
        self._tag = tag + 1
        future: Future[int] = Future(("{} of {} on {}", what, name, self.node_name))
        self._open[tag] = future
        self.node.trap.send(self.peer, kind, tag, name, *fields)
        return future

    async def read_sysreg(self, name: str, *, el: int = 2, secure: bool = False) -> int:
        """MRS on this PE; EL3 reads Secure views with ``el=3, secure=True``."""
        return await self._request(TRAP.SysregRead, "read", name, el, int(secure))

    def post_sysreg(self, name: str, value: int, *, el: int = 2, secure: bool = False) -> Future[int]:
        """MSR on this PE without waiting; await the result to wait for it. MSRs take effect in program order."""
        return self._request(TRAP.SysregWrite, "write", name, value, el, int(secure))

    async def write_sysreg(self, name: str, value: int, *, el: int = 2, secure: bool = False) -> None:
        """MSR on this PE; returns when it has taken effect."""
        await self.post_sysreg(name, value, el=el, secure=secure)

    async def write_sysregs(self, pairs: Iterable[tuple[str, int]], *, el: int = 2, secure: bool = False) -> None:
        """A run of MSRs in order; one round trip."""
        last: Future[int] | None = None
        for name, value in pairs:
            last = self.post_sysreg(name, value, el=el, secure=secure)
        if last is not None:
            await last

    def on_value(self, tag: int, value: int) -> None:
        """SysregValue or SysregDone from the PE."""
        future = self._open.pop(tag, None)
        if future is None:
            raise ModelError(f"{self.node_name} must answer an outstanding access, not tag {tag}")
        future.set(value)

    # -- guests --------------------------------------------------------------------------------------------------------

    def load_context(
        self, vcpu: str, program: str, args: str, params: dict[str, Any] | Iterable[tuple[str, Any]], vmpidr: int
    ) -> None:
        """Give the PE the architectural state of a vCPU before its first entry there: program, arguments, VMPIDR_EL2.

        `params` travels as a tuple of (name, value) pairs in order of the names.
        """
        items = tuple(sorted(dict(params).items()))
        self.node.trap.send(self.peer, TRAP.LoadContext, vcpu, program, args, items, vmpidr)

    def drop_context(self, vcpu: str) -> None:
        """Take a vCPU's state away from the PE for good."""
        self.node.trap.send(self.peer, TRAP.DropContext, vcpu)

    async def save_context(self, vcpu: str) -> ContextState:
        """Take a vCPU's state away from the PE, to give it to another one."""
        future: Future[ContextState] = Future(("state of {} from {}", vcpu, self.node_name))
        self._saved[vcpu] = future
        self.node.trap.send(self.peer, TRAP.SaveContext, vcpu)
        return await future

    def on_context(self, *fields: Any) -> None:
        """TRAP.ContextState from the PE."""
        future = self._saved.pop(fields[0], None)
        if future is None:
            raise ModelError(f"{self.node_name} must give a context only when asked, not {fields[0]!r}")
        future.set(ContextState._make(fields))

    def restore_context(self, state: ContextState) -> None:
        """Give the PE a vCPU that another PE had."""
        self.node.trap.send(self.peer, TRAP.RestoreContext, *state)

    async def enter(
        self, vcpu: str, hcr: int, stage2: Any, ich: Any, cntv_ctl: int, cntv_cval: int, resume: Any = 0
    ) -> Exit:
        """ERET to a vCPU and wait for its exception to EL2.

        Args:
            vcpu: unique name, loaded by `load_context`.
            hcr: HCR_EL2.
            stage2: tuple of (ipa, size, pa): accesses inside go direct, others exit.
            ich: ICH image in the order of nodes/pe.
            cntv_ctl: CNTV_CTL_EL0.
            cntv_cval: CNTV_CVAL_EL0.
            resume: result of the exit before (a read's value, an HVC's tuple of four).

        Raises:
            ModelError: the caller does not hold the PE, or a guest runs already.
        """
        if not self._held or self._exit is not None:
            raise ModelError(
                f"{self!r} must be held by the entering thread and run no guest; it runs {self.vcpu or 'nothing'!r}"
            )
        self.vcpu = vcpu
        future: Future[Exit] = Future(("exit of {} from {}", vcpu, self.node_name))
        self._exit = future
        self.node.trap.send(self.peer, TRAP.Enter, vcpu, hcr, stage2, ich, cntv_ctl, cntv_cval, resume)
        return await future

    def on_exit(self, peer: Peer, *fields: Any) -> None:
        """TRAP.Exit from the PE."""
        future, self._exit = self._exit, None
        if future is None or fields[0] != self.vcpu:
            raise ModelError(f"{self.node_name} must exit from {self.vcpu or 'no guest'!r}, not {fields[0]!r}")
        self.vcpu = ""
        self._resched_sent = False
        future.set(Exit._make((*fields, self.node.now - peer.latency)))

    @property
    def in_guest(self) -> bool:
        """Whether a guest has been entered and has not exited."""
        return self._exit is not None

    # -- interrupts ----------------------------------------------------------------------------------------------------

    def on_irq(self, level: int) -> None:
        """TRAP.Irq from the PE: level of its physical IRQ while in host context."""
        self.irq_level = level
        self._irq_changes += 1
        if not level:
            return
        if self._held:
            self._work.notify()
        else:
            self._start_idle()

    async def handle_irqs(self) -> None:
        """Acknowledge and handle interrupts until the line is low: IAR1, EOIR1, handler, DIR (EOImode = 1).

        LPIs have no active state and need no DIR; an interrupt forwarded to a guest stays active until the guest ends it.
        """
        while True:
            changes = self._irq_changes
            intid = await self.read_sysreg("ICC_IAR1_EL1")
            if is_special(intid):
                self.node.count["spurious_irqs"] += 1
                if changes == self._irq_changes:
                    self.irq_level = 0
            else:
                done = self.post_sysreg("ICC_EOIR1_EL1", intid)
                forwarded = await self.host.handle_irq(self, intid)
                if not forwarded and not is_lpi(intid):
                    done = self.post_sysreg("ICC_DIR_EL1", intid)
                await done
            if not self.irq_level:
                return

    async def idle_until(self, ready: Callable[[], bool]) -> None:
        """Stay on this PE until ``ready()``; handles its interrupts meanwhile. `poke` makes it look again."""
        while not ready():
            await self.wait_for_work()

    async def wait_for_work(self) -> None:
        """Handle interrupts if there are any, else wait for one or for `poke`."""
        if self.irq_level:
            await self.handle_irqs()
        else:
            await self._work.wait()

    def poke(self) -> None:
        """Make `idle_until` on this PE evaluate its condition again."""
        self._work.notify()

    async def send_ipi(self, target: HostCpu) -> None:
        """SGI 0 from this PE to `target` (reschedule, or kick of the vCPU that runs there)."""
        self.node.count["ipis"] += 1
        await self.write_sysreg("ICC_SGI1R_EL1", sgi1r(target.affinity, SGI_RESCHEDULE))

    async def charge(self, span: Span) -> None:
        """Software time on this PE, in ps."""
        if span > 0:
            await self.node.sleep(span)
