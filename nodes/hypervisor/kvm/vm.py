"""One VM: its vCPUs, virtual GIC and vITS, and what concerns all of them at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cosim.api import ModelError, Signal
from nodes.arch.cpu import BOOT_ENTRY, vcpu_mpidr
from nodes.hypervisor.host.access import together
from nodes.hypervisor.host.cpu import SGI_RESCHEDULE, sgi1r
from nodes.hypervisor.kvm.exits import Access
from nodes.hypervisor.kvm.guest_memory import GuestMemory
from nodes.hypervisor.kvm.irq import VgicIrq
from nodes.hypervisor.kvm.vcpu import Mode, Vcpu
from nodes.hypervisor.kvm.vgic import Vgic
from nodes.hypervisor.kvm.vgic_mmio import GicFrames
from nodes.hypervisor.kvm.vgic_v4 import VmV4
from nodes.hypervisor.kvm.vits import VirtualIts

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.kvm.kvm import Kvm

Range = tuple[int, int, int]
MAX_VCPUS = 512
"""KVM_MAX_VCPUS of arm64 with a GICv3."""


class Standstill:
    """``async with Standstill(vm)``: every vCPU is out of the guest, its list registers folded."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm

    async def __aenter__(self) -> None:
        await self.vm.halt()

    async def __aexit__(self, *_exc: object) -> None:
        self.vm.resume()


