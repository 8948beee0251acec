"""The physical CPU interface: what ICC_ registers do with the one interrupt that the redistributor has sent.

The redistributor sends its best pending interrupt by Set and takes it back by Clear; it is held here until
software acknowledges it. Active states are the distributor's and the redistributor's; here live only the
active *priorities*. LPIs have no active state, so their EOIR is a priority drop and their DIR nothing.

Groups are numbered 0 (Group 0), 1 (Non-secure Group 1, or Group 1 with one Security state), 2 (Secure Group 1).
Priorities are in the Secure view, 8 bits. An interrupt of a group that is off in ICC_IGRPEN<n> stays held and
is neither signalled nor visible (the redistributor hears of the enables by UpstreamControl).

Source: IHI 0069H sections 4.7, 4.8 and chapter 12 (ICC_); UpstreamControl: appendix A, GIC Stream Protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from nodes.arch.groups import ANY_GROUP, GROUP0, GROUP1_NS, GROUP1_S
from nodes.pe.priority import GROUP_MASK, IDLE, Scheme, nonsecure_view

SECURE_PENDING: Final = 1020  # EL3 reading Group 0: a Secure Group 1 interrupt is pending
NONSECURE_PENDING: Final = 1021
SPURIOUS: Final = 1023
LPI_BASE: Final = 8192

_SGI_MASK: Final = 0x00FF_00FF_0FFF_FFFF | 1 << 40  # without RS
_SGI_RS: Final = 0xF << 44
_PMHE: Final = 1 << 6


class Held(NamedTuple):
    """A pending interrupt sent by Set."""

    intid: int
    priority: int
    group: int


class PhysicalInterface:
    """ICC state of one PE.

    ``emit`` queues a packet upwards, ``report`` counts; the other arguments are those of ``CpuInterface``.
    """

    __slots__ = (
        "_emit", "_ext_range", "_id_mask", "_ids", "_report", "_sgi_mask", "active", "binary", "cbpr", "enabled",
        "eoimode", "eoimode_el3", "held", "pmhe", "pmr", "scheme", "two_states",
    )  # fmt: skip

    def __init__(
        self, scheme: Scheme, *, id_bits: int, two_states: bool, rss: bool, ext_range: bool,
        emit: Callable[[tuple[int | str, ...]], None], report: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.scheme = scheme
        self.two_states = two_states
        self._id_mask = (1 << id_bits) - 1
        self._ext_range = ext_range
        self._ids = (
            scheme.pri_bits - 1 << 8 | (1 << 11 if id_bits == 24 else 0) | 1 << 15 | int(rss) << 18
            | int(ext_range) << 19
        )  # fmt: skip
        self._sgi_mask = _SGI_MASK | (_SGI_RS if rss else 0)
        self._emit = emit
        self._report = report
        self.reset()

    def reset(self) -> None:
        """Groups off. What is UNKNOWN at reset is 0 here, binary points their minimum."""
        self.held: Held | None = None
        self.pmr = 0
        self.pmhe = False
        self.enabled = [False, False, False]  # by group
        self.active = [0, 0, 0]  # by group: AP<g>R<n> concatenated
        self.binary = [self.scheme.min_bpr0, self.scheme.min_bpr1, self.scheme.min_bpr0]  # by group
        self.cbpr = [False, False, False]  # of Group 1, by group
        self.eoimode = [False, False, False]  # ICC_CTLR_EL1.EOImode, by the group number of its Security state
        self.eoimode_el3 = False

    # -- the redistributor ------------------------------------------------------------------------------------

    def offer(self, held: Held) -> None:
        """Set: it takes the place of the one held, which is released unless it is the same interrupt."""
        old = self.held
        self.held = held._replace(priority=held.priority & self.scheme.pri_mask)
        if old is not None and old.intid != held.intid:
            self._emit(("Release", old.intid))

    def withdraw(self) -> None:
        """Give the held one back: Release."""
        if self.held is not None:
            intid = self.held.intid
            self.held = None
            self._emit(("Release", intid))

    # -- selection --------------------------------------------------------------------------------------------

    def running(self) -> int:
        """Running priority, Secure view; 0xFF when nothing is active."""
        zero, nonsecure, secure = self.active
        return self.scheme.running(zero | nonsecure | secure)

    def group_mask(self, group: int) -> int:
        """Bits of a priority of that group that decide about preemption."""
        if group == GROUP0 or self.cbpr[group]:
            return GROUP_MASK[self.binary[GROUP0]]
        return GROUP_MASK[self.binary[group] - (1 if group == GROUP1_NS else 0)]

    def can_signal(self) -> bool:
        """Is the held interrupt enabled, above the mask and able to preempt?

        Running and pending priority are compared after both were cut to the pending one's group priority bits.
        """
        held = self.held
        if held is None or not self.enabled[held.group] or held.priority >= self.pmr:
            return False
        running = self.running()
        mask = self.group_mask(held.group)
        return running == IDLE or held.priority & mask < running & mask

    def outputs(self, el3: bool, secure: bool) -> tuple[bool, bool]:
        """Levels of IRQ and FIQ for a PE in that state; a group of the other Security state is an FIQ (4.6.2)."""
        if not self.can_signal():
            return False, False
        assert self.held is not None
        group = self.held.group
        if group == GROUP0:
            fiq = True
        elif group == GROUP1_S:
            fiq = el3 or not secure
        else:
            fiq = self.two_states and (el3 or secure)
        return not fiq, fiq

    def bank(self, secure: bool) -> int:
        """The Group 1 whose registers an access in that Security state (at EL3: of SCR_EL3.NS) reaches."""
        return GROUP1_S if secure and self.two_states else GROUP1_NS

    # -- acknowledge and end ----------------------------------------------------------------------------------

    def highest_pending(self, group: int, el: int, secure: bool) -> int:
        """ICC_HPPIR<group>_EL1: no side effect, and priority mask and running priority play no part."""
        held = self.held
        if held is None or not self.enabled[held.group]:
            return SPURIOUS
        if group == 0:
            if held.group == GROUP0:
                return held.intid if el == 3 or secure or not self.two_states else SPURIOUS
            if el == 3:
                return SECURE_PENDING if held.group == GROUP1_S else NONSECURE_PENDING
            return SPURIOUS
        if held.group == GROUP0 or (el < 3 and held.group != self.bank(secure)):
            return SPURIOUS
        return held.intid

    def acknowledge(self, group: int, el: int, secure: bool) -> int:
        """ICC_IAR<group>_EL1: the INTID, its priority now active; 1023, or 1020 and 1021 at EL3."""
        if not self.can_signal():
            return SPURIOUS
        intid = self.highest_pending(group, el, secure)
        held = self.held
        if held is None or 1020 <= intid <= 1023:
            return intid
        self.active[held.group] |= self.scheme.active_bit(held.priority & self.group_mask(held.group))
        self.held = None
        self._emit(("Activate", intid))
        return intid

    def _split(self, el: int, secure: bool) -> bool:
        """EOImode of the current Exception level and Security state."""
        return self.eoimode_el3 if el == 3 else self.eoimode[self.bank(secure)]

    def _has_active_state(self, intid: int) -> bool:
        """SGIs, PPIs and SPIs; not LPIs, special and reserved INTIDs."""
        return intid < 1020 or (self._ext_range and (1056 <= intid <= 1119 or 4096 <= intid <= 5119))

    def end_of_interrupt(self, group: int, value: int, el: int, secure: bool) -> None:
        """ICC_EOIR<group>_EL1: drops the highest active priority if it is of this group and Security state.

        With EOImode 0 an SGI, PPI or SPI is deactivated too. A mismatch is UNPREDICTABLE: ignored.
        """
        intid = value & self._id_mask
        zero, nonsecure, secure_ones = self.active
        every = zero | nonsecure | secure_ones
        if 1020 <= intid <= 1023 or not every:
            return
        bit = every & -every
        highest = GROUP0 if zero & bit else GROUP1_S if secure_ones & bit else GROUP1_NS
        if (highest == GROUP0) != (group == 0):
            return
        if self.two_states and el < 3:
            if highest == GROUP0 and not secure:
                return
            if highest != GROUP0 and highest != self.bank(secure):
                return
        self.active[highest] &= ~bit
        if not self._split(el, secure) and self._has_active_state(intid):
            self._emit(("Deactivate", intid, highest))

    def deactivate(self, value: int, el: int, secure: bool) -> None:
        """ICC_DIR_EL1: ignored for LPIs and special INTIDs, and with EOImode 0 (UNPREDICTABLE)."""
        intid = value & self._id_mask
        if self._split(el, secure) and self._has_active_state(intid):
            nonsecure = self.two_states and el < 3 and not secure
            self._emit(("Deactivate", intid, GROUP1_NS if nonsecure else ANY_GROUP))

    def generate_sgi(self, kind: str, value: int, secure: bool) -> None:
        """ICC_SGI1R_EL1, ICC_ASGI1R_EL1, ICC_SGI0R_EL1; RES0 bits (RS without RSS) are dropped."""
        self._emit(("GenerateSgi", kind, value & self._sgi_mask, 0 if secure and self.two_states else 1))

    # -- registers --------------------------------------------------------------------------------------------

    def read_pmr(self, shifted: bool) -> int:
        """ICC_PMR_EL1; ``shifted``: the Non-secure view."""
        return nonsecure_view(self.pmr) if shifted else self.pmr

    def write_pmr(self, value: int, shifted: bool) -> None:
        """ICC_PMR_EL1; Non-secure software can't change a mask in the Secure half."""
        if shifted:
            if not self.pmr & 0x80:
                self._report(
                    "pmr_write_ignored",
                    f"Non-secure write {value:#x} to ICC_PMR_EL1 has no effect while the mask is {self.pmr:#04x}, in"
                    " the Secure half; EL3 must first write 0x80 or more (firmware writes 0xFF)",
                )
                return
            value = (value & 0xFF) >> 1 | 0x80
        value &= self.scheme.pri_mask
        if value != self.pmr:
            self.pmr = value
            if self.pmhe:
                self._emit(("UpstreamControl", "PMR", value))

    def read_rpr(self, shifted: bool) -> int:
        """ICC_RPR_EL1."""
        return nonsecure_view(self.running()) if shifted else self.running()

    def read_bpr1(self, el: int, secure: bool) -> int:
        """ICC_BPR1_EL1; with CBPR below EL3 it shows BPR0 (Secure) or BPR0 + 1, at most 7 (Non-secure)."""
        bank = self.bank(secure)
        if el < 3 and self.cbpr[bank]:
            return self.binary[GROUP0] if bank == GROUP1_S else min(self.binary[GROUP0] + 1, 7)
        return self.binary[bank]

    def write_bpr0(self, value: int) -> None:
        """ICC_BPR0_EL1; values below the minimum become the minimum."""
        self.binary[GROUP0] = max(value & 7, self.scheme.min_bpr0)

    def write_bpr1(self, value: int, el: int, secure: bool) -> None:
        """ICC_BPR1_EL1; with CBPR below EL3 it writes BPR0 (Secure) or nothing (Non-secure)."""
        bank = self.bank(secure)
        if el < 3 and self.cbpr[bank]:
            if bank == GROUP1_S:
                self.write_bpr0(value)
            return
        self.binary[bank] = max(value & 7, self.scheme.min_bpr1 if bank == GROUP1_NS else self.scheme.min_bpr0)

    def write_active(self, group: int, n: int, value: int) -> None:
        """ICC_AP0R<n>_EL1 and ICC_AP1R<n>_EL1."""
        self.active[group] = self.scheme.with_word(self.active[group], n, value)

    def write_enable(self, group: int, value: int) -> None:
        """ICC_IGRPEN<n>_EL1."""
        enabled = list(self.enabled)
        enabled[group] = bool(value & 1)
        self._set_enables(enabled)

    def write_enables_el3(self, value: int) -> None:
        """ICC_IGRPEN1_EL3: both Group 1 enables; the Secure one is RES0 with one Security state."""
        self._set_enables([self.enabled[GROUP0], bool(value & 1), bool(value & 2) and self.two_states])

    def _set_enables(self, enabled: list[bool]) -> None:
        """A change goes up, bit n of the value standing for group n."""
        if enabled != self.enabled:
            self.enabled = enabled
            self._emit(("UpstreamControl", "GroupEnables", sum(on << g for g, on in enumerate(enabled))))

    def read_ctlr(self, secure: bool) -> int:
        """ICC_CTLR_EL1."""
        bank = self.bank(secure)
        rw = int(self.cbpr[bank]) | int(self.eoimode[bank]) << 1 | (_PMHE if self.pmhe else 0)
        return self._ids | rw

    def write_ctlr(self, value: int, secure: bool) -> None:
        """ICC_CTLR_EL1; with two Security states only EOImode is writable, the rest through ICC_CTLR_EL3."""
        bank = self.bank(secure)
        self.eoimode[bank] = bool(value & 2)
        if not self.two_states:
            self.cbpr[bank] = bool(value & 1)
            self._write_pmhe(bool(value & _PMHE))

    def read_ctlr_el3(self) -> int:
        """ICC_CTLR_EL3; nDS: this interface can't be switched to one Security state."""
        return (
            self._ids | int(self.cbpr[GROUP1_S]) | int(self.cbpr[GROUP1_NS]) << 1 | int(self.eoimode_el3) << 2
            | int(self.eoimode[GROUP1_S]) << 3 | int(self.eoimode[GROUP1_NS]) << 4 | (_PMHE if self.pmhe else 0)
            | int(self.two_states) << 17
        )  # fmt: skip

    def write_ctlr_el3(self, value: int) -> None:
        """ICC_CTLR_EL3; RM is RES0."""
        self.cbpr[GROUP1_NS] = bool(value & 1 << 1)
        self.eoimode_el3 = bool(value & 1 << 2)
        self.eoimode[GROUP1_NS] = bool(value & 1 << 4)
        if self.two_states:
            self.cbpr[GROUP1_S] = bool(value & 1)
            self.eoimode[GROUP1_S] = bool(value & 1 << 3)
        self._write_pmhe(bool(value & _PMHE))

    def _write_pmhe(self, on: bool) -> None:
        """PMHE: the priority mask is a hint for the distribution of 1-of-N SPIs, so it goes up while set."""
        if on != self.pmhe:
            self.pmhe = on
            self._emit(("UpstreamControl", "PMR", self.pmr if on else IDLE))
