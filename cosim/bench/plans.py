"""Plans of the synthetic workloads: nodes of `cosim.bench.models` around a first one, each linked to it both ways."""

from __future__ import annotations

from typing import Any

from cosim.bench import models
from cosim.core.plan import LinkPlan, NodePlan, Plan, RegionPlan
from cosim.topo.placement import group, parse_workers

STEP = models.STEP
WARM_UP = 10
"""One operation in so many is not measured, at the start."""
DEVICE_BASE = 0x4000_0000
FAR = 10**18
"""A million seconds of simulated time: beyond the end of every workload."""


def first_measured(rounds: int) -> int:
    """The round after which the clock runs."""
    return max(1, rounds // WARM_UP)


def place(plan: Plan, workers: str) -> Plan:
    """The plan with its nodes grouped as ``--workers`` says; raises ValueError for what is no placement."""
    return plan._replace(groups=group(parse_workers(workers), [n.name for n in plan.nodes], plan.links, []))


def barrier(nodes: int, steps: int) -> Plan:
    """W1: `nodes` nodes that step; no messages."""
    params = _timed(steps)
    return _star("barrier", [("ticker", models.Ticker, params)] * nodes)


def compute(nodes: int, steps: int) -> Plan:
    """W1 with a millisecond of work in each step of each node."""
    return _star("compute", [("ticker", models.Ticker, {**_timed(steps), "work_us": 1000})] * nodes)


def pingpong(nodes: int, trips: int) -> Plan:
    """W2: two nodes play, the others wait for messages that never come."""
    return _star("pingpong", [*_players(trips), *[("waiting", models.Waiting, {})] * (nodes - 2)])


def sparse(nodes: int, trips: int) -> Plan:
    """W4: two nodes play, the others have an event after the end of the run."""
    crowd = [("sleeping", models.Sleeping, {"alarm": FAR})] * (nodes - 2)
    return _star("sparse", [*_players(trips), *crowd], until=2 * STEP * trips + STEP)


def fanout(nodes: int, steps: int) -> Plan:
    """W3: one node sends a message to each of the others, step by step."""
    params = _timed(steps)
    return _star("fanout", [("source", models.Source, params), *[("sink", models.Sink, params)] * (nodes - 1)])


def mmio(nodes: int, reads: int) -> Plan:
    """W5: a coroutine reads registers of a device; the other nodes wait."""
    reader = ("reader", models.Reader, {**_timed(reads), "base": DEVICE_BASE})
    plan = _star("mmio", [reader, ("device", models.Device, {}), *[("waiting", models.Waiting, {})] * (nodes - 2)])
    there, back = len(plan.links), len(plan.links) + 1
    links = (LinkPlan(there, 0, "bus", 1, "regs", STEP), LinkPlan(back, 1, "regs", 0, "bus", STEP))
    region = RegionPlan(DEVICE_BASE, models.DEVICE.size, there)
    first = plan.nodes[0]._replace(maps={"bus": (region,)})
    return plan._replace(nodes=(first, *plan.nodes[1:]), links=(*plan.links, *links))


def endless(nodes: int) -> Plan:
    """W7 and W8: as W2, for longer than anybody will measure."""
    return pingpong(nodes, 10**9)


def _players(trips: int) -> list[tuple[str, type, dict[str, Any]]]:
    params = _timed(trips)
    return [("ping", models.Ping, {**params, "partner": _name(1, "pong")}), ("pong", models.Pong, params)]


def _timed(last: int) -> dict[str, int]:
    if last < 2:
        raise ValueError(f"a workload must have at least 2 operations, not {last}")
    return {"first": first_measured(last), "last": last}


def _name(index: int, kind: str) -> str:
    return f"n{index:04}-{kind}"


def _star(name: str, nodes: list[tuple[str, type, dict[str, Any]]], until: int | None = None) -> Plan:
    """Nodes in the order given, all on one worker; links go from node 0 to each other one and back."""
    if len(nodes) < 2:
        raise ValueError(f"workload {name} must have at least 2 nodes, not {len(nodes)}")
    links: list[LinkPlan] = []
    for other in range(1, len(nodes)):
        links.append(LinkPlan(len(links), 0, "links", other, "links", STEP))
        links.append(LinkPlan(len(links), other, "links", 0, "links", STEP))
    made = [
        NodePlan(index, _name(index, kind), kind, params, model=f"{model.__module__}:{model.__qualname__}")
        for index, (kind, model, params) in enumerate(nodes)
    ]
    everyone = tuple(range(len(nodes)))
    return Plan(f"bench-{name}", 1, tuple(made), tuple(links), (everyone,), until=until)
