"""Bare stars do what the workloads do, and leave nothing behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from benchmarks import bare, limits
from cosim.bench import plans
from cosim.node import worker

KINDS = ("unix", "least", "zmq")
STEPS = 200


class Seen(limits.Lists):
    """Keeps the sizes of the frames, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.grants: list[int] = []
        self.answers: list[int] = []

    def receive(self) -> tuple[bytes, bytes] | None:
        item = super().receive()
        if item is not None:
            self.answers.append(len(item[1]))
        return item

    def send(self, identity: bytes, frame: bytes) -> None:
        self.grants.append(len(frame))
        super().send(identity, frame)


@pytest.mark.parametrize("case", bare.CASES, ids=lambda case: f"{case.name}-{case.workers}")
def test_a_pattern_has_the_frames_of_its_workload(
    case: bare.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grants per step are those of hub and workers; in the fan-out, the largest frames are as large as theirs."""
    monkeypatch.setattr(worker, "HURRY_S", 600.0)  # however loaded the machine
    seen = Seen()
    hub, workers = limits.crew(plans.place(getattr(plans, case.name)(case.nodes, STEPS), case.workers), seen, tmp_path)
    seen.grants.clear()
    seen.answers.clear()
    while not hub._finished():
        limits.turn(hub, workers)
    hub.journal.close()
    frames = [frame for phase in case.pattern.phases for _, frame in phase]
    assert len(seen.grants) / STEPS == pytest.approx(len(frames) / case.pattern.steps, rel=0.02)
    if case.name == "fanout":
        assert max(map(len, frames)) == pytest.approx(max(seen.grants), rel=0.1)
        assert max(map(len, case.pattern.answers)) == pytest.approx(max(seen.answers), rel=0.1)


def test_a_star_that_does_not_come_up_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children that were there already are ended and waited for."""
    monkeypatch.setattr(bare.STARS["zmq"], "_open", lambda _self: 1 / 0)
    star = bare.STARS["zmq"](bare.barrier(2).answers)
    with pytest.raises(ZeroDivisionError), star:
        raise AssertionError("it has not come up")
    assert len(star.children) == 2
    for child in star.children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", bare.CASES, ids=lambda case: f"{case.name}-{case.workers}")
def test_a_star_of_each_kind_plays_each_pattern(case: bare.Case, kind: bare.Kind) -> None:
    """It comes to its end, and took time; the hub's scheduling policy is as before."""
    policy = os.sched_getscheduler(0)
    rate, cpu_us = bare.run(case.pattern, kind, 10)
    assert rate > 0 and cpu_us > 0
    assert os.sched_getscheduler(0) == policy


@pytest.mark.parametrize("kind", KINDS)
def test_children_are_waited_for(kind: bare.Kind) -> None:
    """None is left, and each has told its CPU time."""
    pattern = bare.barrier(3)
    with bare.STARS[kind](pattern.answers) as star:
        star.turn(pattern.phases, 5)
    assert len(star.children) == 3 and star.cpu_s > 0
    for child in star.children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


@pytest.mark.parametrize("kind", ("unix", "least"))
def test_a_star_that_loses_a_child_fails_and_ends_the_others(kind: bare.Kind) -> None:
    """A rate of fewer processes than asked for would be taken for that of all."""
    pattern = bare.barrier(3)
    star = bare.STARS[kind](pattern.answers)
    with pytest.raises((RuntimeError, OSError)), star:
        os.kill(star.children[1], signal.SIGKILL)
        star.turn(pattern.phases, 1000)
    for child in star.children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def test_the_table_has_a_row_of_each_case_and_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates lie between the least and the most, and the ratio is over the floor of the same measurement."""
    monkeypatch.setattr(bare, "CASES", bare.CASES[:1])
    found = bare.measure(1, 0.001)
    assert [(row["name"], row["link"]) for row in found["rows"]] == [("pingpong", kind) for kind in KINDS]
    for row in found["rows"]:
        assert row["rate_min"] <= row["rate"] <= row["rate_max"]
        assert row["ratio"] == row["rate"] / found["floor"] and row["at_once"] == 1
