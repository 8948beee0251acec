"""KVM's virtual GIC: interrupts, each vCPU's ap_list, flush to list registers and fold back (sheet 7.1).

Pure: no time, no hardware. What must be kicked is left in `Vgic.kicks`, in order, for whoever runs to carry out.

Source: Linux arch/arm64/kvm/vgic/vgic.c and vgic-v3.c (behaviour).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from nodes.hypervisor.kvm.irq import LR_STATE, STATE_PENDING, Hw, VgicIrq

HCR_EN: Final = 1 << 0
HCR_UIE: Final = 1 << 1
HCR_LRENPIE: Final = 1 << 2
HCR_NPIE: Final = 1 << 3
HCR_VSGI_EOI_COUNT: Final = 1 << 8
HCR_TDIR: Final = 1 << 14
EOI_COUNT_SHIFT: Final = 27
EOI_COUNT: Final = 0x1F

NR_SPIS: Final = 32
"""SPIs that kvmtool asks for: 64 INTIDs in all."""
PRI_BITS_MASK: Final = 0xF8
"""KVM shows guests 5 priority bits."""


class VgicCpu:
    """The virtual GIC's part of one vCPU: private interrupts, ap_list, ICH state between two entries.

    `index` is the vCPU's number, `mpidr` its VMPIDR. `lpis_enabled`, `pendbaser`: the virtual Redistributor's.
    """

    def __init__(self, index: int, mpidr: int) -> None:
        self.index = index
        self.mpidr = mpidr
        self.private = [VgicIrq(intid, owner=self, level=intid >= 16) for intid in range(32)]
        self.ap_list: list[VgicIrq] = []
        self.in_lrs: list[VgicIrq] = []
        self.vmcr = 0
        self.ap0r: tuple[int, ...] = (0,)
        self.ap1r: tuple[int, ...] = (0,)
        self.lpis_enabled = False
        self.pendbaser = 0
        self.vpe: Any = None

    def __repr__(self) -> str:
        return f"vcpu{self.index}"

    def reset(self) -> None:
        """The vCPU was reset: its CPU interface's state is gone, the Redistributor's stays."""
        self.vmcr = 0
        self.ap0r = self.ap1r = (0,) * len(self.ap0r)

    @property
    def vpmr(self) -> int:
        """The guest's priority mask (ICH_VMCR_EL2.VPMR)."""
        return self.vmcr >> 24 & 0xFF


