"""`cosim replay` of external nodes: their own program, another one, or a broken one, against the journal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.external.nodes import HERE
from tests.external.test_bad_nodes import run, small
from tests.support.processes import is_running
from tests.support.runs import command, cosim, environment

BAD_MEMORY = str(HERE / "bad_memory.py")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a worker and a foreign memory."""
    folder = tmp_path_factory.mktemp("small")
    code, err, _got = run(small(folder, "none"), folder / "run")
    assert (code, err) == (0, "")
    return folder / "run"


def test_a_program_does_again_what_it_did(good: Path) -> None:
    """Started as in the run, it gives the messages and the digest of the run; the figures are those of the journal."""
    done = cosim("replay", good, "memory", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["same"], found["nodes"], found["messages"], found["digests"]) == (True, ["memory"], 40, 1)
    assert found["ending"] == "the journal's end"


def test_until_and_messages(good: Path) -> None:
    """--until stops it early; each message is shown in the words of its kind."""
    done = cosim("replay", good, "memory", "--until", "5us", "--messages")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and "as in the run up to 5us (--until was reached)" in lines[-1]
    assert any(line.startswith("in  #") and "worker.bus -> memory.bus: mmio." in line for line in lines)
    assert any(line.startswith("out #") and "memory.bus -> worker.bus: mmio.Completion" in line for line in lines)


@pytest.mark.parametrize(
    ("fault", "code", "shown"),
    [
        ("dies", 4, "memory must stay until its BYE: "),
        ("raises", 4, "memory failed: RuntimeError: the third access is bad luck"),
        ("garbage", 1, "it broke a rule of the protocol (bad-frame)"),
        ("past", 1, "it broke a rule of the protocol (message-in-the-past)"),
        ("token", 4, "token in HELLO must be the one in the file"),
        ("name", 4, "routing id must be 'memory', not b'somebody'"),
        ("none", 0, "as in the run up to"),
    ],
)
def test_another_command(good: Path, tmp_path: Path, fault: str, code: int, shown: str) -> None:
    """The command takes the place of the program: it is driven by the journal, and what it does otherwise is told."""
    pid = tmp_path / "pid"
    script = 'echo $$ > "$1"; exec "$2" "$3" "$4"'
    done = cosim("replay", good, "memory", "--", "sh", "-c", script, "sh", pid, sys.executable, BAD_MEMORY, fault)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert shown in done.stdout + done.stderr
    assert not is_running(int(pid.read_text()))


def test_a_message_that_differs(good: Path, tmp_path: Path) -> None:
    """A memory that reads other values: the completion of the journal and that of the replay, with their time."""
    source = (HERE / "bad_memory.py").read_text()
    (tmp_path / "other.py").write_text(source.replace("words.get(message.addr, 0)", "words.get(message.addr, 0) ^ 1"))
    done = cosim("replay", good, "memory", "--", "python", str(tmp_path / "other.py"), "none")
    assert done.returncode == 1
    first, theirs, ours, *_ = done.stdout.splitlines()
    assert first.startswith("memory differs from the run at ") and first.endswith(" ps): a message differs")
    assert "in the journal: #" in theirs and "in the replay:  #" in ours and "mmio.Completion" in ours
    assert theirs.split("data=")[1] != ours.split("data=")[1]


def test_a_run_that_ended_in_mid_grant(tmp_path: Path) -> None:
    """Its node died: the replay of the same program dies too; a good one goes on to the end of the journal's last grant."""
    code, _err, _got = run(small(tmp_path, "dies"), tmp_path / "run")
    assert code == 4
    again = cosim("replay", tmp_path / "run", "memory")
    assert again.returncode == 4 and "memory must stay until its BYE" in again.stderr
    better = cosim("replay", tmp_path / "run", "memory", "--", "python", BAD_MEMORY, "none")
    assert better.returncode == 0, better.stderr
    assert "the journal ends in a grant to " in better.stdout and "that was not answered" in better.stdout


def test_a_node_without_determinism_is_refused(tmp_path: Path) -> None:
    """Class best_effort can't be replayed, and the message says why."""
    topology = small(tmp_path, "none", rounds=2)
    topology.write_text(topology.read_text() + "      class: best_effort\n")
    assert run(topology, tmp_path / "run")[0] == 0
    done = cosim("replay", tmp_path / "run", "memory")
    assert done.returncode == 2
    assert "memory must be deterministic to be replayed; its class is best_effort" in done.stderr


def test_a_program_that_connects_by_itself(good: Path, tmp_path: Path) -> None:
    """Of a node that nobody starts the replay tells which file to source, and waits for it."""
    run_dir = tmp_path / "run"
    shutil.copytree(good, run_dir)
    plan = json.loads((run_dir / "plan.json").read_text())
    for node in plan["nodes"]:
        if node["name"] == "memory":
            node["external"].update(argv=[], connect=True)
    (run_dir / "plan.json").write_text(json.dumps(plan))
    waiting = subprocess.Popen(
        command("replay", run_dir, "memory"),
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert waiting.stderr is not None
    file = waiting.stderr.readline().split("`")[1].removeprefix(". ")
    program = ["sh", "-c", '. "$1"; exec "$2" "$3" none', "sh", file, sys.executable, BAD_MEMORY]
    assert subprocess.run(program, env=environment(), timeout=60).returncode == 0
    out, _err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0 and "40 messages, 1 digest" in out
