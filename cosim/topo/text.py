"""A resolved machine as text: tables for people (`cosim check`), and a topology file without templates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cosim.core.time import fmt
from cosim.topo.external import emitted
from cosim.topo.schema import TopologySpec

if TYPE_CHECKING:
    from cosim.core.plan import LinkPlan, Plan
    from cosim.topo.expand import LinkItem, Machine
    from cosim.topo.resolve import Resolved

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")


def describe(resolved: Resolved) -> str:
    """Tables of parameters, nodes, address map per initiator, and links with latencies."""
    plan, types = resolved.plan, resolved.types
    worker_of = plan.worker_of()
    hosts = plan.host_of_worker() if plan.hosts else []

    def host_of(node: int) -> tuple[str, ...]:
        return (plan.hosts[hosts[worker_of[node]]].name,) if hosts else ()

    parts = [
        f"{plan.name}: {len(plan.nodes)} nodes, {len(plan.links)} one-way links, {len(plan.groups)} workers, seed {plan.seed}"
        + (f", until {fmt(plan.until)}" if plan.until is not None else ""),
        _table("Parameters", ("name", "value"), [(n, _value(types.get(n, ""), v)) for n, v in plan.parameters.items()]),
        _table("Tests", ("name",), [(name,) for name in plan.tests]),
        _table(
            "Hosts",
            ("host", "address", "workers", "nodes"),
            [
                (h.name, h.address or "-", len(h.workers), sum(len(plan.groups[w]) for w in h.workers))
                for h in plan.hosts
            ],
        ),
        _table(
            "Nodes",
            ("node", "kind", *(["host"] if plan.hosts else []), "worker", "model"),
            [
                (n.name, n.kind, *host_of(n.id), worker_of[n.id], n.model)
                for n in sorted(plan.nodes, key=lambda n: natural(n.name))
            ],
        ),
        *_maps(plan),
        _table("Links", ("from", "", "to", "latency", "attributes"), _link_rows(plan)),
    ]
    return "\n\n".join(part for part in parts if part)


def _deploy(spec: TopologySpec, plan: Plan) -> dict[str, Any]:
    """What of the `deploy` block shapes the placement, with the addresses of this run's hosts."""
    found: dict[str, Any] = {"together": spec.deploy.together} if spec.deploy.together else {}
    if plan.hosts:
        found["hosts"] = {host.name: {"address": host.address} if host.address else {} for host in plan.hosts}
        if spec.deploy.place != "auto":
            found["place"] = [{"nodes": rule.nodes, "host": rule.host} for rule in spec.deploy.place]
    return found


def natural(name: str) -> tuple[Any, ...]:
    """A key that sorts pe2 before pe10."""
    head = name.rstrip("0123456789")
    return (head, int(name[len(head) :] or -1), name)


