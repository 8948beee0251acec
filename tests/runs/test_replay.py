"""`cosim replay`: a worker does again from its journal what it did in the run, and what it does otherwise is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from cosim.core.journal import HEADER, read_records
from cosim.errors import UsageError
from cosim.run.replay import Difference, PythonReplay, Script
from tests.support.fickle_models import CHANGED, SLOW, WIDE
from tests.support.runs import command, cosim, environment, result, ring, up

PLACEMENTS = ("per-node", "2", "0")
ALLOW = ("--allow-models", "tests.support")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The ring with a fickle node 1, under each placement."""
    folder = tmp_path_factory.mktemp("ring")
    topology = folder / "ring.yaml"
    topology.write_text(
        ring(folder).read_text().replace("tests.support.models:Ring\n", "tests.support.fickle_models:Fickle\n")
    )
    found = {}
    for workers in PLACEMENTS:
        found[workers] = folder / workers
        assert up(topology, found[workers], "--workers", workers, "--quiet").returncode == 0
    return found


def replay(run: Path, node: str = "n1", until: int | None = None, tell: Any = None) -> Any:
    """Replay in this process."""
    return PythonReplay(Script(run, node, until), tell=tell, allow_models=("tests.support",)).run()


@pytest.mark.parametrize("workers", PLACEMENTS)
def test_a_node_does_again_what_it_did(runs: dict[str, Path], workers: str) -> None:
    """Under each placement all messages are those of the journal, and every node of the worker consumed what it had."""
    found = replay(runs[workers])
    assert "n1" in found.nodes and found.digests == len(found.nodes)
    assert found.ending == "the journal's end"
    assert (found.messages > 5) == (workers != "0")
    own = json.loads((runs[workers] / "digests.json").read_text())
    assert own == json.loads((runs["0"] / "digests.json").read_text())


