"""What a worker's death means does not depend on how it was started; what a fork server can't do, exec does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import is_running
from tests.support.runs import ROOT, children, command, environment, result, ring, start, up, wait_running

ENDLESS = ("--set", "work_us=1000", "--set", "rounds=1000000")
LIVENESS_S = 5.0
DATAGRAM = "0002"
"""Type of a socket in /proc/net/unix."""


def log(run_dir: Path) -> list[dict[str, object]]:
    """The structured log of a run."""
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def unfit(folder: Path) -> Path:
    """A ring whose node 1 is of a module that a fork server can't import well."""
    path = ring(folder, "UNFIT")
    path.write_text(path.read_text().replace("tests.support.models:UNFIT", "tests.support.unfit_models:Threaded"))
    return path


@pytest.fixture(params=["fork", "exec"])
def way(request: pytest.FixtureRequest) -> str:
    """How workers start."""
    return str(request.param)


def test_how_workers_start_changes_nothing(tmp_path: Path) -> None:
    """Digest, counters and console are the same, over either link; and no process is left of the fork server."""
    found = []
    for number, options in enumerate((["fork"], ["exec"], ["fork", "--link", "zmq"], ["exec", "--link", "zmq"])):
        run = tmp_path / str(number)
        done = up(ring(tmp_path), run, "--start", *options)
        assert done.returncode == 0, done.stderr
        got = result(run)
        found.append((got["digest"], got["counters"], (run / "console" / "ring.log").read_text()))
    assert found[1:] == found[:-1]


