"""Which worker hosts which nodes. Results never depend on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from cosim.core.plan import LinkPlan

Groups = tuple[tuple[int, ...], ...]


def parse_workers(text: str) -> str | int:
    """ "per-node", "auto" or a number of at least 0; raises ValueError."""
    if text in ("per-node", "auto"):
        return text
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError(f"must be per-node, auto or a number of processes from 0 on, not {text!r}")
    return number


def group(
    workers: str | int,
    count: int,
    links: Iterable[LinkPlan],
    together: Sequence[Sequence[int]],
    cores: int | None = None,
) -> Groups:
    """Node ids per worker.

    Args:
        workers: as `parse_workers` gives; 0 and 1 are one group.
        count: number of nodes; their ids are 0 to count - 1.
        links: whose latencies tell neighbours.
        together: node ids to keep in one worker.
        cores: processors for "auto"; those of this process unless given.
    """
    if workers == "per-node":
        return tuple((node,) for node in range(count))
    if workers == "auto":
        workers = cores if cores is not None else len(os.sched_getaffinity(0))
    size = max(1, min(int(workers), count))
    filled: list[list[int]] = [[] for _ in range(size)]
    units = _split(_units(count, links, together), size)
    for unit in sorted(units, key=lambda u: (-len(u), u)):
        filled[min(range(size), key=lambda w: (len(filled[w]), w))] += unit
    return tuple(tuple(sorted(nodes)) for nodes in filled if nodes)


def _units(count: int, links: Iterable[LinkPlan], together: Sequence[Sequence[int]]) -> list[list[int]]:
    """Nodes that belong together: those that `together` lists, and pairs that are each other's only nearest neighbour."""
    unit_of = list(range(count))

    def join(a: int, b: int) -> None:
        old, new = max(unit_of[a], unit_of[b]), min(unit_of[a], unit_of[b])
        for node in range(count):
            if unit_of[node] == old:
                unit_of[node] = new

    for nodes in together:
        for node in nodes[1:]:
            join(nodes[0], node)
    nearest = _nearest(count, links)
    for node, other in enumerate(nearest):
        if other is not None and node < other and nearest[other] == node:
            join(node, other)
    units: dict[int, list[int]] = {}
    for node, unit in enumerate(unit_of):
        units.setdefault(unit, []).append(node)
    return list(units.values())


def _nearest(count: int, links: Iterable[LinkPlan]) -> list[int | None]:
    """For each node the one at the other end of its fastest links, if it is only one."""
    best: list[int | None] = [None] * count
    ends: list[set[int]] = [set() for _ in range(count)]
    for link in links:
        for node, other in ((link.src, link.dst), (link.dst, link.src)):
            known = best[node]
            if known is None or link.latency < known:
                best[node], ends[node] = link.latency, set()
            if link.latency == best[node]:
                ends[node].add(other)
    return [next(iter(others)) if len(others) == 1 else None for others in ends]


def _split(units: list[list[int]], size: int) -> list[list[int]]:
    """Break the largest units until there are enough of them for every worker to have one."""
    units = [list(unit) for unit in units]
    while len(units) < size:
        largest = max(units, key=lambda u: (len(u), -u[0]))
        units.remove(largest)
        half = len(largest) // 2
        units += [largest[:half], largest[half:]]
    return units
