"""Which host runs which nodes. Results never depend on it; the number of round trips between hosts does.

`auto` cuts where the least traffic is expected (`cosim.topo.placement`), into parts whose work differs by a third at
most. A rule puts nodes of a
pattern on a host by name; nodes that no rule matches join the host to which they are tied most.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from cosim.core.plan import HostPlan, Plan
from cosim.topo.placement import Groups, Traffic, edges_of, group, group_around_externals

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}\Z")
"""Of a host: part of file names and of a command line."""
HOST_SLACK = 3
"""How much work may differ between hosts, by a third: a round trip between hosts costs far more than what it evens out."""


class Host(NamedTuple):
    """A host as asked for: `address` is where the engine finds it, "" wherever there is room."""

    name: str
    address: str = ""


class Rule(NamedTuple):
    """Nodes whose names match `pattern` run on `host` (a name)."""

    pattern: str
    host: str


def parse_hosts(text: str) -> list[Host]:
    """``--hosts``: a number of hosts, or their addresses with commas; they are called h0, h1, and so on.

    Raises:
        ValueError: neither.
    """
    if text.isdigit():
        if not 1 <= int(text) <= 4096:
            raise ValueError(f"must be a number of hosts from 1 to 4096, or addresses with commas, not {text!r}")
        return [Host(f"h{number}") for number in range(int(text))]
    addresses = [part.strip() for part in text.split(",")]
    if not all(addresses) or len(set(addresses)) < len(addresses):
        raise ValueError(f"must be a number of hosts, or different addresses with commas, not {text!r}")
    return [Host(f"h{number}", address) for number, address in enumerate(addresses)]


def place_on_hosts(
    plan: Plan,
    hosts: Sequence[Host],
    rules: Sequence[Rule],
    workers: str | int,
    together: Sequence[Sequence[int]],
    traffic: Traffic | None = None,
) -> Plan:
    """The plan with `groups` and `hosts`.

    Args:
        plan: with nodes and links.
        hosts: at least one; no two of one name.
        rules: the first that matches a node decides.
        workers: per host, as `cosim.topo.placement.parse_workers` gives.
        together: node ids to keep in one worker; only `auto` keeps them on one host.
        traffic: measured by an earlier run.

    Raises:
        ValueError: a host would have no node.
    """
    parts = _by_rules(plan, hosts, rules, traffic) if rules else _auto(plan, len(hosts), together, traffic)
    empty = [host.name for host, part in zip(hosts, parts, strict=True) if not part]
    if empty:
        raise ValueError(f"every host must have a node, and {', '.join(empty)} has none of the {len(plan.nodes)}")
    groups: list[tuple[int, ...]] = []
    found = []
    for host, part in zip(hosts, parts, strict=True):
        here = frozenset(part)
        wishes = [[node for node in nodes if node in here] for nodes in together]
        mine = group_around_externals(workers, plan, [wish for wish in wishes if wish], traffic, here)
        found.append(HostPlan(host.name, host.address, tuple(range(len(groups), len(groups) + len(mine)))))
        groups += mine
    return plan._replace(groups=tuple(groups), hosts=tuple(found))


def _auto(plan: Plan, count: int, together: Sequence[Sequence[int]], traffic: Traffic | None) -> Groups:
    if count > len(plan.nodes):
        raise ValueError(f"hosts must be at most as many as nodes ({len(plan.nodes)}), not {count}")
    return group(count, [n.name for n in plan.nodes], plan.links, together, traffic=traffic, slack=HOST_SLACK)


def _by_rules(plan: Plan, hosts: Sequence[Host], rules: Sequence[Rule], traffic: Traffic | None) -> list[list[int]]:
    number = {host.name: place for place, host in enumerate(hosts)}
    where: dict[int, int] = {}
    for node in plan.nodes:
        for rule in rules:
            if fnmatchcase(node.name, rule.pattern):
                where[node.id] = number[rule.host]
                break
    ties: dict[int, dict[int, int]] = {node.id: {} for node in plan.nodes}
    for a, b, weight in edges_of(plan.links, [n.name for n in plan.nodes], traffic):
        ties[a][b] = ties[a].get(b, 0) + weight
        ties[b][a] = ties[b].get(a, 0) + weight
    free = {node.id for node in plan.nodes} - where.keys()
    while free:
        # The node that is tied most to what has its place already; ties go to the first name and the first host.
        best = max(
            ((sum(w for other, w in ties[node].items() if where.get(other) == host), -node, -host)
             for node in free for host in range(len(hosts))),
        )  # fmt: skip
        where[-best[1]] = -best[2]
        free.discard(-best[1])
    return [sorted(node for node, host in where.items() if host == place) for place in range(len(hosts))]