class Vgic:
    """The virtual Distributor and everything that hangs on it.

    Args:
        mpidrs: VMPIDR of each vCPU.
        list_registers: of the PE.
        ap_words: AP0R<n> (and AP1R<n>) registers of the PE.
        count: counters of the node (`lr_injections`, `lr_injections_other`).
        has_its: LPIs are supported.
        direct_sgis: TYPER2.nASSGIcap: vSGIs can be injected directly.
    """

    def __init__(
        self,
        mpidrs: Sequence[int],
        *,
        list_registers: int = 4,
        ap_words: int = 1,
        count: Counter[str] | None = None,
        has_its: bool = True,
        direct_sgis: bool = False,
    ) -> None:
        self.cpus = [VgicCpu(n, mpidr) for n, mpidr in enumerate(mpidrs)]
        for cpu in self.cpus:
            cpu.ap0r = cpu.ap1r = (0,) * ap_words
        self.spis = [VgicIrq(32 + n, level=True) for n in range(NR_SPIS)]
        for spi in self.spis:
            spi.target = self.cpus[0]
        self.lpis: dict[int, VgicIrq] = {}
        self.list_registers = list_registers
        self.ap_words = ap_words
        self.has_its = has_its
        self.direct_sgis = direct_sgis
        self.enabled = False
        self.nassgireq = False
        self.propbaser = 0
        self.count: Counter[str] = Counter() if count is None else count
        self.kicks: list[VgicCpu] = []

    def irq(self, cpu: VgicCpu | None, intid: int) -> VgicIrq | None:
        """The interrupt of an INTID; SGIs and PPIs are the vCPU's own."""
        if intid < 32:
            return None if cpu is None else cpu.private[intid]
        if intid < 32 + NR_SPIS:
            return self.spis[intid - 32]
        return self.lpis.get(intid)

    def all_irqs(self) -> Iterator[VgicIrq]:
        """Every interrupt: private ones by vCPU, SPIs, LPIs in order of their INTID."""
        for cpu in self.cpus:
            yield from cpu.private
        yield from self.spis
        for intid in sorted(self.lpis):
            yield self.lpis[intid]

    # -- lists -----------------------------------------------------------------------------------------------------

    def oracle(self, irq: VgicIrq) -> VgicCpu | None:
        """The vCPU whose list the interrupt belongs in; None: in no list."""
        if irq.active:
            return irq.listed or irq.target
        if irq.enabled and irq.pending and self.enabled:
            target = irq.target
            if target is not None and irq.is_lpi and not target.lpis_enabled:
                return None
            return target
        return None

    def queue(self, irq: VgicIrq) -> None:
        """After a change of state: put the interrupt in the list of its vCPU if it belongs in one; kick that vCPU."""
        if irq.listed is not None:
            self.kick(irq.listed)
            return
        cpu = self.oracle(irq)
        if cpu is None:
            return
        cpu.ap_list.append(irq)
        irq.listed = cpu
        self.kick(cpu)

    def kick(self, cpu: VgicCpu) -> None:
        """Ask for a kick of a vCPU."""
        if cpu not in self.kicks:
            self.kicks.append(cpu)

    def requeue_all(self) -> None:
        """The Distributor was switched on: everything that waited for that goes to the lists."""
        for irq in self.all_irqs():
            if irq.pending and irq.listed is None:
                self.queue(irq)

    def set_pending(self, irq: VgicIrq) -> None:
        """Latch the interrupt pending and queue it."""
        irq.pending_latch = True
        self.queue(irq)

    def set_line(self, irq: VgicIrq, level: bool) -> None:
        """The input of a level-sensitive interrupt changed; an edge latches on the rise."""
        if irq.line_level == level:
            return
        irq.line_level = level
        if level and not irq.level:
            irq.pending_latch = True
        if level:
            self.queue(irq)

    def forget(self, irq: VgicIrq) -> None:
        """The interrupt exists no more (DISCARD of its LPI): off the list, off the table."""
        irq.pending_latch = irq.enabled = irq.active = False
        if irq.listed is not None:
            irq.listed.ap_list.remove(irq)
            irq.listed = None
        self.lpis.pop(irq.intid, None)

    def prune(self, cpu: VgicCpu) -> None:
        """Take what has left the vCPU off its list; what is for another vCPU by now moves there, with a kick."""
        keep = []
        for irq in cpu.ap_list:
            target = self.oracle(irq)
            if target is cpu:
                keep.append(irq)
                continue
            irq.listed = None
            if target is not None:
                target.ap_list.append(irq)
                irq.listed = target
                self.kick(target)
        cpu.ap_list = keep

    def sort(self, cpu: VgicCpu) -> None:
        """Order of a list that does not fit the list registers: deliverable first, then priority, then HW-mapped."""
        cpu.ap_list.sort(key=lambda irq: (not irq.deliverable, irq.priority, irq.hw is not Hw.MAPPED))

    def has_pending(self, cpu: VgicCpu) -> bool:
        """Whether a list holds something that would be taken (kvm_vgic_vcpu_pending_irq)."""
        return self.enabled and any(irq.deliverable and irq.priority < cpu.vpmr for irq in cpu.ap_list)

    # -- world switch ----------------------------------------------------------------------------------------------

    def flush(self, cpu: VgicCpu) -> tuple[int, ...]:
        """The ICH image to enter with: HCR, VMCR, list registers, AP0R, AP1R."""
        if len(cpu.ap_list) > self.list_registers:
            self.sort(cpu)
        cpu.in_lrs = [irq for irq in cpu.ap_list if self.oracle(irq) is cpu][: self.list_registers]
        lrs = [self._load(irq) for irq in cpu.in_lrs]
        hcr = self._hcr(cpu)
        lrs += [0] * (self.list_registers - len(lrs))
        return (hcr, cpu.vmcr, *lrs, *cpu.ap0r, *cpu.ap1r)

    def _load(self, irq: VgicIrq) -> int:
        value = irq.to_lr()
        if value & STATE_PENDING and not irq.counted:
            irq.counted = True
            own = irq.is_lpi or irq.intid < 16
            self.count["lr_injections" if own else "lr_injections_other"] += 1
        return value

    def _hcr(self, cpu: VgicCpu) -> int:
        hcr = HCR_EN
        outside = [irq for irq in cpu.ap_list if irq not in cpu.in_lrs]
        if outside:
            hcr |= HCR_UIE
        if any(irq.deliverable for irq in outside):
            hcr |= HCR_NPIE
        if any(irq.active for irq in outside):
            hcr |= HCR_LRENPIE | HCR_TDIR
        if self.direct_sgis and not any(irq.intid < 16 for irq in cpu.ap_list):
            hcr |= HCR_VSGI_EOI_COUNT
        return hcr

    def fold(self, cpu: VgicCpu, image: Sequence[int], line: Callable[[VgicIrq], bool]) -> list[VgicIrq]:
        """Take the ICH state back after an exit, deactivate what EOIcount says, prune the list.

        Args:
            cpu: the vCPU that left.
            image: as `flush` gave it, with what the guest changed.
            line: level of the input behind a mapped interrupt now.

        Returns:
            Mapped interrupts that the guest ended: the list register has deactivated their physical side too.
        """
        n, words = self.list_registers, self.ap_words
        hcr, cpu.vmcr = image[0], image[1]
        lrs = image[2 : 2 + n]
        cpu.ap0r, cpu.ap1r = tuple(image[2 + n : 2 + n + words]), tuple(image[2 + n + words : 2 + n + 2 * words])
        ended = []
        for irq, lr in zip(cpu.in_lrs, lrs, strict=False):
            pending = irq.from_lr(lr)
            over = not lr & LR_STATE
            if irq.hw is Hw.MAPPED and irq.level and (pending or over):
                irq.line_level = line(irq)
                if over:
                    ended.append(irq)
        self._deactivate(cpu, hcr >> EOI_COUNT_SHIFT & EOI_COUNT)
        cpu.in_lrs = []
        self.prune(cpu)
        return ended

    def deactivate(self, cpu: VgicCpu, intid: int) -> None:
        """A trapped write of ICC_DIR_EL1: active interrupts without a list register must be found here. LPIs have no active
        state; a mapped interrupt's physical side follows at the next entry."""
        irq = self.irq(cpu, intid)
        if irq is None or irq.is_lpi or irq.direct:
            return
        irq.active = False
        self.prune(cpu)
        self.queue(irq)

    def _deactivate(self, cpu: VgicCpu, count: int) -> None:
        """EOIs that met no list register: they end the first active interrupts that had none, in list order."""
        for irq in cpu.ap_list:
            if count and irq.active and irq not in cpu.in_lrs:
                irq.active = False
                count -= 1
