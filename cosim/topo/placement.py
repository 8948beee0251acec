"""Which worker hosts which nodes. Results never depend on it.

What crosses between workers costs, so neighbours that talk much go together: a cut of least expected traffic
(`cosim.topo.partition`), with as much work in each worker. Expected traffic is the inverse of a link's latency: what is
near talks often, and a short link that is cut also holds the two workers' clocks close together. The measured traffic of
an earlier run (its traffic.json) is better, where there is one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cosim.core.plan import LinkPlan, Plan
from cosim.topo.partition import Graph, partition

Groups = tuple[tuple[int, ...], ...]
LinkName = tuple[str, str, str, str]
"""Source node and port, destination node and port."""

TRAFFIC_FILE = "traffic.json"
EXPECTED_SLACK, MEASURED_SLACK = 20, 3
"""How much work may differ: a twentieth where it is only counted in nodes; a third where it is measured, since a message between
workers costs more than most events."""
_PER_LATENCY = 10**12
"""Expected messages of a link of 1 ps latency, in units of no meaning: one per second of simulated time at every latency."""


class Traffic(NamedTuple):
    """What a run measured: messages sent by link, and work (events) by node name."""

    links: Mapping[LinkName, int]
    work: Mapping[str, int]

    def text(self) -> str:
        """The content of traffic.json, what `from_dict` takes: a line for each link that had messages."""
        sent = sorted((*name, count) for name, count in self.links.items() if count)
        lines = ",\n ".join(json.dumps(entry) for entry in sent)
        return f'{{"work": {json.dumps(dict(sorted(self.work.items())))},\n"links": [\n {lines}\n]}}\n'

    @classmethod
    def from_dict(cls, data: Any) -> Traffic:
        """The inverse of `text`, parsed; ValueError when it is not what that wrote."""
        try:
            work = {str(name): int(events) for name, events in data["work"].items()}
            links: dict[LinkName, int] = {}
            for src, src_port, dst, dst_port, count in data["links"]:
                links[str(src), str(src_port), str(dst), str(dst_port)] = int(count)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(
                f"must hold `work` by node and `links` as [from, port, to, port, messages]: {error!r}"
            ) from None
        if min((*work.values(), *links.values()), default=0) < 0:
            raise ValueError("must hold no negative number")
        return cls(links, work)

    @classmethod
    def read(cls, run_dir: Path) -> Traffic:
        """From a run directory.

        Raises:
            ValueError: it has no traffic.json (the run did not finish), or one that can't be read.
        """
        path = run_dir / TRAFFIC_FILE
        try:
            found = json.loads(path.read_text())
        except OSError as error:
            raise ValueError(
                f"{path} can't be read: {error.strerror}; only a run that ended by itself has one"
            ) from None
        except ValueError as error:
            raise ValueError(f"{path} must be JSON: {error}") from None
        try:
            return cls.from_dict(found)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None


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
    names: Sequence[str],
    links: Sequence[LinkPlan],
    together: Sequence[Sequence[int]],
    *,
    cores: int | None = None,
    traffic: Traffic | None = None,
    slack: int | None = None,
) -> Groups:
    """Node ids per worker; the groups are in the order of their lowest ids.

    Args:
        workers: as `parse_workers` gives; 0 and 1 are one group.
        names: of the nodes; their ids are the indices.
        links: whose latencies tell neighbours.
        together: node ids to keep in one worker, unless there are more workers than that leaves groups.
        cores: processors for "auto"; those of this process unless given.
        traffic: measured; nodes and links that it does not know count as idle.
        slack: how much work may differ, as `partition` takes it; by the kind of traffic unless given.
    """
    count = len(names)
    if workers == "per-node":
        return tuple((node,) for node in range(count))
    if workers == "auto":
        workers = cores if cores is not None else len(os.sched_getaffinity(0))
    size = max(1, min(int(workers), count))
    if size == 1:
        return (tuple(range(count)),)
    units = _units(count, links if traffic is None else (), together)
    if len(units) < size:
        units = _split(_units(count, (), together), size)
    unit_of = {node: number for number, unit in enumerate(units) for node in unit}
    edges = edges_of(links, names, traffic)
    work = [1 if traffic is None else 1 + traffic.work.get(name, 0) for name in names]
    graph = Graph.of(
        [sum(work[node] for node in unit) for unit in units], [(unit_of[a], unit_of[b], w) for a, b, w in edges]
    )
    parts: list[list[int]] = [[] for _ in range(size)]
    if slack is None:
        slack = EXPECTED_SLACK if traffic is None else MEASURED_SLACK
    for unit, part in zip(units, partition(graph, size, slack), strict=True):
        parts[part] += unit
    return tuple(sorted(tuple(sorted(nodes)) for nodes in parts))


def group_around_externals(
    workers: str | int,
    plan: Plan,
    together: Sequence[Sequence[int]],
    traffic: Traffic | None = None,
    among: Collection[int] | None = None,
) -> Groups:
    """As `group`, for the nodes of a plan that are played here; each external node follows in a group of its own. `among`: for
    these nodes only."""
    mine = [n for n in plan.nodes if among is None or n.id in among]
    local = [n.id for n in mine if n.external is None]
    if len(local) == len(plan.nodes):
        return group(workers, [n.name for n in plan.nodes], plan.links, together, traffic=traffic)
    groups: Groups = ()
    if local:
        place = {node: number for number, node in enumerate(local)}
        links = [
            k._replace(src=place[k.src], dst=place[k.dst]) for k in plan.links if k.src in place and k.dst in place
        ]
        wishes = [[place[n] for n in nodes if n in place] for nodes in together]
        names = [plan.nodes[n].name for n in local]
        found = group(workers, names, links, [wish for wish in wishes if wish], traffic=traffic)
        groups = tuple(tuple(local[n] for n in nodes) for nodes in found)
    return groups + tuple((n.id,) for n in mine if n.external is not None)


def edges_of(links: Sequence[LinkPlan], names: Sequence[str], traffic: Traffic | None) -> list[tuple[int, int, int]]:
    """Pairs of node ids with the weight of a link between them: expected, or measured if there is a measurement."""
    return _expected(links) if traffic is None else _measured(links, names, traffic)


def _expected(links: Iterable[LinkPlan]) -> list[tuple[int, int, int]]:
    """Edges by latency. The power lines of the machine carry a message or two in a run: none."""
    return [(k.src, k.dst, max(1, _PER_LATENCY // k.latency)) for k in links if k.src_port != "power"]


def _measured(links: Sequence[LinkPlan], names: Sequence[str], traffic: Traffic) -> list[tuple[int, int, int]]:
    """Edges by messages; latency decides between cuts of equal traffic."""
    sent = [traffic.links.get((names[k.src], k.src_port, names[k.dst], k.dst_port), 0) for k in links]
    edges = [(k.src, k.dst, count * _PER_LATENCY) for k, count in zip(links, sent, strict=True)]
    return edges + [(a, b, max(1, weight // 1000)) for a, b, weight in _expected(links)]


def _units(count: int, links: Iterable[LinkPlan], together: Sequence[Sequence[int]]) -> list[list[int]]:
    """Nodes that belong together: those that `together` lists, and pairs that are each other's only nearest neighbour."""
    leader = list(range(count))

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = node = leader[leader[node]]
        return node

    def join(a: int, b: int) -> None:
        a, b = find(a), find(b)
        leader[max(a, b)] = min(a, b)

    for nodes in together:
        for node in nodes[1:]:
            join(nodes[0], node)
    nearest = _nearest(count, links)
    for node, other in enumerate(nearest):
        if other is not None and node < other and nearest[other] == node:
            join(node, other)
    units: dict[int, list[int]] = {}
    for node in range(count):
        units.setdefault(find(node), []).append(node)
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
