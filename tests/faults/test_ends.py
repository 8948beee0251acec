"""Unlucky ends: an impatient user, a full disk, a caller that leaves at once. Each has its exit code, and nothing hangs."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cosim.core.codec import LIMITS, FrameType, decode, encode
from cosim.core.plan import NodePlan, Plan
from cosim.core.time import NEVER
from cosim.link.memory_link import Switch
from cosim.run.hub import Hub
from cosim.run.hubparts import grant_frames
from tests.support.runs import ROOT, command, cosim, environment, result, ring, start, up, wait_running

_FLOW = """\
name: flow
doc: a source that waits for nobody, a slow one, and their sink
system:
  nodes:
    - {name: sink, kind: sink}
    - {name: slow, kind: source, params: {blocks: 1, wait_s: 3}}
    - {name: source, kind: source, params: {blocks: 12000, wait_s: 0}}
  links:
    - {from: source.out, to: sink.into, latency: 10ns}
    - {from: slow.out, to: sink.into, latency: 10ns}
models:
  sink: tests.support.models:Sink
  source: tests.support.models:Source
"""


@pytest.mark.parametrize("workers", ["per-node", "0"])
def test_ctrl_c_twice(tmp_path: Path, workers: str) -> None:
    """A second Ctrl-C ends a run at once whose model will never answer: 130, the first cause, also in one process."""
    run = tmp_path / "run"
    process = start(ring(tmp_path, "Sleeps"), run, "--workers", workers)
    wait_running(run, process)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 10
    got = result(run)
    assert (got["status"], got["errors"][0]["code"]) == ("interrupted", "interrupted")


@pytest.mark.parametrize("workers", ["per-node", "0"])
def test_a_full_disk(tmp_path: Path, workers: str) -> None:
    """Files that can't grow any more end the run with the run directory's code, valid JSON and no traceback."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    options: list[str | Path] = [
        "--allow-models",
        "tests.support",
        "--run-dir",
        tmp_path / "run",
        "--workers",
        workers,
        "--json",
    ]
    kind = "Chatters" if workers == "0" else "Ring"  # the console, or the journal
    process = subprocess.run(
        command("up", ring(tmp_path, kind), *options, "--set", "rounds=100000"),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limit,
    )
    assert process.returncode == 2, process.stderr
    assert json.loads(process.stdout)["errors"][0]["code"] == "run-dir"
    assert "Traceback" not in process.stderr


