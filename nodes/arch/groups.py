"""Interrupt groups, and registers with a field per INTID, as distributor and redistributors both have them.

Source: IHI 0069 sections 4.6 (grouping) and 4.8 (priorities), chapter 12 (GICD_ and GICR_ IGROUPR, IGRPMODR, IPRIORITYR, ICFGR).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

GROUP0: Final = 0
GROUP1_NS: Final = 1
"""Non-secure Group 1, or Group 1 with one Security state."""
GROUP1_S: Final = 2
ANY_GROUP: Final = 3
"""In Deactivate: whatever the interrupt's group, software was entitled to it."""


def group_of(intid: int, group: int, modifier: int, two_states: bool) -> int:
    """`GROUP0`, `GROUP1_NS` or `GROUP1_S`, by the masks of IGROUPR and IGRPMODR (bit n: INTID n)."""
    if group >> intid & 1:
        return GROUP1_NS
    return GROUP1_S if two_states and modifier >> intid & 1 else GROUP0


def read_priorities(index: int, priorities: Sequence[int], visible: int, shifted: bool) -> int:
    """IPRIORITYR<index>: a byte for each of four INTIDs; 0 for one that is not in the mask `visible`.

    `shifted` is the view of Non-secure software: the lower half of the range, 0x80 to 0xFF, looks like 0x00 to 0xFE.
    """
    value = 0
    for lane in range(4):
        intid = 4 * index + lane
        if visible >> intid & 1:
            priority = priorities[intid]
            value |= (priority << 1 & 0xFF if shifted else priority) << 8 * lane
    return value


def written_priorities(index: int, value: int, lanes: int, visible: int, shifted: bool) -> Iterator[tuple[int, int]]:
    """What a write of IPRIORITYR<index> sets: (INTID, priority of eight bits). `lanes` masks the bytes that were written."""
    for lane in range(4):
        intid = 4 * index + lane
        if lanes >> 8 * lane & 0xFF and visible >> intid & 1:
            byte = value >> 8 * lane & 0xFF
            yield intid, byte >> 1 | 0x80 if shifted else byte


def config_of(edges: int) -> int:
    """ICFGR of 16 INTIDs: bit 2n+1 is 1 for one that is edge-triggered, bit n of `edges`."""
    return sum(2 << 2 * n for n in range(16) if edges >> n & 1)


def edges_of(config: int) -> int:
    """The mask that `config_of` was given."""
    return sum(1 << n for n in range(16) if config >> 2 * n + 1 & 1)
