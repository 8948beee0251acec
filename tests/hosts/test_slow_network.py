"""A run over hosts on a network that delays each packet by 20 ms, one way, and loses one in fifty."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hosts.runs import SlowRun

pytestmark = pytest.mark.hosts

WALL_S = 120.0
ROUND_TRIPS = 1500


def test_delay_and_loss_change_no_result(slow_run: SlowRun, reference: dict[str, Any]) -> None:
    """Both tests pass with the local run's digest, in at most 1,500 round trips between hosts and under 120 s."""
    status, result = slow_run.finish()
    assert (status, result["errors"]) == (0, [])
    assert [test["status"] for test in result["tests"]] == ["passed", "passed"]
    assert result["digest"] == reference["digest"]
    assert result["over_hosts"]["grants"] <= ROUND_TRIPS
    assert result["wall_s"] < WALL_S
