"""The root hub without hosts: what it does by its clock and by commands."""

from __future__ import annotations

import time
from typing import Any

from cosim.core.plan import HostPlan, NodePlan, Plan
from cosim.link.memory_link import Switch
from cosim.run.roothub import RootHub


def test_the_join_limit_counts_from_the_placing() -> None:
    """While an engine waits for machines nobody is late; once it has placed the hosts they have the limit, not more."""
    nodes = tuple(NodePlan(n, f"n{n}", "node", {}) for n in range(2))
    plan = Plan("p", 1, nodes, (), ((0,), (1,)), hosts=(HostPlan("h0", "", (0,)), HostPlan("h1", "", (1,))))
    events: list[list[Any]] = []
    commands: list[list[Any]] = []
    hub = RootHub(plan, Switch(), events.append, orders={}, placing_s=300, join_timeout_s=10, commands=lambda: commands)
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
