"""The simulated host: brings the machine up as firmware and Linux do, and owns what its drivers share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from cosim.api import MmioInitiator, ModelError
from nodes.arch.intid import PPI_HYP_TIMER
from nodes.hypervisor.host import regs
from nodes.hypervisor.host.access import together
from nodes.hypervisor.host.cpu import SGI_RESCHEDULE, HostCpu
from nodes.hypervisor.host.gic import GicDriver
from nodes.hypervisor.host.gicv4 import Gicv4
from nodes.hypervisor.host.its import PAGE_64K, ItsDriver
from nodes.hypervisor.host.lpi import HostLpis
from nodes.hypervisor.host.memory import Allocator
from nodes.hypervisor.host.pci import PciHost
from nodes.hypervisor.host.regs import field
from nodes.hypervisor.host.smmu import SmmuDriver
from nodes.hypervisor.host.tables import HardwareTable
from nodes.hypervisor.host.vfio import Vfio

if TYPE_CHECKING:
    from nodes.hypervisor.host.node import HostNode

Handler = Callable[[HostCpu, int], Coroutine[Any, Any, Any]]

DEFAULT_DRAM = [[0x8000_0000, 0x7EF0_0000], [0x80_8000_0000, 0x1_8000_0000]]
DEFAULT_GUEST_RAM = [0x80_8000_0000, 0x8000_0000]
DEFAULT_ITS = [0x3004_0000, 0x3008_0000, 0x300C_0000]
GUEST_SLOTS = 2
"""Guests whose RAM exists at one time."""
LPI_ID_BITS = 16
VPE_BITS = 16


class Irq(NamedTuple):
    """A requested interrupt: its handler, the counter that an acknowledge adds to, and whether a guest deactivates it."""

    handler: Handler
    counter: str
    forwarded: bool


class Host:
    """Everything the host's software shares. `node.params` are those of the hypervisor node; construct it in `setup`."""

    def __init__(self, node: HostNode) -> None:
        params = node.params
        self.node = node
        self.bus: MmioInitiator = node.bus
        mpidrs = params.get("mpidrs") or [0x8100_0000 | n << 16 for n in range(int(params.get("pes", 8)))]
        self.cpus = [HostCpu(self, index, mpidr) for index, mpidr in enumerate(mpidrs)]
        node.cpus = {cpu.node_name: cpu for cpu in self.cpus}
        self.guest_ram_base, self.guest_ram_size = params.get("guest_ram", DEFAULT_GUEST_RAM)
        self.memory = Allocator(
            self.bus,
            [(base, size) for base, size in params.get("dram", DEFAULT_DRAM)],
            [(self.guest_ram_base, GUEST_SLOTS * self.guest_ram_size)],
        )
        self.vpe_bits = VPE_BITS
        self.gic = GicDriver(self, params.get("gicd", 0x3000_0000), params.get("gicr", 0x3010_0000))
        self._its_bases = list(params.get("its", DEFAULT_ITS))
        self.its: list[ItsDriver] = []
        self.v4: Gicv4 | None = None
        self.smmu = SmmuDriver(self, params.get("smmu", 0x4000_0000))
        self.pci = PciHost(self)
        self.vfio = Vfio(self)
        self._irqs: dict[int, Irq] = {}
        self._vpe_tables: dict[int, HardwareTable] = {}
        self._lpis: HostLpis | None = None

    @property
    def lpis(self) -> HostLpis:
        """The host's LPIs; there once `boot` has set LPIs up."""
        if self._lpis is None:
            raise ModelError("LPIs must be set up by boot() before they are used")
        return self._lpis

    # -- console -------------------------------------------------------------------------------------------------------

    def print(self, line: str) -> None:
        """A line of the host's shell, on console "host"."""
        self.node.console("host", line + "\n")

    def printk(self, line: str) -> None:
        """A line of the host kernel's log, with its time in seconds, on console "host"."""
        seconds, rest = divmod(self.node.now // 1_000_000, 1_000_000)
        self.node.console("host", f"[{seconds:5d}.{rest:06d}] {line}\n")

    # -- interrupts ----------------------------------------------------------------------------------------------------

    def request_irq(self, intid: int, handler: Handler, *, counter: str = "", forwarded: bool = False) -> None:
        """Call ``await handler(cpu, intid)`` at EL2 whenever a CPU acknowledges `intid`.

        Args:
            intid: SGI, PPI, SPI or LPI.
            handler: runs on the CPU that took it, between EOIR and DIR; returning True leaves the interrupt active.
            counter: counter of the node that each acknowledge adds to ("host_lpis", "doorbell_irqs", "smmu_msis").
            forwarded: the guest's EOI deactivates it through a list register: never DIR here.

        Raises:
            ModelError: it has a handler.
        """
        if intid in self._irqs:
            raise ModelError(f"INTID {intid} must have one handler; it has one already")
        self._irqs[intid] = Irq(handler, counter, forwarded)

    def free_irq(self, intid: int) -> None:
        """Forget the handler of an INTID."""
        self._irqs.pop(intid, None)

    async def handle_irq(self, cpu: HostCpu, intid: int) -> bool:
        """Dispatch an acknowledged interrupt; returns whether it stays active."""
        irq = self._irqs.get(intid)
        if irq is None:
            self.node.count["unexpected_irqs"] += 1
            self.node.log("unexpected interrupt", cpu=cpu.index, intid=intid)
            return False
        if irq.counter:
            self.node.count[irq.counter] += 1
        return bool(await irq.handler(cpu, intid)) or irq.forwarded

    # -- shared vPE tables (GICv4.1) -----------------------------------------------------------------------------------

    @property
    def gicv4_its(self) -> list[ItsDriver]:
        """ITSs that can inject directly."""
        return [its for its in self.its if its.is_v4]

    def shared_vpe_table(self, affinity: int, entry_size: int, *, indirect: bool) -> HardwareTable:
        """The vPE table of an affinity group; the first ITS that asks makes it."""
        table = self._vpe_tables.get(affinity)
        if table is None:
            indirect = indirect and HardwareTable.wants_indirect(entry_size, PAGE_64K, self.vpe_bits)
            table = HardwareTable(
                self.bus, self.memory, entry_size, PAGE_64K, self.vpe_bits, indirect=indirect, owner="vPE table"
            )
            self._vpe_tables[affinity] = table
        return table

    def vpe_table_of(self, cpu: HostCpu) -> HardwareTable:
        """The vPE table of a CPU's affinity group (GICR_TYPER.CommonLPIAff).

        Raises:
            ModelError: no ITS of the group has one.
        """
        level = field(self.gic.rd_typer[cpu.index], 25, 24)
        affinity = cpu.affinity & ~(0xFFFF_FFFF >> (8 * level)) & 0xFFFF_FFFF
        table = self._vpe_tables.get(affinity)
        if table is None:
            have = ", ".join(map(hex, self._vpe_tables)) or "none"
            raise ModelError(
                f"{cpu!r} (group {affinity:#x}) must share the vPE table of an ITS; groups with one: {have}"
            )
        return table

    # -- bring-up ------------------------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Bring the machine up (sheet 7.0): EL3's steps, GIC, ITSs, LPIs, GICv4, SMMU, PCI."""
        gic = self.gic
        self.request_irq(SGI_RESCHEDULE, self._reschedule)
        await gic.discover()
        await gic.secure_boot()
        self._report_gic()
        await gic.init_distributor()
        await gic.init_cpus()
        if gic.has_lpis and self._its_bases:
            await self._boot_its()
        self.request_irq(PPI_HYP_TIMER, self._slice_timer)
        await gic.enable_ppi(PPI_HYP_TIMER)
        await self.smmu.probe()
        await self.pci.scan()

    @staticmethod
    async def _slice_timer(cpu: HostCpu, _intid: int) -> None:
        """The EL2 physical timer of a CPU."""
        await cpu.slices.expired()

    @staticmethod
    async def _reschedule(_cpu: HostCpu, _intid: int) -> None:
        """An SGI that asks for a reschedule needs no work of its own: the exit it causes is its effect."""

    def _report_gic(self) -> None:
        def says(has: bool) -> str:
            return "" if has else "no "

        gic = self.gic
        self.printk(f"GICv3: {gic.lines - 32} SPIs implemented")
        self.printk("GICv3: 0 Extended SPIs implemented")
        self.printk(
            f"GICv3: {says(gic.has_vlpis)}VLPI support, {says(gic.direct_lpi)}direct LPI support, "
            f"{says(gic.has_rvpeid)}RVPEID support"
        )
        for cpu in self.cpus:
            self.printk(f"GICv3: CPU{cpu.index}: found redistributor {cpu.affinity:x} region 0:{cpu.rd_base:#018x}")

    async def _boot_its(self) -> None:
        node = self.node
        id_bits = min(field(self.gic.typer, 23, 19) + 1, LPI_ID_BITS)
        self._lpis = HostLpis(self.bus, self.memory, id_bits)
        self.its = [ItsDriver(self, index, base) for index, base in enumerate(self._its_bases)]
        await together(node, [its.probe() for its in self.its], "its probe")
        await together(node, [its.enable() for its in self.its], "its enable")
        self.printk(f"GICv3: using LPI property table @{self._lpis.prop:#018x}")
        await self.gic.init_lpis()
        await together(node, [its.map_collections(self.cpus) for its in self.its], "mapc")
        if self.gicv4_its and self.gic.has_vlpis:
            v4_1 = self.gic.has_rvpeid and all(its.is_v4_1 for its in self.gicv4_its)
            self.v4 = Gicv4(self, "4.1" if v4_1 else "4.0")
            self.printk("ITS: Enabling GICv4 support")

    def guest_ram(self, index: int) -> tuple[int, int]:
        """(physical base, size in bytes) of guest `index`'s RAM. There are `GUEST_SLOTS`; guest 2 gets that of guest 0, as it
        left it (no host would, but a guest here clears what it uses)."""
        return self.guest_ram_base + index % GUEST_SLOTS * self.guest_ram_size, self.guest_ram_size

    async def shutdown(self) -> None:
        """Quiesce: devices away, SMMU and ITSs off; checks that no guest left memory or LPIs behind.

        Raises:
            ModelError: something is still allocated for a guest.
        """
        await self.vfio.close_all()
        left = [a for a in self.memory.in_use() if a.owner == "vm" or a.owner.startswith(("itt", "iommu"))]
        if left or self._lpis is not None and self._lpis.in_use:
            lpis = self._lpis.in_use if self._lpis is not None else 0
            raise ModelError(f"a guest's memory and LPIs must be freed before shutdown; left: {left}, {lpis} LPIs")
        await self.smmu.disable()
        if self._lpis is not None:
            await together(self.node, [its.disable() for its in self.its], "its disable")
            await self.gic.disable_lpis()
        self.bus.post32(self.gic.gicd + regs.GICD_CTLR, regs.CTLR_ARE_NS)
        await self.bus.dsb()
        self.printk("reboot: Power down")