def _value(kind: str, value: Any) -> str:
    if kind == "span":
        return fmt(value)
    if kind == "size":
        return f"{value:#x}"
    return json.dumps(value, ensure_ascii=False)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    widths = [max(len(row[c]) for row in [list(heads), *cells]) for c in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [list(heads), *cells]
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(line.rstrip() for line in (title, lines[0], rule, *lines[1:]))


def _maps(plan: Plan) -> list[str]:
    """One table per different address map, with every port that has it."""
    names = {n.id: n.name for n in plan.nodes}
    tables: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for node in sorted(plan.nodes, key=lambda n: natural(n.name)):
        for port, regions in node.maps.items():
            rows: list[tuple[str, ...]] = []
            for region in regions:
                link = plan.links[region.link]
                target = f"{names[link.dst]}.{link.dst_port}"
                rows.append(
                    (f"{region.base:#x}", f"{region.base + region.size - 1:#x}", region.name, target)
                    + (f"{region.offset:#x}", fmt(link.latency))
                )
            tables.setdefault(tuple(rows), []).append(f"{node.name}.{port}")
    heads = ("first", "last", "region", "target", "offset", "latency")
    return [_table(f"Address map of {', '.join(ports)}", heads, rows) for rows, ports in tables.items()]


def _link_rows(plan: Plan) -> list[tuple[str, ...]]:
    names = {n.id: n.name for n in plan.nodes}
    rows: list[tuple[str, ...]] = []
    done: set[int] = set()
    ways = {(k.src, k.src_port, k.dst, k.dst_port): k for k in plan.links}
    for link in plan.links:
        if link.id in done:
            continue
        back = ways.get((link.dst, link.dst_port, link.src, link.src_port))
        both = back is not None and back.latency == link.latency and not back.attributes
        if back is not None and both:
            done.add(back.id)
        ends = (f"{names[link.src]}.{link.src_port}", f"{names[link.dst]}.{link.dst_port}")
        rows.append((ends[0], "<->" if both else "->", ends[1], fmt(link.latency), _attributes(link)))
    return rows


def _attributes(link: LinkPlan) -> str:
    return ", ".join(f"{name}={_flow(value)}" for name, value in link.attributes.items())


# -- a topology file without templates ---------------------------------------------------------------------------------


def _flow(value: Any) -> str:
    """JSON, which is YAML too; integers that look like addresses in hex, and ``${`` kept from being an expression."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(k))}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0x1000 and value % 1000:
        return f"{value:#x}"
    if isinstance(value, str):
        return json.dumps(value.replace("${", "$${"), ensure_ascii=False)
    return json.dumps(value)


def _key(name: str) -> str:
    """A key as itself where YAML takes it for a text."""
    return (
        name if _PLAIN.match(name) and name not in ("null", "true", "false") else json.dumps(name, ensure_ascii=False)
    )


def _time(span: int) -> str:
    """Exactly `span` ps, in the largest unit that keeps it whole."""
    for unit, scale in (("s", 10**12), ("ms", 10**9), ("us", 10**6), ("ns", 10**3)):
        if span and span % scale == 0:
            return f"{span // scale}{unit}"
    return f"{span}ps"


def emit(spec: TopologySpec, plan: Plan, machine: Machine) -> str:
    """The machine with every template filled in, as a topology file: it resolves to the same nodes, links and maps."""
    lines = [
        "# yaml-language-server: $schema=topology.schema.json",
        f"# {plan.name} as resolved: no templates are left.",
        "",
    ]
    lines += [f"name: {_flow(plan.name)}", f"doc: {_flow(spec.doc)}", f"seed: {plan.seed}"]
    if plan.parameters:
        lines += ["", "parameters:  # as they were"]
        for name, value in plan.parameters.items():
            kind = spec.parameters[name].type
            shown = _time(value) if kind == "span" else value
            lines.append(f"  {_key(name)}: {_flow({'type': kind, 'default': shown, 'doc': spec.parameters[name].doc})}")
    lines += ["", "system:"]
    if machine.power is not None:
        lines.append(f"  power: {_flow({'source': machine.power[0], 'latency': _time(machine.power[1])})}")
    lines += ["  nodes:", *_node_lines(plan)]
    lines += _section("links", [_link_line(link) for link in machine.links if not link.bus])
    lines += _map_lines(machine)
    models = {
        n.name: n.model if n.external is None else {"external": emitted(n.external, n.reaction)}
        for n in plan.nodes
        if spec.models.get(n.name, spec.models.get(n.kind, "python")) != "python"
    }
    if models:
        lines += ["", f"models: {_flow(models)}"]
    deploy = _deploy(spec, plan)
    if deploy:
        lines += ["", f"deploy: {_flow(deploy)}"]
    if plan.tests:
        lines += ["", "tests:"]
        lines += [f"  {_key(name)}: {_flow(spec.tests[name].model_dump(exclude={'default'}))}" for name in plan.tests]
    return "\n".join(lines) + "\n"


def _section(name: str, lines: list[str]) -> list[str]:
    return [f"  {name}:", *lines] if lines else []


def _node_lines(plan: Plan) -> list[str]:
    lines = []
    for node in plan.nodes:
        entry: dict[str, Any] = {"name": node.name, "kind": node.kind}
        if node.params:
            entry["params"] = node.params
        if node.reaction:
            entry["reaction"] = _time(node.reaction)
        lines.append(f"    - {_flow(entry)}")
    return lines


def _link_line(link: LinkItem) -> str:
    entry: dict[str, Any] = {"from": ".".join(link.source), "to": ".".join(link.target), "latency": _time(link.latency)}
    if link.both:
        entry["both"] = True
    if link.attributes:
        entry["attributes"] = link.attributes
    return f"    - {_flow(entry)}"


def _map_lines(machine: Machine) -> list[str]:
    """Regions, renamed only where two of one name differ, and maps that list them."""
    regions: dict[str, dict[str, Any]] = {}
    maps = []
    for item in machine.maps:
        sees: dict[int, tuple[LinkItem, list[str]]] = {}
        for window in item.windows:
            region = window.region
            entry = {"base": region.base, "size": region.size, "to": ".".join(region.target), "offset": region.offset}
            assert regions.setdefault(region.name, entry) == entry
            sees.setdefault(id(window.link), (window.link, []))[1].append(region.name)
        maps.append(f"    - from: {'.'.join(item.port)}")
        maps.append("      sees:" if sees else "      sees: []")
        for link, names in sees.values():
            seen: dict[str, Any] = {"regions": names, "latency": _time(link.latency)}
            if link.attributes:
                seen["attributes"] = link.attributes
            maps.append(f"        - {_flow(seen)}")
    lines = [f"    {_key(name)}: {_flow(entry)}" for name, entry in regions.items()]
    return _section("regions", lines) + _section("maps", maps)
