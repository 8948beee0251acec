"""Topology to plan: parameters, expansion, checks, ids, placement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from cosim.core.plan import LinkPlan, NodePlan, Plan, RegionPlan
from cosim.core.time import parse_span
from cosim.errors import TopologyError
from cosim.topo.catalogue import Catalogue
from cosim.topo.check import Checker
from cosim.topo.errors import TopologyErrors, did_you_mean
from cosim.topo.expand import Expander, LinkItem, Machine
from cosim.topo.hosts import NAME, Host, Rule, parse_hosts, place_on_hosts
from cosim.topo.load import Source
from cosim.topo.parameters import Parameters
from cosim.topo.placement import Traffic, group_around_externals, parse_workers
from cosim.topo.schema import DeploySpec
from cosim.topo.text import describe, emit

__all__ = ["Resolved", "TopologyErrors", "describe", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """A plan, and the topology that says the same without templates: `topology_yaml` loads again, to the same plan.

    parameters: by name, as in result.json; types: of the parameters. workers: "per-node", "auto" or a number, as asked for.
    deploy: what the topology says of engine, its options and where to listen.
    """

    plan: Plan
    topology_yaml: str
    parameters: dict[str, Any]
    types: dict[str, str]
    workers: str
    deploy: DeploySpec


def resolve(
    source: Source,
    *,
    sets: Mapping[str, str],
    tests: Sequence[str] = (),
    seed: int | None = None,
    workers: str | None = "per-node",
    until: str | None = None,
    allow_models: Sequence[str] = (),
    catalogue: Catalogue | None = None,
    traffic: Traffic | None = None,
    hosts: str | None = None,
) -> Resolved:
    """Make the plan of a run.

    Args:
        source: from `load`.
        sets: parameters as text, as after ``--set``.
        tests: names; all of the topology without.
        seed: in place of the topology's.
        workers: "per-node", "auto", or a number; None is what the topology's `deploy` says.
        until: end of the run in simulated time, such as "5ms".
        allow_models: packages that `models` may name classes of.
        catalogue: kinds and programs; those installed unless given.
        traffic: measured by an earlier run, for the placement.
        hosts: as after ``--hosts``; None is what the topology's `deploy` says, "" no hosts whatever it says.

    Raises:
        TopologyErrors: everything that is wrong with the file and the arguments, at once.
    """
    resolver = _Resolver(source, catalogue if catalogue is not None else Catalogue.installed())
    return resolver.resolve(sets, tests, seed, workers, until, allow_models, traffic, hosts)


class _Resolver:
    def __init__(self, source: Source, catalogue: Catalogue) -> None:
        self.source = source
        self.catalogue = catalogue
        self.errors = list(source.errors)

    def option(self, what: str, option: str, code: str, next_step: str = "") -> None:
        """Note an error in an argument."""
        self.errors.append(TopologyError(what, code=code, where=option, next_step=next_step))

    def resolve(
        self,
        sets: Mapping[str, str],
        tests: Sequence[str],
        seed: int | None,
        workers: str | None,
        until: str | None,
        allow: Sequence[str],
        traffic: Traffic | None,
        hosts: str | None,
    ) -> Resolved:
        """See the module's `resolve`."""
        spec = self.source.spec
        names = self._tests(tests)
        parameters = self._parameters(sets)
        limit = self._until(until)
        places = self._workers(str(spec.deploy.workers) if workers is None else workers, workers is None)
        run_seed = spec.seed if seed is None else seed
        if not 0 <= run_seed < 2**63:
            self.option(f"seed must be in 0..2**63 - 1, not {run_seed}", "--seed", "seed")
        builtins = {"tests": list(names), "programs": dict(self.catalogue.programs)}
        expander = Expander(self.source, {**parameters.values, **builtins}, parameters.unknown)
        machine = expander.machine()
        checker = Checker(self.source, machine, expander, self.catalogue)
        checker.check(allow)
        together = self._together(checker, expander)
        wanted, rules = self._hosts(hosts)
        self._rules_match(rules, checker)
        self.errors += expander.errors
        if self.errors:
            raise TopologyErrors(self.errors)
        plan = _plan(self.source, machine, checker, parameters.values, names, run_seed, limit)
        ids = {node.name: node.id for node in plan.nodes}
        wishes = [[ids[n] for n in nodes] for nodes in together]
        if places == 0 and (checker.externals or wanted):
            places = 1  # foreign processes and hosts need a hub that is one
        if wanted:
            plan = self._on_hosts(plan, wanted, rules, places, wishes, traffic)
        else:
            plan = plan._replace(groups=group_around_externals(places, plan, wishes, traffic))
        types: dict[str, str] = {name: parameter.type for name, parameter in spec.parameters.items()}
        return Resolved(plan, emit(spec, plan, machine), dict(parameters.values), types, str(places), spec.deploy)

    def _parameters(self, sets: Mapping[str, str]) -> Parameters:
        def report(
            what: str, *, code: str, path: Any = (), where: str = "", next_step: str = "", key: bool = False
        ) -> None:
            place = where or self.source.text.where(path, key=key)
            self.errors.append(TopologyError(what, code=code, where=place, next_step=next_step))

        parameters = Parameters(report)
        broken = frozenset(path[1] for path in self.source.broken if path[0] == "parameters")
        parameters.define(self.source.spec.parameters, sets, broken)
        return parameters

    def _tests(self, chosen: Sequence[str]) -> tuple[str, ...]:
        known = self.source.spec.tests
        hidden = {path[1] for path in self.source.broken if path[0] == "tests"}
        for name in chosen:
            if name not in known and name not in hidden:
                self.option(f"test {name!r} is not known", f"--test {name}", "unknown-test", did_you_mean(name, known))
        return tuple(name for name, test in known.items() if (name in chosen if chosen else test.default))

    def _until(self, until: str | None) -> int | None:
        if until is None:
            return None
        try:
            return parse_span(until)
        except ValueError as error:
            self.option(str(error), f"--until {until}", "until")
            return None

    def _workers(self, workers: str, from_file: bool) -> str | int:
        try:
            return parse_workers(workers)
        except ValueError as error:
            where = self.source.text.where(("deploy", "workers")) if from_file else f"--workers {workers}"
            self.option(f"workers {error}", where, "workers")
            return "per-node"

    def _hosts(self, text: str | None) -> tuple[list[Host], list[Rule]]:
        """The hosts asked for; none: all runs on the machine of the supervisor."""
        deploy, where = self.source.spec.deploy, self.source.text.where
        hosts = [Host(name, host.address) for name, host in deploy.hosts.items()]
        for name in deploy.hosts:
            if not NAME.match(name):
                what = f"name of a host must be a letter and up to 31 letters, digits, _ or -, not {name!r}"
                self.errors.append(TopologyError(what, code="host-name", where=where(("deploy", "hosts", name))))
        rules = [] if deploy.place == "auto" else [Rule(rule.nodes, rule.host) for rule in deploy.place]
        for row, rule in enumerate(rules):
            if rule.host not in deploy.hosts:
                place = where(("deploy", "place", row, "host"))
                next_step = did_you_mean(rule.host, deploy.hosts)
                what = f"host {rule.host!r} is not known"
                self.errors.append(TopologyError(what, code="unknown-host", where=place, next_step=next_step))
        if text is None:
            return hosts, rules
        try:
            given = parse_hosts(text) if text else []
        except ValueError as error:
            self.option(f"hosts {error}", f"--hosts {text}", "hosts")
            return [], []
        if given and rules and len(given) != len(hosts):
            self.option(
                f"--hosts must name {len(hosts)} hosts, as the topology's `deploy: place` does, not {len(given)}",
                f"--hosts {text}",
                "hosts",
            )
        if len(given) == len(hosts):  # the topology's names, with these addresses
            given = [known._replace(address=new.address) for known, new in zip(hosts, given, strict=True)]
        return given, rules

    def _rules_match(self, rules: Sequence[Rule], checker: Checker) -> None:
        """A rule of a pattern that no node has would change nothing: it is most likely misspelt."""
        if checker.machine.hidden:
            return  # nodes that could not be named may match
        for row, rule in enumerate(rules):
            if not any(fnmatchcase(name, rule.pattern) for name in checker.nodes):
                self.errors.append(
                    TopologyError(
                        f"pattern of a rule of placement must match a node, and {rule.pattern!r} matches none of the "
                        f"{len(checker.nodes)}",
                        code="unknown-node",
                        where=self.source.text.where(("deploy", "place", row, "nodes")),
                        next_step=did_you_mean(
                            rule.pattern, checker.nodes, "`cosim check --hosts 0` lists them without it"
                        ),
                    )
                )

    def _on_hosts(
        self,
        plan: Plan,
        hosts: Sequence[Host],
        rules: Sequence[Rule],
        places: str | int,
        wishes: Sequence[Sequence[int]],
        traffic: Traffic | None,
    ) -> Plan:
        try:
            return place_on_hosts(plan, hosts, rules, places, wishes, traffic)
        except ValueError as error:
            self.option(str(error), "--hosts, deploy: hosts", "hosts", "fewer hosts, or other rules in `deploy: place`")
            raise TopologyErrors(self.errors) from None

    def _together(self, checker: Checker, expander: Expander) -> list[list[str]]:
        result = self.source.spec.deploy.together
        for row, names in enumerate(result):
            for column, name in enumerate(names):
                if name not in checker.nodes and not any(p.match(name) for p in checker.machine.hidden):
                    expander.report(
                        f"node {name!r} is not known",
                        ("deploy", "together", row, column),
                        code="unknown-node",
                        next_step=did_you_mean(name, checker.nodes),
                    )
        return result


