"""What only the whole machine shows: unknown kinds, nodes and ports, overlaps, duplicates, models that may not be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosim.core.route import ADDRESS_LIMIT
from cosim.node.node import Port
from cosim.topo.catalogue import NOT_INSTALLED, PATH, Catalogue, ModelUnavailable, allowed, describe_port, fits
from cosim.topo.errors import did_you_mean
from cosim.topo.expand import Expander, LinkItem, Machine, MapItem, NodeItem, WindowItem
from cosim.topo.external import Externals
from cosim.topo.load import Source
from cosim.topo.schema import ExternalSpec, ModelSpec

_NAMES: dict[type, str] = {int: "an integer", bool: "true or false", str: "a text", list: "a list", dict: "a map"}


def _is_a(value: Any, expected: type) -> bool:
    return isinstance(value, expected) and (expected is not int or not isinstance(value, bool))


def _misfit(value: Any, expected: type | range | tuple[Any, ...]) -> tuple[str, str]:
    """Code of the error, and what the value must be; both empty when it is."""
    if isinstance(expected, tuple):
        fine = any(type(value) is type(choice) and value == choice for choice in expected)
        return ("", "") if fine else ("parameter-choice", f"one of {', '.join(map(repr, expected))}")
    if isinstance(expected, range):
        if not _is_a(value, int):
            return "wrong-type", f"an integer in {expected[0]}..{expected[-1]}"
        return ("", "") if value in expected else ("parameter-limit", f"in {expected[0]}..{expected[-1]}")
    return ("", "") if _is_a(value, expected) else ("wrong-type", _NAMES[expected])


class Checker:
    """Checks a machine; errors go to the expander's list.

    `models`: import path by node name, for nodes that have one, or "external"; `externals`: plain form of an external node's
    block, by node name.
    """

    def __init__(self, source: Source, machine: Machine, expander: Expander, catalogue: Catalogue) -> None:
        self.source = source
        self.machine = machine
        self.report = expander.report
        self.catalogue = catalogue
        self.nodes: dict[str, NodeItem] = {}
        self.models: dict[str, str] = {}
        self.externals: dict[str, dict[str, Any]] = {}
        self._interfaces: dict[str, dict[str, Port]] = {}
        self._blocks = Externals(expander, Path(source.name).parent)

    def check(self, allow: Sequence[str]) -> None:
        """Everything."""
        self._names()
        self._models(allow)
        self._tests()
        for link in self.machine.links:
            self._link(link)
        self._twice()
        for item in self.machine.maps:
            self._map(item)
        self._maps_twice()
        self._power()

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _names(self) -> None:
        for node in self.machine.nodes:
            first = self.nodes.setdefault(node.name, node)
            if first is not node:
                self.report(
                    f"node name {node.name!r} must be unique; it is also made at {self.source.text.where((*first.path, 'name'))}",
                    (*node.path, "name"),
                    code="duplicate-node",
                    next_step="rename one, or let its name hold ${i}",
                )

    def _models(self, allow: Sequence[str]) -> None:
        chosen = self.source.spec.models
        kinds = {node.kind for node in self.nodes.values()}
        for key in chosen:
            if key not in kinds and not self._known(key):
                self.report(
                    f"models must name kinds or nodes of this topology, not {key!r}",
                    ("models", key),
                    key=True,
                    code="unknown-part",
                    next_step=did_you_mean(key, [*kinds, *self.nodes]),
                )
        refused: set[str] = set()
        for node in self.nodes.values():
            key = node.name if node.name in chosen else node.kind
            if key in chosen and key not in refused and chosen[key] != "python":
                model = chosen[key]
                if isinstance(model, ModelSpec):
                    if not self._external(key, node, model.external):
                        refused.add(key)
                elif self._dotted(key, model, allow):
                    self.models[node.name] = model
                else:
                    refused.add(key)
            elif key not in refused and ("models", node.kind) not in self.source.broken:
                self._installed(node)
        self._load()
        self._parameters()

    def _external(self, key: str, node: NodeItem, spec: ExternalSpec) -> bool:
        """Account for a node that a foreign process plays; whether its block is right."""
        installed = self.catalogue.models.get(node.kind)
        try:
            known = None if installed is None else self.catalogue.ports(installed)
        except ModelUnavailable:
            known = None
        ports = self._blocks.ports(key, spec, known)
        plain = None if ports is None else self._blocks.plain(key, node.name, spec, ports)
        reaction = self._blocks.reaction(key, spec)
        if ports is None or plain is None or (reaction is None and spec.lookahead is not None):
            return False
        if reaction is not None:
            node.reaction = reaction
        self.models[node.name] = "external"
        self.externals[node.name] = plain
        self._interfaces[node.name] = ports
        return True

    def _dotted(self, key: str, model: str, allow: Sequence[str]) -> bool:
        """Whether `models` may say this."""
        path = ("models", key)
        if model == "external":
            self.report(
                f"external model of {key} must say how it is started or connects, not just external",
                path,
                code="model-external",
                next_step="for example {external: {argv: [PROGRAM, ARGUMENT...]}}; see docs/attach.md",
            )
        elif not PATH.match(model):
            self.report(
                f"model of {key} must be python or package.module:Class, not {model!r}",
                path,
                code="model-path",
                next_step=did_you_mean(model, ["python", "external"]) if ":" not in model else "",
            )
        elif not allowed(model, allow):
            self.report(
                f"model of {key} must come from an allowed package, not from {model!r}",
                path,
                code="model-refused",
                next_step=f"if you trust it: --allow-models {model.partition(':')[0].partition('.')[0]}",
            )
        else:
            return True
        return False

    def _installed(self, node: NodeItem) -> None:
        """The entry point of a node's kind."""
        model = self.catalogue.models.get(node.kind)
        if model is not None:
            self.models[node.name] = model
        elif self.catalogue.models:
            self.report(
                f"kind {node.kind!r} is not known",
                (*node.path, "kind"),
                code="unknown-kind",
                next_step=did_you_mean(node.kind, self.catalogue.models, "name its class in `models`"),
            )
        else:
            self.report(
                "kinds must be installed as entry points cosim.nodes; this environment has none",
                ("system", "nodes"),
                key=True,
                code="not-installed",
                next_step=NOT_INSTALLED,
            )

    def _load(self) -> None:
        """Import every model once."""
        failed: dict[str, str] = {}
        for name, model in list(self.models.items()):
            if name in self.externals:
                continue
            if model not in failed:
                try:
                    self.catalogue.ports(model)
                    continue
                except ModelUnavailable as error:
                    failed[model] = str(error)
            del self.models[name]
            node = self.nodes[name]
            self.report(
                f"model {model} of kind {node.kind!r} must be a class that can be imported: {failed[model]}",
                (*node.path, "kind"),
                code="model-import",
                next_step="mend or install that module",
            )

    def _parameters(self) -> None:
        """Names, types and ranges of what `params` gives, where the model declares what it takes; then what goes together."""
        said: set[tuple[Any, ...]] = set()
        for name, model in self.models.items():
            declared = self.catalogue.parameters(model)
            node = self.nodes[name]
            fits_all = True
            for key, value in node.params.items() if declared else ():
                path = (*node.path, "params", key)
                expected = declared.get(key)
                code, wanted = ("", "") if expected is None else _misfit(value, expected)
                if expected is not None and not code:
                    continue
                fits_all = False
                if path in said:
                    continue
                said.add(path)
                if expected is None:
                    self.report(
                        f"parameter {key!r} is not one of a {node.kind}",
                        path,
                        key=True,
                        code="unknown-parameter",
                        next_step=did_you_mean(key, declared),
                    )
                else:
                    self.report(f"parameter {key} of a {node.kind} must be {wanted}, not {value!r}", path, code=code)
            for key, text in self.catalogue.conflicts(model, node.params) if fits_all else ():
                path = (*node.path, "params", key)
                if path not in said:
                    said.add(path)
                    self.report(f"parameter {key} of a {node.kind} {text}", path, code="parameter-conflict")

    def _tests(self) -> None:
        for name, test in self.source.spec.tests.items():
            if test.program in self.catalogue.programs:
                continue
            if self.catalogue.programs:
                self.report(
                    f"program {test.program!r} of test {name} is not known",
                    ("tests", name, "program"),
                    code="unknown-program",
                    next_step=did_you_mean(test.program, self.catalogue.programs),
                )
            else:
                self.report(
                    "programs must be installed as entry points cosim.programs; this environment has none",
                    ("tests",),
                    key=True,
                    code="not-installed",
                    next_step=NOT_INSTALLED,
                )

    def _known(self, name: str) -> bool:
        """Whether a node exists, or might if its entry were right."""
        return name in self.nodes or any(pattern.match(name) for pattern in self.machine.hidden)

    # -- links ---------------------------------------------------------------------------------------------------------

    def _port(self, end: tuple[str, str], path: tuple[object, ...]) -> Port | None:
        """The port at one end; None when it is not known (and reported)."""
        name, port = end
        if name not in self.nodes:
            if not self._known(name):
                self.report(
                    f"node {name!r} is not known", path, code="unknown-node", next_step=did_you_mean(name, self.nodes)
                )
            return None
        model = self.models.get(name)
        if model is None:
            return None
        ports = self._interfaces.get(name) or self.catalogue.ports(model)
        if port not in ports:
            self.report(
                f"node {name} has no port {port!r}",
                path,
                code="unknown-port",
                next_step=did_you_mean(port, sorted(ports)),
            )
        return ports.get(port)

    def _link(self, link: LinkItem) -> None:
        if link.bus:
            return
        source = self._port(link.source, (*link.path, "from"))
        target = self._port(link.target, (*link.path, "to"))
        if link.source[0] == link.target[0]:
            self.report(f"a link must join two nodes, not {link.source[0]} with itself", link.path, code="self-link")
        elif source is not None and target is not None and not fits(source, target):
            self.report(
                f"ports of a link must fit: {'.'.join(link.source)} is {describe_port(source)}, "
                f"{'.'.join(link.target)} is {describe_port(target)}",
                link.path,
                code="port-mismatch",
                next_step="buses are joined by `maps`, channels of one protocol and lines by `links`",
            )

    def _twice(self) -> None:
        seen: dict[tuple[tuple[str, str], tuple[str, str]], LinkItem] = {}
        for link in self.machine.links:
            ways = [(link.source, link.target)] + ([(link.target, link.source)] if link.both else [])
            for way in ways:
                first = seen.setdefault(way, link)
                if first is not link:
                    if link.bus and first.bus and link.source == first.source:
                        continue  # two maps of one port: reported as such
                    self.report(
                        f"ports {'.'.join(way[0])} and {'.'.join(way[1])} must be linked once; they are linked at "
                        f"{self.source.text.where(first.path)} too",
                        link.path,
                        code="duplicate-link",
                        next_step="remove one of them",
                    )
                    break

    # -- address maps --------------------------------------------------------------------------------------------------

    def _map(self, item: MapItem) -> None:
        port = self._port(item.port, (*item.path, "from"))
        if port is not None and describe_port(port) != "a bus initiator":
            self.report(
                f"an address map must belong to a bus initiator; {'.'.join(item.port)} is {describe_port(port)}",
                (*item.path, "from"),
                code="port-mismatch",
            )
        for window in item.windows:
            region = window.region
            target = self._port(region.target, (*region.path, "to"))
            if target is not None and describe_port(target) != "a bus target":
                self.report(
                    f"target of region {region.name} must be a bus target; {'.'.join(region.target)} is {describe_port(target)}",
                    (*region.path, "to"),
                    code="port-mismatch",
                )
            if region.base + region.size > ADDRESS_LIMIT:
                self.report(
                    f"end of region {region.name} must be at most {ADDRESS_LIMIT:#x}, not {region.base + region.size:#x}",
                    region.path,
                    key=True,
                    code="region-limit",
                )
        self._overlaps(item.windows)

    def _overlaps(self, windows: list[WindowItem]) -> None:
        furthest: WindowItem | None = None
        for window in sorted(windows, key=lambda w: (w.region.base, w.region.name)):
            region = window.region
            if furthest is not None and region.base < furthest.region.base + furthest.region.size:
                other = furthest.region
                self.report(
                    f"region {region.name} ({_extent(region.base, region.size)}) overlaps region {other.name} "
                    f"({_extent(other.base, other.size)}) of {self.source.text.where(other.path, key=True)}",
                    region.path,
                    key=True,
                    code="overlap",
                    next_step="move one of them, or leave one out of this initiator's map",
                )
            if furthest is None or region.base + region.size > furthest.region.base + furthest.region.size:
                furthest = window

    def _maps_twice(self) -> None:
        seen: dict[tuple[str, str], MapItem] = {}
        for item in self.machine.maps:
            first = seen.setdefault(item.port, item)
            if first is not item:
                self.report(
                    f"port {'.'.join(item.port)} must have one address map; it has one at "
                    f"{self.source.text.where(first.path)} too",
                    (*item.path, "from"),
                    code="duplicate-map",
                    next_step="join their `sees`",
                )

    def _power(self) -> None:
        if self.machine.power is not None:
            self._port((self.machine.power[0], "power"), ("system", "power", "source"))


def _extent(base: int, size: int) -> str:
    return f"{base:#x}..{base + size - 1:#x}"
