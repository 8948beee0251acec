"""Whatever a foreign node does wrong ends the run with exit code 4, one message that names it and the rule, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.external.nodes import HERE
from tests.support.processes import is_running
from tests.support.runs import TIMEOUT_S, children, cosim, result, wait_running

LIVENESS_S = 5.0

_SMALL = """\
name: small
system:
  nodes:
    - {{name: worker, kind: worker, params: {{rounds: {rounds}, gap_us: 1}}}}
    - {{name: memory, kind: words{reaction}}}
  regions:
    ram: {{base: 0x1000, size: 0x100000, to: memory.bus, offset: 0x1000}}
  maps:
    - from: worker.bus
      sees: [{{regions: [ram], latency: 20ns}}]
models:
  worker: tests.external.models:Worker
  memory:
    external:
      argv: {argv}
      ports: {{bus: mmio_target}}
      wait: {wait}
"""


def small(folder: Path, fault: str, *, rounds: int = 20, reaction: str = "", wait: str = "20s") -> Path:
    """A machine of a worker and a foreign memory that has `fault`."""
    path = folder / "small.yaml"
    argv = json.dumps(["python", str(HERE / "bad_memory.py"), fault])
    path.write_text(_SMALL.format(argv=argv, rounds=rounds, reaction=reaction, wait=wait))
    return path


def run(topology: Path, folder: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """`cosim up`: exit code, stderr, result."""
    done = cosim("up", topology, "--allow-models", "tests.external", "--run-dir", folder, *options)
    return done.returncode, done.stderr, result(folder)


def test_the_small_machine_works(tmp_path: Path) -> None:
    """Without a fault the run passes: what the other tests see is the fault's doing."""
    code, err, got = run(small(tmp_path, "none"), tmp_path / "run")
    assert (code, err, got["status"]) == (0, "", "passed")
    assert got["counters"] == {"worker.rounds": 20}


AT_WORK = {
    "dies": ("worker-lost", "exit status 7"),
    "garbage": ("bad-frame", "frame 000167617262616765"),
    "past": ("message-in-the-past", "frame 435341310500"),
    "twice": ("duplicate", "a second connection came under the name memory"),
    "hello-again": ("duplicate", "frame 435341310100"),
    "raises": ("node-failed", "RuntimeError: the third access is bad luck"),
    "bye": ("order", "frame 435341310800"),
    "leaves": ("worker-lost", "exit status 0"),
}


@pytest.mark.parametrize("fault", AT_WORK)
def test_a_fault_at_work(tmp_path: Path, fault: str) -> None:
    """Exit 4 with one error: its code is the rule, its text names the node and shows the frame or the cause."""
    code, err, got = run(small(tmp_path, fault), tmp_path / "run")
    rule, shown = AT_WORK[fault]
    assert code == 4
    assert [(e["code"], e["node"]) for e in got["errors"]] == [(rule, "memory")]
    assert "memory" in err and shown in err
    assert got["digest"] is None


IN_HELLO = {
    "name": ("unknown-name", "somebody"),
    "token": ("token", "COSIM_TOKEN_FILE"),
    "version": ("version", "protocol version must be 1.x, not (2, 0)"),
    "ports": ("ports", "port bus must be mmio_target, as the topology links it, not 'mmio_initiator'"),
    "quantum": ("quantum", "7 ps does not divide the 20000 ps of worker.bus -> memory.bus"),
    "options": ("options", "quantum_ps in HELLO must be a time in ps, not -1"),
}


@pytest.mark.parametrize("fault", IN_HELLO)
def test_a_fault_in_hello(tmp_path: Path, fault: str) -> None:
    """Exit 4 at once; the message has the code with which it was refused, and so has the node's own output."""
    code, err, got = run(small(tmp_path, fault), tmp_path / "run")
    rule, shown = IN_HELLO[fault]
    assert code == 4
    assert [(e["code"], e["node"]) for e in got["errors"]] == [(rule, "memory")]
    assert shown in err
    assert f"{rule}:" in (tmp_path / "run" / "workers" / "memory.log").read_text()


def test_a_refused_node_may_take_a_moment_to_say_so(tmp_path: Path) -> None:
    """A node that is slow to print why it was refused is not killed before; the run ends with it, not at a limit."""
    began = time.monotonic()
    code, _err, _got = run(small(tmp_path, "slow-name"), tmp_path / "run")
    assert code == 4
    assert "unknown-name:" in (tmp_path / "run" / "workers" / "memory.log").read_text()
    assert time.monotonic() - began < 2 * LIVENESS_S


def test_a_lookahead_below_the_topologys(tmp_path: Path) -> None:
    """A node that promises less than the topology counts on is refused."""
    code, err, got = run(small(tmp_path, "none", reaction=", reaction: 5ns"), tmp_path / "run")
    assert (code, got["errors"][0]["code"]) == (4, "lookahead")
    assert "lookahead_ps must be at least the topology's 5000 ps, not 0 ps" in err


