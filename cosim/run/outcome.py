"""From the hub's final report to result.json: verdicts, counters, latencies, paths, and the exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cosim.core.digest import run_digest
from cosim.core.plan import Plan
from cosim.core.time import fmt
from cosim.errors import CosimError, DeadlockError, ErrorEntry
from cosim.run.marks import Pairing

EXIT_TEST_FAILED = 1


@dataclass
class TestRecord:
    """A test as its software reported it."""

    name: str
    status: str = "unfinished"
    detail: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    began: tuple[int, int] | None = None  # (time ps, epoch)
    ended: tuple[int, int] | None = None


@dataclass
class Outcome:
    """What a run gathers until its end; `finish` makes the result."""

    plan: Plan
    workers: int
    tests: dict[str, TestRecord] = field(default_factory=dict)
    pairing: Pairing = field(default_factory=Pairing)
    errors: list[CosimError] = field(default_factory=list)
    interrupted: CosimError | None = None
    report: dict[str, Any] | None = None
    refused_peers: Counter[str] = field(default_factory=Counter)
    """Connections that the hub turned away, by address."""
    hosts: dict[str, Any] | None = None
    """Of a run over hosts: what result.json says of them."""
    progress: dict[str, int] = field(default_factory=dict)
    """As last heard from the hub: what stands in for the report of a run that did not get to its end."""

    def __post_init__(self) -> None:
        self.tests = {name: TestRecord(name) for name in self.plan.tests}

    @property
    def tainted(self) -> list[str]:
        """The nodes of class best_effort: a run with any can't be repeated, and its digest proves nothing."""
        return [n.name for n in self.plan.nodes if n.external is not None and n.external["class"] == "best_effort"]

    def note_refused(self, address: str) -> int:
        """Account for a peer that was turned away (``address:port``); how many came from that address so far."""
        host = address.rpartition(":")[0] or address
        self.refused_peers[host] += 1
        return self.refused_peers[host]

    def note_test(self, time: int, payload: list[Any]) -> TestRecord:
        """Account for a test record [name, status, detail, extra, epoch]."""
        name, status, detail, extra, epoch = payload
        test = self.tests.setdefault(name, TestRecord(name))
        test.detail = detail
        if status == "running":
            test.began = (time, epoch)
        else:
            test.status, test.extra, test.ended = status, extra, (time, epoch)
        return test

    def judge(self) -> None:
        """Add the deadlock error if the run ended in one: nothing moves, the machine is on, and something is not finished."""
        report = self.report
        if report is None or self.errors or self.interrupted or report["reason"] != "quiescent" or report["off"]:
            return
        waits = [(n, *w) for n, entry in sorted(report["nodes"].items()) for w in entry["waits"]]
        blocking = [w for w in waits if not w[3]]
        open_tests = [t.name for t in self.tests.values() if t.status == "unfinished"]
        if not blocking and not open_tests:
            return
        lines = [f"{node}: {task} waits for {what}" for node, task, what, daemon in waits if not daemon or open_tests]
        shown = "; ".join(lines[:12]) or "no task waits: the software stopped without switching the machine off"
        more = f"; and {len(lines) - 12} more" if len(lines) > 12 else ""
        unfinished = f" with tests unfinished ({', '.join(open_tests)})" if open_tests else ""
        self.errors.append(
            DeadlockError(
                f"no node has an event left at {fmt(report['sim_time_ps'])}{unfinished}: {shown}{more}",
                code="deadlock",
                node=(blocking or waits or [(None,)])[0][0],
                sim_time_ps=report["sim_time_ps"],
                where="the whole run",
                next_step="follow the waits above to the one that nobody will answer; log.jsonl has what each node did last",
            )
        )

    def exit_code(self) -> int:
        """The documented exit code; the first cause decides."""
        if self.interrupted is not None:  # only ever set while there was no error: what came later is a consequence
            return self.interrupted.exit_code
        if self.errors:
            return self.errors[0].exit_code
        bad = [t for t in self.tests.values() if t.status in ("failed", "unfinished")]
        return EXIT_TEST_FAILED if bad else 0

    def status(self) -> str:
        """ "passed", "failed", "error" or "interrupted"."""
        if self.interrupted is not None:
            return "interrupted"
        if self.errors:
            return "error"
        return "passed" if self.exit_code() == 0 else "failed"

    def finish(self, wall_s: float) -> dict[str, Any]:
        """The content of result.json."""
        report = self.report or {}
        nodes: dict[str, Any] = report.get("nodes", {})
        complete = bool(report.get("complete"))
        causes = [*([self.interrupted] if self.interrupted else []), *self.errors]
        entries: list[ErrorEntry] = [error.as_dict() for error in causes]
        return {
            "status": self.status(),
            "digest": run_digest({n: (e["count"], e["digest"]) for n, e in nodes.items()}) if complete else None,
            "tainted": self.tainted,
            "seed": self.plan.seed,
            "topology": self.plan.name,
            "parameters": self.plan.parameters,
            "nodes": len(self.plan.nodes),
            "workers": self.workers,
            "sim_time_ps": self._reached(report, complete),
            "wall_s": round(wall_s, 3),
            "events": self._figure(report, "events", complete),
            "grants": self._figure(report, "grants", complete),
            "messages": self._figure(report, "messages", complete),
            "tests": [self._test(test, nodes) for test in self.tests.values()],
            "counters": {f"{n}.{c}": v for n, e in sorted(nodes.items()) for c, v in sorted(e["counters"].items())},
            "latency_ps": self.pairing.latencies(),
            "paths": self.pairing.paths(),
            "refused_peers": self.refused_peers.total(),
            "errors": entries,
            **({} if self.hosts is None else {"over_hosts": self.hosts}),
        }

    def _figure(self, report: dict[str, Any], name: str, complete: bool) -> int:
        """A figure of the report; of a run without a whole one, the furthest that was heard."""
        value: int = report.get(name, 0)
        return value if complete else max(value, self.progress.get(name, 0))

    def _reached(self, report: dict[str, Any], complete: bool) -> int:
        """Simulated time (ps) of the end; of a run that failed, the furthest that anybody told of."""
        reached = self._figure(report, "sim_time_ps", complete)
        return reached if complete else max([reached, *(e.sim_time_ps for e in self.errors if e.sim_time_ps)])

    def _test(self, test: TestRecord, nodes: dict[str, Any]) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": test.name, "status": test.status, "detail": test.detail}
        if test.began is not None and test.ended is not None:
            counters = {}
            for name, node in sorted(nodes.items()):
                noted = dict(node["epochs"])
                before, after = noted.get(test.began[1], {}), noted.get(test.ended[1], {})
                for counter, value in sorted(after.items()):
                    if value != before.get(counter, 0):
                        counters[f"{name}.{counter}"] = value - before.get(counter, 0)
            entry["counters"] = counters
            entry["sim_time_ps"] = test.ended[0] - test.began[0]
            entry["latency_ps"] = self.pairing.latencies(test.began[0], test.ended[0] + 1)
            entry["paths"] = self.pairing.paths(test.began[0], test.ended[0] + 1)
        return entry
