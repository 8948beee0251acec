"""What KVM does with each exit (handle_exit): in the kernel, or by the VMM.

Every handler charges the exit's software time to the PE. MMIO of the virtual GIC is emulated in the kernel; every other abort
is the VMM's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from nodes.arch.trap import REASON_ABORT, REASON_CRASH, REASON_HVC, REASON_IRQ, REASON_SYSREG, REASON_WFX
from nodes.hypervisor.host.cpu import Exit
from nodes.hypervisor.kvm import psci, sgi
from nodes.hypervisor.kvm.irq import Hw

if TYPE_CHECKING:
    from nodes.hypervisor.kvm.vcpu import Vcpu

ESR_WNR = 1 << 6


class Outcome(NamedTuple):
    """After an exit: run on (the default), block in WFI, or let the VMM do something first; `leave` without any of these:
    stop, or give the PE away."""

    leave: bool = False
    block: bool = False
    vmm: Callable[[], Coroutine[Any, Any, None]] | None = None


CONTINUE = Outcome()
STOP = Outcome(leave=True)


class Access(NamedTuple):
    """A guest's access that exited: IPA, bytes, and the data of a write (None: a read)."""

    ipa: int
    size: int
    data: int | bytes | None

    @classmethod
    def of(cls, left: Exit) -> Access:
        """From the exit's syndrome."""
        write = bool(left.esr & ESR_WNR)
        if isinstance(left.data, bytes):
            return cls(left.ipa, len(left.data), left.data)
        if not write:
            return cls(left.ipa, int(left.data), None)
        return cls(left.ipa, 1 << (left.esr >> 22 & 3), int(left.data))


async def handle(vcpu: Vcpu, left: Exit) -> Outcome:
    """Carry out an exit."""
    handler = _HANDLERS.get(left.reason)
    if handler is None:
        return await _unknown(vcpu, left)
    return await handler(vcpu, left)


async def _irq(vcpu: Vcpu, left: Exit) -> Outcome:
    vcpu.vm.node.count["exits_irq"] += 1
    await vcpu.cpu.handle_irqs()
    vcpu.vm.flush_kicks(vcpu.cpu)
    await vcpu.cpu.charge(vcpu.vm.t_exit_kernel)
    return CONTINUE


async def _sysreg(vcpu: Vcpu, left: Exit) -> Outcome:
    vm = vcpu.vm
    register = sgi.register_of(left.esr)
    if sgi.is_deactivate(left.esr):
        vm.node.count["exits_dir_trap"] += 1
        vm.vgic.deactivate(vcpu.vgic, left.data & 0xFF_FFFF)
        vm.flush_kicks(vcpu.cpu)
    elif register is None:
        vm.node.count["unmodelled_sysregs"] += 1
        vm.node.log("trapped system register has no handler: RAZ/WI", vcpu=vcpu.name, esr=f"{left.esr:#x}")
        vcpu.resume = 0
    else:
        vm.node.count["exits_sgi_trap"] += 1
        await vm.before_sgi()
        request = sgi.decode(register, left.data, [cpu.mpidr for cpu in vm.vgic.cpus], vcpu.index)
        await send_sgi(vcpu, request, left.time)
    await vcpu.cpu.charge(vm.t_exit_kernel)
    return CONTINUE


async def send_sgi(vcpu: Vcpu, request: sgi.SgiRequest, time: int) -> None:
    """Make the SGI pending at each target: by GITS_SGIR where it is a vSGI, else in its list, with a kick.

    A request for Group 1 reaches SGIs of either group, one for Group 0 only those (vgic_v3_dispatch_sgi).
    """
    vm = vcpu.vm
    direct = False
    for number in request.targets:
        target = vm.vcpus[number]
        irq = target.vgic.private[request.intid]
        if irq.group and not request.group1:
            continue
        vm.node.mark("cause", "vsgi", target.name, request.intid, time)
        if irq.hw is Hw.SGI and vm.v4 is not None:
            vm.v4.driver.send_vsgi(target.vgic.vpe, request.intid)
            direct = True
        else:
            vm.vgic.set_pending(irq)
    vm.flush_kicks(vcpu.cpu)
    if direct:
        await vm.node.bus.dsb()


async def _hvc(vcpu: Vcpu, left: Exit) -> Outcome:
    vm = vcpu.vm
    affinities = [cpu.mpidr for cpu in vm.vgic.cpus]
    x0, x1, x2, x3 = left.data
    verdict = psci.call((x0, x1, x2, x3), affinities, [v.powered for v in vm.vcpus])
    vcpu.resume = (verdict.x0, 0, 0, 0)
    if verdict.action == "unknown":
        vm.node.count["unmodelled_hvcs"] += 1
        vm.node.log("HVC of unknown function: NOT_SUPPORTED", vcpu=vcpu.name, x0=f"{x0:#x}")
    await vcpu.cpu.charge(vm.t_exit_kernel)
    if verdict.action == "on":
        vm.vcpus[verdict.target].power_on(verdict.entry, verdict.context, by=vcpu.cpu)
    elif verdict.action == "off":
        vcpu.powered = False
        return STOP
    elif verdict.action in ("system_off", "reset"):
        vm.stop(vcpu.cpu, verdict.action)
        return STOP
    return CONTINUE


async def _wfx(vcpu: Vcpu, left: Exit) -> Outcome:
    vcpu.vm.node.count["exits_wfx"] += 1
    await vcpu.cpu.charge(vcpu.vm.t_exit_kernel)
    return Outcome(leave=True, block=True)


async def _abort(vcpu: Vcpu, left: Exit) -> Outcome:
    vm = vcpu.vm
    access = Access.of(left)
    if not vm.frames.covers(access.ipa):
        vm.node.count["exits_vmm"] += 1
        return Outcome(leave=True, vmm=lambda: _by_vmm(vcpu, access))
    if access.data is None:
        vcpu.resume = await vm.frames.read(vcpu.vgic, access.ipa, access.size)
    elif isinstance(access.data, int):
        await vm.frames.write(vcpu.vgic, access.ipa, access.size, access.data)
    else:
        vm.node.count["block_accesses_refused"] += 1
        vm.node.log("virtual GIC registers take 1, 2, 4 or 8 bytes", ipa=f"{access.ipa:#x}", size=access.size)
    vm.flush_kicks(vcpu.cpu)
    await vcpu.cpu.charge(vm.t_exit_kernel)
    return CONTINUE


async def _by_vmm(vcpu: Vcpu, access: Access) -> None:
    vm = vcpu.vm
    await vcpu.cpu.charge(vm.t_exit_vmm)
    value = await vm.mmio(vcpu, access)
    vm.flush_kicks(vcpu.cpu)
    if access.data is None:
        vcpu.resume = value


async def _crash(vcpu: Vcpu, left: Exit) -> Outcome:
    vcpu.powered = False
    vcpu.vm.crashed(vcpu, str(left.data))
    return STOP


async def _unknown(vcpu: Vcpu, left: Exit) -> Outcome:
    vcpu.vm.node.count["unmodelled_exits"] += 1
    vcpu.vm.node.log("exit without a handler", vcpu=vcpu.name, reason=left.reason, esr=f"{left.esr:#x}")
    return CONTINUE


_HANDLERS: dict[str, Callable[[Vcpu, Exit], Coroutine[Any, Any, Outcome]]] = {
    REASON_IRQ: _irq,
    REASON_SYSREG: _sysreg,
    REASON_HVC: _hvc,
    REASON_WFX: _wfx,
    REASON_ABORT: _abort,
    REASON_CRASH: _crash,
}