def test_a_caller_that_leaves_at_once(tmp_path: Path) -> None:
    """Leaving `launch` before the hub was started is an interrupted run like any other."""
    code = (
        "import anyio, cosim, sys\n"
        "async def main():\n"
        "    async with cosim.launch(sys.argv[1], allow_models=['tests.support'], run_dir=sys.argv[2]) as run:\n"
        "        pass\n"
        "    print(run.state, run.exit_code)\n"
        "anyio.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ring(tmp_path), tmp_path / "run"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["interrupted", "143"], done.stderr
    assert [entry["code"] for entry in result(tmp_path / "run")["errors"]] == ["interrupted"]


@pytest.mark.parametrize(
    "arguments",
    [("--seed", "abc", "tiny"), (), ("x" * 5000,), ("-d", "no-such-topology"), ("tiny", "--run-dir", "/proc/x")],
)
def test_exit_2_with_json(arguments: tuple[str, ...]) -> None:
    """Whatever is wrong with the command line or the paths in it: exit 2, and stdout is {status, errors}."""
    done = cosim("up", "--json", *arguments)
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert found["status"] == "error"
    assert found["errors"][0]["what"]


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """`cosim up | head` ends as by SIGPIPE, with the run ended and no traceback."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        command("up", ring(tmp_path), "--allow-models", "tests.support", "--run-dir", tmp_path / "run"),
        cwd=ROOT,
        env=environment(),
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write)
    assert process.returncode == 141
    assert "Traceback" not in process.stderr
    assert (tmp_path / "run" / "result.json").exists()


def test_a_long_runtime_directory(tmp_path: Path) -> None:
    """A runtime directory whose path is too long for a socket is not used, and the run goes on."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    done = subprocess.run(
        command("up", ring(tmp_path), "--allow-models", "tests.support", "--run-dir", tmp_path / "run"),
        cwd=ROOT,
        env={**environment(), "XDG_RUNTIME_DIR": str(long)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert not list(long.iterdir())


class _Told:
    """A hub of one worker that is driven step by step, with its events and pending commands."""

    def __init__(self) -> None:
        plan = Plan("one", 1, (NodePlan(0, "n0", "k", {}, 0, {}, "m:M"),), (), ((0,),))
        self.link = Switch()
        self.worker = self.link.connect("w0")
        self.events: list[list[object]] = []
        self.pending: list[list[object]] = []
        self.hub = Hub(plan, self.link, self.events.append, commands=self.take, stall_s=30.0)
        self.worker.send(encode(FrameType.HELLO, (1, 0), "w0", "python", 1, {}))
        self.worker.send(encode(FrameType.READY, 5, 5))
        self.step()

    def take(self) -> list[list[object]]:
        commands, self.pending = self.pending, []
        return commands

    def step(self, *commands: list[object]) -> None:
        self.pending += commands
        if commands:
            self.link.wake()
        self.hub._step()

    def errors(self) -> list[tuple[str, int]]:
        return [(e[1]["code"], e[1]["exit_code"]) for e in self.events if e[0] == "error"]  # type: ignore[index]


def test_last_words_come_before_the_end() -> None:
    """A model's error that waits at the hub together with the news of its process's end is the cause, not the end."""
    told = _Told()
    told.link.wake()  # the hub sees its commands first, as after a pause on a loaded machine
    told.pending.append(["lost", 0, "exit status 3"])
    told.worker.send(encode(FrameType.ERROR, "node-raised", "n0", 5, "ValueError: no", ""))
    told.hub._step()
    assert told.errors() == [("node-raised", 3)]


def test_a_worker_that_floods_the_hub_is_stopped_like_any_other() -> None:
    """However many frames come, the hub looks at its commands and its clock between them."""
    told = _Told()
    told.link.receive = lambda: (b"w0", encode(FrameType.LOG, b"\x90"))  # type: ignore[method-assign]
    told.step(["stalled", 0, told.hub._granted_at[0], {"what": "w", "where": "", "node": "n0", "sim_time_ps": 0}])
    told.step()
    assert told.errors() == [("worker-stalled", 4)]


def test_an_answer_that_crosses_the_verdict_of_a_stall() -> None:
    """A worker that answers while the supervisor looks at it neither stalls nor counts as running afterwards."""
    for verdict in (["release", 0], ["stalled", 0, 0.0, {"what": "w", "where": "", "node": "n0", "sim_time_ps": 0}]):
        told = _Told()
        since = told.hub._granted_at[0]
        if verdict[0] == "stalled":
            verdict[2] = since
        told.worker.send(encode(FrameType.DONE, 1, NEVER, NEVER, NEVER, 1, [], None))
        told.step()
        told.step(verdict)
        assert told.errors() == []
        assert told.hub._granted_at == {}


@pytest.mark.parametrize("workers", ["1", "0"])
def test_more_text_in_one_grant_than_a_frame_takes(tmp_path: Path, workers: str) -> None:
    """What a node prints arrives whole and in order, however much of it there is between two answers."""
    done = up(ring(tmp_path, "Chatters"), tmp_path / "run", "--workers", workers, "--quiet")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "console" / "chatter.log").read_text().splitlines()
    assert [int(line[:7]) for line in lines] == list(range(20_001))


def test_a_long_wait_is_delivered_in_parts() -> None:
    """What waits for a worker that others hold back may outgrow a frame: all of it goes out in order, the grant last."""
    blobs = [(n, bytes(3 << 20)) for n in range(13)]
    frames = grant_frames(7, 50, blobs, whole=False)
    assert all(len(frame) < LIMITS.max_frame for frame in frames)
    bodies = [decode(frame).body for frame in frames]
    assert [body[:2] for body in bodies] == [(0, 0)] * (len(bodies) - 1) + [(7, 50)]
    assert [batch[0] for body in bodies for batch in body[2]] == list(range(13))


def test_a_sink_that_is_held_back(tmp_path: Path) -> None:
    """A fast source, a slow third node and their common sink: one digest, whether 48 MiB wait at the hub or none."""
    (tmp_path / "flow.yaml").write_text(_FLOW)
    digests = []
    for workers in ("0", "per-node"):
        done = up(tmp_path / "flow.yaml", tmp_path / workers, "--workers", workers, "--json")
        assert done.returncode == 0, done.stderr
        digests.append(json.loads(done.stdout)["digest"])
    assert digests[0] == digests[1]
