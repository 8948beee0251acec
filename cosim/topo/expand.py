"""A topology's templates, filled in: every node, link, region and map of the machine, each with its place in the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cosim.core.time import parse_span
from cosim.errors import TopologyError
from cosim.topo.errors import Path, did_you_mean
from cosim.topo.expr import ExprError, Unknown, fill, has_expression
from cosim.topo.load import Source
from cosim.topo.parameters import parse_size
from cosim.topo.schema import LinkSpec, MapSpec, NodeSpec, RegionSpec, SeesSpec

MAX_NODES = 65_536
MAX_LINKS = 1_000_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(slots=True)
class NodeItem:
    """One node."""

    name: str
    kind: str
    params: dict[str, Any]
    reaction: int
    path: Path


@dataclass(slots=True)
class LinkItem:
    """One link as written: `both` directions or one. Ends are (node, port)."""

    source: tuple[str, str]
    target: tuple[str, str]
    latency: int
    both: bool
    attributes: dict[str, Any]
    path: Path
    bus: bool = False


@dataclass(slots=True)
class RegionItem:
    """One range of the address space."""

    name: str
    base: int
    size: int
    target: tuple[str, str]
    offset: int
    path: Path


@dataclass(slots=True)
class WindowItem:
    """One region as an initiator sees it: accesses go over `link`."""

    region: RegionItem
    link: LinkItem


@dataclass(slots=True)
class MapItem:
    """The address map of one initiator port."""

    port: tuple[str, str]
    windows: list[WindowItem]
    path: Path


@dataclass(slots=True)
class Machine:
    """Everything that exists. `hidden` match names of nodes whose entries are in error."""

    nodes: list[NodeItem] = field(default_factory=list)
    links: list[LinkItem] = field(default_factory=list)
    maps: list[MapItem] = field(default_factory=list)
    hidden: list[re.Pattern[str]] = field(default_factory=list)
    power: tuple[str, int] | None = None


class _Skip(Exception):
    """This entry is in error, and that has been reported."""


class Expander:
    """Fills templates in; errors go to `errors`."""

    def __init__(self, source: Source, values: Mapping[str, Any], unknown: frozenset[str]) -> None:
        self.source = source
        self.values = dict(values)
        self.unknown = unknown
        self.errors: list[TopologyError] = []
        self._reported: set[tuple[Path, str]] = set()

    def report(
        self, what: str, path: Path, *, code: str = "topology", next_step: str = "", key: bool = False, where: str = ""
    ) -> None:
        """Note an error at `path`; the same one at the same place only once."""
        if (path, what) not in self._reported:
            self._reported.add((path, what))
            place = where or self.source.text.where(path, key=key)
            self.errors.append(TopologyError(what, code=code, where=place, next_step=next_step))

    # -- values --------------------------------------------------------------------------------------------------------

    def fill(self, value: Any, names: Mapping[str, Any], path: Path) -> Any:
        """`value` with every expression inside filled in."""
        if isinstance(value, dict):
            return {key: self.fill(item, names, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, names, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        try:
            return fill(value, names, self.unknown)
        except ExprError as error:
            self.report(f"expression in {value!r}: {error}", path, code="expression", next_step=error.suggestion)
            raise _Skip from None
        except Unknown:
            raise _Skip from None

    def whole(self, value: Any, names: Mapping[str, Any], path: Path, least: int = 0) -> int:
        """An integer of at least `least`."""
        found = self.fill(value, names, path)
        if isinstance(found, bool) or not isinstance(found, int):
            self._wrong(path, "an integer", found)
        if found < least:
            self._wrong(path, f"at least {least}", found)
        return int(found)

    def size(self, value: Any, names: Mapping[str, Any], path: Path) -> int:
        """Bytes, at least 1."""
        found = self.fill(value, names, path)
        if isinstance(found, str):
            try:
                found = parse_size(found)
            except ValueError:
                self._wrong(path, "bytes or a number of KiB, MiB, GiB such as 64KiB", found)
        if isinstance(found, bool) or not isinstance(found, int):
            self._wrong(path, "a size in bytes", found)
        if found < 1:
            self._wrong(path, "at least 1 byte", found, "size")
        return int(found)

    def span(self, value: Any, names: Mapping[str, Any], path: Path, *, zero: bool = False) -> int:
        """Picoseconds; at least 1 unless `zero`."""
        found = self.fill(value, names, path)
        if isinstance(found, str):
            try:
                found = parse_span(found)
            except ValueError:
                self._wrong(path, "a number with a unit (ps, ns, us, ms, s) such as 5ns", found)
        if isinstance(found, bool) or not isinstance(found, int):
            self._wrong(path, "a time such as 5ns", found)
        if found < (0 if zero else 1):
            self.report(
                f"{path[-1]} must be at least 1ps, not {value}" + (f" = {found}ps" if has_expression(value) else ""),
                path,
                code="zero-latency",
                next_step="simulated time only advances over links: give it a latency above 0",
            )
            raise _Skip
        return int(found)

    def _wrong(self, path: Path, expected: str, found: Any, what: str = "") -> None:
        self.report(f"{what or path[-1]} must be {expected}, not {found!r}", path, code="wrong-type")
        raise _Skip

    def end(self, text: str, names: Mapping[str, Any], path: Path) -> tuple[str, str]:
        """(node, port)."""
        found = self.fill(text, names, path)
        node, dot, port = str(found).rpartition(".")
        if not dot or not node or not port:
            self._wrong(path, "NODE.PORT", found)
        return node, port

    def ranges(self, spec: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
        """Names for each combination of a `for`."""
        yield from self._ranges(list(spec.items()), self.values, path)

    def _ranges(self, spec: list[tuple[str, Any]], names: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
        if not spec:
            yield names
            return
        (name, value), *rest = spec
        inner = (*path, "for", name)
        if not name.isidentifier():
            self._wrong(inner, "given to a name of letters, digits and _", name, "`for`")
        found = self.fill(value, names, inner)
        if isinstance(found, bool) or not isinstance(found, (int, list)):
            self._wrong(inner, "a number or a list", found)
        items = range(min(max(found, 0), MAX_LINKS)) if isinstance(found, int) else found
        for item in items:
            yield from self._ranges(rest, {**names, name: item}, path)

    # -- entries -------------------------------------------------------------------------------------------------------

    def machine(self) -> Machine:
        """Everything that can be made out."""
        machine = Machine()
        spec = self.source.spec.system
        for path, data in self.source.broken.items():
            if path[:2] == ("system", "nodes"):
                name = data.get("name") if isinstance(data, dict) else None
                machine.hidden.append(_pattern(name if isinstance(name, str) else "${}"))
        for index, node in zip(self.source.indices["nodes"], spec.nodes, strict=True):
            self._nodes(machine, node, ("system", "nodes", index))
        regions = self._regions()
        for index, link in zip(self.source.indices["links"], spec.links, strict=True):
            self._links(machine, link, ("system", "links", index))
        for index, item in zip(self.source.indices["maps"], spec.maps, strict=True):
            self._maps(machine, item, regions, ("system", "maps", index))
        if spec.power is not None:
            try:
                path = ("system", "power")
                name = self.fill(spec.power.source, self.values, (*path, "source"))
                machine.power = (str(name), self.span(spec.power.latency, self.values, (*path, "latency")))
            except _Skip:
                pass
        return machine

    def _nodes(self, machine: Machine, spec: NodeSpec, path: Path) -> None:
        try:
            count = self.whole(spec.count, self.values, (*path, "count"))
            if len(machine.nodes) + count > MAX_NODES:
                self._wrong((*path, "count"), f"so that there are at most {MAX_NODES} nodes", count)
            for i in range(count):
                machine.nodes.append(self._node(spec, {**self.values, "i": i}, path))
        except _Skip:
            machine.hidden.append(_pattern(spec.name))

    def _node(self, spec: NodeSpec, names: dict[str, Any], path: Path) -> NodeItem:
        name = self.fill(spec.name, names, (*path, "name"))
        if not isinstance(name, str) or not _NAME.match(name):
            self._wrong((*path, "name"), "letters, digits and _", name)
        kind = self.fill(spec.kind, names, (*path, "kind"))
        params = self.fill(spec.params, names, (*path, "params"))
        reaction = 0 if spec.reaction is None else self.span(spec.reaction, names, (*path, "reaction"), zero=True)
        return NodeItem(name, str(kind), params, reaction, path)

    def _links(self, machine: Machine, spec: LinkSpec, path: Path) -> None:
        try:
            for names in self.ranges(spec.for_, path):
                both = self.fill(spec.both, names, (*path, "both"))
                if not isinstance(both, bool):
                    self._wrong((*path, "both"), "true or false", both)
                machine.links.append(
                    LinkItem(
                        self.end(spec.from_, names, (*path, "from")),
                        self.end(spec.to, names, (*path, "to")),
                        self.span(spec.latency, names, (*path, "latency")),
                        both,
                        self.fill(spec.attributes, names, (*path, "attributes")),
                        path,
                    )
                )
                if len(machine.links) > MAX_LINKS:
                    self._wrong(path, f"so that there are at most {MAX_LINKS} links", len(machine.links), "`for`")
        except _Skip:
            return

    def _regions(self) -> dict[str, list[RegionItem] | None]:
        """By the name as written; None where the entry is in error."""
        result: dict[str, list[RegionItem] | None] = {}
        for path in self.source.broken:
            if path[:2] == ("system", "regions"):
                result[path[2]] = None
        for key, spec in self.source.spec.system.regions.items():
            path = ("system", "regions", key)
            try:
                result[key] = [self._region(key, spec, names, path) for names in self.ranges(spec.for_, path)]
            except _Skip:
                result[key] = None
        self._unique(region for regions in result.values() for region in regions or ())
        return result

    def _unique(self, regions: Iterable[RegionItem]) -> None:
        first: dict[str, RegionItem] = {}
        for region in regions:
            other = first.setdefault(region.name, region)
            if other is not region:
                self.report(
                    f"region name {region.name!r} must be unique; it is also made at "
                    f"{self.source.text.where(other.path, key=True)}",
                    region.path,
                    key=True,
                    code="duplicate-region",
                    next_step="let its name hold what it runs over, such as ${i}",
                )

    def _region(self, key: str, spec: RegionSpec, names: dict[str, Any], path: Path) -> RegionItem:
        name = self.fill(key, names, path)
        return RegionItem(
            str(name),
            self.whole(spec.base, names, (*path, "base")),
            self.size(spec.size, names, (*path, "size")),
            self.end(spec.to, names, (*path, "to")),
            self.whole(spec.offset, names, (*path, "offset")),
            path,
        )

    def _maps(self, machine: Machine, spec: MapSpec, regions: dict[str, list[RegionItem] | None], path: Path) -> None:
        try:
            for names in self.ranges(spec.for_, path):
                port = self.end(spec.from_, names, (*path, "from"))
                item = MapItem(port, [], path)
                links: dict[tuple[str, str], LinkItem] = {}
                for index, sees in enumerate(spec.sees):
                    self._sees(item, links, sees, regions, names, (*path, "sees", index))
                machine.maps.append(item)
                machine.links += links.values()
        except _Skip:
            return

    def _named(
        self, key: str, regions: dict[str, list[RegionItem] | None], names: dict[str, Any], path: Path
    ) -> list[RegionItem] | None:
        """The one region that a text with the map's names in it is the name of; None if there is none."""
        if not has_expression(key):
            return None
        name = str(self.fill(key, names, path))
        return [region for made in regions.values() for region in made or () if region.name == name] or None

    def _sees(
        self,
        item: MapItem,
        links: dict[tuple[str, str], LinkItem],
        spec: SeesSpec,
        regions: dict[str, list[RegionItem] | None],
        names: dict[str, Any],
        path: Path,
    ) -> None:
        try:
            latency = self.span(spec.latency, names, (*path, "latency"))
        except _Skip:
            latency = 0  # reported; what overlaps is found all the same
        attributes = self.fill(spec.attributes, names, (*path, "attributes"))
        for index, key in enumerate(spec.regions):
            place = (*path, "regions", index)
            chosen = regions[key] if key in regions else self._named(key, regions, names, place)
            if chosen is None and key not in regions:
                self.report(
                    f"region {key!r} is not known", place, code="unknown-region", next_step=did_you_mean(key, regions)
                )
                continue
            for region in chosen or ():
                link = links.get(region.target)
                if link is None:
                    link = links[region.target] = LinkItem(
                        item.port, region.target, latency, True, attributes, path, bus=True
                    )
                elif latency and link.latency and (link.latency, link.attributes) != (latency, attributes):
                    self.report(
                        f"regions of {'.'.join(region.target)} must be seen with one latency and the same attributes, as at "
                        f"{self.source.text.where(link.path)}",
                        place,
                        code="two-latencies",
                        next_step="list them in one entry of `sees`",
                    )
                item.windows.append(WindowItem(region, link))


def _pattern(template: str) -> re.Pattern[str]:
    """What the names made from a template look like."""
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\$\{[^}]*\}", template)) + r"\Z")
