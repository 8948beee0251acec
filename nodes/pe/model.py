"""One processing element (PE): a GIC CPU interface, a virtual timer, and what runs on it.

A PE is either in host context, where the hypervisor node reads and writes its system registers by `trap` and hears of
its IRQ line, or runs a vCPU, from Enter to Exit (`guest.py`). What a vCPU executes is a context (`context.py`).

At Exit the vCPU's state goes out: the ICH image (after which ICH_HCR_EL2 is 0, so that nothing asks for maintenance),
CNTV_CTL and CNTV_CVAL. A virtual timer whose output is low is off then; one whose output is high keeps PPI 27 high
until the next Enter, or until the host writes CNTV_CTL_EL0 itself: otherwise the host couldn't acknowledge the
interrupt that made the vCPU exit.

Sources: IHI 0069 (CPU interface, GIC Stream Protocol); Arm ARM D1.3, D12.2; KVM's save and restore order.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, cast

from cosim.api import BusFault, Channel, Future, Instant, MmioInitiator, ModelError, Node, Peer, Wire, on
from nodes.arch.cpu import Program
from nodes.arch.gic_stream import GIC_STREAM
from nodes.arch.intid import PPI_HYP_TIMER, PPI_MAINTENANCE, PPI_VIRTUAL_TIMER
from nodes.arch.trap import TRAP
from nodes.pe.access import Trap, Undefined
from nodes.pe.context import Crash, ProgramContext
from nodes.pe.cpu_interface import CpuInterface
from nodes.pe.guest import Cause, Guest, Range, Vcpu
from nodes.pe.timer import HYP_TIMER_REGISTERS, TIMER_REGISTERS, VirtualTimer

PHYSICAL = -1
"""In place of a vPEID in Activate and Release."""


def find_program(name: str, known: Mapping[str, str]) -> Program:
    """The guest program of that name; `known` are the import paths that the launcher found by entry point ``cosim.programs``.

    Raises:
        ModelError: there is none; lists those that exist.
    """
    if name not in known:
        have = ", ".join(sorted(known)) or "none (parameter `programs` gives them, as ${programs} in a topology)"
        raise ModelError(f"program must be an entry point of group cosim.programs, not {name!r}; there are: {have}")
    module, _, attribute = known[name].partition(":")
    return cast(Program, getattr(import_module(module), attribute))


class Pe(Node):
    """The node. Parameters: index, mpidr, list_registers, pri_bits, pre_bits, gic_version, two_security_states, cntfrq,
    programs (import paths of guest programs by name).

    Counters: exits, exits_REASON, acks_direct, acks_lr, wfi_sleeps, external_aborts, undefined_instructions,
    undefined_sysregs, fiqs_not_taken, virtual_fiqs_not_taken, downstream_controls, and those of the CPU interface.
    """

    kind = "pe"
    parameters = {
        "index": int,
        "mpidr": int,
        "list_registers": range(1, 17),
        "pri_bits": range(5, 9),
        "pre_bits": range(5, 8),
        "gic_version": ("3", "4.0", "4.1"),
        "cntfrq": range(1, 1 << 32),
        "two_security_states": bool,
        "programs": dict,
    }
    programs: ClassVar[Mapping[str, Program]] = {}
    """Programs besides those of the entry points, by name; for tests."""

    bus = MmioInitiator("memory accesses of the vCPU that runs here, by physical address")
    gic = Channel(GIC_STREAM, "to this PE's redistributor")
    trap = Channel(TRAP, "to the hypervisor")
    ppi = Wire("private interrupts of this PE: maintenance 25, EL2 physical timer 26, virtual timer 27")

    def snapshot(self) -> dict[str, dict[str, int]]:
        """The System registers of the GIC CPU interface; table: nodes/pe/show.py."""
        return {"CPU_INTERFACE": self.interface.snapshot()}

    def setup(self) -> None:
        """Make the CPU interface and the timer."""
        params = self.params
        version = str(params.get("gic_version", "4.1"))
        if version not in ("3", "4.0", "4.1"):
            raise ModelError(f"{self.name}: gic_version must be 3, 4.0 or 4.1, not {version!r}")
        self.mpidr = int(params.get("mpidr", 0x8000_0000 | int(params.get("index", 0)) << 16))
        self.interface = CpuInterface(
            mpidr=self.mpidr,
            pri_bits=int(params.get("pri_bits", 5)),
            pre_bits=int(params.get("pre_bits", 5)),
            list_registers=int(params.get("list_registers", 4)),
            nv4=version == "3",
            vsgi_eoicount=version == "4.1",
            two_security_states=bool(params.get("two_security_states", True)),
        )
        self.interface.set_state(2, False)
        self.timer = VirtualTimer(int(params.get("cntfrq", 1_000_000_000)))
        self.hyp_timer = VirtualTimer(self.timer.frequency)
        self.vcpus: dict[str, Vcpu] = {}
        self.guest: Guest | None = None
        self._timer_events: dict[int, Any] = {}  # by PPI: its timer will fire
        self._timer_of = ""
        self._change: Future[None] | None = None
        self._irq_sent = 0
        self._fiq = self._vfiq = False
        self._withdrawn = 0

    def stop(self) -> None:
        """Close the contexts, whose coroutines would otherwise be left suspended."""
        for vcpu in self.vcpus.values():
            vcpu.context.close()
        super().stop()

    # -- the GIC -------------------------------------------------------------------------------------------------------

    @on(GIC_STREAM.Set)
    def set_physical(self, peer: Peer, intid: int, priority: int, group: int) -> None:
        """The redistributor offers a physical interrupt."""
        self.interface.set(intid, priority, group)
        self.settle_gic()

    @on(GIC_STREAM.Clear)
    def clear_physical(self, peer: Peer, intid: int) -> None:
        """The redistributor withdraws it."""
        self._withdrawn = intid
        self.interface.clear(intid)
        self.settle_gic()

    @on(GIC_STREAM.VSet)
    def set_virtual(self, peer: Peer, vpeid: int, intid: int, priority: int, group: int) -> None:
        """The redistributor offers a vLPI or vSGI of the resident vPE."""
        self.interface.vset(vpeid, intid, priority, group)
        self.settle_gic()

    @on(GIC_STREAM.VClear)
    def clear_virtual(self, peer: Peer, vpeid: int, intid: int) -> None:
        """The redistributor withdraws it."""
        self._withdrawn = intid
        self.interface.vclear(vpeid, intid)
        self.settle_gic()

    @on(GIC_STREAM.Quiesce)
    def quiesce(self, peer: Peer) -> None:
        """Everything held goes back."""
        self.interface.quiesce()
        self.settle_gic()

    @on(GIC_STREAM.DownstreamControl)
    def downstream_control(self, peer: Peer, identifier: str | int, value: int) -> None:
        """Settings of the GIC that this CPU interface has no use for: acknowledged, counted."""
        self.count["downstream_controls"] += 1
        self.gic.send(peer, GIC_STREAM.DownstreamControlAck, identifier)

    def settle_gic(self) -> None:
        """After anything that may have changed the CPU interface: send packets up, follow its outputs."""
        gic = self.interface
        for packet in gic.take_up():
            self._send_up(packet)
        for counter, text in gic.take_reports():
            self.count[counter] += 1
            self.log("cpu interface", what=counter, why=text)
        self.ppi.drive(PPI_MAINTENANCE, int(gic.maintenance))
        self._watch_fiqs()
        if self.guest is None:
            self._report_irq()
        elif self._change is not None:
            waiting, self._change = self._change, None
            waiting.set(None)

    def _send_up(self, packet: tuple[int | str, ...]) -> None:
        kind, *fields = packet
        if kind in ("Activate", "Release"):
            fields.insert(0, PHYSICAL)
        elif kind in ("VActivate", "VRelease"):
            kind = str(kind)[1:]
        elif kind in ("ClearAck", "VClearAck"):
            fields.append(self._withdrawn)
        self.gic.send(None, getattr(GIC_STREAM, str(kind)), *fields)

    def _watch_fiqs(self) -> None:
        """Group 0 and Secure interrupts belong to software that isn't modelled: say so once each."""
        fiq, vfiq = self.interface.fiq, self.guest is not None and self.interface.vfiq
        if fiq and not self._fiq:
            self.count["fiqs_not_taken"] += 1
            self.log("FIQ not taken", why="no EL3 software handles FIQs")
        if vfiq and not self._vfiq:
            self.count["virtual_fiqs_not_taken"] += 1
            self.log("virtual FIQ not taken", why="guest programs have no FIQ handler")
        self._fiq, self._vfiq = fiq, vfiq

    # -- the host ------------------------------------------------------------------------------------------------------

    def _report_irq(self, again: bool = False) -> None:
        """Tell the host its IRQ line: changes, and after an exit (`again`) also a line that is high already."""
        level = int(self.interface.irq)
        if level != self._irq_sent or (again and level):
            self._irq_sent = level
            self.trap.send(None, TRAP.Irq, level)

    @on(TRAP.SysregRead)
    def sysreg_read(self, peer: Peer, tag: int, name: str, el: int, secure: bool) -> None:
        """MRS by the host; an UNDEFINED or trapping one is counted and answered with 0."""
        self._need_host(name)
        value = 0
        if name == "MPIDR_EL1":
            value = self.mpidr
        elif name in TIMER_REGISTERS:
            value = self.timer.read(name, self.now)
        elif name in HYP_TIMER_REGISTERS:
            value = self.hyp_timer.read(HYP_TIMER_REGISTERS[name], self.now)
        else:
            try:
                value = self.interface.read(name, el=el, secure=bool(secure))
            except (Undefined, Trap, ValueError) as error:
                self._refuse_sysreg(name, error)
        self.trap.send(peer, TRAP.SysregValue, tag, value)
        self.settle_gic()

    @on(TRAP.SysregWrite)
    def sysreg_write(self, peer: Peer, tag: int, name: str, value: int, el: int, secure: bool) -> None:
        """MSR by the host; an UNDEFINED or trapping one is counted and has no effect."""
        self._need_host(name)
        if name in TIMER_REGISTERS:
            if not self.timer.write(name, value, self.now):
                self._refuse_sysreg(name, Undefined(name, el, "it is read-only"))
            self.update_timer()
        elif name in HYP_TIMER_REGISTERS:
            self.hyp_timer.write(HYP_TIMER_REGISTERS[name], value, self.now)
            self._update_hyp_timer()
        else:
            try:
                self.interface.write(name, value, el=el, secure=bool(secure))
            except (Undefined, Trap, ValueError) as error:
                self._refuse_sysreg(name, error)
        self.trap.send(peer, TRAP.SysregDone, tag)
        self.settle_gic()

    def _need_host(self, name: str) -> None:
        if self.guest is not None:
            raise ModelError(
                f"{self.name} must be in host context for the hypervisor's access to {name}, but it runs "
                f"{self.guest.vcpu.name}: wait for its Exit first"
            )

    def _refuse_sysreg(self, name: str, error: Exception) -> None:
        self.count["undefined_sysregs"] += 1
        self.log("system register access refused", register=name, why=str(error))

    # -- contexts ------------------------------------------------------------------------------------------------------

    @on(TRAP.LoadContext)
    def load_context(self, peer: Peer, vcpu: str, program: str, args: str, params: Any, vmpidr: int) -> None:
        """Give this PE a vCPU's initial state. `params`: (name, value) pairs, or a dict."""
        self._need_new(vcpu)
        self.vcpus[vcpu] = Vcpu(
            vcpu, ProgramContext(program, self._program(program), args, dict(params), vmpidr), vmpidr
        )

    def _need_new(self, vcpu: str) -> None:
        if vcpu in self.vcpus:
            raise ModelError(f"{self.name} has a context of {vcpu} already: DropContext it first")

    def _program(self, name: str) -> Program:
        return self.programs.get(name) or find_program(name, self.params.get("programs", {}))

    @on(TRAP.SaveContext)
    def save_context(self, peer: Peer, vcpu: str) -> None:
        """Give a vCPU away to another PE: answer with its state, and forget it."""
        found = self._vcpu(vcpu)
        if found.dead:
            raise ModelError(f"{self.name} must not give away {vcpu}, which has crashed")
        context, fault = found.context, found.fault
        self.trap.send(
            peer,
            TRAP.ContextState,
            vcpu,
            context.name,
            context.args,
            tuple(sorted(context.params.items())),
            found.mpidr,
            int(found.trapped),
            () if fault is None else (fault.status, fault.address, int(fault.write)),
            tuple(context.journal),
        )
        self._forget(found)

    @on(TRAP.RestoreContext)
    def restore_context(
        self,
        peer: Peer,
        vcpu: str,
        program: str,
        args: str,
        params: Any,
        vmpidr: int,
        trapped: int,
        fault: Any,
        journal: Any,
    ) -> None:
        """Take over a vCPU that another PE gave away, as it was there."""
        self._need_new(vcpu)
        try:
            context = ProgramContext.replay(program, self._program(program), args, dict(params), vmpidr, journal)
        except (Crash, ValueError) as error:
            raise ModelError(f"the journal of {vcpu} must lead to where it was saved: {error}") from error
        self.vcpus[vcpu] = taken = Vcpu(vcpu, context, vmpidr)
        taken.trapped = bool(trapped)
        if fault:
            status, address, write = fault
            taken.fault = BusFault(status, address, bool(write))

    @on(TRAP.DropContext)
    def drop_context(self, peer: Peer, vcpu: str) -> None:
        """Forget a vCPU; its timer no longer asks for an interrupt."""
        self._forget(self._vcpu(vcpu))

    def _forget(self, found: Vcpu) -> None:
        if self.guest is not None and self.guest.vcpu is found:
            raise ModelError(f"{self.name} must not drop {found.name} while it runs: wait for its Exit")
        del self.vcpus[found.name]
        found.context.close()
        if self._timer_of == found.name:
            self._timer_of = ""
            self.timer.load(0, 0)
            self.update_timer()

    def _vcpu(self, name: str) -> Vcpu:
        found = self.vcpus.get(name)
        if found is None:
            have = ", ".join(self.vcpus) or "none"
            raise ModelError(
                f"{self.name} has no context of {name!r} (it has: {have}): LoadContext it on this PE first"
            )
        return found

    @on(TRAP.Enter)
    def enter(
        self,
        peer: Peer,
        vcpu: str,
        hcr: int,
        stage2: tuple[Range, ...],
        ich: tuple[int, ...],
        cntv_ctl: int,
        cntv_cval: int,
        resume: Any,
    ) -> None:
        """World switch to a vCPU; it runs until Exit."""
        found = self._vcpu(vcpu)
        if self.guest is not None:
            raise ModelError(f"{self.name} must not enter {vcpu} while it runs {self.guest.vcpu.name}")
        if found.dead:
            raise ModelError(f"{self.name} must not enter {vcpu}, which has crashed")
        guest = Guest(self, found, hcr, tuple(stage2))
        guest.resume(resume)
        self.guest = guest
        self.interface.set_state(1, False)
        self.interface.load_ich(ich)
        self._timer_of = vcpu
        self.timer.load(cntv_ctl, cntv_cval)
        self.update_timer()
        self.settle_gic()
        self.spawn(self._run(guest), vcpu)

    async def _run(self, guest: Guest) -> None:
        cause = await guest.run()
        self._exit(guest, cause)

    def _exit(self, guest: Guest, cause: Cause) -> None:
        """World switch to the host."""
        timer, name = self.timer, guest.vcpu.name
        state = self.interface.ich_image(), timer.status(self.now), timer.cval
        self.interface.write("ICH_HCR_EL2", 0, el=2)
        self.interface.set_state(2, False)
        self.guest = None
        if not timer.output(self.now):
            timer.load(0, 0)
        self.update_timer()
        self.count["exits"] += 1
        self.count[f"exits_{cause.reason}"] += 1
        self.mark("exit", name, cause.reason, cause.detail)
        self.trap.send(None, TRAP.Exit, name, cause.reason, cause.esr, cause.far, cause.ipa, cause.data, *state)
        self._report_irq(again=True)
        self.settle_gic()

    # -- time ----------------------------------------------------------------------------------------------------------

    def update_timer(self) -> None:
        """After a change of the virtual timer: drive its line, and wait for its next rise."""
        self._drive_timer(PPI_VIRTUAL_TIMER, self.timer)

    def _update_hyp_timer(self) -> None:
        """The same for the EL2 physical timer, which runs whoever is on the PE."""
        self._drive_timer(PPI_HYP_TIMER, self.hyp_timer)

    def _drive_timer(self, ppi: int, timer: VirtualTimer) -> None:
        event = self._timer_events.pop(ppi, None)
        if event is not None:
            self.cancel(event)
        self.ppi.drive(ppi, int(timer.output(self.now)))
        due = timer.due(self.now)
        if due is not None:
            self._timer_events[ppi] = self.after(due - self.now, self._drive_timer, ppi, timer)

    async def change(self, until: Instant | None, what: str) -> None:
        """Wait until the CPU interface changes, at most until `until` ps."""
        self._change = waiting = Future[None](what)
        timer = None
        if until is not None:
            timer = self.after(until - self.now, lambda: None if waiting.done else waiting.set(None))
        await waiting
        self._change = None
        if timer is not None:
            self.cancel(timer)
