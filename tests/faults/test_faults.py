"""Every way in which a run can go wrong ends with its exit code, a message with names, and nothing left running."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from cosim.core.journal import read_records
from tests.support.processes import is_running
from tests.support.runs import TIMEOUT_S, children, cosim, pair, result, ring, start, up, wait_running

LIVENESS_S = 5.0
ENDLESS = ("--set", "work_us=1000", "--set", "rounds=1000000")
WAYS = {
    "hub": ("--set", "work_us=1000"),
    "workers": ("--set", "work_us=0", "--set", "rounds=100000000"),
    "workers-zmq": ("--set", "work_us=0", "--set", "rounds=100000000", "--link", "zmq"),
}
"""Who makes the next grant: the hub, because the models work for long, or mostly the workers, past the hub, by either link."""


@pytest.mark.parametrize("workers", ["per-node", "2", "0"])
def test_a_model_that_raises(tmp_path: Path, workers: str) -> None:
    """Exit 3; the message names node, simulated time and cause; the traceback is in the log; the directory is whole."""
    done = up(ring(tmp_path, "Raises"), tmp_path / "run", "--workers", workers)
    assert done.returncode == 3
    assert "model n1 failed at 50ns: ValueError: the third token is bad luck" in done.stderr
    assert "Traceback" not in done.stderr
    got = result(tmp_path / "run")
    assert (got["status"], got["errors"][0]["node"], got["errors"][0]["sim_time_ps"]) == ("error", "n1", 50_000)
    assert got["errors"][0]["where"].split(":")[0].endswith("tests/support/models.py")
    assert "Traceback" in cosim("logs", "n1", "--run", tmp_path / "run").stdout


@pytest.mark.parametrize("workers", ["per-node", "2"])
def test_a_worker_that_ends_without_a_word(tmp_path: Path, workers: str) -> None:
    """Exit 4 with the node, its last simulated time and the exit status."""
    done = up(ring(tmp_path, "Dies"), tmp_path / "run", "--workers", workers)
    assert done.returncode == 4
    assert "exit status 7" in done.stderr
    assert "n1" in done.stderr
    assert "its last simulated time was" in done.stderr
    assert result(tmp_path / "run")["errors"][0]["code"] == "worker-lost"


def test_a_worker_that_sleeps_is_a_stall(tmp_path: Path) -> None:
    """A grant that its process sleeps through is named after the limit: exit 4."""
    done = up(ring(tmp_path, "Sleeps"), tmp_path / "run", "--stall-limit", "1")
    assert done.returncode == 4
    assert "n1 must answer a grant within 1 s" in done.stderr
    assert result(tmp_path / "run")["errors"][0]["code"] == "worker-stalled"


@pytest.mark.parametrize("model", ["Spins", "Sleeps"])
def test_an_event_that_never_ends_in_one_process(tmp_path: Path, model: str) -> None:
    """With --workers 0, too, a model that loops or sleeps for ever is named, with its simulated time and its line: exit 4."""
    done = up(ring(tmp_path, model), tmp_path / "run", "--workers", "0", "--stall-limit", "1")
    assert done.returncode == 4, done.stderr
    assert "n1 must end each of its events within 1 s, and is still in one of 50ns of simulated time" in done.stderr
    (error,) = result(tmp_path / "run")["errors"]
    assert (error["code"], error["node"], error["sim_time_ps"]) == ("worker-stalled", "n1", 50_000)
    assert error["where"].split(":")[0].endswith("tests/support/models.py")


def test_much_work_in_one_process_is_no_stall(tmp_path: Path) -> None:
    """A grant that takes several limits is well as long as events end."""
    options = ("--set", "work_us=250000", "--set", "rounds=12", "--workers", "0", "--stall-limit", "1", "--json")
    done = up(ring(tmp_path), tmp_path / "run", *options)
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "passed"), done.stderr


@pytest.mark.parametrize("workers", ["per-node", "0"])
def test_nodes_that_wait_for_each_other_for_ever(tmp_path: Path, workers: str) -> None:
    """Exit 3 at once, and the text says who waits for what from whom."""
    done = up(pair(tmp_path, "Waits"), tmp_path / "run", "--workers", workers)
    assert done.returncode == 3
    assert "n0: start waits for a token from n1; n1: start waits for a token from n0" in done.stderr
    assert result(tmp_path / "run")["errors"][0]["code"] == "deadlock"


def test_a_loop_without_simulated_time(tmp_path: Path) -> None:
    """More than 100,000 steps at one instant are the node's fault: exit 3 with its name and time. Both loop; either is first."""
    done = up(pair(tmp_path, "Loops"), tmp_path / "run")
    assert done.returncode == 3
    assert re.search("model n[01] failed at 1us: more than 100,000 steps at one instant", done.stderr)