def test_a_worker_is_a_child_of_the_supervisor(tmp_path: Path, way: str) -> None:
    """Four workers and the hub are the supervisor's only children, each in a process group of its own, with the same command
    line however it was started; each writes to its own stderr file, and has no connection but that to the hub, beside the
    datagram sockets by which workers reach each other."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, *ENDLESS, "--start", way)
    try:
        wait_running(run, process)
        found = children(process.pid)
        workers = {line.split()[4]: pid for pid, line in found.items() if "cosim.node.worker" in line}
        assert sorted(workers) == ["w0", "w1", "w2", "w3"]
        assert len(found) == 5, found
        for name, pid in workers.items():
            line = found[pid].split()
            assert (line[1:3], line[5]) == (["-m", "cosim.node.worker"], str(process.pid))
            assert os.getpgid(pid) == pid
            assert os.readlink(f"/proc/{pid}/fd/2") == str(run / "workers" / f"{name}.stderr")
            assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
            opened = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            sockets = [name[8:-1] for name in opened if name.startswith("socket:")]
            kinds = {line.split()[6]: line.split()[4] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
            assert sum(kinds[number] != DATAGRAM for number in sockets) == 1, opened
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_is_named_with_its_signal(tmp_path: Path, way: str, number: signal.Signals) -> None:
    """Exit 4 within 5 s, with the signal that ended it; nothing is left."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, *ENDLESS, "--start", way)
    wait_running(run, process)
    found = children(process.pid)
    began = time.monotonic()
    os.kill(next(pid for pid, line in found.items() if " w2 " in line), number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert f"worker process of n2 is gone: killed by {number.name}" in err
    assert time.monotonic() - began < LIVENESS_S
    assert not any(map(is_running, found))


def test_an_exit_status_reaches_the_report(tmp_path: Path, way: str) -> None:
    """A worker that ends with status 7 is reported with 7."""
    done = up(ring(tmp_path, "Dies"), tmp_path / "run", "--start", way)
    assert done.returncode == 4
    assert "exit status 7" in done.stderr


@pytest.mark.parametrize("victim", ["supervisor", "hub"])
def test_no_worker_outlives_supervisor_or_hub(tmp_path: Path, way: str, victim: str) -> None:
    """After a kill -9 of either, every process is gone within 5 s; the hub's death is exit 4."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, *ENDLESS, "--start", way)
    wait_running(run, process)
    found = children(process.pid)
    assert len(found) == 5
    if victim == "hub":
        os.kill(next(pid for pid, line in found.items() if "hub_main" in line), signal.SIGKILL)
    else:
        process.kill()
    _, err = process.communicate(timeout=60)
    if victim == "hub":
        assert process.returncode == 4
        assert "the hub process is gone (killed by SIGKILL" in err
    deadline = time.monotonic() + LIVENESS_S
    while any(map(is_running, found)):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.02)


def test_a_worker_that_never_looks_up_dies_with_the_supervisor(tmp_path: Path, way: str) -> None:
    """A worker that sleeps in a model sees no connection end: the kernel ends it with its parent (PR_SET_PDEATHSIG)."""
    run = tmp_path / "run"
    process = start(ring(tmp_path, "Sleeps"), run, *ENDLESS, "--start", way, "--stall-limit", "0")
    wait_running(run, process)
    found = children(process.pid)
    time.sleep(0.3)  # by then the third token is there
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + LIVENESS_S
    while any(map(is_running, found)):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.02)


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run whose fork server hangs in an import, and the fork server's pid."""
    process = subprocess.Popen(
        command("up", unfit(tmp_path), "--allow-models", "tests.support", "--run-dir", tmp_path / "run"),
        cwd=ROOT,
        env={**environment(), "COSIM_TEST_SLOW_IMPORT": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    server = 0
    while not server:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        server = next((pid for pid, line in children(process.pid).items() if "cosim.run.forkserver" in line), 0)
        time.sleep(0.02)
    yield process, server
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_kill_9_of_the_fork_server(tmp_path: Path, starting: tuple[subprocess.Popen[str], int]) -> None:
    """While it starts workers its death ends the run: exit 4 within 5 s, with its name; nothing is left."""
    process, server = starting
    found = children(process.pid)
    began = time.monotonic()
    os.kill(server, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "the fork server must start 4 workers, and ended after 0 (killed by SIGKILL)" in err
    assert result(tmp_path / "run")["errors"][0]["code"] == "forkserver-lost"
    assert time.monotonic() - began < LIVENESS_S
    assert not any(map(is_running, found))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_the_fork_server_does_not_outlive_the_supervisor(
    starting: tuple[subprocess.Popen[str], int], number: signal.Signals, code: int
) -> None:
    """Killed or interrupted while workers are being started, the supervisor takes the fork server along within 5 s."""
    process, _server = starting
    found = children(process.pid)
    process.send_signal(number)
    process.communicate(timeout=LIVENESS_S)
    assert process.returncode == code
    deadline = time.monotonic() + LIVENESS_S
    while any(map(is_running, found)):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.02)


def test_a_model_that_starts_threads_is_started_by_exec(tmp_path: Path) -> None:
    """The fork server refuses to fork with a thread, the run goes on by exec, and the log says why."""
    done = up(unfit(tmp_path), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    (entry,) = [e for e in log(tmp_path / "run") if e["event"] == "workers are started by exec"]
    assert "must start no thread, and 1 were started" in str(entry["reason"])


def test_a_model_that_cannot_be_imported_is_the_workers_error(tmp_path: Path) -> None:
    """The fork server passes over it, forks the worker, and that one's error names the node."""
    code = (
        "import sys, cosim.run.forkserver as f\n"
        "f._import(['tests.support.models', 'no.such.module'])\n"
        "assert 'tests.support.models' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True, timeout=60)


@pytest.mark.parametrize("workers", [64])
def test_many_workers_join(tmp_path: Path, workers: int) -> None:
    """64 workers of one node each start, join and end; their results are those of one process."""
    many = up(ring(tmp_path), tmp_path / "many", "--set", f"nodes={workers}", "--set", "rounds=130", "--json")
    assert many.returncode == 0, many.stderr
    one = up(ring(tmp_path), tmp_path / "one", "--set", f"nodes={workers}", "--set", "rounds=130", "--workers", "0")
    assert one.returncode == 0, one.stderr
    assert json.loads(many.stdout)["workers"] == workers
    assert json.loads(many.stdout)["digest"] == result(tmp_path / "one")["digest"]


@pytest.mark.parametrize("workers", ["2", "auto"])
def test_placement_by_a_profile_changes_nothing(tmp_path: Path, workers: str) -> None:
    """A run placed by the measured traffic of another has its digest; every link's count is that of the first run."""
    topology = ring(tmp_path)
    assert up(topology, tmp_path / "first", "--set", "nodes=9").returncode == 0
    done = up(
        topology, tmp_path / "second", "--set", "nodes=9", "--workers", workers, "--profile", tmp_path / "first", "--json"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == result(tmp_path / "first")["digest"]
    first = json.loads((tmp_path / "first" / "traffic.json").read_text())
    assert json.loads((tmp_path / "second" / "traffic.json").read_text()) == first
    assert sum(entry[-1] for entry in first["links"]) == result(tmp_path / "first")["messages"]


def test_a_profile_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    """Exit 2 before anything starts; the text names what is missing."""
    assert up(ring(tmp_path, "Raises"), tmp_path / "broken").returncode == 3
    done = up(ring(tmp_path), tmp_path / "run", "--profile", tmp_path / "broken")
    assert done.returncode == 2
    assert "only a run that ended by itself has one" in done.stderr
    done = up(ring(tmp_path), tmp_path / "run", "--profile", tmp_path / "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("--profile: run must be a run directory or the name of a topology")


def test_a_profile_that_can_do_nothing_is_a_usage_error(tmp_path: Path) -> None:
    """Where no workers are packed, and where no node of the machine is in the profile, the text says what to ask for."""
    topology, first = ring(tmp_path), tmp_path / "first"
    assert up(topology, first, "--workers", "0").returncode == 0
    for workers in ("per-node", "0", "1"):
        done = up(topology, tmp_path / "run", "--profile", first, "--workers", workers)
        assert done.returncode == 2
        assert (
            f"--profile must come with workers that hold some nodes each, not with --workers {workers}" in done.stderr
        )
        assert "next: add --workers auto, or a number of at least 2" in done.stderr
    other = tmp_path / "other.yaml"
    other.write_text(topology.read_text().replace("n$", "m$").replace(" n1", " m1"))
    done = up(other, tmp_path / "run", "--profile", first, "--workers", "2")
    assert done.returncode == 2
    assert f"{first / 'traffic.json'} must know nodes of this machine, not only others (n0, n1, n2, …)" in done.stderr
