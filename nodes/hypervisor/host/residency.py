"""Which vPE is resident where: VPENDBASER of GICv4.0 and GICv4.1, VMOVP, PendingLast and doorbells (sheet 2.5, 7.3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from cosim.api import Lock, ModelError
from nodes.hypervisor.host import regs
from nodes.hypervisor.host.access import POLL_FIRST, HardwareTimeout, poll, together
from nodes.hypervisor.host.vpe import Vpe

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.host.host import Host
    from nodes.hypervisor.host.its import ItsDriver


def _settled(vpendbaser: int) -> bool:
    return not vpendbaser & regs.VPEND_DIRTY


class Residency(ABC):
    """The scheduling half of the GICv4 driver. A vPE follows the CPU that runs it: VMOVP goes out whenever it differs from
    the home, as current kernels do, and only when the vPE's last deschedule is complete."""

    host: Host
    itses: list[ItsDriver]

    def __init__(self, host: Host, version: str) -> None:
        if version not in ("4.0", "4.1"):
            raise ModelError(f"version of a GICv4 driver must be 4.0 or 4.1, not {version!r}")
        self.host = host
        self.version = version
        self.v4_1 = version == "4.1"
        self._settling: dict[int, int] = {}
        self._deschedules = 0
        self._resident: dict[int, Vpe] = {}
        self._vmovp_lock = Lock("VMOVP sequence numbers")
        self._vmovp_seq = 0

    @abstractmethod
    async def mask_doorbell(self, vpe: Vpe, masked: bool) -> None:
        """Mask or unmask the doorbell LPI at the host."""

    async def make_resident(self, cpu: HostCpu, vpe: Vpe, *, g0en: bool, g1en: bool) -> None:
        """Make a vPE resident on a CPU (its_make_vpe_resident); `commit` waits until its pending table was looked at.

        Args:
            cpu: where the vCPU is about to run.
            vpe: mapped, and resident nowhere.
            g0en: VGrp0En (GICv4.1).
            g1en: VGrp1En (GICv4.1): the virtual GICD_CTLR's enable.

        Raises:
            ModelError: the vPE is resident somewhere, or another one is resident on this CPU.
        """
        if vpe.resident is not None or cpu.index in self._resident:
            raise ModelError(
                f"{vpe} must be non-resident (it is resident on {vpe.resident!r}) and {cpu!r} free "
                f"(it has {self._resident.get(cpu.index)!r})"
            )
        await self.settle(cpu)
        if vpe.home is not cpu:
            await self.move(vpe, cpu)
        bus = self.host.bus
        vpe.resident, vpe.committed, vpe.pending_last = cpu, False, False
        self._resident[cpu.index] = vpe
        if self.v4_1:
            vpe.groups = (regs.VPEND_VGRP0EN if g0en else 0) | (regs.VPEND_VGRP1EN if g1en else 0)
            value = regs.VPEND_VALID | regs.VPEND_PENDING_LAST | vpe.groups | vpe.vpeid
            bus.post64(cpu.rd_base + regs.GICR_VPENDBASER, value)
            return
        await self.mask_doorbell(vpe, True)
        bus.post64(cpu.rd_base + regs.GICR_VPROPBASER, vpe.vm.vprop | regs.RD_ATTRIBUTES | (self._id_bits - 1))
        idai = regs.VPEND_IDAI if vpe.idai else 0
        value = regs.VPEND_VALID | regs.VPEND_PENDING_LAST | idai | vpe.vpt | regs.RD_ATTRIBUTES
        bus.post64(cpu.rd_base + regs.GICR_VPENDBASER, value)

    @property
    def _id_bits(self) -> int:
        return self.host.lpis.id_bits

    async def commit(self, cpu: HostCpu) -> None:
        """Wait until the CPU's Redistributor has looked at the resident vPE's pending table (vgic_v4_commit); once for each
        residency, and nothing to do when none is resident."""
        vpe = self._resident.get(cpu.index)
        if vpe is not None and not vpe.committed:
            if self.host.gic.has_dirty:
                await self._poll_dirty(cpu)
            vpe.committed = True

    async def _poll_dirty(self, cpu: HostCpu) -> int:
        address = cpu.rd_base + regs.GICR_VPENDBASER
        what = f"GICR_VPENDBASER.Dirty of {cpu!r} clear"
        return await poll(self.host.node, self.host.bus, address, 8, _settled, what, first=POLL_FIRST)

    async def settle(self, cpu: HostCpu) -> None:
        """Wait for a deschedule on this CPU that was not waited for."""
        if cpu.index in self._settling:
            number = self._settling[cpu.index]
            await self._poll_dirty(cpu)
            # Another thread may have waited for the same deschedule, and there may be a new one since.
            if self._settling.get(cpu.index) == number:
                del self._settling[cpu.index]

    async def make_nonresident(self, cpu: HostCpu, vpe: Vpe, *, need_db: bool) -> None:
        """Take a vPE off its CPU (its_make_vpe_non_resident); with `need_db` it asks for a doorbell and learns PendingLast.

        Without `need_db` the caller will run the vPE again without being asked: `pending_last` is set, and nothing waits.

        Raises:
            ModelError: the vPE is not resident on this CPU.
        """
        if vpe.resident is not cpu:
            raise ModelError(f"{vpe} must be resident on {cpu!r}; it is resident on {vpe.resident!r}")
        # GIC-700 refuses a deschedule while the schedule is still Dirty.
        await self.commit(cpu)
        vpe.resident = None
        del self._resident[cpu.index]
        if self.v4_1:
            await self._deschedule_v41(cpu, vpe, need_db)
        else:
            await self._deschedule_v40(cpu, vpe, need_db)

    async def _deschedule_v41(self, cpu: HostCpu, vpe: Vpe, need_db: bool) -> None:
        bus = self.host.bus
        value = vpe.groups | vpe.vpeid | (regs.VPEND_DOORBELL if need_db else regs.VPEND_PENDING_LAST)
        bus.post64(cpu.rd_base + regs.GICR_VPENDBASER, value)
        if need_db:
            vpe.pending_last = await self._pending_last(cpu)
        else:
            vpe.pending_last = True
            self._deschedules += 1
            self._settling[cpu.index] = self._deschedules

    async def _pending_last(self, cpu: HostCpu) -> bool:
        try:
            value = await self._poll_dirty(cpu)
        except HardwareTimeout as error:
            # Linux goes on as if something were pending: the vPE is looked at again at its next schedule.
            self.host.printk(f"ITS virtual pending table not cleaning: {error}")
            return True
        return bool(value & regs.VPEND_PENDING_LAST)

    async def _deschedule_v40(self, cpu: HostCpu, vpe: Vpe, need_db: bool) -> None:
        bus, address = self.host.bus, cpu.rd_base + regs.GICR_VPENDBASER
        bus.post64(address, vpe.vpt | regs.RD_ATTRIBUTES)
        value = await self._poll_dirty(cpu)
        vpe.idai = bool(value & regs.VPEND_IDAI)
        vpe.pending_last = bool(value & regs.VPEND_PENDING_LAST)
        if need_db:
            await self.mask_doorbell(vpe, False)

    async def move(self, vpe: Vpe, cpu: HostCpu) -> None:
        """VMOVP: the vPE's home becomes `cpu` (its_vpe_set_affinity).

        On ITSs without single VMOVP the same sequence number and list go to each, one move at a time.
        """
        async with vpe.lock:
            await self.settle(vpe.home)
            await self._vmovp(vpe, cpu)
            vpe.home = cpu

    async def _vmovp(self, vpe: Vpe, cpu: HostCpu) -> None:
        fields: dict[str, Any] = {"vpeid": vpe.vpeid}
        if self.v4_1:
            fields |= {"db": 1, "default_doorbell": vpe.doorbell_lpi}
        first = min(self.itses, key=lambda its: its.base)
        if first.single_vmovp:
            await first.run([("VMOVP", fields | {"rdbase": first.rdbase(cpu)})], vsync=[vpe.vpeid])
            return
        async with self._vmovp_lock:
            self._vmovp_seq = (self._vmovp_seq + 1) & 0xFFFF
            fields |= {"seqnum": self._vmovp_seq, "itslist": sum(1 << its.index for its in self.itses)}
            runs = [its.run([("VMOVP", fields | {"rdbase": its.rdbase(cpu)})], vsync=[vpe.vpeid]) for its in self.itses]
            await together(self.host.node, runs, "vmovp")
