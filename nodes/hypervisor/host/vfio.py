"""VFIO: binding a function to vfio-pci, opening it for a guest (SMMU domain, BARs), and its MSI-X on the host's side.

The vectors' messages go to the software MSI window: IOVA 0x0800_0000 of the device's domain is the page of GITS_TRANSLATER,
so entry k holds address 0x0800_0040 and data k (sheet 11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cosim.api import ModelError
from nodes.hypervisor.host.its import ItsDevice, ItsDriver
from nodes.hypervisor.host.pci_function import (
    CMD_INTX_DISABLE,
    CMD_MASTER,
    CMD_MEMORY,
    CONFIG_SIZE,
    MSIX_ENABLE,
    MSIX_MASKALL,
    PciFunction,
)
from nodes.hypervisor.host.smmu import Domain

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.host.host import Host

MSI_IOVA_BASE = 0x0800_0000
MSIX_ENTRY = 16
VECTOR_MASKED = 1

VIABLE = ("", "vfio-pci", "pcieport")
"""Drivers that a function of a group in use may have."""

Signal = Callable[[int], None]


class GroupNotViable(Exception):
    """VFIO_GROUP_FLAGS_VIABLE is not set: a function of IOMMU group `group` is with a host driver."""

    def __init__(self, group: int) -> None:
        super().__init__(f"IOMMU group {group} is not viable")
        self.group = group


class Vfio:
    """The VFIO subsystem: functions bound to vfio-pci, and those that are open."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.open: dict[int, VfioDevice] = {}

    async def bind(self, name: str) -> None:
        """Bind a function to vfio-pci by driver_override, as Arm's page does, and look at it with lspci. A host driver that has
        it is unbound first: drivers_probe leaves a bound function alone.

        Raises:
            ModelError: there is no such function.
        """
        host = self.host
        host.print("# modprobe vfio-pci")
        host.printk("VFIO - User Level meta-driver version: 0.3")
        function = host.pci.function(name)
        if function.driver not in ("", "vfio-pci"):
            self._unbind(function)
        host.print(f"# echo vfio-pci > /sys/bus/pci/devices/{function.name}/driver_override")
        function.driver_override = "vfio-pci"
        self._probe(function)
        host.print(f"# lspci -vv -s {function.name} | grep vfio-pci")
        for line in host.pci.lspci(function.name):
            if "vfio-pci" in line:
                host.print(line)

    async def unbind(self, name: str) -> None:
        """Give a function back: off vfio-pci, no override, and the host's own driver, if it has one, probes it.

        Raises:
            ModelError: it is open, or not bound to vfio-pci.
        """
        function = self.host.pci.function(name)
        if function.driver != "vfio-pci" or function.rid in self.open:
            raise ModelError(f"{name} must be bound to vfio-pci (driver {function.driver or 'none'!r}) and not be open")
        self._unbind(function)
        self.host.print(f"# echo > /sys/bus/pci/devices/{function.name}/driver_override")
        function.driver_override = ""
        self._probe(function)

    def _unbind(self, function: PciFunction) -> None:
        self.host.print(f"# echo {function.name} > /sys/bus/pci/devices/{function.name}/driver/unbind")
        function.driver = ""
        self.host.pci.record(function)

    def _probe(self, function: PciFunction) -> None:
        """drivers_probe: the driver that driver_override names, else the host's own."""
        host = self.host
        host.print(f"# echo {function.name} > /sys/bus/pci/drivers_probe")
        function.driver = function.driver_override or host.pci.host_driver(function)
        if function.driver:
            host.printk(f"{function.driver} {function.name}: bound, IOMMU group {function.group}")
        host.pci.record(function)

    def viable(self, function: PciFunction) -> bool:
        """Whether every function of its IOMMU group is without a driver or has one that leaves DMA to others."""
        group = [other for other in self.host.pci.functions.values() if other.group == function.group]
        return all(other.driver in VIABLE for other in group)

    async def open_device(self, name: str, ipa_map: Iterable[tuple[int, int, int]]) -> VfioDevice:
        """Open a bound function for a guest whose RAM is [(ipa, size, pa)]: IOVA = IPA, plus the MSI page.

        Raises:
            ModelError: not bound to vfio-pci, or open already.
            GroupNotViable: its group has a function with another driver.
        """
        function = self.host.pci.function(name)
        if function.driver != "vfio-pci" or function.rid in self.open:
            raise ModelError(f"{name} must be bound to vfio-pci (driver {function.driver or 'none'!r}) and not be open")
        if not self.viable(function):
            raise GroupNotViable(function.group)
        device = VfioDevice(self.host, function)
        self.open[function.rid] = device
        await device.attach(ipa_map)
        return device

    async def close_all(self) -> None:
        """Close what is open."""
        for device in list(self.open.values()):
            await device.close()


