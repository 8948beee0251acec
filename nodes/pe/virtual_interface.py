"""The virtual CPU interface: ICH_ registers, the guest's ICV_ registers, and direct injection.

Two sources compete for the guest: list registers, and the one vLPI or vSGI that the redistributor offers for
the resident vPE (it has applied the configuration tables and VPENDBASER's group enables). The better one wins,
a list register on a tie; the winner is signalled if it passes VPMR and preempts.

What is acknowledged from the redistributor has no active state: VActivate goes up, its priority stays active
until EOIR, and nothing is left to deactivate. An LPI in a *list register* does become active there, and EOIR
ends it whatever VEOIM says.

Not modelled: FEAT_GICv3_NMI (LR.NMI is RES0), SEIs (TSEI is RES0).

Source: IHI 0069H sections 4.8, 5.3, 5.4 and chapter 12 (ICH_, ICV_); EOIcount: ICH_HCR_EL2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from nodes.pe import list_registers as lrs
from nodes.pe.priority import GROUP_MASK, IDLE, Scheme, lowest_bit

__all__ = ["DIRECT", "Direct", "VirtualInterface"]

SPURIOUS: Final = 1023
LPI_BASE: Final = 8192

EN: Final = 1 << 0
UIE: Final = 1 << 1
LRENPIE: Final = 1 << 2
NPIE: Final = 1 << 3
VGRP_IE: Final = ((1 << 4, 1 << 5), (1 << 6, 1 << 7))  # by group: enabled, disabled
VSGI_EOI_COUNT: Final = 1 << 8
DVIM: Final = 1 << 15
EOI_COUNT_SHIFT: Final = 27
EOI_COUNT: Final = 0x1F << EOI_COUNT_SHIFT
_HCR_FIXED: Final = 0xFF | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | EOI_COUNT

DIRECT: Final = -2
"""In place of a list register's number: the winner is the redistributor's offer."""
NOTHING: Final = -1


class Direct(NamedTuple):
    """A vLPI or vSGI offered by VSet."""

    vpeid: int
    intid: int
    priority: int
    group: int


class VirtualInterface:
    """ICH and ICV state of one PE. ``emit`` queues a packet upwards, ``report`` counts what is UNPREDICTABLE."""

    __slots__ = (
        "_emit", "_hcr_mask", "_id_mask", "_outputs", "_report", "active", "binary", "cbpr", "direct", "enabled",
        "eoimode", "hcr", "lr", "pmr", "scheme",
    )  # fmt: skip

    def __init__(
        self, scheme: Scheme, *, list_registers: int, id_bits: int, vsgi_eoicount: bool, dvim: bool,
        emit: Callable[[tuple[int | str, ...]], None], report: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.scheme = scheme
        self.lr = lrs.ListRegisters(list_registers, scheme.pri_mask, id_bits)
        self._id_mask = (1 << id_bits) - 1
        self._hcr_mask = _HCR_FIXED | (VSGI_EOI_COUNT if vsgi_eoicount else 0) | (DVIM if dvim else 0)
        self._emit = emit
        self._report = report
        self.reset()

    def reset(self) -> None:
        """Everything off. What is UNKNOWN at reset is 0 here, binary points their minimum."""
        self.hcr = 0
        self.enabled = (False, False)  # VENG0, VENG1
        self.cbpr = self.eoimode = False
        self.binary = [self.scheme.min_bpr0, self.scheme.min_bpr1]  # VBPR0, VBPR1
        self.pmr = 0
        self.active = [0, 0]  # ICH_AP0R, ICH_AP1R, concatenated
        for n in range(len(self.lr.values)):
            self.lr.write(n, 0)
        self.direct: Direct | None = None
        self._outputs: tuple[bool, bool, bool] | None = None

    # -- the redistributor ------------------------------------------------------------------------------------

    def offer(self, direct: Direct) -> None:
        """VSet: it takes the place of the one held, which is released unless it is the same interrupt."""
        held = self.direct
        self.direct = direct._replace(priority=direct.priority & self.scheme.pri_mask)
        self._outputs = None
        if held is not None and held[:2] != direct[:2]:
            self._emit(("VRelease", held.vpeid, held.intid))

    def withdraw(self) -> None:
        """Give the held one back: VRelease."""
        held = self.direct
        if held is not None:
            self.direct = None
            self._outputs = None
            self._emit(("VRelease", held.vpeid, held.intid))

    # -- selection --------------------------------------------------------------------------------------------

    def running(self) -> int:
        """ICV_RPR_EL1: priority of the highest active interrupt, 0xFF if none."""
        return self.scheme.running(self.active[0] | self.active[1])

    def group_mask(self, group: int) -> int:
        """Bits of a priority of that group that decide about preemption."""
        if group and not self.cbpr:
            return GROUP_MASK[self.binary[1] - 1]
        return GROUP_MASK[self.binary[0]]

    def best(self) -> tuple[int, int, int]:
        """``(source, priority, group)``: source is a list register's number, ``DIRECT`` or ``NOTHING``."""
        n = self.lr.best_pending(self.enabled)
        source, prio, group = NOTHING, IDLE, 1
        if n >= 0:
            value = self.lr.values[n]
            source, prio, group = n, value >> 48 & 0xFF, value >> 60 & 1
        direct = self.direct
        if (
            direct is not None
            and direct.priority < prio
            and self.hcr & (EN | DVIM) == EN
            and self.enabled[direct.group]
        ):
            return DIRECT, direct.priority, direct.group
        return source, prio, group

    def can_signal(self, prio: int, group: int) -> bool:
        """Does a pending interrupt of that priority and group reach the guest now?

        Running and pending priority are compared after both were cut to the pending one's group priority bits.
        """
        if not self.hcr & EN or prio >= self.pmr:
            return False
        running = self.running()
        mask = self.group_mask(group)
        return running == IDLE or prio & mask < running & mask

    # -- outputs ----------------------------------------------------------------------------------------------

    def outputs(self) -> tuple[bool, bool, bool]:
        """Levels of virtual IRQ, virtual FIQ and the maintenance interrupt."""
        if self._outputs is None:
            source, prio, group = self.best()
            signal = source != NOTHING and self.can_signal(prio, group)
            maintenance = bool(self.hcr & EN) and self.misr() != 0
            self._outputs = signal and group == 1, signal and group == 0, maintenance
        return self._outputs

    def misr(self) -> int:
        """ICH_MISR_EL2: the conditions that ask for maintenance, whatever ICH_HCR_EL2.En says."""
        hcr = self.hcr
        value = 1 if self.lr.eisr() else 0
        if hcr & UIE and self.lr.valid_count() < 2:
            value |= 1 << 1
        if hcr & LRENPIE and hcr & EOI_COUNT:
            value |= 1 << 2
        if hcr & NPIE and not self.lr.any_pending():
            value |= 1 << 3
        for group in (0, 1):
            on = self.enabled[group]
            if hcr & VGRP_IE[group][0 if on else 1]:
                value |= 1 << (4 + 2 * group + (0 if on else 1))
        return value

    # -- ICH registers ----------------------------------------------------------------------------------------

    def write_hcr(self, value: int) -> None:
        """ICH_HCR_EL2."""
        self.hcr = value & self._hcr_mask
        self._outputs = None

    def read_vmcr(self) -> int:
        """ICH_VMCR_EL2; VFIQEn reads 1, VAckCtl 0, since the guest uses System registers."""
        return (
            int(self.enabled[0]) | int(self.enabled[1]) << 1 | 1 << 3 | int(self.cbpr) << 4 | int(self.eoimode) << 9
            | self.binary[1] << 18 | self.binary[0] << 21 | self.pmr << 24
        )  # fmt: skip

    def write_vmcr(self, value: int) -> None:
        """ICH_VMCR_EL2; binary points below the minimum become the minimum."""
        self.enabled = (bool(value & 1), bool(value & 2))
        self.cbpr = bool(value & 1 << 4)
        self.eoimode = bool(value & 1 << 9)
        self.write_bpr_raw(1, value >> 18 & 7)
        self.write_bpr_raw(0, value >> 21 & 7)
        self.pmr = value >> 24 & self.scheme.pri_mask
        self._outputs = None

    def write_lr(self, n: int, value: int) -> None:
        """ICH_LR<n>_EL2."""
        self.lr.write(n, value)
        self._outputs = None

    def write_active(self, group: int, n: int, value: int) -> None:
        """ICH_AP<group>R<n>_EL2, also as ICV_AP<group>R<n>_EL1."""
        self.active[group] = self.scheme.with_word(self.active[group], n, value)
        self._outputs = None

    # -- ICV registers ----------------------------------------------------------------------------------------

    def write_bpr_raw(self, group: int, value: int) -> None:
        """VBPR0 or VBPR1, with its minimum."""
        self.binary[group] = max(value & 7, self.scheme.min_bpr1 if group else self.scheme.min_bpr0)
        self._outputs = None

    def read_bpr(self, group: int) -> int:
        """ICV_BPR<group>_EL1; with CBPR, BPR1 reads BPR0 + 1, at most 7."""
        if group and self.cbpr:
            return min(self.binary[0] + 1, 7)
        return self.binary[group]

    def write_bpr(self, group: int, value: int) -> None:
        """ICV_BPR<group>_EL1; with CBPR a write of BPR1 is ignored."""
        if not (group and self.cbpr):
            self.write_bpr_raw(group, value)

    def write_pmr(self, value: int) -> None:
        """ICV_PMR_EL1."""
        self.pmr = value & self.scheme.pri_mask
        self._outputs = None

    def write_enable(self, group: int, value: int) -> None:
        """ICV_IGRPEN<group>_EL1."""
        on = bool(value & 1)
        self.enabled = (self.enabled[0], on) if group else (on, self.enabled[1])
        self._outputs = None

    def write_ctlr(self, value: int) -> None:
        """ICV_CTLR_EL1: CBPR and EOImode are writable."""
        self.cbpr = bool(value & 1)
        self.eoimode = bool(value & 2)
        self._outputs = None

    def highest_pending(self, group: int) -> int:
        """ICV_HPPIR<group>_EL1: no side effect, and priority mask and running priority play no part."""
        source, _, its_group = self.best()
        if source == NOTHING or its_group != group:
            return SPURIOUS
        return self._intid(source)

    def _intid(self, source: int) -> int:
        if source == DIRECT:
            assert self.direct is not None
            return self.direct.intid
        return lrs.vintid(self.lr.values[source])

    def acknowledge(self, group: int) -> int:
        """ICV_IAR<group>_EL1: the INTID, now active, or 1023."""
        source, prio, its_group = self.best()
        if source == NOTHING or its_group != group or not self.can_signal(prio, group):
            return SPURIOUS
        intid = self._intid(source)
        self._outputs = None
        if source == DIRECT:
            assert self.direct is not None
            self._emit(("VActivate", self.direct.vpeid, intid))
            self.direct = None
        elif 1020 <= intid <= 1023:
            # A list register with a special INTID: returned and dropped, without becoming active.
            self.lr.values[source] &= ~lrs.PENDING_BIT
            return intid
        else:
            self.lr.values[source] ^= lrs.PENDING_BIT | lrs.ACTIVE_BIT
        self.active[group] |= self.scheme.active_bit(prio & self.group_mask(group))
        return intid

    def end_of_interrupt(self, group: int, value: int) -> None:
        """ICV_EOIR<group>_EL1: priority drop, and deactivation with EOImode 0 or of an LPI."""
        intid = value & self._id_mask
        if 1020 <= intid <= 1023:
            return
        dropped = self._drop()
        if dropped == IDLE:
            return  # nothing was active: neither deactivated nor counted (CONSTRAINED UNPREDICTABLE)
        n = self.lr.find_active(intid)
        if n >= 0:
            entry = self.lr.values[n]
            same = entry >> 60 & 1 == group and lrs.priority(entry) & self.group_mask(group) == dropped
            if same and (not self.eoimode or intid >= LPI_BASE):
                self._deactivate(n)
        elif not self.eoimode:
            self._count_eoi(intid)

    def deactivate(self, value: int) -> None:
        """ICV_DIR_EL1: ignored for LPIs, special INTIDs and with EOImode 0."""
        intid = value & self._id_mask
        if not self.eoimode or 1020 <= intid <= 1023 or intid >= LPI_BASE:
            return
        n = self.lr.find_active(intid)
        if n >= 0:
            self._deactivate(n)
        else:
            self._count_eoi(intid)
        self._outputs = None

    def _drop(self) -> int:
        """Clear the highest active priority, of Group 0 when both have it; the priority, or 0xFF if none."""
        zero, one = self.active
        if not zero | one:
            return IDLE
        bit = lowest_bit(zero | one)
        self.active[0 if zero >> bit & 1 else 1] &= ~(1 << bit)
        self._outputs = None
        return bit << self.scheme.shift

    def _deactivate(self, n: int) -> None:
        """Active to invalid, active and pending to pending; HW=1 deactivates the physical interrupt too."""
        value = self.lr.values[n]
        self.lr.values[n] = value & ~lrs.ACTIVE_BIT
        if value & lrs.HW:
            pintid = lrs.pintid(value)
            if not lrs.is_private_or_shared(pintid):
                self._report(
                    "lr_bad_pintid",
                    f"ICH_LR{n}_EL2 {value:#018x}: pINTID must be a PPI or SPI, not {pintid}; nothing deactivated",
                )
            else:
                self._emit(("Deactivate", pintid, 1))

    def _count_eoi(self, intid: int) -> None:
        """EOIcount, modulo 32, for a deactivation that found no list register."""
        if intid >= LPI_BASE or (intid < 16 and self.hcr & VSGI_EOI_COUNT):
            return
        count = (self.hcr >> EOI_COUNT_SHIFT) + 1 & 0x1F
        self.hcr = self.hcr & ~EOI_COUNT | count << EOI_COUNT_SHIFT
