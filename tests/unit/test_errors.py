"""Errors: exit codes, the three-part text and the entry of result.json."""

import json

import pytest

from cosim import errors

EXIT_CODES = [
    (errors.TopologyError("x"), 2, "topology"),
    (errors.UsageError("x"), 2, "usage"),
    (errors.NodeError("x"), 3, "node-raised"),
    (errors.DeadlockError("x"), 3, "deadlock"),
    (errors.PeerError("x"), 4, "worker-lost"),
    (errors.InternalError("x"), 5, "internal"),
    (errors.Interrupted(signum=2), 130, "interrupted"),
    (errors.Interrupted(signum=15), 143, "interrupted"),
]


@pytest.mark.parametrize(("error", "exit_code", "code"), EXIT_CODES)
def test_each_class_has_its_exit_code(error: errors.CosimError, exit_code: int, code: str) -> None:
    """Scripts rely on the exit code and on the default code string of each class."""
    assert error.exit_code == exit_code
    assert error.code == code


def test_the_text_says_what_where_and_what_next() -> None:
    """All parts appear, in the order in which a reader needs them."""
    error = errors.NodeError(
        "posted write must be at most 4096 bytes, not 8192",
        code="too-long",
        where="hypervisor.mmio",
        node="hypervisor",
        sim_time_ps=1_234_567,
        next_step="split the write",
    )
    assert str(error) == (
        "hypervisor.mmio: posted write must be at most 4096 bytes, not 8192\n"
        "  at: node hypervisor, simulated time 1,234,567 ps\n"
        "  next: split the write"
    )


def test_parts_that_are_not_known_leave_no_trace() -> None:
    """Without place, node and next step the text is what happened, and nothing else."""
    assert str(errors.InternalError("impossible state")) == "impossible state"
    assert str(errors.PeerError("lost", node="pe3")) == "lost\n  at: node pe3"
    assert str(errors.PeerError("lost", sim_time_ps=0)) == "lost\n  at: simulated time 0 ps"


def test_the_entry_of_result_json_has_all_its_keys() -> None:
    """as_dict() is JSON with exactly the six keys of the contract, unknown ones null or empty."""
    entry = errors.PeerError("worker died", code="worker-killed", node="its0", sim_time_ps=7).as_dict()
    assert json.loads(json.dumps(entry)) == {
        "code": "worker-killed",
        "what": "worker died",
        "where": "",
        "node": "its0",
        "sim_time_ps": 7,
        "next_step": "",
    }


def test_an_unknown_signal_is_refused() -> None:
    """Only the two signals that the exit codes speak of interrupt a run."""
    with pytest.raises(ValueError, match="SIGINT"):
        errors.Interrupted(signum=9)
