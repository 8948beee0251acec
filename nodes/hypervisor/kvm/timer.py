"""A vCPU's virtual timer between two entries: CNTV_CTL, CNTV_CVAL and what follows from the count.

CNTVCT_EL0 counts from 0 at simulated time 0 with `frequency` Hz (CNTVOFF_EL2 = 0). The state travels in Enter and Exit; while
the vCPU runs, the PE drives PPI 27. What KVM adds: the interrupt goes to the guest as virtual PPI 27 through a list register
with HW = 1 and pINTID = 27, so that the guest's EOI ends the physical one as well; the physical PPI is kept active as long as
the virtual one is pending or active. For a vCPU that is blocked, `deadline` is when to wake it.

Source: Arm ARM D12.2; Linux arch/arm64/kvm/arch_timer.c (behaviour).
"""

from __future__ import annotations

from typing import Final

CTL_ENABLE: Final = 1 << 0
CTL_IMASK: Final = 1 << 1
PS_PER_SECOND: Final = 10**12


class VTimer:
    """CNTV_CTL_EL0 and CNTV_CVAL_EL0 as last saved."""

    __slots__ = ("ctl", "cval", "frequency")

    def __init__(self, frequency: int) -> None:
        self.frequency = frequency
        self.ctl = 0
        self.cval = 0

    def count(self, now: int) -> int:
        """CNTVCT_EL0 at `now` (ps)."""
        return now * self.frequency // PS_PER_SECOND

    @property
    def armed(self) -> bool:
        """Enabled and not masked: it has, or will have, an interrupt."""
        return self.ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE

    def level(self, now: int) -> bool:
        """Level of the timer's output at `now` (ps)."""
        return self.armed and self.count(now) >= self.cval

    def deadline(self) -> int | None:
        """Time (ps) at which the level rises or rose; None while it is not armed."""
        if not self.armed:
            return None
        return -(-self.cval * PS_PER_SECOND // self.frequency)
