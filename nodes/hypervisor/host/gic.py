"""GICv3 bring-up: EL3's steps in Secure state, then the host kernel's (Linux irq-gic-v3.c), in the order of sheet 7.0.

What Linux does on each CPU goes to all Redistributors at once, as posted writes with one wait for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from cosim.api import SECURE, ModelError
from nodes.arch.intid import SPI_BASE
from nodes.hypervisor.host import regs
from nodes.hypervisor.host.access import poll, poll_all, read_all, together
from nodes.hypervisor.host.regs import field

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.host.host import Host

ALL = 0xFFFF_FFFF
PRIORITIES = 0xA0A0_A0A0
"""Four IPRIORITYR bytes of the default priority 0xA0."""
PMR_HOST = 0xF0
PMR_IDLE = 0xFF
ICC_CTLR_EOIMODE = 1 << 1
SRE_SRE, SRE_DFB, SRE_DIB, SRE_ENABLE = 1 << 0, 1 << 1, 1 << 2, 1 << 3
SRE_ALL = SRE_SRE | SRE_DFB | SRE_DIB | SRE_ENABLE


def _no_rwp(value: int) -> bool:
    return not value & regs.CTLR_RWP


class GicDriver:
    """The distributor and all Redistributors. After `discover`: `rd_typer` by CPU index, and what all RDs have in common."""

    def __init__(self, host: Host, gicd: int, gicr: int) -> None:
        self.host = host
        self.gicd = gicd
        self.gicr = gicr
        self.typer = 0
        self.typer2 = 0
        self.rd_typer: list[int] = []
        self._rd_all = 0  # bits that all of them have
        self.stride = regs.RD_STRIDE_V3

    # -- what there is -------------------------------------------------------------------------------------------------

    def _all_rds(self, bit: int) -> bool:
        return bool(self._rd_all & bit)

    @property
    def lines(self) -> int:
        """INTIDs of SGIs, PPIs and SPIs: the first that does not exist."""
        return min(32 * (field(self.typer, 4, 0) + 1), 1020)

    @property
    def has_lpis(self) -> bool:
        """Every Redistributor has GICR_TYPER.PLPIS."""
        return self._all_rds(regs.RD_TYPER_PLPIS)

    @property
    def has_vlpis(self) -> bool:
        """Every Redistributor has GICR_TYPER.VLPIS."""
        return self._all_rds(regs.RD_TYPER_VLPIS)

    @property
    def has_rvpeid(self) -> bool:
        """Every Redistributor has the GICv4.1 layouts."""
        return self._all_rds(regs.RD_TYPER_RVPEID)

    @property
    def has_dirty(self) -> bool:
        """VPENDBASER.Dirty is meaningful after Valid went to 1."""
        return self._all_rds(regs.RD_TYPER_DIRTY)

    @property
    def direct_lpi(self) -> bool:
        """GICR_INVLPIR may be used for physical LPIs; GICv4.1 implies it."""
        return self._all_rds(regs.RD_TYPER_DIRECT_LPI) or self.has_rvpeid

    async def discover(self) -> None:
        """Read the distributor's ID registers and walk the Redistributors frame by frame until Last.

        Raises:
            ModelError: a CPU has no Redistributor.
        """
        host, bus = self.host, self.host.bus
        reads = [(self.gicd + regs.GICD_TYPER, 4), (self.gicd + regs.GICD_TYPER2, 4)]
        self.typer, self.typer2 = await read_all(bus, reads)
        by_affinity = {cpu.affinity: cpu for cpu in host.cpus}
        found: dict[int, int] = {}
        base = self.gicr
        while True:
            typer = await bus.read64(base + regs.GICR_TYPER)
            cpu = by_affinity.get(typer >> 32)
            if cpu is not None:
                cpu.rd_base, cpu.processor_number = base, field(typer, 23, 8)
                found[cpu.index] = typer
            # A Redistributor with VLPIS has two more frames.
            self.stride = regs.RD_STRIDE_V4 if typer & regs.RD_TYPER_VLPIS else regs.RD_STRIDE_V3
            base += self.stride
            if typer & regs.RD_TYPER_LAST:
                break
        missing = [cpu for cpu in host.cpus if cpu.index not in found]
        if missing:
            have = ", ".join(f"{a:#x}" for a in sorted(by_affinity))
            raise ModelError(f"every CPU must have a Redistributor with its affinity (of {have}); {missing} have none")
        self.rd_typer = [found[cpu.index] for cpu in host.cpus]
        self._rd_all = reduce(and_, self.rd_typer)

    # -- EL3 -----------------------------------------------------------------------------------------------------------

    async def secure_boot(self) -> None:
        """What firmware at EL3 does before the host starts: affinity routing in both Security states, all interrupts to
        Non-secure Group 1, Redistributors awake, system-register access for the lower Exception levels."""
        bus, cpus = self.host.bus, self.host.cpus
        ctlr = regs.CTLR_S_ARE_S | regs.CTLR_S_ARE_NS
        bus.post32(self.gicd + regs.GICD_CTLR, ctlr, SECURE)
        for n in range(1, -(-self.lines // 32)):
            bus.post32(self.gicd + regs.GICD_IGROUPR + 4 * n, ALL, SECURE)
        for cpu in cpus:
            bus.post32(cpu.rd_base + regs.GICR_WAKER, 0, SECURE)
            bus.post32(cpu.rd_base + regs.GICR_IGROUPR0, ALL, SECURE)
        await bus.dsb()
        what = "GICD_CTLR.RWP clear after affinity routing was enabled"
        await poll(self.host.node, bus, self.gicd + regs.GICD_CTLR, 4, _no_rwp, what, attr=SECURE)
        await poll_all(
            self.host.node,
            bus,
            [(cpu.rd_base + regs.GICR_WAKER, 4) for cpu in cpus],
            lambda value: not value & regs.WAKER_CHILDREN_ASLEEP,
            "GICR_WAKER.ChildrenAsleep clear",
            attr=SECURE,
        )
        await together(self.host.node, [self._secure_cpu(cpu) for cpu in cpus], "el3")

    @staticmethod
    async def _secure_cpu(cpu: HostCpu) -> None:
        async with cpu:
            # Until EL3 has written ICC_PMR_EL1 a Non-secure write to it is ignored: its value is in the Secure half.
            await cpu.write_sysregs(
                [("ICC_SRE_EL3", SRE_ALL), ("ICC_SRE_EL2", SRE_ALL), ("ICC_PMR_EL1", PMR_IDLE)], el=3, secure=True
            )

    # -- the host ------------------------------------------------------------------------------------------------------

    async def init_distributor(self) -> None:
        """GICD: disabled, SPIs to their defaults, enabled with affinity routing, every SPI to the boot CPU."""
        bus, gicd = self.host.bus, self.gicd
        words = -(-self.lines // 32)
        bus.post32(gicd + regs.GICD_CTLR, 0)
        await self._wait_rwp()
        for n in range(1, words):
            bus.post32(gicd + regs.GICD_IGROUPR + 4 * n, ALL)
        for n in range(2, 2 * words):
            bus.post32(gicd + regs.GICD_ICFGR + 4 * n, 0)
        for n in range(8, -(-self.lines // 4)):
            bus.post32(gicd + regs.GICD_IPRIORITYR + 4 * n, PRIORITIES)
        for n in range(1, words):
            bus.post32(gicd + regs.GICD_ICACTIVER + 4 * n, ALL)
            bus.post32(gicd + regs.GICD_ICENABLER + 4 * n, ALL)
        await bus.dsb()
        await self._wait_rwp()
        ctlr = regs.CTLR_ARE_NS | regs.CTLR_ENABLE_G1A | regs.CTLR_ENABLE_G1
        if self.typer2 & regs.TYPER2_NASSGICAP:
            self.host.printk("GICv3: Enabling SGIs without active state")
            ctlr |= regs.CTLR_NASSGIREQ
        bus.post32(gicd + regs.GICD_CTLR, ctlr)
        await self._wait_rwp()
        boot = self.host.cpus[0].affinity
        router = (boot >> 24) << 32 | boot & 0xFF_FFFF
        for intid in range(SPI_BASE, self.lines):
            bus.post64(gicd + regs.GICD_IROUTER + 8 * intid, router)
        await bus.dsb()

    async def _wait_rwp(self) -> None:
        await poll(self.host.node, self.host.bus, self.gicd + regs.GICD_CTLR, 4, _no_rwp, "GICD_CTLR.RWP clear")

    async def init_cpus(self) -> None:
        """Every CPU's SGIs and PPIs, then its CPU interface: SRE, PMR, BPR1, EOImode = 1, Group 1 enabled."""
        host, bus = self.host, self.host.bus
        for cpu in host.cpus:
            base = cpu.rd_base
            bus.post32(base + regs.GICR_IGROUPR0, ALL)
            bus.post32(base + regs.GICR_ICACTIVER0, ALL)
            bus.post32(base + regs.GICR_ICENABLER0, 0xFFFF_0000)
            bus.post32(base + regs.GICR_ISENABLER0, 0x0000_FFFF)
            for n in range(8):
                bus.post32(base + regs.GICR_IPRIORITYR + 4 * n, PRIORITIES)
        await bus.dsb()
        await poll_all(
            host.node,
            bus,
            [(cpu.rd_base + regs.GICR_CTLR, 4) for cpu in host.cpus],
            lambda value: not value & regs.RD_CTLR_RWP,
            "GICR_CTLR.RWP clear",
        )
        await together(host.node, [self._init_cpu(cpu) for cpu in host.cpus], "cpu interface")

    @staticmethod
    async def _init_cpu(cpu: HostCpu) -> None:
        async with cpu:
            await cpu.write_sysregs(
                [
                    ("ICC_SRE_EL1", SRE_SRE | SRE_DFB | SRE_DIB),
                    ("ICC_PMR_EL1", PMR_HOST),
                    ("ICC_BPR1_EL1", 0),
                    ("ICC_CTLR_EL1", ICC_CTLR_EOIMODE),
                    ("ICC_IGRPEN1_EL1", 1),
                ]
            )

    async def init_lpis(self) -> None:
        """LPI tables of every Redistributor, then EnableLPIs; on GICv4 stale residency is cleared, on GICv4.1 the shared vPE
        table is programmed."""
        host, bus = self.host, self.host.bus
        prop = host.lpis.prop | regs.RD_ATTRIBUTES | (host.lpis.id_bits - 1)
        for cpu in host.cpus:
            bus.post64(cpu.rd_base + regs.GICR_PROPBASER, prop)
            pending = host.lpis.pending_table() | regs.RD_ATTRIBUTES | regs.PENDBASER_PTZ
            bus.post64(cpu.rd_base + regs.GICR_PENDBASER, pending)
        await bus.dsb()
        got = await read_all(bus, [(cpu.rd_base + regs.GICR_PROPBASER, 8) for cpu in host.cpus])
        address = 0x000F_FFFF_FFFF_F000
        for cpu, value in zip(host.cpus, got, strict=True):
            if value & address != prop & address:
                raise ModelError(f"GICR_PROPBASER of {cpu!r} must keep {prop:#x}; it reads {value:#x}")
        for cpu in host.cpus:
            bus.post32(cpu.rd_base + regs.GICR_CTLR, regs.RD_CTLR_ENABLE_LPIS)
        await bus.dsb()
        if self.has_vlpis and host.gicv4_its:
            await self._init_vlpis()

    async def _init_vlpis(self) -> None:
        host, bus = self.host, self.host.bus
        stale = await read_all(bus, [(cpu.rd_base + regs.GICR_VPENDBASER, 8) for cpu in host.cpus])
        for cpu, value in zip(host.cpus, stale, strict=True):
            if value & regs.VPEND_VALID:
                bus.post64(cpu.rd_base + regs.GICR_VPENDBASER, regs.VPEND_PENDING_LAST if self.has_rvpeid else 0)
        if self.has_rvpeid:
            for cpu in host.cpus:
                bus.post64(cpu.rd_base + regs.GICR_VPROPBASER, self._vprop(cpu))
        await bus.dsb()
        if self.has_rvpeid:
            got = await read_all(bus, [(cpu.rd_base + regs.GICR_VPROPBASER, 8) for cpu in host.cpus])
            for cpu, value in zip(host.cpus, got, strict=True):
                if not value & regs.VPROP_VALID:
                    raise ModelError(f"GICR_VPROPBASER of {cpu!r} must be Valid once programmed; it reads {value:#x}")

    def _vprop(self, cpu: HostCpu) -> int:
        """GICR_VPROPBASER from the vPE table that an ITS of the same affinity group has (the fields lie elsewhere there)."""
        table = self.host.vpe_table_of(cpu)
        page_size = 2
        value = regs.VPROP_VALID | regs.RD_ATTRIBUTES | page_size << regs.VPROP_PAGE_SIZE | table.base
        return value | (table.pages - 1) | (regs.VPROP_INDIRECT if table.indirect else 0)

    async def disable_lpis(self) -> None:
        """Clear EnableLPIs where GICR_CTLR.CES allows it, and wait for it."""
        bus, cpus = self.host.bus, self.host.cpus
        accesses = [(cpu.rd_base + regs.GICR_CTLR, 4) for cpu in cpus]
        for (address, _), value in zip(accesses, await read_all(bus, accesses), strict=True):
            if value & 1 << 1:
                bus.post32(address, value & ~regs.RD_CTLR_ENABLE_LPIS)
        await bus.dsb()
        what = "GICR_CTLR.RWP clear after EnableLPIs was cleared"
        await poll_all(self.host.node, bus, accesses, lambda value: not value & regs.RD_CTLR_RWP, what)

    # -- single interrupts ---------------------------------------------------------------------------------------------

    async def enable_ppi(self, intid: int, cpus: Iterable[HostCpu] | None = None) -> None:
        """Enable an SGI or PPI on all CPUs, or on some."""
        for cpu in self.host.cpus if cpus is None else cpus:
            self.host.bus.post32(cpu.rd_base + regs.GICR_ISENABLER0, 1 << intid)
        await self.host.bus.dsb()

    async def set_ppi_active(self, cpu: HostCpu, intid: int, active: bool) -> None:
        """Set or clear the active state of a PPI (irq_set_irqchip_state): a loaded vCPU's timer that is asserted is active at
        the host, so that it does not fire again."""
        register = regs.GICR_ISACTIVER0 if active else regs.GICR_ICACTIVER0
        self.host.bus.post32(cpu.rd_base + register, 1 << intid)
        await self.host.bus.dsb()

    async def enable_spi(self, intid: int, *, edge: bool) -> None:
        """Configure an SPI's trigger and enable it; it goes to the boot CPU.

        Raises:
            ModelError: the distributor does not have it.
        """
        if not SPI_BASE <= intid < self.lines:
            raise ModelError(f"an SPI must be in {SPI_BASE}..{self.lines - 1}, not {intid}")
        bus = self.host.bus
        register = self.gicd + regs.GICD_ICFGR + 4 * (intid // 16)
        bit = 2 << 2 * (intid % 16)
        value = await bus.read32(register)
        bus.post32(register, value | bit if edge else value & ~bit)
        bus.post32(self.gicd + regs.GICD_ISENABLER + 4 * (intid // 32), 1 << intid % 32)
        await bus.dsb()
