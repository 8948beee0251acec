"""Priority arithmetic of the CPU interface: implemented bits, binary points, active priorities.

Priorities are 8-bit values, the lower the more urgent, in the distributor's (Secure) view unless said
otherwise. The physical and the virtual interface use the same arithmetic with values of their own.

Source: IHI 0069H section 4.8 (interrupt prioritization) and ICC_BPR0_EL1, ICC_BPR1_EL1, ICC_AP1R<n>_EL1,
ICC_PMR_EL1, ICC_RPR_EL1 in chapter 12.
"""

from __future__ import annotations

from typing import Final

__all__ = ["IDLE", "GROUP_MASK", "Scheme", "lowest_bit", "nonsecure_view"]

IDLE: Final = 0xFF
"""Running priority when no interrupt is active."""

GROUP_MASK: Final = tuple(0xFF << (bpr + 1) & 0xFF for bpr in range(8))
"""By binary point: the bits of a priority that decide about preemption (7: none)."""


def lowest_bit(word: int) -> int:
    """Number of the lowest set bit of a word that is not zero."""
    return (word & -word).bit_length() - 1


def nonsecure_view(priority: int) -> int:
    """What Non-secure software reads for ``priority`` of PMR or RPR, with two Security states.

    Priorities of the Secure half read as 0, the others shifted left by one; idle stays 0xFF.
    """
    if priority == IDLE:
        return IDLE
    return priority << 1 & 0xFF if priority & 0x80 else 0


class Scheme:
    """What an implementation of ``pri_bits`` priority and ``pre_bits`` preemption bits can represent."""

    __slots__ = ("active_mask", "apr_count", "min_bpr0", "min_bpr1", "pre_bits", "pri_bits", "pri_mask", "shift")

    def __init__(self, pri_bits: int, pre_bits: int) -> None:
        if not 5 <= pri_bits <= 8:
            raise ValueError(f"pri_bits must be 5 to 8 (two Security states need 32 levels), not {pri_bits!r}")
        if not 5 <= pre_bits <= min(7, pri_bits):
            raise ValueError(f"pre_bits must be 5 to 7 and at most pri_bits ({pri_bits}), not {pre_bits!r}")
        self.pri_bits = pri_bits
        self.pre_bits = pre_bits
        self.pri_mask = 0xFF << (8 - pri_bits) & 0xFF
        self.min_bpr0 = 7 - pre_bits
        self.min_bpr1 = self.min_bpr0 + 1  # of the Non-secure copy; the Secure one counts like BPR0
        self.apr_count = 1 << (pre_bits - 5)
        self.active_mask = (1 << (1 << pre_bits)) - 1
        self.shift = 8 - pre_bits

    def active_bit(self, group_priority: int) -> int:
        """The bit of the concatenated AP<g>R<n> that stands for an active interrupt of that group priority."""
        return 1 << (group_priority >> self.shift)

    def running(self, active: int) -> int:
        """Running priority with these active bits (all groups ORed together)."""
        return lowest_bit(active) << self.shift if active else IDLE

    def word(self, active: int, n: int) -> int:
        """AP<g>R<n> out of the concatenated bits."""
        return active >> (32 * n) & 0xFFFFFFFF

    def with_word(self, active: int, n: int, value: int) -> int:
        """The concatenated bits after ``value`` was written to AP<g>R<n>."""
        kept = active & ~(0xFFFFFFFF << (32 * n))
        return (kept | (value & 0xFFFFFFFF) << (32 * n)) & self.active_mask
