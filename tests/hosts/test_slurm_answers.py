"""What engine `slurm` makes of what Slurm's commands answer: with stand-ins for them, without Slurm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from cosim.engines.base import Exit, Slot
from cosim.engines.slurm import SlurmEngine
from cosim.errors import PeerError

SLOTS = [Slot("h0", "", ("cosim", "host"), b"secret")]
AWAY = "echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1"
FORGOTTEN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"

Says = Callable[[str, str], None]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Make a command of Slurm do what a shell script says; a job runs and can be cancelled unless told otherwise."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def say(command: str, script: str) -> None:
        path = folder / command
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    say("sbatch", "cat >/dev/null; echo 7")
    say("squeue", "echo 'RUNNING|None'")
    say("scancel", "exit 0")
    return say


def engine(tmp_path: Path, **options: str) -> SlurmEngine:
    """An engine that asks at each poll."""
    return SlurmEngine(tmp_path / "hosts", {"poll_interval": "0", **options})


def test_a_controller_that_is_away_ends_no_job(says: Says, tmp_path: Path) -> None:
    """While squeue fails, whatever it says, the job goes on; it has ended when Slurm has forgotten it."""

    async def body() -> tuple[list[Exit], list[Exit]]:
        made = engine(tmp_path)
        await made.start(SLOTS)
        says("squeue", AWAY)
        while_away = await made.poll()
        says("squeue", FORGOTTEN)
        ended: list[Exit] = []
        with anyio.fail_after(20):
            while not ended:
                ended = await made.poll()
                await anyio.sleep(0.05)
        return while_away, ended

    while_away, ended = anyio.run(body)
    assert while_away == []
    assert [(end.name, end.status) for end in ended] == [("h0", None)]
    assert "job 7 has ended (not known any more)" in ended[0].text


def test_a_controller_that_is_away_is_waited_for(says: Says, tmp_path: Path) -> None:
    """A job of unknown state is not taken to run; when the wait is over the error says why it is not known."""
    says("squeue", AWAY)
    with pytest.raises(PeerError, match=r"UNKNOWN .*Socket timed out"):
        anyio.run(engine(tmp_path, wait="0.3").start, SLOTS)


def test_credentials_go_even_if_slurm_does_not_answer(says: Says, tmp_path: Path) -> None:
    """When nothing can be asked or cancelled at the end, `stop` ends, and leaves no key behind."""

    async def body() -> None:
        made = engine(tmp_path)
        await made.start(SLOTS)
        assert list((tmp_path / "hosts").glob("*.credential"))
        says("squeue", AWAY)
        says("scancel", AWAY)
        await made.stop()

    anyio.run(body)
    assert not list((tmp_path / "hosts").glob("*.credential"))


def test_slots_that_are_left_are_cancelled_at_once(says: Says, tmp_path: Path) -> None:
    """At the end of a run that failed the controller is not asked whether the job still runs: it may be slow, and 5 s are few."""
    calls = tmp_path / "calls"

    async def body() -> None:
        made = engine(tmp_path)
        await made.start(SLOTS)
        says("squeue", f"echo squeue >>{calls}; echo 'RUNNING|None'")
        says("scancel", f"echo scancel $* >>{calls}")
        await made.stop()

    anyio.run(body)
    assert calls.read_text().splitlines() == ["scancel 7", "scancel --full --signal=KILL 7"]
