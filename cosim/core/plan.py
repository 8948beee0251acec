"""The resolved plan: plain records that the launcher makes from a topology and hands to hub and workers as msgpack.

Ids: nodes are numbered by sorted name; links in the order of the plan. Every time is in ps, every address in bytes.
Named tuples: dataclasses would cost every worker a tenth of its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

if TYPE_CHECKING:
    from cosim.core.bounds import Distances

Params = dict[str, Any]

NOTHING: dict[str, Any] = {}
"""Default of the tables of a plan, which nobody changes."""


class RegionPlan(NamedTuple):
    """One region of an initiator's address map: accesses to [base, base + size) go over `link` with offset
    ``address - base + offset``."""

    base: int
    size: int
    link: int
    offset: int = 0
    name: str = ""


class LinkPlan(NamedTuple):
    """A one-way link from port to port. `attributes` are facts that the plan gives the receiver about the sender (for
    example ``{"stream_id": 0x30801}`` on an endpoint's link to the SMMU): a sender cannot forge them."""

    id: int
    src: int
    src_port: str
    dst: int
    dst_port: str
    latency: int
    attributes: Params = NOTHING


class NodePlan(NamedTuple):
    """One node: `kind` names the model among the entry points, `maps` gives each initiator port its address map. `external`
    says how a foreign process plays it (`cosim.run.foreign`); None for a Python model."""

    id: int
    name: str
    kind: str
    params: Params
    reaction: int = 0
    maps: dict[str, tuple[RegionPlan, ...]] = NOTHING
    model: str = "python"
    external: Params | None = None


class HostPlan(NamedTuple):
    """One host of a run: its name, where the engine finds it ("" is wherever there is room), the numbers of its workers."""

    name: str
    address: str
    workers: tuple[int, ...]


class Plan(NamedTuple):
    """A whole run. `tests` are the names that have to be reported by the software; `groups` the node ids per worker; `hosts`
    share the workers among them, and are none when all run on the machine of the supervisor."""

    name: str
    seed: int
    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    groups: tuple[tuple[int, ...], ...]
    tests: tuple[str, ...] = ()
    parameters: Params = NOTHING
    until: int | None = None
    hosts: tuple[HostPlan, ...] = ()

    def distances(self) -> Distances:
        """Latency distances over the whole topology."""
        from cosim.core.bounds import Distances  # workers need none

        return Distances(
            len(self.nodes), [(k.src, k.dst, k.latency) for k in self.links], [n.reaction for n in self.nodes]
        )

    def worker_of(self) -> dict[int, int]:
        """Worker index by node id."""
        return {node: worker for worker, group in enumerate(self.groups) for node in group}

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for plan.json and for the wire."""
        return {
            "name": self.name,
            "seed": self.seed,
            "until": self.until,
            "tests": list(self.tests),
            "parameters": self.parameters,
            "groups": [list(group) for group in self.groups],
            **({"hosts": [[h.name, h.address, list(h.workers)] for h in self.hosts]} if self.hosts else {}),
            "nodes": [
                {
                    "id": n.id,
                    "name": n.name,
                    "kind": n.kind,
                    "model": n.model,
                    "params": n.params,
                    "reaction": n.reaction,
                    "maps": {
                        port: [[r.base, r.size, r.link, r.offset, r.name] for r in regions]
                        for port, regions in n.maps.items()
                    },
                    **({} if n.external is None else {"external": n.external}),
                }
                for n in self.nodes
            ],
            "links": [[k.id, k.src, k.src_port, k.dst, k.dst_port, k.latency, k.attributes] for k in self.links],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """The inverse of `to_dict`."""
        return cls(
            name=data["name"],
            seed=data["seed"],
            until=data["until"],
            tests=tuple(data["tests"]),
            parameters=data["parameters"],
            groups=tuple(tuple(group) for group in data["groups"]),
            nodes=tuple(_node(n) for n in data["nodes"]),
            links=tuple(LinkPlan(*k) for k in data["links"]),
            hosts=tuple(HostPlan(name, address, tuple(workers)) for name, address, workers in data.get("hosts", ())),
        )

    def host_part(self, host: int) -> Plan:
        """What the hub of host number `host` has to know: the whole shape (nodes, links, workers, hosts), but params, address
        maps and link attributes only where they concern a node of that host."""
        own = {node for worker in self.hosts[host].workers for node in self.groups[worker]}
        return self._replace(
            parameters={},
            nodes=tuple(n if n.id in own else n._replace(params={}, maps={}, external=None) for n in self.nodes),
            links=tuple(
                k if k.src in own or k.dst in own or not k.attributes else k._replace(attributes={}) for k in self.links
            ),
        )

    def host_of_worker(self) -> list[int]:
        """The number of each worker's host."""
        found = {worker: number for number, host in enumerate(self.hosts) for worker in host.workers}
        return [found[worker] for worker in range(len(self.groups))]

    def worker_plan(self, worker: int, returns: dict[int, int], distances: Sequence[int] = ()) -> WorkerPlan:
        """What worker number `worker` has to know; `returns` from `Distances.returns`, `distances` its row of
        `Distances.between`."""
        hosted = set(self.groups[worker])
        links = tuple(k for k in self.links if k.src in hosted or k.dst in hosted)
        touched = sorted({k.src for k in links} | {k.dst for k in links} | hosted)
        where = self.worker_of()
        return WorkerPlan(
            worker=worker,
            seed=self.seed,
            nodes=tuple(self.nodes[n] for n in sorted(hosted)),
            links=links,
            names={n: self.nodes[n].name for n in touched},
            worker_of={n: where[n] for n in touched},
            reactions={n: self.nodes[n].reaction for n in touched if self.nodes[n].reaction},
            returns=returns,
            reach={w: distances[w] for w in sorted({where[k.dst] for k in links} - {worker})} if distances else {},
        )


class WorkerPlan(NamedTuple):
    """The part of a plan that one worker receives in WELCOME: its nodes, the links that touch them, names and workers of
    the nodes at their other ends, the early-return times, and the least time (ps) from a send here to an arrival at each
    worker that a link leads to."""

    worker: int
    seed: int
    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    names: dict[int, str]
    worker_of: dict[int, int]
    reactions: dict[int, int]
    returns: dict[int, int]
    reach: dict[int, int]

    def to_msgpack(self) -> bytes:
        """Canonical bytes for the wire."""
        body = [
            self.worker,
            self.seed,
            [
                [
                    n.id,
                    n.name,
                    n.kind,
                    n.model,
                    n.params,
                    n.reaction,
                    [[p, [[r.base, r.size, r.link, r.offset, r.name] for r in m]] for p, m in n.maps.items()],
                ]
                for n in self.nodes
            ],
            [[k.id, k.src, k.src_port, k.dst, k.dst_port, k.latency, k.attributes] for k in self.links],
            *(
                sorted(table.items())
                for table in (self.names, self.worker_of, self.reactions, self.returns, self.reach)
            ),
        ]
        packed: bytes = msgpack.packb(body, use_bin_type=True)
        return packed

    @classmethod
    def from_msgpack(cls, data: bytes) -> WorkerPlan:
        """The inverse of `to_msgpack`."""
        worker, seed, nodes, links, names, worker_of, reactions, returns, reach = msgpack.unpackb(
            data, strict_map_key=False
        )
        return cls(
            worker=worker,
            seed=seed,
            nodes=tuple(
                NodePlan(i, name, kind, params, reaction, {p: tuple(RegionPlan(*r) for r in m) for p, m in maps}, model)
                for i, name, kind, model, params, reaction, maps in nodes
            ),
            links=tuple(LinkPlan(*k) for k in links),
            names=dict(names),
            worker_of=dict(worker_of),
            reactions=dict(reactions),
            returns=dict(returns),
            reach=dict(reach),
        )


def _node(data: dict[str, Any]) -> NodePlan:
    maps = {port: tuple(RegionPlan(*r) for r in regions) for port, regions in data["maps"].items()}
    return NodePlan(
        data["id"],
        data["name"],
        data["kind"],
        data["params"],
        data["reaction"],
        maps,
        data["model"],
        data.get("external"),
    )
