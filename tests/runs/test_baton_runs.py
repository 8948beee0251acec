"""The baton between real processes: it goes round, and changes nothing; runs can be seen and ended meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cosim.core.codec import FrameType
from cosim.core.journal import read_records
from cosim.core.plan import LinkPlan, NodePlan, Plan
from cosim.link.memory_link import Switch
from cosim.node.worker import Worker
from cosim.run.hub import Hub
from cosim.run.hub_main import open_hub
from tests.support.processes import is_running
from tests.support.runs import ROOT, children, cosim, environment, result, ring, start, up, wait_running

LINKS = ["ipc", "zmq+ipc"]
ENDLESS = ("--set", "rounds=100000000")
LIVENESS_S = 5.0
by_either_link = pytest.mark.parametrize("link", ["fast", "zmq"])


class Counting:
    """A hub's link that counts frames by type."""

    def __init__(self, link: Any) -> None:
        self.link = link
        self.seen: Counter[int] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.link, name)

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next frame, counted."""
        item: tuple[bytes, bytes] | None = self.link.receive()
        if item is not None:
            self.seen[item[1][4]] += 1
        return item


def plan(groups: tuple[tuple[int, ...], ...], rounds: int) -> Plan:
    """A ring of three nodes with a token."""
    nodes = tuple(
        NodePlan(n, f"n{n}", "ring", {"index": n, "rounds": rounds}, 0, {}, "tests.support.models:Ring")
        for n in range(3)
    )
    links = tuple(LinkPlan(n, n, "out", (n + 1) % 3, "into", 10_000, {}) for n in range(3))
    return Plan("ring", 1, nodes, links, groups)


def digests(report: dict[str, Any]) -> dict[str, Any]:
    """What each node consumed."""
    assert report["reason"] == "quiescent" and report["complete"]
    return {name: (node["count"], node["digest"], node["now"]) for name, node in report["nodes"].items()}


def in_one_process(rounds: int) -> dict[str, Any]:
    """The report of the ring run by one worker, in threads of this process."""
    import threading

    link, events = Switch(), list[list[Any]]()
    hub = Hub(plan(((0, 1, 2),), rounds), link, events.append)
    thread = threading.Thread(target=Worker(link.connect("w0"), "w0").serve)
    thread.start()
    hub.run()
    thread.join()
    report: dict[str, Any] = events[-1][1]
    return report


@pytest.mark.parametrize("scheme", LINKS)
def test_the_baton_goes_round_and_changes_nothing(tmp_path: Path, scheme: str) -> None:
    """Of a token that goes round between three processes, most hops are passed on; digests, clocks and counts are those of one
    process. On a loaded machine fewer are, but some always."""
    rounds = 3000
    endpoint = f"{scheme}://{tmp_path}/hub"
    link, events = Counting(open_hub(endpoint)), list[list[Any]]()
    hub = Hub(plan(((0,), (1,), (2,)), rounds), link, events.append)
    argv = [sys.executable, "-m", "cosim.node.worker", endpoint]
    workers = [subprocess.Popen([*argv, f"w{w}", str(os.getpid())], cwd=ROOT, env=environment()) for w in range(3)]
    try:
        hub.run()
        assert [worker.wait(20) for worker in workers] == [0, 0, 0]
    finally:
        link.close()
        for worker in workers:
            worker.kill()
            worker.wait()
    report = events[-1][1]
    assert digests(report) == digests(in_one_process(rounds))
    assert link.seen[FrameType.PASSED] > rounds / 20
    assert link.seen[FrameType.PASSED] + link.seen[FrameType.DONE] == report["grants"]


def test_replay_reads_what_was_passed(tmp_path: Path) -> None:
    """The journals of a run in which the baton went round are grants and answers in turn, and replay checks every answer."""
    assert up(ring(tmp_path), tmp_path / "run", "--set", "rounds=400").returncode == 0
    for journal in (tmp_path / "run" / "journal").iterdir():
        records, tail = read_records(journal.read_bytes())
        assert tail.torn is None and [r[:1] for r in records] == [b"G", b"D"] * (len(records) // 2)
        assert {r[5] for r in records[::2]} == {FrameType.GRANT} and {r[5] for r in records[1::2]} == {FrameType.DONE}
    done = cosim("replay", tmp_path / "run", "n1", "--allow-models", "tests.support")
    assert done.returncode == 0, done.stderr


@by_either_link
def test_a_run_can_be_seen_and_interrupted_while_the_baton_goes_round(tmp_path: Path, link: str) -> None:
    """`cosim ps` and `cosim why` answer, Ctrl-C ends the run within 5 s, and neither a process nor a socket is left."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, *ENDLESS, "--link", link)
    wait_running(run, process)
    sockets = Path(json.loads((run / "run.json").read_text())["control"]).parent
    pids = list(children(process.pid))
    try:
        clocks = []
        for _ in range(2):
            rows = json.loads(cosim("ps", run, "--json").stdout)
            assert {row["node"] for row in rows} == {f"n{n}" for n in range(4)}
            clocks.append(max(row["sim_time_ps"] for row in rows))
        assert clocks[1] > clocks[0] > 0
        assert cosim("why", run).returncode == 0
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert time.monotonic() - began < LIVENESS_S
    got = result(run)
    assert (got["status"], got["errors"][0]["code"]) == ("interrupted", "interrupted")
    assert sum(got["counters"].values()) > 1000
    assert not any(map(is_running, pids)) and not sockets.exists()


@by_either_link
def test_a_worker_that_is_killed_while_it_has_the_baton(tmp_path: Path, link: str) -> None:
    """Exit 4; the worker is named with how it ended and its last simulated time; the journals are whole; no socket is left."""
    run = tmp_path / "run"
    process = start(ring(tmp_path, "Killed"), run, *ENDLESS, "--link", link)
    wait_running(run, process)
    sockets = Path(json.loads((run / "run.json").read_text())["control"]).parent
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    # n1 has tokens 1, 5, ..., 997: what it died of is the one after
    assert "worker process of n1 is gone: killed by SIGKILL; its last simulated time was" in err
    assert [error["code"] for error in result(run)["errors"]] == ["worker-lost"]
    for journal in (run / "journal").iterdir():
        records, tail = read_records(journal.read_bytes())
        assert tail.torn is None and len(records) > 2
    assert not sockets.exists()
