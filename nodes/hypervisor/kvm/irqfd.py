"""irqfd and irq bypass: a device's vector becomes an interrupt of the guest (KVM_SET_GSI_ROUTING, KVM_IRQFD; sheet 7.1, 7.2).

A vector's route is what the guest wrote into its MSI-X entry: doorbell address, data (the guest's EventID) and the DeviceID that
the VMM knows the device by. If (DeviceID, EventID) resolves in the vITS at that moment, and GICv4 is in use, the host's event is
forwarded as a vLPI; else the host's LPI handler injects it in software, each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from nodes.hypervisor.kvm.irq import VgicIrq
from nodes.hypervisor.kvm.vgic_v4 import Forward
from nodes.hypervisor.kvm.vits import MsiError

if TYPE_CHECKING:
    from nodes.hypervisor.host.vfio import VfioDevice
    from nodes.hypervisor.kvm.vm import Vm


class MsiRoute(NamedTuple):
    """A routing entry with KVM_MSI_VALID_DEVID."""

    address: int
    data: int
    device_id: int


class Irqfds:
    """The irqfds of one passed-through device."""

    def __init__(self, vm: Vm, device: VfioDevice) -> None:
        self.vm = vm
        self.device = device
        self.routes: dict[int, MsiRoute] = {}

    def _resolve(self, route: MsiRoute) -> VgicIrq:
        if route.address != self.vm.vits.translater:
            raise MsiError(
                f"address {route.address:#x} must be the vITS's GITS_TRANSLATER {self.vm.vits.translater:#x}"
            )
        return self.vm.vits.resolve(route.device_id, route.data)

    async def assign(self, routes: Mapping[int, MsiRoute]) -> None:
        """Wire vectors to interrupts: set their routes, then let the bypass forward those that resolve, in one run."""
        pairs = []
        for vector, route in routes.items():
            self.routes[vector] = route
            self.device.eventfd[vector] = self.signal
            try:
                irq = self._resolve(route)
            except MsiError as error:
                self.vm.node.count["unresolved_routes"] += 1
                self.vm.node.log("MSI route does not resolve: software injection", vector=vector, why=str(error))
                continue
            pairs.append((irq, Forward(self.device.its_device, vector)))
            self.vm.mark_route(self.device.device_id, vector, irq)
        if self.vm.v4 is not None and pairs:
            await self.vm.v4.forward(pairs)

    async def deassign(self, vectors: list[int]) -> None:
        """Take vectors off: forwarded vLPIs come back to the host's LPI."""
        for vector in vectors:
            self.routes.pop(vector, None)
            self.device.eventfd.pop(vector, None)
            irq = self.forwarded(vector)
            if irq is not None and self.vm.v4 is not None:
                await self.vm.v4.unforward(irq)

    def forwarded(self, vector: int) -> VgicIrq | None:
        """The vLPI that a vector is forwarded to."""
        device_id = self.device.device_id
        for irq in self.vm.vgic.lpis.values():
            where = irq.forwarded
            if where is not None and (where.device.device_id, where.event) == (device_id, vector):
                return irq
        return None

    def signal(self, vector: int) -> None:
        """The eventfd of a vector was written: the host's LPI was taken. Inject in software, kick the target."""
        vm = self.vm
        route = self.routes[vector]
        try:
            irq = self._resolve(route)
        except MsiError as error:
            vm.node.count["msis_dropped"] += 1
            vm.node.log("MSI dropped by KVM", vector=vector, why=str(error))
            return
        vm.node.count["msis_injected"] += 1
        if irq.direct:
            # Taken by the host just before the event was forwarded.
            vm.node.spawn(self.deliver(vector), "irqfd")
            return
        vm.vgic.set_pending(irq)
        vm.flush_kicks(self.device.its_device.routes[vector].cpu)

    async def deliver(self, vector: int) -> None:
        """Deliver a vector that was held back, as if the device had sent it now."""
        irq = self.forwarded(vector)
        if irq is not None and self.vm.v4 is not None:
            await self.vm.v4.pend(irq)
        else:
            self.signal(vector)
