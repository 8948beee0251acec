"""The virtual Distributor and Redistributors as a guest sees them (sheet 1, 2.2, 2.3).

GICD and GICR accesses of a guest exit to KVM and are answered here, without the VMM. `GicFrames` decodes the IPA; SGI and PPI
registers of the Distributor are RAZ/WI, as affinity routing is always on.

Source: Linux vgic-mmio-v3.c, vgic-mmio.c (behaviour).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from cosim.api import Lock
from nodes.hypervisor.kvm.direct import Direct
from nodes.hypervisor.kvm.irq import Hw, VgicIrq
from nodes.hypervisor.kvm.vgic import NR_SPIS, Vgic, VgicCpu
from nodes.hypervisor.kvm.vgic_bits import FieldRange, find
from nodes.hypervisor.kvm.vits import VirtualIts

GICD_SIZE: Final = 0x1_0000
GICR_STRIDE: Final = 0x2_0000
SGI_FRAME: Final = 0x1_0000

CTLR_GRP1: Final = 1 << 1
CTLR_ARE: Final = 1 << 4
CTLR_DS: Final = 1 << 6
CTLR_NASSGIREQ: Final = 1 << 8
TYPER2_NASSGICAP: Final = 1 << 8
IIDR_VALUE: Final = 0x4B << 24 | 3 << 12 | 0x43B
PIDR2: Final = {0xFFE8: 0x3B}
IROUTER: Final = 0x6000
ACTIVE_REGISTERS: Final = range(0x0300, 0x0400)
"""ISACTIVER<n> and ICACTIVER<n>, in GICD and in the SGI frame."""
TYPER_LPIS: Final = 1 << 17

GICR_CTLR: Final = 0x0000
GICR_IIDR: Final = 0x0004
GICR_TYPER: Final = 0x0008
GICR_STATUSR: Final = 0x0010
GICR_WAKER: Final = 0x0014
GICR_PROPBASER: Final = 0x0070
GICR_PENDBASER: Final = 0x0078
PROPBASER_MASK: Final = 7 << 56 | 0xF_FFFF_FFFF_F000 | 3 << 10 | 7 << 7 | 0x1F
PENDBASER_MASK: Final = 7 << 56 | 0xF_FFFF_FFFF_0000 | 3 << 10 | 7 << 7


def merge(old: int, offset: int, size: int, value: int) -> int:
    """A 64-bit register after a write of `size` bytes at byte `offset` of it."""
    mask = ((1 << 8 * size) - 1) << 8 * offset
    return old & ~mask | value << 8 * offset & mask


def part(value: int, offset: int, size: int) -> int:
    """`size` bytes at byte `offset` of a register's value."""
    return value >> 8 * offset & ((1 << 8 * size) - 1)


