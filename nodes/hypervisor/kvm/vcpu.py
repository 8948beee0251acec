"""A vCPU: its thread, KVM_RUN, world switch and exits, WFI, kicks and requests (sheet 7.3, 7.5).

The thread runs on one PE. It holds the PE from vcpu_load to vcpu_put; a blocked vCPU gives it away, and so does one whose
time slice is over or that is moved to another PE (its architectural state goes from PE to PE, its vPE by VMOVP at the next
load). In-kernel exits keep the vPE resident; an exit to the VMM, a block, a preemption and RELOAD put it. TWI and TWE are
decided at each load and, unlike Linux, at RELOAD (sheet 7.3, MODEL): otherwise vCPUs loaded before the guest set nASSGIreq
would go on trapping WFI.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from cosim.api import Signal, us
from nodes.arch.intid import PPI_VIRTUAL_TIMER
from nodes.arch.trap import HCR_FMO, HCR_IMO, HCR_TWE, HCR_TWI, HCR_VM
from nodes.hypervisor.host.cpu import Exit
from nodes.hypervisor.kvm import exits
from nodes.hypervisor.kvm.irq import Hw, VgicIrq
from nodes.hypervisor.kvm.timer import CTL_ENABLE, CTL_IMASK, VTimer

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.kvm.vgic import VgicCpu
    from nodes.hypervisor.kvm.vm import Vm

HCR_GUEST: Final = HCR_VM | HCR_FMO | HCR_IMO
HCR_TRAP_WFX: Final = HCR_TWI | HCR_TWE
MIN_STAY: Final = us(1)
"""A vCPU that is due to move by the time it has got a PE runs there at least as long (ps)."""


class Mode(Enum):
    """Where the vCPU is, for who wants to kick it."""

    OUTSIDE = 0
    IN_GUEST = 1
    EXITING = 2


class Vcpu:
    """vCPU `index` of a VM on PE `cpu`; `name` is unique over the guests of a run."""

    def __init__(self, vm: Vm, index: int, cpu: HostCpu, vgic: VgicCpu, frequency: int) -> None:
        self.vm = vm
        self.index = index
        self.name = f"{vm.name}.vcpu{index}"
        self.cpu = cpu
        self.vgic = vgic
        self.timer = VTimer(frequency)
        self.mode = Mode.OUTSIDE
        self.powered = False
        self.hcr = HCR_GUEST | HCR_TRAP_WFX
        self.resume: Any = None
        self.asleep = True
        self.migrate_at: int | None = None
        self._reload = False
        self._has_context = False
        self._woken_up = False
        self._entered = False
        self._turn_end: int | None = None
        self._changed = Signal(f"{self.name}: power-on or an interrupt")
        irq = vgic.private[PPI_VIRTUAL_TIMER]
        irq.hw, irq.pintid = Hw.MAPPED, PPI_VIRTUAL_TIMER
        self.timer_irq = irq

    def __repr__(self) -> str:
        return self.name

    # -- power, requests, kicks ------------------------------------------------------------------------------------

    def power_on(self, entry: int, context: int, *, by: HostCpu | None = None) -> None:
        """Reset the vCPU and let it run from `entry` with x0 = `context` (PSCI CPU_ON by a vCPU on `by`, or the boot CPU)."""
        self.drop_context()
        vm = self.vm
        params = {**vm.params, "entry": entry, "x0": context}
        self.cpu.load_context(self.name, vm.program, vm.args, params, self.vgic.mpidr)
        self._has_context = True
        self.vgic.reset()
        self.timer.ctl = self.timer.cval = 0
        self.resume = None
        self.powered = True
        self.wake(by)

    def drop_context(self) -> None:
        """Take its architectural state off the PE."""
        if self._has_context:
            self.cpu.drop_context(self.name)
            self._has_context = False

    def request_reload(self) -> None:
        """KVM_REQ_RELOAD_GICv4."""
        self._reload = True

    def wake(self, by: HostCpu | None = None) -> None:
        """Make a blocked or powered-off vCPU look again; whoever runs on its PE meanwhile must let it. `by`: PE of the waker."""
        self._changed.notify()
        if by is not None and self.asleep:
            self.cpu.request_resched(by)

    def doorbell(self, cpu: HostCpu) -> None:
        """The host took this vPE's doorbell on `cpu`: `vpe.pending_last` is set."""
        self.wake(cpu)

    def timer_fired(self) -> None:
        """Physical PPI 27 was taken at EL2 while this vCPU is loaded."""
        self.vm.vgic.set_line(self.timer_irq, True)

    # -- the thread ------------------------------------------------------------------------------------------------

    async def thread(self) -> None:
        """Run until the VM stops."""
        while not self.vm.stopping:
            if not self.powered:
                await self._changed.wait()
                continue
            woken, self.asleep = self.asleep, False
            await self.cpu.acquire(woken=woken)
            blocked = await self._run()
            while self._must_move and self.powered and not blocked and not self.vm.stopping:
                await self._migrate()
                blocked = await self._run()
            # No await between the last look at what is pending and `asleep`: a kick in between would be lost.
            self.asleep = blocked or not self.powered
            self.cpu.release()
            if blocked and self.powered and not self.vm.stopping:
                await self._block()

    async def _run(self) -> bool:
        """On the held PE: KVM_RUN and what the VMM does between two of them, until the vCPU blocks (True), stops, or must
        give the PE away."""
        node, kvm = self.vm.node, self.vm.kvm
        self._turn_end = None
        if self.migrate_at is None and kvm.t_migrate and len(kvm.host.cpus) > 1:
            self.migrate_at = node.now + kvm.t_migrate
        if self._woken_up:
            self._woken_up = False
            await self.cpu.charge(self.vm.t_wakeup)
        while self._stays:
            outcome: exits.Outcome = exits.Outcome()
            await self._load()
            while not outcome.leave and await self._prepare():
                outcome = await self._enter()
            await self._put(need_db=outcome.block)
            if outcome.vmm is not None:
                await outcome.vmm()
            elif outcome.leave:
                return outcome.block
        return False

    @property
    def _stays(self) -> bool:
        """Whether it may run on here: neither stopped nor preempted nor due to move."""
        return self.powered and not self.vm.stopping and not self._must_yield and not self._must_move

    @property
    def _must_yield(self) -> bool:
        over = self._turn_end is not None and self.vm.node.now >= self._turn_end
        return self.cpu.must_yield or (over and self.cpu.contended)

    @property
    def _must_move(self) -> bool:
        """Time to move; but it has been in the guest here, else a slow move would never let it run."""
        return self.migrate_at is not None and self.vm.node.now >= self.migrate_at and self._entered

    async def _migrate(self) -> None:
        """Load balancing, on the held PE: get the next PE, then have it take over the context; the vPE follows at the load.

        Whoever runs there must give way, as to a thread that was woken there.
        """
        cpus = self.vm.kvm.host.cpus
        source, target = self.cpu, cpus[(self.cpu.index + 1) % len(cpus)]
        target.request_resched(source)
        self.cpu = target
        source.release()
        await target.acquire()
        target.restore_context(await source.save_context(self.name))
        self.vm.node.count["vcpu_migrations"] += 1
        self.migrate_at, self._entered = None, False

    async def _load(self) -> None:
        vm = self.vm
        vm.kvm.loaded[self.cpu.index] = self
        self._decide_wfx()
        if self.timer.level(self.vm.node.now):
            self.vm.vgic.set_line(self.timer_irq, True)
        if self.vm.v4 is not None:
            self._reload = False
            await self.vm.v4.driver.make_resident(self.cpu, self.vgic.vpe, g0en=False, g1en=self.vm.vgic.enabled)

    async def _put(self, *, need_db: bool) -> None:
        self.cpu.slices.cancel()
        if self.timer.level(self.vm.node.now):
            await self.cpu.write_sysreg("CNTV_CTL_EL0", 0)
        if self.vm.v4 is not None:
            await self.vm.v4.driver.make_nonresident(self.cpu, self.vgic.vpe, need_db=need_db)
        self.vm.kvm.loaded.pop(self.cpu.index, None)

    def _decide_wfx(self) -> None:
        """A lone vCPU with direct interrupts sleeps on its PE: WFI does not trap (vcpu_clear_wfx_traps)."""
        policy = self.vm.kvm.wfi_trap_policy
        direct = self.vm.v4 is not None and (self.vgic.vpe.vlpi_count > 0 or self.vm.vgic.nassgireq)
        alone = not self.cpu.contended
        self.hcr = HCR_GUEST
        if policy == "trap" or not (alone and (direct or policy == "notrap")):
            self.hcr |= HCR_TWI
        if not alone:
            self.hcr |= HCR_TWE

    # -- in and out of the guest -----------------------------------------------------------------------------------

    async def _prepare(self) -> bool:
        """Everything that may not be outstanding at entry; False: the vCPU must not run, or not here. No await separates the
        last look from the entry."""
        vm = self.vm
        while self._stays:
            if vm.halted:
                await vm.resumed.wait()
            elif self._reload:
                await self._reload_vpe()
            elif self.cpu.irq_level:
                await self.cpu.handle_irqs()
                vm.flush_kicks(self.cpu)
            elif self.cpu.stirred:
                # Who was woken at this very instant has yet to queue for the PE.
                self.cpu.stirred = False
                await vm.node.sleep(0)
            elif vm.v4 is not None and not self.vgic.vpe.committed:
                await vm.v4.driver.commit(self.cpu)
            elif vm.kvm.timer_active.get(self.cpu.index, False) != self._timer_wanted:
                await vm.kvm.set_timer_active(self.cpu, self._timer_wanted)
            else:
                return True
        return False

    @property
    def _timer_wanted(self) -> bool:
        """Whether physical PPI 27 must be active: the virtual one is pending or active (kvm_timer_vcpu_load_gic)."""
        return self.timer_irq.active or self.timer_irq.pending

    async def _reload_vpe(self) -> None:
        self._reload = False
        if self.vm.v4 is not None:
            driver = self.vm.v4.driver
            await driver.make_nonresident(self.cpu, self.vgic.vpe, need_db=False)
            await driver.make_resident(self.cpu, self.vgic.vpe, g0en=False, g1en=self.vm.vgic.enabled)
        self._decide_wfx()

    async def _enter(self) -> exits.Outcome:
        vm = self.vm
        self._start_slice()
        image = vm.vgic.flush(self.vgic)
        resume, self.resume = self.resume, None
        self.mode = Mode.IN_GUEST
        timer = self.timer
        left = await self.cpu.enter(self.name, self.hcr, vm.stage2(), image, timer.ctl, timer.cval, resume)
        self.mode = Mode.OUTSIDE
        self._save(left)
        vm.exited.notify()
        vm.flush_kicks(self.cpu)
        return await exits.handle(self, left)

    def _start_slice(self) -> None:
        """At an entry: have the PE's timer end this stay in the guest, if somebody waits or it is due to move."""
        now = self.vm.node.now
        if self.cpu.contended and self._turn_end is None:
            self._turn_end = now + self.vm.kvm.t_slice
        due = None if self.migrate_at is None else max(self.migrate_at, now + MIN_STAY)
        self.cpu.slices.start(self._turn_end, due)
        self._entered = True

    def _save(self, left: Exit) -> None:
        """State after the exit: timer, list registers."""
        vm = self.vm
        vm.node.count["exits"] += 1
        self.timer.ctl = left.cntv_ctl & (CTL_ENABLE | CTL_IMASK)
        self.timer.cval = left.cntv_cval

        def line(_irq: VgicIrq) -> bool:
            return self.timer.level(left.time)

        if self.timer_irq in vm.vgic.fold(self.vgic, left.ich, line):
            vm.kvm.timer_active[self.cpu.index] = False
        if self.timer_irq.line_level and not self.timer.level(left.time):
            # The guest disarmed the timer before it took the interrupt.
            vm.vgic.set_line(self.timer_irq, False)

    # -- WFI -------------------------------------------------------------------------------------------------------

    @property
    def runnable(self) -> bool:
        """What ends a block: kvm_arch_vcpu_runnable; `pending_last` counts only while the virtual Distributor is on."""
        vm = self.vm
        if vm.stopping or not self.powered or vm.vgic.has_pending(self.vgic):
            return True
        return vm.v4 is not None and vm.vgic.enabled and self.vgic.vpe.pending_last

    async def _block(self) -> None:
        """Sleep until there is work. The vPE was put with a doorbell request. RELOAD makes it resident with the new VGrp1En
        and puts it again, lest the doorbell was suppressed while the Distributor was off (sheet 7.3, lost wake-up)."""
        node = self.vm.node
        node.count["blocks"] += 1
        deadline = self.timer.deadline()
        alarm = None
        if deadline is not None:
            alarm = node.after(max(deadline - node.now, 0), self._alarm)
            self.cpu.slices.alarms[self.name] = deadline
        slept = False
        while not self.runnable:
            slept = True
            if self._reload and self.vm.v4 is not None:
                async with self.cpu:
                    self._reload = False
                    driver = self.vm.v4.driver
                    await driver.make_resident(self.cpu, self.vgic.vpe, g0en=False, g1en=self.vm.vgic.enabled)
                    await driver.make_nonresident(self.cpu, self.vgic.vpe, need_db=True)
            else:
                await self._changed.wait()
        if alarm is not None:
            node.cancel(alarm)
            self.cpu.slices.alarms.pop(self.name, None)
        if slept and not self.vm.stopping:
            node.count["wakeups"] += 1
            self._woken_up = True

    def _alarm(self) -> None:
        """The background timer of a blocked vCPU."""
        if self.timer.level(self.vm.node.now):
            self.vm.vgic.set_line(self.timer_irq, True)
        self.wake()
