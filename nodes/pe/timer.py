"""Timers of a PE, pure: time comes in as an argument. The EL1 virtual timer (CNTV) with the system counter, and the EL2
physical timer (CNTHP), which the host uses for its time slices.

CNTVCT counts at `frequency` from time 0; CNTVOFF_EL2 is 0, so a guest sees the host's count. The condition is met when
CNTVCT >= CNTV_CVAL; the output is high while the timer is enabled, not masked and its condition is met.

Source: Arm ARM D12.2 (generic timer), CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTV_TVAL_EL0, CNTHP_CTL_EL2.
"""

from __future__ import annotations

from cosim.api import Instant

CTL_ENABLE = 1 << 0
CTL_IMASK = 1 << 1
CTL_ISTATUS = 1 << 2

_SECOND_PS = 10**12
_MASK64 = (1 << 64) - 1

TIMER_REGISTERS = frozenset(
    ("CNTVCT_EL0", "CNTPCT_EL0", "CNTFRQ_EL0", "CNTV_CTL_EL0", "CNTV_CVAL_EL0", "CNTV_TVAL_EL0")
)
"""System registers that `VirtualTimer` answers."""

HYP_TIMER_REGISTERS: dict[str, str] = {
    "CNTHP_CTL_EL2": "CNTV_CTL_EL0",
    "CNTHP_CVAL_EL2": "CNTV_CVAL_EL0",
    "CNTHP_TVAL_EL2": "CNTV_TVAL_EL0",
}
"""Registers of the EL2 physical timer, and which of `VirtualTimer`'s has the same format: CNTVOFF_EL2 is 0, so both timers
compare with the same count."""


class VirtualTimer:
    """CTL, CVAL and the counter of one timer of a PE; `frequency` in Hz.

    Raises:
        ValueError: frequency not positive.
    """

    __slots__ = ("ctl", "cval", "frequency")

    def __init__(self, frequency: int) -> None:
        if frequency <= 0:
            raise ValueError(f"cntfrq must be a positive number of Hz, not {frequency!r}")
        self.frequency = frequency
        self.ctl = 0
        self.cval = 0

    def load(self, ctl: int, cval: int) -> None:
        """Take over a context's CNTV_CTL (ISTATUS is ignored) and CNTV_CVAL."""
        self.ctl = ctl & (CTL_ENABLE | CTL_IMASK)
        self.cval = cval & _MASK64

    def count(self, now: Instant) -> int:
        """CNTVCT_EL0 at `now` ps."""
        return now * self.frequency // _SECOND_PS

    def output(self, now: Instant) -> bool:
        """Level of the interrupt at `now` ps."""
        return self.ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE and self.count(now) >= self.cval

    def due(self, now: Instant) -> Instant | None:
        """When the output will rise, in ps after `now`; None if it is high or never will."""
        if self.ctl & (CTL_ENABLE | CTL_IMASK) != CTL_ENABLE or self.count(now) >= self.cval:
            return None
        when = -(-self.cval * _SECOND_PS // self.frequency)
        return when if when < 1 << 63 else None

    def status(self, now: Instant) -> int:
        """CNTV_CTL_EL0 as read: ISTATUS is the condition while enabled, whatever IMASK says."""
        met = self.ctl & CTL_ENABLE and self.count(now) >= self.cval
        return self.ctl | (CTL_ISTATUS if met else 0)

    def read(self, name: str, now: Instant) -> int:
        """MRS of a register in `TIMER_REGISTERS`."""
        if name in ("CNTVCT_EL0", "CNTPCT_EL0"):
            return self.count(now)
        if name == "CNTFRQ_EL0":
            return self.frequency
        if name == "CNTV_CTL_EL0":
            return self.status(now)
        if name == "CNTV_CVAL_EL0":
            return self.cval
        return self.cval - self.count(now) & 0xFFFF_FFFF

    def write(self, name: str, value: int, now: Instant) -> bool:
        """MSR; False for a register that can't be written at EL1."""
        if name == "CNTV_CTL_EL0":
            self.ctl = value & (CTL_ENABLE | CTL_IMASK)
        elif name == "CNTV_CVAL_EL0":
            self.cval = value & _MASK64
        elif name == "CNTV_TVAL_EL0":
            signed = (value & 0xFFFF_FFFF) - ((value & 0x8000_0000) << 1)
            self.cval = self.count(now) + signed & _MASK64
        else:
            return False
        return True
