"""GICv4 for one VM: vPEs, vSGIs in hardware, forwarded vLPIs (Linux vgic-v4.c; sheet 7.2 to 7.6).

Residency is the vCPU's own affair (`vcpu.py`); here is what the virtual GIC and the irq bypass ask for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from cosim.api import Lock
from nodes.hypervisor.kvm.irq import Hw, VgicIrq
from nodes.hypervisor.kvm.vgic import VgicCpu

if TYPE_CHECKING:
    from nodes.hypervisor.host.gicv4 import Gicv4
    from nodes.hypervisor.host.its import ItsDevice
    from nodes.hypervisor.kvm.vm import Vm


class Forward(NamedTuple):
    """The host's event behind a forwarded vLPI."""

    device: ItsDevice
    event: int


def sgi_config(cpu: VgicCpu) -> list[tuple[bool, int, int]]:
    """(enabled, group, priority) of a vCPU's 16 SGIs."""
    return [(irq.enabled, irq.group, irq.priority) for irq in cpu.private[:16]]


class VmV4:
    """A VM's side of the GICv4 driver; made with a vPE for each vCPU by `create`."""

    def __init__(self, vm: Vm, driver: Gicv4) -> None:
        self.vm = vm
        self.driver = driver
        self.vpes: list[Any] = []
        self._lock = Lock(f"GICv4 state of {vm.name}")

    @property
    def sgis(self) -> bool:
        """GICv4.1: vSGIs can be direct."""
        return self.driver.version == "4.1"

    async def create(self) -> None:
        """Allocate and map a vPE for each vCPU, at home where the vCPU runs (vgic_v4_init)."""
        self.vpes = await self.driver.alloc_vpes(len(self.vm.vcpus), [v.cpu.index for v in self.vm.vcpus])
        for vcpu, vpe in zip(self.vm.vcpus, self.vpes, strict=True):
            vcpu.vgic.vpe = vpe
            vpe.on_doorbell = vcpu.doorbell

    async def destroy(self) -> None:
        """vSGIs off, vPEs unmapped and freed (vgic_v4_teardown)."""
        if self.vm.vgic.nassgireq:
            await self.driver.clear_vsgis(self.vpes)
        await self.driver.free_vpes(self.vpes)
        for vcpu in self.vm.vcpus:
            vcpu.vgic.vpe = None

    def reload(self) -> None:
        """VPENDBASER.VGrp1En must follow the virtual GICD_CTLR: every vCPU that is on is put and loaded once."""
        for vcpu in self.vm.vcpus:
            if vcpu.powered:
                vcpu.request_reload()
                self.vm.vgic.kick(vcpu.vgic)

    # -- vSGIs -----------------------------------------------------------------------------------------------------

    async def switch_sgis(self, on: bool) -> None:
        """GICD_CTLR.nASSGIreq changed (vgic_v4_configure_vsgis): all vCPUs stand still meanwhile."""
        async with self._lock:
            await self.vm.halt()
            try:
                await (self._sgis_to_hardware() if on else self._sgis_to_software())
            finally:
                self.vm.resume()

    async def _sgis_to_hardware(self) -> None:
        """Configure all vSGIs, then make those pending that were. Linux also clears the others (C = 1); here a new vPE's table
        is zero and switching off has cleared them, so that nothing can be left."""
        cpus = self.vm.vgic.cpus
        await self.driver.config_vsgis_of([(cpu.vpe, sgi_config(cpu)) for cpu in cpus])
        for cpu in cpus:
            for irq in cpu.private[:16]:
                irq.hw = Hw.SGI
                if irq.pending_latch:
                    irq.pending_latch = False
                    self.driver.send_vsgi(cpu.vpe, irq.intid)
        await self.vm.node.bus.dsb()

    async def _sgis_to_software(self) -> None:
        cpus = self.vm.vgic.cpus
        pending = [await self.driver.vsgi_pending(cpu.vpe) for cpu in cpus]
        await self.driver.clear_vsgis([cpu.vpe for cpu in cpus])
        for cpu, mask in zip(cpus, pending, strict=True):
            for irq in cpu.private[:16]:
                irq.hw = Hw.NONE
                if mask >> irq.intid & 1:
                    self.vm.vgic.set_pending(irq)

    async def configure_sgis(self, cpu: VgicCpu) -> None:
        """A guest's register write changed its SGIs: one run of 16 VSGI commands."""
        await self.driver.config_vsgis(cpu.vpe, sgi_config(cpu))

    async def sgis_pending(self, cpu: VgicCpu) -> int:
        """Pending mask, asked of the GIC."""
        return await self.driver.vsgi_pending(cpu.vpe)

    async def pend_sgi(self, cpu: VgicCpu, sgi: int) -> None:
        """GITS_SGIR."""
        self.driver.send_vsgi(cpu.vpe, sgi)
        await self.vm.node.bus.dsb()

    async def clear_sgi(self, cpu: VgicCpu, sgi: int) -> None:
        """VSGI with C = 1."""
        await self.driver.clear_vsgi(cpu.vpe, sgi)

    # -- vLPIs -----------------------------------------------------------------------------------------------------

    async def forward(self, pairs: Iterable[tuple[VgicIrq, Forward]]) -> None:
        """Turn host events into vLPIs (kvm_vgic_v4_set_forwarding); what was pending in software goes to hardware by INT."""
        async with self._lock:
            new = [(irq, where) for irq, where in pairs if irq.hw is Hw.NONE and irq.target is not None]
            by_device: dict[int, list[tuple[VgicIrq, Forward]]] = {}
            for irq, where in new:
                by_device.setdefault(where.device.device_id, []).append((irq, where))
            for group in by_device.values():
                await self.driver.map_vlpis(
                    group[0][1].device,
                    [(w.event, self._target(irq).vpe, irq.intid, irq.priority, irq.enabled) for irq, w in group],
                )
            for irq, where in new:
                irq.hw, irq.forwarded = Hw.VLPI, where
                if irq.pending_latch:
                    irq.pending_latch = False
                    await where.device.trigger(where.event)

    @staticmethod
    def _target(irq: VgicIrq) -> VgicCpu:
        assert irq.target is not None
        return irq.target

    async def unforward(self, irq: VgicIrq) -> None:
        """Back to the host's LPI and to software injection; what was pending comes along."""
        async with self._lock:
            if irq.hw is not Hw.VLPI:
                return
            where: Forward = irq.forwarded
            pending = await self.driver.unmap_vlpi(where.device, where.event)
            irq.hw, irq.forwarded = Hw.NONE, None
            if pending:
                self.vm.vgic.set_pending(irq)

    async def update(self, irq: VgicIrq) -> None:
        """Property byte and invalidation."""
        where: Forward = irq.forwarded
        await self.driver.set_property(where.device, where.event, irq.priority, irq.enabled)

    async def move(self, irq: VgicIrq) -> None:
        """VMOVI."""
        where: Forward = irq.forwarded
        if irq.target is None:
            await self.unforward(irq)
            return
        await self.driver.move_vlpi(where.device, where.event, irq.target.vpe)
        self.vm.mark_route(where.device.device_id, where.event, irq)

    async def pend(self, irq: VgicIrq) -> None:
        """INT of the physical event."""
        await irq.forwarded.device.trigger(irq.forwarded.event)

    async def clear(self, irq: VgicIrq) -> None:
        """CLEAR of the physical event."""
        await irq.forwarded.device.clear(irq.forwarded.event)
