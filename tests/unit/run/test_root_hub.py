"""The root hub without hosts: what it does by its clock and by commands."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from cosim.core.plan import HostPlan, NodePlan, Plan
from cosim.link.memory_link import Switch
from cosim.run import roothub
from cosim.run.roothub import HOST_BYE_S, RootHub

_NODES = tuple(NodePlan(n, f"n{n}", "node", {}) for n in range(2))
PLAN = Plan("p", 1, _NODES, (), ((0,), (1,)), hosts=(HostPlan("h0", "", (0,)), HostPlan("h1", "", (1,))))


class Clocked(Switch):
    """A link on which nothing comes; waiting moves a clock of its own, in seconds, and sends nothing."""

    now = 100.0

    def wait(self, timeout_ms: int | None) -> bool:
        """Let the time pass."""
        self.now += (timeout_ms or 0) / 1000
        return False

    def send(self, identity: bytes, frame: bytes) -> None:
        """Nobody is there to hear it."""


def test_the_join_limit_counts_from_the_placing() -> None:
    """While an engine waits for machines nobody is late; once it has placed the hosts they have the limit, not more."""
    events: list[list[Any]] = []
    commands: list[list[Any]] = []
    hub = RootHub(PLAN, Switch(), events.append, orders={}, placing_s=300, join_timeout_s=10, commands=lambda: commands)
    began = time.monotonic()
    hub._check_join(began + 299)
    assert events == []
    commands.append(["placed"])
    hub._take_commands()
    hub._check_join(time.monotonic() + 9)
    assert events == []
    hub._check_join(time.monotonic() + 11)
    assert [(event[0], event[1]["code"]) for event in events] == [("error", "join-timeout")]
    assert "h0, h1" in events[0][1]["what"] and "--join-limit" in events[0][1]["next_step"]


@pytest.mark.parametrize(("lost", "most"), [(True, 1.0), (False, HOST_BYE_S + 0.1)])
def test_a_lost_host_leaves_little_time_to_the_others(monkeypatch: pytest.MonkeyPatch, lost: bool, most: float) -> None:
    """Of the 5 s in which a run must end after a host was cut off, silence takes 3 and the engine's stop 1: a host whose workers
    still compute is not waited for as long as after an error of a model, where all hosts can report."""
    link, events = Clocked(), list[list[Any]]()
    monkeypatch.setattr(roothub, "time", SimpleNamespace(monotonic=lambda: link.now))
    hub = RootHub(PLAN, link, events.append, orders={}, silence_s=3.0)
    hub._heard = {0: link.now, 1: link.now}
    if lost:
        hub._beating = {0}
        for _ in range(4):
            link.now += 0.8
            hub._pulse(link.now)
        assert [event[1]["code"] for event in events if event[0] == "error"] == ["host-lost"]
    else:
        hub._error("model", "a model failed", exit_code=3)
    began = link.now
    hub._farewell("error")
    assert hub._present() and link.now - began <= most
    assert lost or link.now - began > HOST_BYE_S - 0.1