def wait_journals(run: Path) -> None:
    """Wait until every worker has answered more than once, as far as the journals on disk tell."""
    deadline = time.monotonic() + TIMEOUT_S
    while any(len(read_records(journal.read_bytes())[0]) < 4 for journal in (run / "journal").iterdir()):
        assert time.monotonic() < deadline, "a worker does nothing"
        time.sleep(0.05)


def kill_and_time(tmp_path: Path, which: str, *options: str) -> tuple[int, str, float, list[int]]:
    """Start an endless ring, kill -9 the process whose command line has `which`; (exit code, stderr, seconds, pids)."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, *ENDLESS, *options)
    wait_running(run, process)
    wait_journals(run)
    found = children(process.pid)
    victim = next(pid for pid, line in found.items() if which in line)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    return process.returncode, err, time.monotonic() - began, list(found)


@pytest.mark.parametrize("granting", WAYS)
def test_kill_9_of_a_worker(tmp_path: Path, granting: str) -> None:
    """Exit 4 within 5 s, named with its last simulated time; nothing left; journals and log readable."""
    code, err, seconds, pids = kill_and_time(tmp_path, " w2 ", *WAYS[granting])
    assert code == 4
    assert re.search(
        r"worker process of n2 is gone: killed by SIGKILL; its last simulated time was [\d.]+[nμum]?s", err
    ), err
    assert result(tmp_path / "run")["errors"][0]["sim_time_ps"] > 0
    assert seconds < LIVENESS_S
    assert not any(map(is_running, pids))
    for journal in (tmp_path / "run" / "journal").iterdir():
        assert len(read_records(journal.read_bytes())[0]) > 2
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("granting", WAYS)
def test_kill_9_of_the_hub(tmp_path: Path, granting: str) -> None:
    """Exit 4 within 5 s, named; nothing left; the journals read up to where it died. It makes no difference who grants whom."""
    code, err, seconds, pids = kill_and_time(tmp_path, "hub_main", *WAYS[granting])
    assert code == 4
    assert "the hub process is gone (killed by SIGKILL" in err
    assert seconds < LIVENESS_S
    assert not any(map(is_running, pids))
    assert all(len(read_records(j.read_bytes())[0]) > 2 for j in (tmp_path / "run" / "journal").iterdir())
    assert result(tmp_path / "run")["status"] == "error"


def test_kill_9_of_the_supervisor(tmp_path: Path) -> None:
    """No process is left within 5 s, and the next command removes its sockets; those of a run that lives stay."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, *ENDLESS)
    wait_running(run, process)
    pids = list(children(process.pid))
    assert len(pids) == 5
    sockets = Path(json.loads((run / "run.json").read_text())["control"]).parent
    assert cosim("ps", run).returncode == 0 and sockets.exists()
    process.kill()
    process.communicate()
    deadline = time.monotonic() + LIVENESS_S
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "processes outlive the supervisor"
        time.sleep(0.02)
    assert "gone without a result" in cosim("why", run).stdout
    assert "gone without a result" in cosim("ps", run).stdout
    assert not sockets.exists()


def test_a_stopped_worker_is_not_a_stall(tmp_path: Path) -> None:
    """A worker that was stopped (SIGSTOP) and continued finishes as an undisturbed one."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, "--set", "work_us=5000", "--set", "rounds=400", "--stall-limit", "1", "--json")
    wait_running(run, process)
    victim = next(pid for pid, line in children(process.pid).items() if " w1 " in line)
    os.kill(victim, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(victim, signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    quiet = up(ring(tmp_path), tmp_path / "quiet", "--set", "rounds=400", "--workers", "0", "--json")
    assert json.loads(out)["counters"] == json.loads(quiet.stdout)["counters"]
