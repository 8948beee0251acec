"""One virtual interrupt, as KVM keeps it (struct vgic_irq), and its form in a list register (sheet 6.5, 7.1).

`VgicIrq.hw` tells what stands behind it: nothing (software only), a physical INTID that the guest's EOI deactivates
(`Hw.MAPPED`: the timer), a vSGI in hardware (`Hw.SGI`) or a forwarded vLPI (`Hw.VLPI`). The last two never enter a list.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nodes.hypervisor.kvm.vgic import VgicCpu

STATE_PENDING: Final = 1 << 62
STATE_ACTIVE: Final = 1 << 63
LR_STATE: Final = STATE_PENDING | STATE_ACTIVE
LR_HW: Final = 1 << 61
LR_GROUP1: Final = 1 << 60
LR_EOI: Final = 1 << 41
PRIORITY_SHIFT: Final = 48
PINTID_SHIFT: Final = 32
"""Fields of ICH_LR<n>_EL2 (IHI 0069H 12.4.11)."""

LPI_BASE: Final = 8192


class Hw(Enum):
    """What is behind a virtual interrupt."""

    NONE = 0
    MAPPED = 1
    SGI = 2
    VLPI = 3


class VgicIrq:
    """State of one virtual INTID.

    `target`: the vCPU that it is for; `listed`: the vCPU whose ap_list holds it. `level`: level-sensitive.
    `forwarded`: (host device, event) behind a forwarded vLPI. `counted`: this pending state has been counted as an
    injection into a list register.
    """

    __slots__ = (
        "active", "counted", "enabled", "forwarded", "group", "hw", "intid", "level", "line_level", "listed", "owner",
        "pending_latch", "pintid", "priority", "target",
    )  # fmt: skip

    def __init__(self, intid: int, *, owner: VgicCpu | None = None, level: bool = False) -> None:
        self.intid = intid
        self.owner = owner
        self.target: VgicCpu | None = owner
        self.listed: VgicCpu | None = None
        self.level = level
        self.priority = 0
        self.group = 1
        self.enabled = intid < 16
        self.pending_latch = False
        self.line_level = False
        self.active = False
        self.hw = Hw.NONE
        self.pintid = 0
        self.forwarded: Any = None
        self.counted = False

    def __repr__(self) -> str:
        return f"virtual INTID {self.intid}"

    @property
    def is_lpi(self) -> bool:
        """INTID 8192 and above."""
        return self.intid >= LPI_BASE

    @property
    def direct(self) -> bool:
        """Whether the GIC itself holds its state (vSGI or forwarded vLPI)."""
        return self.hw in (Hw.SGI, Hw.VLPI)

    @property
    def pending(self) -> bool:
        """Pending in software: latched, or its level is high."""
        return self.pending_latch or (self.level and self.line_level)

    @property
    def deliverable(self) -> bool:
        """Pending, enabled and not active: what a vCPU can be woken for."""
        return self.pending and self.enabled and not self.active

    # -- list register ---------------------------------------------------------------------------------------------

    def to_lr(self) -> int:
        """Move the state into a list register: its value; an edge's latch and a mapped level's line go along.

        KVM never asks for pending and active of a HW-mapped or level-sensitive interrupt.
        """
        value = self.intid | self.priority << PRIORITY_SHIFT | (LR_GROUP1 if self.group else 0)
        both = True
        if self.active:
            value |= STATE_ACTIVE
        if self.hw is Hw.MAPPED:
            value |= LR_HW | self.pintid << PINTID_SHIFT
            both = not self.active
        elif self.level:
            value |= LR_EOI
            both = not self.active
        if both and self.pending:
            value |= STATE_PENDING
            if not self.level:
                self.pending_latch = False
            elif self.hw is Hw.MAPPED:
                self.line_level = False
        return value

    def from_lr(self, value: int) -> bool:
        """Take back what a list register holds after an exit; returns whether it is still pending there.

        An LPI is never active for software: that state is stripped.
        """
        pending = bool(value & STATE_PENDING)
        self.active = bool(value & STATE_ACTIVE) and not self.is_lpi
        if pending and not self.level:
            self.pending_latch = True
        if self.level and not value & LR_STATE:
            self.pending_latch = False
        if not pending:
            self.counted = False
        return pending