class VfioDevice:
    """An open function. `bars` maps BAR index to (physical address, size); `config` is its configuration space;
    `eventfd[k]`, if set, is called with k when vector k's host LPI was taken at EL2."""

    def __init__(self, host: Host, function: PciFunction) -> None:
        self.host = host
        self.function = function
        self.bdf = function.name
        self.stream_id = host.pci.stream_id(function.rid)
        self.device_id = host.pci.device_id(function.rid)
        self.bars = {bar.index: (bar.address, bar.size) for bar in function.bars.values()}
        self.eventfd: dict[int, Signal] = {}
        self.vectors = 0
        self.its: ItsDriver = host.its[0]
        self._its_device: ItsDevice | None = None
        self._domain: Domain | None = None

    @property
    def config(self) -> bytes:
        """The first 256 bytes of the configuration space, as enumeration read them and the host wrote since."""
        return bytes(self.function.config[:CONFIG_SIZE])

    @property
    def its_device(self) -> ItsDevice:
        """The ITS's view of the function, while MSI-X is enabled.

        Raises:
            ModelError: MSI-X is not enabled.
        """
        if self._its_device is None:
            raise ModelError(f"MSI-X of {self.bdf} must be enabled before its interrupts are used")
        return self._its_device

    def host_irq(self, vector: int) -> int:
        """Host LPI of a vector."""
        return self.its_device.lpi(vector)

    async def attach(self, ipa_map: Iterable[tuple[int, int, int]]) -> None:
        """Make the SMMU domain, attach the function's stream, and let it master the bus."""
        smmu = self.host.smmu
        domain = self._domain = smmu.domain()
        for ipa, size, pa in ipa_map:
            domain.tables.map(ipa, size, pa)
        domain.tables.map(MSI_IOVA_BASE, 4096, self.its.translater & ~0xFFF, device=True)
        await smmu.attach(domain, self.stream_id)
        await self.function.command(CMD_MEMORY | CMD_MASTER)

    # -- MSI-X ---------------------------------------------------------------------------------------------------------

    def _entry(self, vector: int) -> int:
        bar, offset = self.function.msix_location()
        return self.bars[bar][0] + offset + vector * MSIX_ENTRY

    async def enable_msix(self, vectors: int) -> None:
        """Enable `vectors` MSI-X vectors towards the host: MAPD, MAPTI, table entries, then unmask (VFIO_DEVICE_SET_IRQS).

        Only these entries of the table are written; the others are masked from reset.

        Raises:
            ModelError: enabled already, or the function has fewer vectors.
        """
        host, function = self.host, self.function
        if self.vectors or not 1 <= vectors <= function.msix_vectors:
            raise ModelError(
                f"{self.bdf} must have MSI-X disabled ({self.vectors} vectors enabled) and at least {vectors} of its "
                f"{function.msix_vectors} vectors"
            )
        device = self._its_device = self.its.device(self.device_id, vectors)
        await device.create()
        for vector in range(vectors):
            host.request_irq(device.lpi(vector), self._handler(vector), counter="host_lpis")
        await device.map_events(range(vectors), host.cpus[0])
        await function.command(CMD_INTX_DISABLE)
        await function.msix_control(MSIX_ENABLE | MSIX_MASKALL)
        address = MSI_IOVA_BASE | self.its.translater & 0xFFF
        for vector in range(vectors):
            entry = address.to_bytes(8, "little") + vector.to_bytes(4, "little") + bytes(4)
            for word in range(0, MSIX_ENTRY, 4):
                host.bus.post32(self._entry(vector) + word, int.from_bytes(entry[word : word + 4], "little"))
        await host.bus.dsb()
        await function.msix_control(0, MSIX_MASKALL)
        self.vectors = vectors
        host.pci.record(function)

    def _handler(self, vector: int) -> Any:
        async def interrupt(_cpu: HostCpu, _intid: int) -> None:
            signal = self.eventfd.get(vector)
            if signal is None:
                self.host.node.count["unclaimed_lpis"] += 1
                self.host.node.log("interrupt of a vector without an eventfd", device=self.bdf, vector=vector)
                return
            signal(vector)

        return interrupt

    async def mask(self, vector: int) -> None:
        """Mask a vector in the host's MSI-X table."""
        await self._vector_control(vector, VECTOR_MASKED)

    async def unmask(self, vector: int) -> None:
        """Unmask a vector in the host's MSI-X table; a pending one is sent now."""
        await self._vector_control(vector, 0)

    async def _vector_control(self, vector: int, value: int) -> None:
        if not 0 <= vector < self.vectors:
            raise ModelError(f"vector of {self.bdf} must be one of the {self.vectors} enabled, not {vector}")
        await self.host.bus.write32(self._entry(vector) + 12, value)

    async def disable_msix(self) -> None:
        """Mask the vectors, disable MSI-X, give the events back (vLPIs included) and free the ITT. Nothing if disabled."""
        if not self.vectors:
            return
        host, device = self.host, self.its_device
        for vector in range(self.vectors):
            host.bus.post32(self._entry(vector) + 12, VECTOR_MASKED)
        await host.bus.dsb()
        await self.function.msix_control(0, MSIX_ENABLE)
        host.pci.record(self.function)
        for vector in range(self.vectors):
            if host.v4 is not None:
                await host.v4.unmap_vlpi(device, vector)
        for vector in range(self.vectors):
            host.free_irq(device.lpi(vector))
        await device.destroy()
        self.eventfd.clear()
        self.vectors = 0
        self._its_device = None

    async def close(self) -> None:
        """Disable MSI-X and bus mastering, detach the domain and free it."""
        await self.disable_msix()
        await self.function.command(0, CMD_MASTER | CMD_INTX_DISABLE)
        self.host.pci.record(self.function)
        domain, self._domain = self._domain, None
        if domain is not None:
            await self.host.smmu.detach(domain, self.stream_id)
            self.host.smmu.free(domain)
        self.host.vfio.open.pop(self.function.rid, None)
