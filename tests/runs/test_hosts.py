"""Runs over hosts of this machine: one digest whatever the placement, and what happens when a host, a worker or the run dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cosim as public
from cosim.core.codec import LIMITS
from cosim.core.journal import read_records
from cosim.engines.registry import ENGINES
from cosim.errors import CosimError
from cosim.run.host_main import LEASE_OVER
from cosim.topo.load import load
from cosim.topo.resolve import resolve
from tests.support.processes import is_running
from tests.support.runs import ROOT, children, command, cosim, environment, result, ring, start, up, wait_running

MACHINE = ROOT / "topologies" / "rdn2cfg1.yaml"
ROUNDS_MAX = 1500
ALLOW = ["tests.support"]
FOREVER = ("--set", "rounds=100000000")


@pytest.fixture(scope="module")
def local_result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The machine's result in one process."""
    folder = tmp_path_factory.mktemp("local") / "run"
    done = cosim("up", MACHINE, "--run-dir", folder, "--quiet", "--workers", "0")
    assert done.returncode == 0, done.stderr
    return result(folder)


def below(pid: int) -> dict[int, str]:
    """All that descends from a process, with command lines."""
    found = children(pid)
    for child in list(found):
        found.update(below(child))
    return found


def one(processes: dict[int, str], *words: str) -> int:
    """The process with these words in its command line that is not a launcher."""
    fits = [pid for pid, line in processes.items() if all(w in line for w in words) and "engines.slot" not in line]
    assert len(fits) == 1, (words, processes)
    return fits[0]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A ring over two hosts that goes on until something happens."""
    process = start(ring(tmp_path), tmp_path / "run", "--hosts", "2", "--lease", "2", *FOREVER)
    try:
        wait_running(tmp_path / "run", process)
        yield tmp_path / "run", process
    finally:
        process.kill()
        process.communicate()


def gone(processes: dict[int, str], within_s: float) -> float:
    """Seconds until none of these processes runs."""
    began = time.monotonic()
    while alive := [line for pid, line in processes.items() if is_running(pid)]:
        assert time.monotonic() - began < within_s, alive
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize(("hosts", "options"), [("2", ("--listen", "127.0.0.1:0")), ("3", ())])
def test_the_machine_over_hosts(
    tmp_path: Path, local_result: dict[str, Any], hosts: str, options: tuple[str, ...]
) -> None:
    """rdn2cfg1 over 2 hosts (TCP with keys) and 3 (a Unix socket): both tests pass, all results are those of one process, few
    round trips, and every worker's journal is in the run directory."""
    done = cosim("up", MACHINE, "--run-dir", tmp_path / "run", "--quiet", "--hosts", hosts, *options)
    assert done.returncode == 0, done.stderr
    got = result(tmp_path / "run")
    for name in ("digest", "status", "events", "messages", "sim_time_ps", "counters", "latency_ps", "paths", "tests"):
        assert got[name] == local_result[name], name
    assert len(got["over_hosts"]["hosts"]) == int(hosts)
    assert 0 < got["over_hosts"]["grants"] <= ROUNDS_MAX
    journals = list((tmp_path / "run" / "journal").iterdir())
    assert len(journals) == got["workers"] == 25
    assert all(read_records(path.read_bytes())[0] for path in journals if path.name == "w1.journal")


def test_frames_between_hosts_do_not_grow_with_the_nodes_on_a_host(tmp_path: Path) -> None:
    """A round takes one frame each way whether a host has 4 nodes or 40: what nodes say to the other host goes together."""
    rates = []
    for nodes in ("8", "80"):
        done = up(ring(tmp_path), tmp_path / nodes, "--hosts", "2", "--workers", "4", "--set", f"nodes={nodes}",
                  "--set", "rounds=800", "--json")  # fmt: skip
        assert done.returncode == 0, done.stderr
        over = json.loads(done.stdout)["over_hosts"]
        beats = 8 * (2 + 2 * json.loads(done.stdout)["wall_s"])
        rates.append((over["frames_up"] - over["grants"], over["frames_down"] - over["grants"], beats))
    assert all(0 <= up_more <= beats and 0 <= down_more <= beats for up_more, down_more, beats in rates), rates