class GicFrames:
    """GICD, one GICR pair of frames per vCPU and the vITS of a VM, at kvmtool's addresses.

    Args:
        vgic: the VM's.
        vits: its virtual ITS.
        gicd, gicr: IPAs of the Distributor and of vCPU 0's Redistributor.
        direct: GICv4, or None.
        count, log: of the node.

    `standstill`, if set, makes an ``async with`` in which no vCPU is in the guest.
    """

    def __init__(
        self, vgic: Vgic, vits: VirtualIts, gicd: int, gicr: int, direct: Direct | None, count: Counter[str],
        log: Callable[..., None],
    ) -> None:  # fmt: skip
        self.vgic = vgic
        self.vits = vits
        self.gicd = gicd
        self.gicr = gicr
        self.direct = direct
        self.count = count
        self.log = log
        self.standstill: Callable[[], AbstractAsyncContextManager[Any]] | None = None
        self._lock = Lock("the virtual Distributor")

    def covers(self, ipa: int) -> bool:
        """Whether an IPA is answered in the kernel."""
        return (
            self.gicd <= ipa < self.gicd + GICD_SIZE
            or self.gicr <= ipa < self.gicr + GICR_STRIDE * len(self.vgic.cpus)
            or self.vits.base <= ipa < self.vits.base + 0x2_0000
        )

    def _needs_standstill(self, cpu: VgicCpu, ipa: int) -> bool:
        """Whether an access is to the active state of interrupts that another vCPU may have in its list registers now
        (vgic_access_active_prepare)."""
        if self.gicd <= ipa:
            return ipa - self.gicd in ACTIVE_REGISTERS
        number, offset = divmod(ipa - self.gicr, GICR_STRIDE)
        return number >= 0 and self.vgic.cpus[number] is not cpu and offset - SGI_FRAME in ACTIVE_REGISTERS

    async def read(self, cpu: VgicCpu, ipa: int, size: int) -> int:
        """A read by vCPU `cpu`."""
        if self.standstill is not None and self._needs_standstill(cpu, ipa):
            async with self.standstill():
                return await self._read(cpu, ipa, size)
        return await self._read(cpu, ipa, size)

    async def _read(self, cpu: VgicCpu, ipa: int, size: int) -> int:
        if self.vits.base <= ipa < self.vits.base + 0x2_0000:
            return await self.vits.read(ipa - self.vits.base, size)
        if ipa >= self.gicd:
            return await self._read_dist(cpu, ipa - self.gicd, size)
        number, offset = divmod(ipa - self.gicr, GICR_STRIDE)
        return await self._read_redist(self.vgic.cpus[number], offset, size)

    async def write(self, cpu: VgicCpu, ipa: int, size: int, value: int) -> None:
        """A write by vCPU `cpu`; kicks are left in `vgic.kicks`."""
        if self.standstill is not None and self._needs_standstill(cpu, ipa):
            async with self.standstill():
                await self._write(ipa, size, value)
        else:
            await self._write(ipa, size, value)

    async def _write(self, ipa: int, size: int, value: int) -> None:
        if self.vits.base <= ipa < self.vits.base + 0x2_0000:
            await self.vits.write(ipa - self.vits.base, size, value)
        elif ipa >= self.gicd:
            await self._write_dist(ipa - self.gicd, size, value)
        else:
            number, offset = divmod(ipa - self.gicr, GICR_STRIDE)
            await self._write_redist(self.vgic.cpus[number], offset, size, value)

    def _reserved(self, frame: str, offset: int, access: str) -> None:
        self.count["vgic_reserved_accesses"] += 1
        self.log("reserved virtual GIC register", frame=frame, offset=f"{offset:#x}", access=access)

    # -- Distributor -----------------------------------------------------------------------------------------------

    def _dist_value(self, register: int) -> int | None:
        vgic = self.vgic
        if register == 0x0000:
            return (CTLR_GRP1 if vgic.enabled else 0) | CTLR_ARE | CTLR_DS | (CTLR_NASSGIREQ if vgic.nassgireq else 0)
        if register == 0x0004:
            id_bits = 16 if vgic.has_its else 10
            return (NR_SPIS + 32) // 32 - 1 | (TYPER_LPIS if vgic.has_its else 0) | id_bits - 1 << 19
        if register == 0x0008:
            return IIDR_VALUE
        if register == 0x000C:
            return TYPER2_NASSGICAP if vgic.direct_sgis else 0
        if register == 0x0010:
            return 0
        return PIDR2.get(register, 0 if register >= 0xFFD0 else None)

    async def _read_dist(self, cpu: VgicCpu, offset: int, size: int) -> int:
        value = self._dist_value(offset & ~3)
        if value is not None:
            return part(value, offset & 3, min(size, 4))
        if IROUTER + 8 * 32 <= offset < IROUTER + 8 * (32 + NR_SPIS):
            irq = self.vgic.spis[(offset - IROUTER) // 8 - 32]
            return part(_route(irq), offset & 7, size)
        field = find(offset)
        if field is None:
            self._reserved("GICD", offset, "read")
            return 0
        return self._read_fields(field, offset, size, self.vgic.spis, 32)

    async def _write_dist(self, offset: int, size: int, value: int) -> None:
        if offset == 0x0000:
            await self._write_ctlr(value)
            return
        if self._dist_value(offset & ~3) is not None:
            return
        if IROUTER + 8 * 32 <= offset < IROUTER + 8 * (32 + NR_SPIS):
            self._write_router(self.vgic.spis[(offset - IROUTER) // 8 - 32], offset & 7, size, value)
            return
        field = find(offset)
        if field is None:
            self._reserved("GICD", offset, "write")
            return
        self._write_fields(field, offset, size, value, self.vgic.spis, 32)

    def _write_router(self, irq: VgicIrq, offset: int, size: int, value: int) -> None:
        new = merge(_route(irq), offset, size, value)
        aff = new & 0xFF_00FF_FFFF
        irq.target = next((c for c in self.vgic.cpus if c.mpidr & 0xFF_00FF_FFFF == aff), None)

    async def _write_ctlr(self, value: int) -> None:
        """nASSGIreq is taken from each write that turns the Distributor off or on, never while it stays on; a flip makes
        every vPE resident anew, since VPENDBASER's group enable must follow."""
        vgic = self.vgic
        async with self._lock:
            was, req = vgic.enabled, vgic.nassgireq
            vgic.enabled = bool(value & CTLR_GRP1)
            if not vgic.direct_sgis:
                req = False
            elif not (was and vgic.enabled):
                req = bool(value & CTLR_NASSGIREQ)
            if req != vgic.nassgireq and self.direct is not None:
                vgic.nassgireq = req
                await self.direct.switch_sgis(req)
            if was != vgic.enabled:
                if self.direct is not None:
                    self.direct.reload()
                if vgic.enabled:
                    vgic.requeue_all()

    # -- Redistributors --------------------------------------------------------------------------------------------

    def _redist_value(self, cpu: VgicCpu, register: int) -> int | None:
        if register == GICR_CTLR:
            return int(cpu.lpis_enabled)
        if register == GICR_TYPER:
            last = cpu.index == len(self.vgic.cpus) - 1
            value = (cpu.mpidr & 0xFF_FFFF) << 32 | (cpu.mpidr >> 32 & 0xFF) << 56
            return value | (cpu.index & 0xFFFF) << 8 | int(last) << 4 | int(self.vgic.has_its)
        if register == GICR_PROPBASER:
            return self.vgic.propbaser
        if register == GICR_PENDBASER:
            return cpu.pendbaser
        if register in (GICR_STATUSR, GICR_WAKER & ~7):
            return 0
        return PIDR2.get(register, 0 if register >= 0xFFD0 else None)

    async def _read_redist(self, cpu: VgicCpu, offset: int, size: int) -> int:
        if offset >= SGI_FRAME:
            return await self._read_sgi(cpu, offset - SGI_FRAME, size)
        if offset == GICR_IIDR:
            return IIDR_VALUE
        register = offset if offset >= 0xFFD0 else offset & ~7
        value = self._redist_value(cpu, register)
        if value is None:
            self._reserved("GICR", offset, "read")
            return 0
        return part(value, offset - register, size)

    async def _write_redist(self, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
        if offset >= SGI_FRAME:
            await self._write_sgi(cpu, offset - SGI_FRAME, size, value)
            return
        register = offset & ~7
        if offset == GICR_CTLR:
            await self._write_gicr_ctlr(cpu, bool(value & 1))
        elif register == GICR_PROPBASER:
            if not any(c.lpis_enabled for c in self.vgic.cpus):
                self.vgic.propbaser = merge(self.vgic.propbaser, offset & 7, size, value) & PROPBASER_MASK
        elif register == GICR_PENDBASER:
            if not cpu.lpis_enabled:
                cpu.pendbaser = merge(cpu.pendbaser, offset & 7, size, value) & PENDBASER_MASK
        elif self._redist_value(cpu, register) is None:
            self._reserved("GICR", offset, "write")

    async def _write_gicr_ctlr(self, cpu: VgicCpu, on: bool) -> None:
        if not self.vgic.has_its or on == cpu.lpis_enabled:
            return
        cpu.lpis_enabled = on
        if on:
            await self.vits.load_pending(cpu)
        else:
            self.vgic.prune(cpu)

    async def _read_sgi(self, cpu: VgicCpu, offset: int, size: int) -> int:
        field = find(offset)
        if field is None or field.first(offset) >= 32:
            if not 0xFFD0 <= offset:
                self._reserved("GICR SGI", offset, "read")
            return PIDR2.get(offset, 0)
        value = self._read_fields(field, offset, size, cpu.private, 0)
        if field.name in ("ISPENDR", "ICPENDR") and self.direct is not None and cpu.private[0].hw is Hw.SGI:
            value |= (await self.direct.sgis_pending(cpu)) >> 8 * (offset & 3) & ((1 << 8 * size) - 1)
        return value

    async def _write_sgi(self, cpu: VgicCpu, offset: int, size: int, value: int) -> None:
        field = find(offset)
        if field is None or field.first(offset) >= 32:
            self._reserved("GICR SGI", offset, "write")
            return
        changed = self._write_fields(field, offset, size, value, cpu.private, 0)
        if self.direct is None:
            return
        if changed:
            await self.direct.configure_sgis(cpu)
        if field.name in ("ISPENDR", "ICPENDR"):
            act = self.direct.pend_sgi if field.name == "ISPENDR" else self.direct.clear_sgi
            for irq, bit in self._fields(field, offset, size, cpu.private, 0):
                if irq.hw is Hw.SGI and value >> bit & 1:
                    await act(cpu, irq.intid)

    # -- one field per interrupt -----------------------------------------------------------------------------------

    @staticmethod
    def _fields(
        field: FieldRange, offset: int, size: int, irqs: list[VgicIrq], base: int
    ) -> Iterable[tuple[VgicIrq, int]]:
        """(interrupt, position of its field in the access), for those that exist."""
        first = field.first(offset)
        for n in range(8 * size // field.bits):
            if base <= first + n < base + len(irqs):
                yield irqs[first + n - base], n * field.bits

    def _read_fields(self, field: FieldRange, offset: int, size: int, irqs: list[VgicIrq], base: int) -> int:
        value = 0
        for irq, bit in self._fields(field, offset, size, irqs, base):
            value |= field.read(irq) << bit
        return value

    def _write_fields(
        self, field: FieldRange, offset: int, size: int, value: int, irqs: list[VgicIrq], base: int
    ) -> bool:
        changed = False
        ones = (1 << field.bits) - 1
        for irq, bit in self._fields(field, offset, size, irqs, base):
            changed |= field.write(self.vgic, irq, value >> bit & ones)
        return changed


def _route(irq: VgicIrq) -> int:
    mpidr = 0 if irq.target is None else irq.target.mpidr
    return mpidr & 0xFF_00FF_FFFF
