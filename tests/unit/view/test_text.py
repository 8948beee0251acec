"""Texts of `why`, and small words."""

from __future__ import annotations

from typing import Any

from cosim.core.time import NEVER
from cosim.view.text import count, why_lines


def worker(number: int, name: str, state: str, **fields: Any) -> dict[str, Any]:
    """A worker of the hub's view."""
    default = {
        "worker": number,
        "name": name,
        "state": state,
        "now": 1_000,
        "limiter": None,
        "chain": [],
        "running_s": 0.0,
    }
    return {**default, **fields}


def test_why_puts_those_that_wait_first_and_daemons_last() -> None:
    """Blocked and running before idle; who limits whom and by how much; tasks that may wait for ever in one line."""
    view = {
        "state": "running",
        "sim_time_ps": 5_000,
        "workers": [
            worker(0, "its0", "idle"),
            worker(1, "pe1", "blocked", limiter=2, chain=[2], next_event=7_000, base=4_000, distance=2_000),
            worker(2, "pe2", "running", bound=NEVER),
        ],
        "waits": [["its0", "commands", "commands", True], ["pe1", "guest", "an interrupt", False]],
    }
    assert why_lines(view) == [
        "run is running, at 5ns of simulated time",
        "  pe1: has work at 7ns, waits for pe2, which may speak from 4ns on, 2ns away (chain: pe2)",
        "  pe2: running for 0.0 s, granted without limit",
        "  its0: idle at 1ns",
        "tasks:",
        "  pe1: guest waits for an interrupt",
        "tasks that may wait for ever, for work to come: of its0",
    ]


def test_counts_have_their_plural() -> None:
    """One grant, two grants, thousands with commas."""
    assert [count(n, "grant") for n in (0, 1, 2, 3740)] == ["0 grants", "1 grant", "2 grants", "3,740 grants"]
