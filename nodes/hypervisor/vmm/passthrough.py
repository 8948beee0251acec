"""A function passed through to a guest: virtual configuration space, BARs, MSI-X emulation, and its interrupts (kvmtool's
vfio/pci.c, behaviour; sheet 7.2, 11).

BARs without MSI-X structures are mapped into the guest; those with the table or the pending bits exit to here. A vector whose
entry is live is an irqfd (and, if it resolves, a forwarded vLPI); one that is masked goes to the pending bits. kvmtool registers
all 2048 vectors with VFIO; here as many as the guest has programmed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from nodes.hypervisor.kvm.irqfd import Irqfds, MsiRoute
from nodes.hypervisor.vmm.msix import MsixTable
from nodes.hypervisor.vmm.pci_config import VirtualConfig

if TYPE_CHECKING:
    from nodes.hypervisor.host.vfio import VfioDevice
    from nodes.hypervisor.kvm.vm import Range, Vm


def assign_bars(bars: dict[int, tuple[int, int]], window: int) -> dict[int, int]:
    """Guest-physical addresses of BARs {index: (physical address, size)} from `window` upwards, each aligned to its size."""
    addresses = {}
    for index in sorted(bars):
        size = bars[index][1]
        addresses[index] = -(-window // size) * size
        window = addresses[index] + size
    return addresses


class PassThrough:
    """The function as device `slot` on the guest's bus 0; `window` is where its BARs are placed."""

    def __init__(self, vm: Vm, device: VfioDevice, slot: int, window: int) -> None:
        self.vm = vm
        self.device = device
        self.slot = slot
        self.rid = slot << 3
        sizes = {index: size for index, (_, size) in device.bars.items()}
        self.config = VirtualConfig(device.config, sizes, assign_bars(device.bars, window))
        self.msix = MsixTable(device.function.msix_vectors)
        self.irqfds = Irqfds(vm, device)
        self._table = device.function.msix_location()
        self._pba = device.function.msix_location(pba=True)
        self._wired: dict[int, MsiRoute] = {}
        self.after_enable: Callable[[], Awaitable[None]] | None = None

    # -- accesses --------------------------------------------------------------------------------------------------

    def windows(self) -> tuple[Range, ...]:
        """BARs that the guest reaches without an exit: (ipa, size, pa)."""
        if not self.config.memory_enabled:
            return ()
        trapped = (self._table[0], self._pba[0])
        bars = self.device.bars
        return tuple((self.config.bar(n), bars[n][1], bars[n][0]) for n in sorted(bars) if n not in trapped)

    def read_config(self, offset: int, size: int) -> int:
        """A guest's configuration read."""
        return self.config.read(offset, size)

    async def write_config(self, offset: int, size: int, value: int) -> None:
        """A guest's configuration write; MSI-X Message Control takes effect."""
        self.config.write(offset, size, value)
        self.vm.windows = self.windows()
        self.msix.control(self.config.msix_control)
        await self._update()

    def read_bar(self, bar: int, offset: int, size: int) -> int:
        """A guest's read of a BAR that exits."""
        if self._in(self._table, self.msix.size, bar, offset):
            return self.msix.read(offset - self._table[1], size)
        if self._in(self._pba, self.msix.pba_size, bar, offset):
            return self.msix.read_pba(offset - self._pba[1], size)
        return 0

    async def write_bar(self, bar: int, offset: int, size: int, value: int) -> None:
        """A guest's write of a BAR that exits: only the MSI-X table is writable."""
        if self._in(self._table, self.msix.size, bar, offset):
            if self.msix.write(offset - self._table[1], size, value):
                await self._update()
        else:
            self.vm.node.count["vmm_writes_ignored"] += 1

    @staticmethod
    def _in(where: tuple[int, int], length: int, bar: int, offset: int) -> bool:
        return bar == where[0] and where[1] <= offset < where[1] + length

    # -- interrupts ------------------------------------------------------------------------------------------------

    def _wanted(self) -> dict[int, MsiRoute]:
        """The vectors that are live, with the route that the guest programmed."""
        wanted = {}
        for vector in self.msix.programmed():
            if self.msix.live(vector):
                address, data = self.msix.message(vector)
                wanted[vector] = MsiRoute(address, data, self.rid)
        return wanted

    async def _update(self) -> None:
        """Bring irqfds, VFIO and the bypass in line with the table."""
        if not self.msix.enabled:
            await self._disable()
            return
        wanted = self._wanted()
        if wanted == self._wired:
            return
        gone = [vector for vector, route in self._wired.items() if wanted.get(vector) != route]
        new = {vector: route for vector, route in wanted.items() if self._wired.get(vector) != route}
        await self.irqfds.deassign(gone)
        if max(wanted, default=-1) >= self.device.vectors:
            await self._grow(max(self.msix.programmed()) + 1)
            new = wanted
        self._wired = wanted
        for vector in range(self.device.vectors):
            self.device.eventfd.setdefault(vector, self._masked)
        await self.irqfds.assign(new)
        for vector in self.msix.take_pending(new):
            await self.irqfds.deliver(vector)
        if self.after_enable is not None and self._wired:
            hook, self.after_enable = self.after_enable, None
            await hook()

    async def _grow(self, vectors: int) -> None:
        """VFIO_DEVICE_SET_IRQS with more vectors: MSI-X off and on again."""
        if self.device.vectors:
            await self.irqfds.deassign(list(self.irqfds.routes))
            await self.device.disable_msix()
        await self.device.enable_msix(vectors)

    def _masked(self, vector: int) -> None:
        """The host took the LPI of a vector that the guest has masked."""
        self.msix.pend(vector)

    async def _disable(self) -> None:
        self._wired = {}
        if self.device.vectors:
            await self.irqfds.deassign(list(self.irqfds.routes))
            await self.device.disable_msix()

    async def close(self) -> None:
        """The VM is gone: interrupts off, device back to VFIO."""
        await self._disable()
        await self.device.close()
