"""Whole runs of small machines as real processes: results, placements, and the commands that look at a run."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from pathlib import Path

import anyio
import pytest

import cosim as public
from cosim.core.journal import read_records
from cosim.errors import TopologyError
from cosim.run.api import launch
from tests.support.processes import is_running
from tests.support.runs import cosim, result, ring, start, up, wait_running

ALLOW = ["tests.support"]


@pytest.mark.parametrize("workers", ["per-node", "2", "1", "0"])
def test_every_placement_gives_the_same_result(tmp_path: Path, workers: str) -> None:
    """Digest, events, messages, counters and simulated time are the same however nodes are packed."""
    done = up(ring(tmp_path), tmp_path / "run", "--workers", workers, "--json")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got == result(tmp_path / "run")
    assert got["digest"] == "64911588f95c9cde" + got["digest"][16:]
    assert (got["status"], got["nodes"], got["sim_time_ps"]) == ("passed", 4, 400_000)
    assert (got["events"], got["messages"]) == (44, 40)
    assert got["workers"] == {"per-node": 4, "0": 1}.get(workers, int(workers) if workers.isdigit() else 0)
    assert got["counters"] == {f"n{i}.tokens": 10 for i in range(4)}


def test_a_changed_parameter_changes_the_digest(tmp_path: Path) -> None:
    """Another latency, so other arrival times, gives another digest; another seed of a run that draws nothing does not."""
    digests = {
        name: json.loads(up(ring(tmp_path), tmp_path / name, "--workers", "0", "--json", *options).stdout)["digest"]
        for name, options in {"same": ("--seed", "9"), "plain": (), "other": ("--set", "latency=11ns")}.items()
    }
    assert digests["same"] == digests["plain"] != digests["other"]


def _hog() -> None:
    while True:
        pass


def test_a_loaded_machine_gives_the_same_digest(tmp_path: Path) -> None:
    """With other processes hogging the processors, the digest is the one of an idle machine."""
    hogs = [multiprocessing.get_context("fork").Process(target=_hog, daemon=True) for _ in range(2)]
    for hog in hogs:
        hog.start()
    try:
        done = up(ring(tmp_path), tmp_path / "run", "--json")
    finally:
        for hog in hogs:
            hog.kill()
            hog.join()
    assert json.loads(done.stdout)["digest"].startswith("64911588f95c9cde")


def test_until_executes_exactly_what_lies_before_it(tmp_path: Path) -> None:
    """--until T executes every event with t < T, in any placement, and ends with exit 0 where no test waits."""
    for workers in ("per-node", "0"):
        done = up(ring(tmp_path), tmp_path / f"run{workers}", "--until", "100ns", "--workers", workers, "--json")
        got = json.loads(done.stdout)
        assert (done.returncode, got["sim_time_ps"], got["messages"]) == (0, 100_000, 10)
        assert sum(got["counters"].values()) == 9


def test_a_run_leaves_its_directory_whole(tmp_path: Path) -> None:
    """The run directory has what the contract says, mode 0700, with journals that read to their end."""
    up(ring(tmp_path), tmp_path / "run")
    run = tmp_path / "run"
    assert run.stat().st_mode & 0o777 == 0o700
    assert {"result.json", "plan.json", "topology.yaml", "console", "log.jsonl", "journal"} <= {
        p.name for p in run.iterdir()
    }
    assert (run / "console" / "ring.log").read_text() == "token 40 came home to n0\n"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(e["node"], e["t_ps"]) for e in lines if e["event"] == "the last token"] == [("n0", 400_000)]
    for journal in (run / "journal").iterdir():
        records, tail = read_records(journal.read_bytes())
        assert tail.torn is None
        assert [r[:1] for r in records] == [b"G", b"D"] * (len(records) // 2)


def test_a_used_run_directory_is_refused(tmp_path: Path) -> None:
    """A run never writes into a directory that has something in it: exit 2, nothing started."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("mine")
    done = up(ring(tmp_path), tmp_path / "run")
    assert done.returncode == 2
    assert "must be new or empty" in done.stderr
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["file"]


def test_stdout_is_results_only(tmp_path: Path) -> None:
    """Not on a terminal, `up` prints console text and the closing lines, no progress; --quiet prints nothing."""
    done = up(ring(tmp_path), tmp_path / "run")
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "token 40 came home to n0"
    assert len(done.stdout.splitlines()) == 3
    assert up(ring(tmp_path), tmp_path / "quiet", "--quiet").stdout == ""