def test_256_pes_over_two_hosts(tmp_path: Path) -> None:
    """A machine of 256 PEs over two hosts has the digest of one process, and a frame each way a round, but for heartbeats."""
    size = ("scale", "--quiet", "--json", "--set", "pes=256", "--set", "vcpus=8", "--test", "vsgi.ipi")
    got = []
    for name, options in (("local", ("--workers", "0")), ("hosts", ("--hosts", "2", "--workers", "2"))):
        done = cosim("up", *size, "--run-dir", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
        got.append(json.loads(done.stdout))
    assert got[0]["digest"] == got[1]["digest"]
    over, beats = got[1]["over_hosts"], 8 * (2 + 2 * got[1]["wall_s"])
    assert all(0 <= over[way] - over["grants"] <= beats for way in ("frames_up", "frames_down")), over


_SOURCES = """\
name: sources
doc: two nodes say at once more than one frame takes, a third hears it
system:
  nodes:
    - {name: "s${i}", kind: source, count: 2, params: {blocks: 2100, wait_s: 0}}
    - {name: sink, kind: sink}
  links:
    - {from: "s${k}.out", to: sink.into, for: {k: 2}, latency: 1ms}
models: {source: "tests.support.models:Source", sink: "tests.support.models:Sink"}
deploy: {hosts: {near: {}, far: {}}, place: [{nodes: "s?", host: near}, {nodes: sink, host: far}]}
"""


def test_more_than_a_frame_in_a_round(tmp_path: Path) -> None:
    """What the workers of a host have for another one at once, 17 MB here, may be more than a frame takes: it all arrives."""
    topology = tmp_path / "sources.yaml"
    topology.write_text(_SOURCES)
    got = []
    for name, options in (("local", ("--hosts", "0", "--workers", "0")), ("hosts", ())):
        done = up(topology, tmp_path / name, "--json", *options)
        assert done.returncode == 0, done.stderr
        got.append(json.loads(done.stdout))
    assert got[1]["counters"]["sink.bytes"] == 2 * 2100 * 4096 > LIMITS.max_frame
    assert got[0]["digest"] == got[1]["digest"] and len(got[1]["over_hosts"]["hosts"]) == 2


def test_a_last_report_on_its_way_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose last report takes longer than its heartbeats' pause stays until the root has it: a passed run stays one."""
    monkeypatch.setitem(ENGINES, "local", "tests.support.engines:SlowUplink")
    options = {"hosts": 2, "workers": 1, "listen": "127.0.0.1:0", "host_limit_s": 60.0, "lease_s": 60.0}
    got = public.run(
        ring(tmp_path), run_dir=tmp_path / "run", allow_models=ALLOW, set={"nodes": 120, "rounds": 6}, **options
    )
    assert (got["status"], got["errors"]) == ("passed", [])


def test_rules_place_nodes(tmp_path: Path) -> None:
    """`deploy: place` decides which host has which nodes, `check` shows it, and results are those of one machine."""
    topology = ring(tmp_path)
    rules = '[{nodes: "n[02]", host: left}, {nodes: n1, host: right}]'
    topology.write_text(topology.read_text() + f"deploy: {{hosts: {{left: {{}}, right: {{}}}}, place: {rules}}}\n")
    table = cosim("check", topology, "--allow-models", "tests.support").stdout
    assert any(line.split()[:3] == ["n1", "second", "right"] for line in table.splitlines())
    done = up(topology, tmp_path / "run", "--json")
    got = json.loads(done.stdout)
    assert got["digest"].startswith("64911588f95c9cde"), done.stderr
    left, right = got["over_hosts"]["hosts"]
    assert {"n0", "n2"} <= set(left["nodes"]) and "n1" in right["nodes"] and right["name"] == "right"
    resolved = [
        resolve(load(path), sets={}, allow_models=ALLOW).plan.hosts
        for path in (topology, tmp_path / "run/topology.yaml")
    ]
    assert resolved[0] == resolved[1] and [host.name for host in resolved[0]] == ["left", "right"]
    assert resolve(load(topology), sets={}, allow_models=ALLOW, hosts="").plan.hosts == ()


@pytest.mark.parametrize(("model", "status", "what"), [("Raises", 3, "bad luck"), ("Dies", 4, "exit status 7")])
def test_a_fault_on_a_host_names_node_and_host(tmp_path: Path, model: str, status: int, what: str) -> None:
    """A model that raises and a process that dies on a host end the run as on one machine; the error names host and node."""
    done = up(ring(tmp_path, model), tmp_path / "run", "--hosts", "2")
    (error,) = result(tmp_path / "run")["errors"]
    assert (done.returncode, error["node"], error["sim_time_ps"]) == (status, "n1", 50_000)
    assert what in error["what"] and error["where"].startswith("host h")
    if model == "Raises":
        assert "bad luck" in cosim("logs", "n1", "--run", tmp_path / "run").stdout


def test_a_stall_on_a_host(tmp_path: Path) -> None:
    """A worker that sleeps in a grant is found by its own host, and named."""
    done = up(ring(tmp_path, "Sleeps"), tmp_path / "run", "--hosts", "2", "--stall-limit", "0.5")
    (error,) = result(tmp_path / "run")["errors"]
    assert (done.returncode, error["code"], error["node"]) == (4, "worker-stalled", "n1")


def test_a_host_that_is_killed(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """A host's process killed with -9: exit 4, its name and its nodes in the error, nothing left."""
    folder, process = running
    processes = below(process.pid)
    os.kill(one(processes, "cosim host", " h1 "), signal.SIGKILL)
    assert process.wait(5) == 4
    gone(processes, 5)
    error = result(folder)["errors"][0]
    nodes = result(folder)["over_hosts"]["hosts"][1]["nodes"]
    assert error["code"] == "host-lost"
    assert f"host h1 is gone with its nodes {', '.join(nodes)}" in error["what"]
    assert "SIGKILL" in error["what"] or "137" in error["what"]


def test_a_host_that_falls_silent(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """A host whose hub does not run any more while its connection stands: exit 4 within 5 s with its name; nothing is left."""
    folder, process = running
    processes = below(process.pid)
    hub = one(below(one(processes, "cosim host", " h0 ")), "hosthub_main")
    began = time.monotonic()
    os.kill(hub, signal.SIGSTOP)
    while not (folder / "result.json").exists() and time.monotonic() - began < 20:
        time.sleep(0.02)
    error = result(folder)["errors"][0]
    assert error["code"] == "host-lost" and "host h0" in error["what"] and "nothing was heard" in error["what"]
    told = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert any(entry["event"] == "host joined" and entry["host"] == "h0" for entry in told)
    assert process.wait(10) == 4
    gone(processes, 5)


def test_a_root_that_falls_silent(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """When the root's hub does not run any more, every host ends its workers once its lease is over, with status 75."""
    _folder, process = running
    processes = below(process.pid)
    root = one(processes, "cosim.run.hub_main")
    os.kill(root, signal.SIGSTOP)
    workers = {pid: line for pid, line in processes.items() if "cosim.node.worker" in line}
    assert len(workers) == 4
    assert gone(workers, 8) > 1
    os.kill(root, signal.SIGCONT)
    assert process.wait(10) == 4
    assert f"exit status {LEASE_OVER}" in process.communicate()[1]


def test_a_driver_that_is_killed(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """The driver killed with -9: nothing that it started is alive after the lease, on no host."""
    _folder, process = running
    processes = below(process.pid)
    assert sum("cosim.node.worker" in line for line in processes.values()) == 4
    process.kill()
    gone(processes, 4)


def test_looking_at_a_run_over_hosts(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """ps shows each node's host and process, why has a line for each worker and its chain ends, down ends the run with 143."""
    folder, process = running
    rows = json.loads(cosim("ps", folder, "--json").stdout)
    assert [(row["node"], row["host"]) for row in rows] == [(f"n{i}", h) for i, h in enumerate(_hosts_of(folder))]
    assert len({row["pid"] for row in rows}) == 4 and all(is_running(row["pid"]) for row in rows)
    view = json.loads(cosim("why", folder, "--json").stdout)
    assert [row["worker"] for row in view["workers"]] == [0, 1, 2, 3]
    assert all(len(row["chain"]) <= 4 for row in view["workers"])
    assert "n3:" in cosim("why", folder).stdout
    assert cosim("down", folder).returncode == 0
    assert process.wait(10) == 143
    assert result(folder)["status"] == "interrupted" and len(result(folder)["counters"]) == 4


def _hosts_of(folder: Path) -> list[str]:
    plan = json.loads((folder / "plan.json").read_text())
    where = {node: host[0] for host in plan["hosts"] for worker in host[2] for node in plan["groups"][worker]}
    return [where[node] for node in sorted(where)]


def test_a_second_host_of_one_name_is_refused(running: tuple[Path, subprocess.Popen[str]], tmp_path: Path) -> None:
    """Another process that calls itself h0 is turned away and ends with status 4; the run goes on."""
    _folder, process = running
    (words,) = {line for line in below(process.pid).values() if "engines.slot" in line and " h0 " in line}
    endpoint = words.split(" host ")[1].split()[0]
    second = subprocess.run(
        command("host", endpoint, "h0"), cwd=ROOT, env={**environment(), "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 4 and second.stderr.startswith("h0: ")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"hosts": 5}, r"at most as many as nodes \(4\), not 5"),
        ({"hosts": ["a", "a"]}, "different addresses"),
        ({"engine": "ssh"}, "must have hosts to start"),
        ({"engine": "ssh", "hosts": "a,b"}, "address must be named"),
        ({"engine": "parcel-post", "hosts": 2}, "engine must be one of local"),
    ],
)
def test_what_is_wrong_with_hosts_is_said_before_anything_starts(
    tmp_path: Path, options: dict[str, Any], what: str
) -> None:
    """Too many hosts, one twice, an engine without hosts or without an address to come back to: exit 2, and why."""
    with pytest.raises(CosimError, match=what) as raised:
        public.run(ring(tmp_path), run_dir=tmp_path / "run", allow_models=ALLOW, **options)
    assert raised.value.exit_code == 2
    assert not (tmp_path / "run").exists()
