"""SGIs and PPIs of one PE: state, Security rules, the views of their registers (IHI 0069 chapters 4 and 12, GICR_ SGI frame).

Pending is a latch (an edge, an SGI, a write to ISPENDR0) or, of a level-sensitive PPI, the level of its line. Activate clears
the latch; a level that is still high makes the interrupt pending again once it is deactivated.

With two Security states a Non-secure access sees interrupts of Non-secure Group 1 only, and their priorities shifted: the
lower half of the range, 0x80 to 0xFF, looks like 0x00 to 0xFE (section 4.8.1).
"""

from __future__ import annotations

from collections.abc import Iterator

from nodes.arch.groups import (
    ANY_GROUP,
    GROUP0,
    GROUP1_NS,
    GROUP1_S,
    config_of,
    edges_of,
    group_of,
    read_priorities,
    written_priorities,
)
from nodes.redistributor.stream import Offer

COUNT = 32
SGIS = 0xFFFF
ALL = 0xFFFF_FFFF


class Private:
    """State of INTIDs 0 to 31 as 32-bit masks, bit n for INTID n; `priority` in the Secure view."""

    __slots__ = (
        "_priority_mask",
        "active",
        "edge",
        "enabled",
        "group",
        "latch",
        "level",
        "modifier",
        "nsacr",
        "priority",
        "stateless_sgis",
        "two_states",
    )

    def __init__(self, two_states: bool, priority_bits: int) -> None:
        self.two_states = two_states
        self._priority_mask = 0xFF << (8 - priority_bits) & 0xFF
        self.enabled = self.latch = self.level = self.active = 0
        self.group = self.modifier = 0
        self.edge = SGIS
        self.nsacr = 0
        self.stateless_sgis = False
        self.priority = [0] * COUNT

    @property
    def pending(self) -> int:
        """Latches, and levels of level-sensitive lines."""
        return self.latch | self.level & ~self.edge

    def group_of(self, intid: int) -> int:
        """0, 1 (Non-secure Group 1, or Group 1 with one Security state) or 2 (Secure Group 1)."""
        return group_of(intid, self.group, self.modifier, self.two_states)

    def visible(self, secure: bool) -> int:
        """The interrupts that an access in that Security state may see and change."""
        return ALL if secure or not self.two_states else self.group

    def offers(self, groups: int) -> Iterator[Offer]:
        """Those enabled, pending, not active, of a group in `groups` (bit n: group n)."""
        mask = self.enabled & self.pending & ~self.active
        while mask:
            bit = mask & -mask
            mask ^= bit
            intid = bit.bit_length() - 1
            group = self.group_of(intid)
            if groups >> group & 1:
                yield Offer(intid, self.priority[intid], group)

    # -- events ----------------------------------------------------------------------------------------------------------

    def drive(self, line: int, level: int) -> None:
        """A PPI's line changed."""
        bit = 1 << line
        if level:
            self.level |= bit
            self.latch |= bit & self.edge
        else:
            self.level &= ~bit

    def activate(self, intid: int, cancelled: bool) -> None:
        """Acknowledged: active, and the latch cleared unless it was set anew after a clear (`cancelled`)."""
        bit = 1 << intid
        if not (self.stateless_sgis and bit & SGIS):
            self.active |= bit
        if not cancelled:
            self.latch &= ~bit

    def deactivate(self, intid: int, group: int) -> bool:
        """Deactivate from the CPU interface, entitled to `group`; whether it was allowed."""
        if group not in (ANY_GROUP, self.group_of(intid)):
            return False
        self.active &= ~(1 << intid)
        return True

    def accepts_sgi(self, intid: int, register: str, nonsecure: int) -> bool:
        """Whether an SGI that software asked for by that register goes through, by its group here and GICR_NSACR.

        SGI1R asks for Group 1 of the writer's Security state, ASGI1R for that of the other, SGI0R for Group 0. A request for
        Secure Group 1 also serves an SGI of Group 0. With one Security state SGI1R serves both groups, and ASGI1R is as SGI0R:
        there is no other state, so no other Group 1.
        """
        have = self.group_of(intid)
        if not self.two_states:
            return register == "SGI1R" or have == GROUP0
        if register == "SGI0R":
            asked = GROUP0
        else:
            asked = GROUP1_NS if (register == "SGI1R") == bool(nonsecure) else GROUP1_S
        if asked == GROUP1_S and have == GROUP0:
            asked = GROUP0
        if asked != have:
            return False
        if nonsecure and have != GROUP1_NS:
            return self.nsacr >> (2 * intid) & 3 >= (1 if have == GROUP0 else 2)
        return True

    # -- registers: `mask` bits may be changed ---------------------------------------------------------------------------

    def set_active(self, bits: int) -> None:
        """ISACTIVER0; SGIs have no active state with GICD_CTLR.nASSGIreq."""
        self.active |= bits & ~(SGIS if self.stateless_sgis else 0)

    def set_stateless_sgis(self, on: bool) -> None:
        """GICD_CTLR.nASSGIreq changed, while all groups are disabled."""
        self.stateless_sgis = on
        if on:
            self.active &= ~SGIS

    def set_pending(self, bits: int) -> None:
        """ISPENDR0: a latch, beside the level of a level-sensitive line."""
        self.latch |= bits

    def clear_pending(self, bits: int) -> None:
        """ICPENDR0: the latch; a high level stays pending."""
        self.latch &= ~bits

    def read_priorities(self, index: int, secure: bool) -> int:
        """IPRIORITYR<index>."""
        shifted = self.two_states and not secure
        return read_priorities(index, self.priority, self.visible(secure), shifted)

    def write_priorities(self, index: int, value: int, lanes: int, secure: bool) -> None:
        """IPRIORITYR<index>; Non-secure software reaches the lower half of the range only."""
        shifted = self.two_states and not secure
        for intid, priority in written_priorities(index, value, lanes, self.visible(secure), shifted):
            self.priority[intid] = priority & self._priority_mask

    def read_config(self, secure: bool) -> int:
        """ICFGR1: bit 2n+1 is 1 for an edge-triggered PPI 16 + n."""
        edges = (self.edge & self.visible(secure)) >> 16
        return config_of(edges)

    def write_config(self, value: int, secure: bool) -> None:
        """ICFGR1."""
        bits = edges_of(value) << 16
        visible = self.visible(secure) & ~SGIS
        self.edge = self.edge & ~visible | bits & visible