@pytest.mark.parametrize("fault", ["stalls", "spins"])
def test_a_node_that_stalls(tmp_path: Path, fault: str) -> None:
    """A grant that is not answered within the limit is a stall, whether it sleeps or loops."""
    code, err, got = run(small(tmp_path, fault), tmp_path / "run", "--stall-limit", "1")
    assert (code, [e["code"] for e in got["errors"]]) == (4, ["worker-stalled"])
    assert "memory must answer a grant within 1 s" in err


@pytest.mark.parametrize("fault", ["silent", "no-ready"])
def test_a_node_that_never_joins(tmp_path: Path, fault: str) -> None:
    """Its own `wait` is the limit, and the message names it."""
    began = time.monotonic()
    code, err, got = run(small(tmp_path, fault, wait="2s"), tmp_path / "run")
    assert (code, [e["code"] for e in got["errors"]]) == (4, ["join-timeout"])
    assert "within 2 s; not ready: memory" in err
    assert time.monotonic() - began < 2 + 2 * LIVENESS_S


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    """The message names the program."""
    topology = small(tmp_path, "none")
    topology.write_text(topology.read_text().replace('"python"', '"/no/such/simulator"'))
    code, err, got = run(topology, tmp_path / "run")
    assert (code, got["errors"][0]["node"]) == (4, "memory")
    assert "/no/such/simulator cannot be started: No such file or directory" in err


def _descendants(pid: int) -> dict[int, str]:
    found = children(pid)
    for child in list(found):
        found.update(_descendants(child))
    return found


def _started(tmp_path: Path, fault: str = "none") -> tuple[Any, Path]:
    import subprocess

    from tests.support.runs import ROOT, command, environment

    folder = tmp_path / "run"
    topology = small(tmp_path, fault, rounds=10_000_000)
    argv = command("up", topology, "--allow-models", "tests.external", "--run-dir", folder)
    process = subprocess.Popen(
        argv, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_running(folder, process)
    return process, folder


def test_kill_9_of_a_foreign_node(tmp_path: Path) -> None:
    """Exit 4 within the limit, with the signal and the node's last time; nothing is left."""
    process, _folder = _started(tmp_path)
    pids = _descendants(process.pid)
    victim = next(pid for pid, line in pids.items() if "bad_memory.py" in line and "guard" not in line)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 4
    assert "worker process of memory is gone: killed by SIGKILL; its last simulated time was" in err
    assert time.monotonic() - began < LIVENESS_S
    assert not any(map(is_running, pids))


def test_kill_9_of_the_supervisor(tmp_path: Path) -> None:
    """The foreign program and its guard end with it."""
    process, _folder = _started(tmp_path)
    pids = _descendants(process.pid)
    assert any("bad_memory.py" in line for line in pids.values())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + LIVENESS_S
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, {pid: pids[pid] for pid in pids if is_running(pid)}
        time.sleep(0.02)


def _daemon(folder: Path) -> int:
    """Pid of what the node has started in a session of its own, once it has."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (folder / "daemon.pid").exists() or not (folder / "daemon.pid").read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int((folder / "daemon.pid").read_text())


def _ends(pid: int) -> None:
    deadline = time.monotonic() + LIVENESS_S
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_node_has_started_ends_with_the_run(tmp_path: Path) -> None:
    """A process that a node put into a session of its own is ended when the run has passed."""
    code, err, got = run(small(tmp_path, "daemon"), tmp_path / "run")
    assert (code, err, got["status"]) == (0, "", "passed")
    _ends(_daemon(tmp_path / "run"))


def test_what_a_node_has_started_ends_with_the_supervisor(tmp_path: Path) -> None:
    """Nobody is left to end it when the supervisor was killed but the node's guard, which does."""
    process, folder = _started(tmp_path, "daemon")
    pid = _daemon(folder)
    process.kill()
    process.communicate()
    _ends(pid)


def test_a_wall_limit_of_its_own(tmp_path: Path) -> None:
    """`wall_limit` of a node goes before the run's limit: shorter ends it sooner, 0s lets it take its time."""
    topology = small(tmp_path, "stalls")
    topology.write_text(topology.read_text() + "      wall_limit: 1s\n")
    code, err, _got = run(topology, tmp_path / "short")
    assert code == 4 and "memory must answer a grant within 1 s" in err
    topology = small(tmp_path, "slow")
    topology.write_text(topology.read_text() + "      wall_limit: 0s\n")
    code, _err, got = run(topology, tmp_path / "long", "--stall-limit", "1")
    assert (code, got["status"]) == (0, "passed")