def test_a_run_in_the_background_can_be_seen_and_ended(tmp_path: Path) -> None:
    """up -d returns once started; ps, why and logs show the run; down ends it, exit code 143, no process left."""
    topology = ring(tmp_path)
    run = tmp_path / "run"
    arguments = (
        "--allow-models",
        "tests.support",
        "--run-dir",
        run,
        "--set",
        "work_us=2000",
        "--set",
        "rounds=1000000",
    )
    started = cosim("up", topology, "-d", *arguments)
    assert started.returncode == 0, started.stderr
    assert started.stdout.strip() == str(run)
    rows = json.loads(cosim("ps", run, "--json").stdout)
    assert [row["node"] for row in rows] == ["n0", "n1", "n2", "n3"]
    assert all(is_running(row["pid"]) for row in rows)
    assert {row["state"] for row in rows} <= {"running", "blocked", "ready", "idle"}
    why = cosim("why", run).stdout
    assert why.startswith("run is running")
    assert all(f"n{i}: " in why for i in range(4))
    assert "all workers are ready" in cosim("logs", "cosim", "--run", run).stdout
    assert cosim("logs", "nobody", "--run", run).returncode == 2
    assert cosim("down", run).returncode == 0
    assert result(run)["status"] == "interrupted"
    assert not any(is_running(row["pid"]) for row in rows)
    assert {row["state"] for row in json.loads(cosim("ps", run, "--json").stdout)} == {"ended"}
    assert "run is over: interrupted" in cosim("why", run).stdout
    assert "not running" in cosim("down", run).stdout


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Exit 2 with the folder and the system's reason in words."""
    (tmp_path / "file").touch()
    for where, reason in ((tmp_path / "file" / "run", "Not a directory"), (tmp_path / "file", "File exists"),
                          (Path("/proc/run"), "No such file or directory")):  # fmt: skip
        done = up(ring(tmp_path), where)
        assert done.returncode == 2
        assert f"run directory {where} cannot be made: {reason}\n" in done.stderr
        assert "next: name another one with --run-dir" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_while_workers_start_is_told(tmp_path: Path, number: int, code: int) -> None:
    """A signal that comes as soon as the run directory is there ends the run as a later one does: text, result and code."""
    process = start(ring(tmp_path), tmp_path / "run", "--json", "--set", "nodes=40", "--set", "rounds=1_000_000")
    deadline = time.monotonic() + 60
    while not (tmp_path / "run").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == f"interrupted by {signal.Signals(number).name}\n"
    found = json.loads(out)
    assert found["status"] == "interrupted" and found["errors"][0]["what"] == err.strip()
    assert result(tmp_path / "run") == found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", ["per-node", "0"])
def test_a_signal_ends_a_run_in_order(tmp_path: Path, number: signal.Signals, code: int, workers: str) -> None:
    """SIGINT and SIGTERM end a run with 130 and 143 and a result that says interrupted."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, "--set", "work_us=1000", "--set", "rounds=1000000", "--workers", workers)
    wait_running(run, process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert result(run)["status"] == "interrupted"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_python_api_runs_under_both_event_loops(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """launch gives events in order, progress and counters while it runs, and the result, under asyncio and trio."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    async def main() -> None:
        async with launch(ring(tmp_path), workers=2, run_dir=tmp_path / "run", allow_models=ALLOW) as run:
            kinds = [event.kind async for event in run.events()]
            final = await run.result()
        assert kinds[0] == "started"
        assert kinds[-1] == "end"
        assert "console" in kinds
        assert final["digest"].startswith("64911588f95c9cde")
        assert await run.counters() == final["counters"]
        assert run.exit_code == 0

    anyio.run(main, backend=backend)


def test_leaving_the_context_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the caller's block passes through, and the run is ended as interrupted."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    async def main() -> None:
        options = {"work_us": 1000, "rounds": 1_000_000}
        async with launch(ring(tmp_path), set=options, run_dir=tmp_path / "run", allow_models=ALLOW) as run:
            async for event in run.events():
                if event.kind == "started":
                    assert {w["name"] for w in (await run.view())["workers"]} == {"n0", "n1", "n2", "n3"}
                    raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        anyio.run(main)
    assert result(tmp_path / "run")["status"] == "interrupted"


def test_the_blocking_form_returns_the_result(tmp_path: Path) -> None:
    """cosim.run gives the content of result.json; a bad parameter raises TopologyError before anything starts."""
    got = public.run(ring(tmp_path), workers=0, run_dir=tmp_path / "run", allow_models=ALLOW)
    assert got == result(tmp_path / "run")
    with pytest.raises(TopologyError):
        public.run(ring(tmp_path), workers=0, run_dir=tmp_path / "other", allow_models=ALLOW, set={"roundz": 1})
    assert not (tmp_path / "other").exists()
