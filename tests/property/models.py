"""A node that does anything that a model may do, and keeps its word about time.

What it does next depends on everything that it consumed so far, in order: any difference in order, time or
content grows until it shows. It

- sets silent timers (it promises nothing about them: a promise of NEVER with timers pending) and speaking
ones; - stamps outputs in the future; - answers an input no earlier than its reaction, at once or by a timer;
- promises more than its next event, if it makes promises at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cosim.core.message import POWER
from cosim.core.message import Protocol as Kinds
from cosim.core.time import NEVER
from tests.property.scenario import NodeSpec, Scenario

TALK = Kinds(
    "property-tests",
    920,
    [("High", 5, ("value", "fuel")), ("Middle", 20, ("value", "fuel")), ("Low", 150, ("value", "fuel"))],
)
"""Three kinds whose priorities lie before, among and after those of timers."""
CODES = [kind.code for kind in TALK]
DELAYS = (0, 0, 1, 2, 5, 10, 33)


class Host(Protocol):
    """What runs a node: the worker's kernel or the reference simulator."""

    def outlet(self, link: int) -> Callable[..., None]:
        """``send(kind, fields, delay=0)`` over a link at now + delay."""

    def at(self, node: int, time: int, fn: Callable[[], None]) -> Any:
        """Call fn as an event of the node."""


class Node:
    """One node of a scenario; satisfies `cosim.core.kernel.Hosted`."""

    def __init__(self, node_id: int, spec: NodeSpec, links: list[int], power: bool) -> None:
        self.id = node_id
        self.name = f"n{node_id}"
        self.now = 0
        self.reaction = spec.reaction
        self.spec = spec
        self.promising = spec.promising
        self.links = links
        self.power = power
        self.host: Host
        self.ready: tuple[Any, ...] = ()
        self.state = spec.seed
        self.speaking: list[int] = []  # earliest stamp that each pending speaking timer may cause

    def start(self, host: Host) -> None:
        """Set the first timers."""
        self.host = host
        for time, quiet, fuel in self.spec.starts:
            if quiet is None:
                self.set_silent(time, fuel)
            else:
                self.set_speaking(time, time + quiet, fuel)

    def draw(self, n: int) -> int:
        """An int below n that depends on all that happened to this node."""
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n

    def mix(self, value: int) -> None:
        """Let an event leave its trace in all later choices."""
        self.state = (self.state ^ (value * 0x9E3779B97F4A7C15 + self.now)) % 2**64
        self.draw(2)

    def receiver(self, link: int, kind: int) -> Callable[..., Any]:
        """Consumes inputs; nothing that comes of one is stamped before now + reaction."""

        def receive(value: int, fuel: int) -> None:
            self.mix(value * 8 + kind)
            self.act(self.now + self.reaction, fuel)

        return receive

    def accept(self, result: Any) -> None:
        """There are no coroutines."""

    def act(self, floor: int, fuel: int) -> None:
        """Up to three actions whose outputs are stamped at or after `floor`."""
        for _ in range(self.draw(4) if fuel else 0):
            choice = self.draw(8)
            if choice == 0:
                self.set_silent(self.now + DELAYS[self.draw(len(DELAYS))], fuel - 1)
            elif choice <= 2:
                time = self.now + DELAYS[self.draw(len(DELAYS))]
                self.set_speaking(time, max(time, floor) + DELAYS[self.draw(len(DELAYS))], fuel - 1)
            elif self.links:
                self.send_one(floor, fuel - 1)

    def send_one(self, floor: int, fuel: int) -> None:
        """One output, now or in the future."""
        link = self.links[self.draw(len(self.links))]
        delay = max(0, floor - self.now) + DELAYS[self.draw(len(DELAYS))]
        if self.power and self.draw(25) == 0:
            self.host.outlet(link)(POWER.Off.code, (), delay)
        else:
            kind = CODES[self.draw(len(CODES))]
            self.host.outlet(link)(kind, (self.draw(1000), fuel), delay)

    def set_silent(self, time: int, fuel: int) -> None:
        """A timer that only ever sets silent timers."""

        def fire() -> None:
            self.mix(1)
            if fuel:
                self.set_silent(self.now + DELAYS[self.draw(len(DELAYS))], fuel - 1)

        self.host.at(self.id, time, fire)

    def set_speaking(self, time: int, floor: int, fuel: int) -> None:
        """A timer whose outputs are stamped at or after `floor` >= time."""

        def fire() -> None:
            self.speaking.remove(floor)
            self.mix(2)
            self.act(floor, fuel)

        self.speaking.append(floor)
        self.host.at(self.id, time, fire)

    def settle(self) -> int:
        """There are no coroutines."""
        return 0

    def promise(self) -> int | None:
        """Earliest stamp of any output without further input; None for a node that does not say."""
        return min(self.speaking, default=NEVER) if self.spec.promising else None


def build(scenario: Scenario) -> list[Node]:
    """Fresh nodes of a scenario, not started."""
    return [
        Node(i, spec, [k for k, (src, _, _) in enumerate(scenario.links) if src == i], scenario.power)
        for i, spec in enumerate(scenario.nodes)
    ]
