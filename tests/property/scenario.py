"""Random machines: a topology, what each node does, and when the run ends.

One recipe for two sources of choice: hypothesis (which shrinks what it finds) and a seeded generator (mutants
need a fixed budget).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st

from cosim.core.time import NEVER

Pick = Callable[[int, int], int]
"""Pick(low, high): an int in low..high, both included."""

LATENCIES = (1, 1, 2, 3, 5, 10, 10, 40, 100)
"""Few and far apart: equal sums (ties) are frequent, and so are short cuts through third nodes."""
REACTIONS = (0, 0, 0, 1, 5, 10, 60)


class Start(NamedTuple):
    """A timer set before the run: `time` in ps; a speaking one sends no output stamped below time + `quiet`, a silent
    one (`quiet` None) never sends; `fuel` limits what comes of it."""

    time: int
    quiet: int | None
    fuel: int


class NodeSpec(NamedTuple):
    """A node: least time from input to output (ps), whether it makes promises of its own, the seed of its choices, its
    first timers."""

    reaction: int
    promising: bool
    seed: int
    starts: tuple[Start, ...]


class Scenario(NamedTuple):
    """A machine and its end: links are (src, dst, latency in ps), never from a node to itself."""

    nodes: tuple[NodeSpec, ...]
    links: tuple[tuple[int, int, int], ...]
    until: int
    power: bool


def make_scenario(pick: Pick) -> Scenario:
    """A machine of 1 to 6 nodes, connected or not."""
    n = pick(1, 6)
    links = []
    for _ in range(pick(n - 1, 3 * n) if n > 1 else 0):
        src, step = pick(0, n - 1), pick(1, n - 1)
        links.append((src, (src + step) % n, LATENCIES[pick(0, len(LATENCIES) - 1)]))
    nodes = tuple(
        NodeSpec(
            REACTIONS[pick(0, len(REACTIONS) - 1)],
            pick(0, 2) > 0,
            pick(0, 999),
            tuple(_start(pick) for _ in range(pick(0, 3))),
        )
        for _ in range(n)
    )
    until = NEVER if pick(0, 2) else pick(0, 200)
    return Scenario(nodes, tuple(links), until, power=pick(0, 3) == 0)


def make_quiet(pick: Pick) -> Scenario:
    """A machine of 3 to 5 nodes, each linked to every other, in which all comes of one: mostly one worker runs at a time."""
    n = pick(3, 5)
    links = tuple(
        (src, dst, LATENCIES[pick(0, len(LATENCIES) - 1)]) for src in range(n) for dst in range(n) if src != dst
    )
    nodes = tuple(
        NodeSpec(
            REACTIONS[pick(0, len(REACTIONS) - 1)],
            pick(0, 2) > 1,
            pick(0, 999),
            tuple(_start(pick) for _ in range(0 if i else 3)),
        )
        for i in range(n)
    )
    return Scenario(nodes, links, NEVER, power=False)


def _start(pick: Pick) -> Start:
    return Start(pick(0, 60), (None, 0, 0, 7, 30)[pick(0, 4)], pick(1, 9))


def make_placement(pick: Pick, n: int) -> tuple[tuple[int, ...], ...]:
    """Nodes on workers: one worker per node, all on one, or anything between."""
    shape = pick(0, 3)
    if shape == 0:
        return tuple((i,) for i in range(n))
    homes = [pick(0, max(0, n - 1)) if shape > 1 else 0 for _ in range(n)]
    return tuple(tuple(i for i in range(n) if homes[i] == h) for h in sorted(set(homes)))


def seeded(seed: int) -> Pick:
    """Choices from a seeded generator."""
    return random.Random(seed).randint


def scenarios() -> st.SearchStrategy[Scenario]:
    """Machines drawn by hypothesis."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> Scenario:
        make = draw(st.sampled_from((make_scenario, make_quiet)))
        return make(lambda low, high: draw(st.integers(low, high)))

    return draw_one()


def placements(n: int) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    """Placements of n nodes drawn by hypothesis."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
        return make_placement(lambda low, high: draw(st.integers(low, high)), n)

    return draw_one()