def _plan(
    source: Source,
    machine: Machine,
    checker: Checker,
    parameters: dict[str, Any],
    tests: tuple[str, ...],
    seed: int,
    until: int | None,
) -> Plan:
    """Records with ids: nodes by sorted name, links in the order of the file, then the power lines."""
    nodes = sorted(machine.nodes, key=lambda node: node.name)
    ids = {node.name: number for number, node in enumerate(nodes)}
    links, first = _links(machine, ids)
    maps: dict[str, dict[str, tuple[RegionPlan, ...]]] = {}
    for item in machine.maps:
        windows = sorted(item.windows, key=lambda w: w.region.base)
        maps.setdefault(item.port[0], {})[item.port[1]] = tuple(
            RegionPlan(w.region.base, w.region.size, first[id(w.link)], w.region.offset, w.region.name) for w in windows
        )
    return Plan(
        name=source.spec.name,
        seed=seed,
        nodes=tuple(
            NodePlan(
                ids[n.name],
                n.name,
                n.kind,
                n.params,
                n.reaction,
                maps.get(n.name, {}),
                checker.models[n.name],
                checker.externals.get(n.name),
            )
            for n in nodes
        ),
        links=tuple(links),
        groups=(),
        tests=tests,
        parameters=dict(parameters),
        until=until,
    )


def _links(machine: Machine, ids: Mapping[str, int]) -> tuple[list[LinkPlan], dict[int, int]]:
    """All one-way links, and by `id()` of each item the id of its way there."""
    links: list[LinkPlan] = []
    first: dict[int, int] = {}

    def add(item: LinkItem, source: tuple[str, str], target: tuple[str, str], attributes: dict[str, Any]) -> None:
        links.append(
            LinkPlan(len(links), ids[source[0]], source[1], ids[target[0]], target[1], item.latency, attributes)
        )

    for item in machine.links:
        first[id(item)] = len(links)
        add(item, item.source, item.target, item.attributes)
        if item.both:
            add(item, item.target, item.source, {})
    if machine.power is not None:
        name, latency = machine.power
        for other in sorted(ids, key=ids.__getitem__):
            if other != name:
                links.append(LinkPlan(len(links), ids[name], "power", ids[other], "power", latency))
    return links, first
