"""The total order of events: one key, the same in every process, whatever the placement.

Key: (arrival, priority, source node id, sequence number of that source). Priority is fixed per message kind; node ids come
from the sorted node names; a sequence number is given at the send call in program order and shared with the node's own
timers, so that no two entries of a simulation have equal keys and nothing is ever ordered by when a frame came in.
"""

from __future__ import annotations

from typing import NamedTuple

PRIORITY_POWER = 0
"""Power-off: before anything else at that instant."""
PRIORITY_LEVEL = 10
"""Signal levels and interrupt state."""
PRIORITY_RESPONSE = 20
"""Completions and acknowledges."""
PRIORITY_REQUEST = 30
"""Reads, writes, commands."""
PRIORITY_TIMER = 100
"""A node's own timers: after every message of the same instant."""


class Key(NamedTuple):
    """Position of an event in the total order; `arrival` in picoseconds."""

    arrival: int
    priority: int
    src: int
    seq: int