class Vm:
    """A virtual machine.

    Args:
        kvm: the host's.
        name: unique over the guests of a run ("guest0").
        vcpus: how many; vCPU n begins on PE n plus the VMs that exist, modulo their number.
        program, args, params: what the guest runs (nodes/software), its command line and parameters.
        ram: (ipa, size, pa).
        gic: IPAs of (GICD, GICR of vCPU 0, GITS).
        times: (t_exit_kernel, t_exit_vmm, t_wakeup) in ps.
        frequency: of CNTVCT in Hz.

    Raises:
        ModelError: more vCPUs than KVM_MAX_VCPUS, or none.
    """

    def __init__(
        self, kvm: Kvm, name: str, *, vcpus: int, program: str, args: str, params: Mapping[str, Any], ram: Range,
        gic: tuple[int, int, int], times: tuple[int, int, int], frequency: int,
    ) -> None:  # fmt: skip
        host = kvm.host
        if not 1 <= vcpus <= MAX_VCPUS:
            raise ModelError(f"vcpus must be in 1..{MAX_VCPUS}, not {vcpus}")
        self.kvm = kvm
        self.node = host.node
        self.name = name
        self.program, self.args, self.params = program, args, dict(params)
        self.ram = ram
        self.t_exit_kernel, self.t_exit_vmm, self.t_wakeup = times
        self.memory = GuestMemory(host.bus, *ram)
        self.v4 = VmV4(self, kvm.v4) if kvm.v4 is not None else None
        self.vgic = Vgic(
            [vcpu_mpidr(n) for n in range(vcpus)],
            list_registers=kvm.list_registers,
            ap_words=kvm.ap_words,
            count=self.node.count,
            direct_sgis=self.v4 is not None and self.v4.sgis,
        )
        gicd, gicr, gits = gic
        self.vits = VirtualIts(gits, self.vgic, self.memory, self.v4, self.node.count, self.node.log)
        self.frames = GicFrames(self.vgic, self.vits, gicd, gicr, self.v4, self.node.count, self.node.log)
        first, kvm.vms = kvm.vms, kvm.vms + 1
        self.vcpus = [
            Vcpu(self, n, host.cpus[(first + n) % len(host.cpus)], self.vgic.cpus[n], frequency) for n in range(vcpus)
        ]
        self.frames.standstill = lambda: Standstill(self)
        self.stopping = False
        self.stop_reason = ""
        self._halts = 0
        self.resumed = Signal(f"{name} to be resumed")
        self.exited = Signal(f"an exit of {name}")
        self.windows: tuple[Range, ...] = ()
        self._sgi_hooks: list[Callable[[], Awaitable[None]]] = []
        self._mmio: Callable[[Vcpu, Access], Awaitable[int]] | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    async def create(self) -> None:
        """What KVM does when the VMM has set the VM up (vgic_init)."""
        if self.v4 is not None:
            await self.v4.create()

    async def run(self, x0: int) -> str:
        """Start the boot CPU with x0 (the device tree's address) and run until the VM stops; returns why."""
        self.vcpus[0].power_on(BOOT_ENTRY, x0)
        await together(self.node, [vcpu.thread() for vcpu in self.vcpus], f"{self.name}.vcpu")
        return self.stop_reason

    async def destroy(self) -> None:
        """Give back what the VM holds; its vCPUs have stopped."""
        if self.v4 is not None:
            await self.v4.destroy()
        for vcpu in self.vcpus:
            vcpu.drop_context()
        self.kvm.vms -= 1

    def stop(self, cpu: HostCpu, reason: str) -> None:
        """Every vCPU leaves its guest and its thread ends, also those that sleep in an untrapped WFI."""
        if not self.stopping:
            self.stopping, self.stop_reason = True, reason
            self.kick(cpu, self.vcpus)

    def crashed(self, vcpu: Vcpu, text: str) -> None:
        """A guest program raised: the VM cannot go on."""
        self.node.count["guest_crashes"] += 1
        self.node.log("guest crashed", vcpu=vcpu.name, traceback=text)
        first = text.strip().splitlines()[0] if text.strip() else "no reason given"
        self.stop(vcpu.cpu, f"crash: {vcpu.name}: {first}")

    # -- kicks -----------------------------------------------------------------------------------------------------

    def kick(self, cpu: HostCpu, vcpus: Iterable[Vcpu]) -> None:
        """Make vCPUs look at their requests: an IPI from `cpu` to those in the guest, a wake-up to those that sleep."""
        for vcpu in vcpus:
            vcpu.wake(cpu)
            if vcpu.mode is Mode.IN_GUEST:
                vcpu.mode = Mode.EXITING
                self.node.count["kicks"] += 1
                # Posted: it takes effect before anything this PE does next.
                cpu.post_sysreg("ICC_SGI1R_EL1", sgi1r(vcpu.cpu.affinity, SGI_RESCHEDULE))

    def flush_kicks(self, cpu: HostCpu) -> None:
        """Carry out the kicks that the virtual GIC asked for, from the PE that runs this."""
        if self.vgic.kicks:
            kicks, self.vgic.kicks = self.vgic.kicks, []
            self.kick(cpu, [self.vcpus[target.index] for target in kicks])

    async def halt(self) -> None:
        """Get every vCPU out of the guest and keep it out until `resume` (kvm_arm_halt_guest); the caller's is out."""
        self._halts += 1
        inside = [vcpu for vcpu in self.vcpus if vcpu.mode is not Mode.OUTSIDE]
        if inside:
            sender = next(v.cpu for v in self.vcpus if v.cpu.held and not v.cpu.in_guest)
            self.kick(sender, inside)
        while any(vcpu.mode is not Mode.OUTSIDE for vcpu in self.vcpus):
            await self.exited.wait()

    def resume(self) -> None:
        """Let halted vCPUs go on, once everybody who halted them has called this."""
        self._halts -= 1
        self.resumed.notify()

    @property
    def halted(self) -> bool:
        """Whether no vCPU may enter the guest now."""
        return self._halts > 0

    # -- memory and devices ----------------------------------------------------------------------------------------

    def stage2(self) -> tuple[Range, ...]:
        """What a guest's accesses reach directly: RAM and mapped device windows."""
        return (self.ram, *self.windows)

    def on_mmio(self, handler: Callable[[Vcpu, Access], Awaitable[int]]) -> None:
        """The VMM's handler of accesses that the kernel does not answer; it returns a read's value."""
        self._mmio = handler

    async def mmio(self, vcpu: Vcpu, access: Access) -> int:
        """Hand an access to the VMM."""
        if self._mmio is None:
            raise ModelError(f"{self.name} must have a VMM before a guest's access to {access.ipa:#x} exits")
        return await self._mmio(vcpu, access)

    def on_sgi(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Call `hook` once before the next trapped SGI is sent (planted faults)."""
        self._sgi_hooks.append(hook)

    async def before_sgi(self) -> None:
        """Run the hooks of `on_sgi`."""
        while self._sgi_hooks:
            await self._sgi_hooks.pop(0)()

    def mark_route(self, device_id: int, event: int, irq: VgicIrq) -> None:
        """Tell who measures that a device's event is this interrupt of this vCPU from now on."""
        if irq.target is not None:
            self.node.mark("msi_route", device_id, event, self.vcpus[irq.target.index].name, irq.intid)
