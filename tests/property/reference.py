"""The sequential reference: one heap, one loop, no workers, no bounds. What it does is right by construction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple

from cosim.core.message import KINDS, POWER
from cosim.core.order import PRIORITY_TIMER
from tests.property.models import build
from tests.property.scenario import Scenario

Consumed = tuple[int, int, int, int, int, tuple[Any, ...]]
"""(arrival, priority, source, seq, kind, fields)"""


class Outcome(NamedTuple):
    """What must not depend on placement or schedule: per node the consumed messages in order and its last state of
    mind, then the numbers of events and messages, the time of the last event, whether events are left at the end."""

    consumed: list[list[Consumed]]
    minds: list[int]
    events: int
    messages: int
    end_time: int
    left: bool


class Reference:
    """Runs a scenario from its first event to its end."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.nodes = build(scenario)
        self.heap: list[tuple[int, int, int, int, int, int, Any]] = []
        self.seq = [0] * len(self.nodes)
        self.consumed: list[list[Consumed]] = [[] for _ in self.nodes]
        self.off: set[int] = set()
        self.now = self.events = self.messages = 0
        for node in self.nodes:
            node.start(self)

    def _next_seq(self, node: int) -> int:
        self.seq[node] += 1
        return self.seq[node] - 1

    def outlet(self, link: int) -> Callable[..., None]:
        """What sends over a link."""
        return partial(self.send, link)

    def send(self, link: int, kind: int, fields: tuple[Any, ...], delay: int = 0) -> None:
        """A message onto the heap, at its arrival."""
        src, dst, latency = self.scenario.links[link]
        self.messages += 1
        key = (self.now + delay + latency, KINDS[kind].priority, src, self._next_seq(src))
        heappush(self.heap, (*key, dst, kind, (link, fields)))

    def at(self, node: int, time: int, fn: Callable[[], None]) -> None:
        """A timer onto the heap."""
        heappush(self.heap, (time, PRIORITY_TIMER, node, self._next_seq(node), node, -1, fn))

    def run(self) -> Outcome:
        """Execute every event before the end."""
        while self.heap and self.heap[0][0] < self.scenario.until:
            time, priority, src, seq, dst, kind, what = heappop(self.heap)
            if dst in self.off:
                continue
            self.now = self.nodes[dst].now = time
            self.events += 1
            if kind < 0:
                what()
                continue
            link, fields = what
            self.consumed[dst].append((time, priority, src, seq, kind, fields))
            if kind == POWER.Off.code:
                self.off.add(dst)
            else:
                self.nodes[dst].receiver(link, kind)(*fields)
        left = any(entry[4] not in self.off for entry in self.heap)
        minds = [node.state for node in self.nodes]
        return Outcome(self.consumed, minds, self.events, self.messages, self.now, left)