@pytest.mark.parametrize("workers", PLACEMENTS)
def test_the_first_difference_is_told(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    """Changed code is found by its first message that differs, with its time; without messages, by what is logged."""
    monkeypatch.setenv(CHANGED, "late")
    with pytest.raises(Difference) as caught:
        replay(runs[workers])
    sides, time_ps = caught.value.sides, caught.value.time_ps
    if workers == "per-node":
        assert time_ps == 130_000 and "sent at 130000 ps" in sides[0] and "sent at 130001 ps" in sides[1]
        assert all("n1.out -> n2.into: test-token.Token n=0xe" in side for side in sides)
    elif workers == "2":
        assert 100_000 <= time_ps <= 130_000 and all("test-token.Token" in side for side in sides)
    else:
        assert time_ps == 400_000 and all("the last token" in side for side in sides)


@pytest.mark.parametrize("where", ["run", "replay"])
def test_wall_time_does_not_change_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A grant that ended early because it took long, in the run or as a debugger would make it in the replay, is no difference."""
    topology = ring(tmp_path)
    topology.write_text(
        topology.read_text().replace("tests.support.models:Ring\n", "tests.support.fickle_models:Slow\n")
    )
    slow = {SLOW: "1"}
    subprocess.run(
        command("up", topology, "--quiet", "--run-dir", tmp_path / "run", *ALLOW),
        env={**environment(), **(slow if where == "run" else {})},
        check=True,
        timeout=60,
    )
    script = Script(tmp_path / "run", "n1")
    both_in_one = [step.done is not None and step.done[4] > 1 for step in script.steps]
    assert any(both_in_one) == (where == "replay"), "the run must have ended its grants early where it was slow"
    if where == "replay":
        monkeypatch.setenv(SLOW, "1")
    found = replay(tmp_path / "run")
    assert (found.digests, found.ending) == (1, "the journal's end")


def test_what_a_node_consumed_is_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    """A digest that is not the run's is a difference, although all messages are the same."""
    run = tmp_path / "run"
    shutil.copytree(runs["0"], run)
    digests = json.loads((run / "digests.json").read_text())
    digests["n2"][1] = digests["n3"][1]
    (run / "digests.json").write_text(json.dumps(digests))
    with pytest.raises(Difference, match="n2 consumed something else than in the run"):
        replay(run)


def test_the_command(runs: dict[str, Path]) -> None:
    """Exit 0 and a line of figures; with --until fewer messages, each shown; 1 with the difference; 3 when the model raises."""
    run = runs["per-node"]
    good = cosim("replay", run, "n1", *ALLOW)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("n1: as in the run up to ") and "messages, 1 digest" in good.stdout
    part = cosim("replay", run, "n1", "--until", "50ns", "--messages", *ALLOW)
    lines = part.stdout.splitlines()
    assert lines[0].startswith("in  #") and "n0.out -> n1.into: test-token.Token n=1" in lines[0]
    assert "as in the run up to 50ns (--until was reached)" in lines[-1]
    assert [line.split()[-1] for line in lines if line.startswith("out ")] == ["n=2"]
    for how, code in (("late", 1), ("raise", 3)):
        done = subprocess.run(
            command("replay", run, "n1", "--json", *ALLOW),
            env={**environment(), CHANGED: how},
            text=True,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        if code == 1:
            found = json.loads(done.stdout)
            assert not found["same"] and found["what"] == "a message differs" and len(found["sides"]) == 2
        else:
            assert "model n1 failed at" in done.stderr and "in the run it went on there" in done.stderr


def test_a_run_that_failed_fails_again(tmp_path: Path) -> None:
    """The journal ends in the grant in which the model raised; the replay raises there too, and --pdb stops in its frame."""
    assert up(ring(tmp_path, "Raises"), tmp_path / "run").returncode == 3
    done = subprocess.run(
        command("replay", tmp_path / "run", "n1", "--pdb", *ALLOW),
        input="p ('in the frame', n)\nq\n",
        env=environment(),
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 3 and "('in the frame', 5)" in done.stdout, done.stderr
    assert "model n1 failed at 50ns: ValueError: the third token is bad luck; the journal ends there too" in done.stderr


def test_a_journal_that_was_cut(runs: dict[str, Path], tmp_path: Path) -> None:
    """Of a journal whose writer was killed the whole records are replayed, and the ending says so."""
    run = tmp_path / "run"
    (run / "journal").mkdir(parents=True)
    (run / "plan.json").write_text((runs["per-node"] / "plan.json").read_text())
    data = (runs["per-node"] / "journal" / "w1.journal").read_bytes()
    records, _tail = read_records(data)
    last = [n for n, record in enumerate(records) if record[:1] == b"D"][3]
    cut = len(HEADER) + sum(8 + len(record) for record in records[: last + 1])
    (run / "journal" / "w1.journal").write_bytes(data[: cut + 5])
    found = replay(run)
    assert (found.grants, found.digests) == (4, 0)
    assert found.ending == "the journal's last record is cut short (record prefix cut short)"
    (run / "journal" / "w1.journal").write_bytes(data[:cut] + _record(b"G\x00"))
    with pytest.raises(UsageError, match="frames of this version"):
        replay(run)


def _record(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + zlib.crc32(payload).to_bytes(4, "little") + payload


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (("nn1", *ALLOW), "no-node", "did you mean n1?"),
        (("n1",), "model-refused", "--allow-models tests"),
        (("n1", *ALLOW, "--", "gdb"), "replay", "COMMAND must be for an external node; n1 is a Python model"),
        (("n1", *ALLOW, "--until", "soon"), "until", "--until 5ms"),
    ],
)
def test_what_can_not_be_replayed(runs: dict[str, Path], arguments: tuple[str, ...], code: str, shown: str) -> None:
    """Exit 2 with the reason, and what to do."""
    done = cosim("replay", runs["0"], *arguments)
    assert done.returncode == 2 and shown in done.stderr, code


def test_no_limit_for_one_node(tmp_path: Path) -> None:
    """--no-limit: the limit of a grant holds for others only; a name that no node has is wrong use."""
    topology = tmp_path / "slow.yaml"
    topology.write_text(
        "name: slow\nsystem:\n  nodes:\n    - {name: source, kind: source, params: {blocks: 3, wait_s: 1}}\n"
        "    - {name: sink, kind: sink}\n  links:\n    - {from: source.out, to: sink.into, latency: 10ns}\n"
        "models: {source: tests.support.models:Source, sink: tests.support.models:Sink}\n"
    )
    limit = ("--stall-limit", "0.3", "--quiet")
    assert up(topology, tmp_path / "1", *limit, "--no-limit", "source").returncode == 0
    wrong = up(topology, tmp_path / "3", "--no-limit", "source2")
    assert wrong.returncode == 2 and "--no-limit must name nodes of slow, not source2" in wrong.stderr


@pytest.mark.parametrize(
    ("wide", "shown"),
    [
        ("counter", "counter tokens must be an integer that fits in 64 bits, not 0x1"),
        ("message", "integers in a message must fit in 64 bits, not those of test-token.Token (18446744073709551616,)"),
    ],
)
def test_integers_beyond_64_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide: str, shown: str) -> None:
    """They end the run with exit 3 and the names of node and counter or message, not with a dead worker."""
    monkeypatch.setenv(WIDE, wide)
    topology = ring(tmp_path)
    topology.write_text(
        topology.read_text().replace("tests.support.models:Ring\n", "tests.support.fickle_models:Wide\n")
    )
    done = up(topology, tmp_path / "run", "--workers", "0" if wide == "counter" else "2")
    assert done.returncode == 3, done.stderr
    error = result(tmp_path / "run")["errors"][0]
    assert shown in error["what"] and error["node"].startswith("n")
