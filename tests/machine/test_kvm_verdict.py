"""The host's verdicts come from the guests' text alone."""

from __future__ import annotations

import pytest

from nodes.hypervisor.verdict import judge_ipi, judge_smmute

PASSES = "".join(f"PASS: gicv3: ipi: {n}: Interrupts received\n" for n in ("self", "target-list", "broadcast"))
GOOD = PASSES + "SUMMARY: 3 tests\n\nEXIT: STATUS=1\n"
OFF = "system_off"


def block(number: int, status: str = "0 Success") -> str:
    """A result block."""
    return (
        f"Result:\n- transaction          = {number}\n- status               = {status}\n"
        "- value                = 0x0\n- duration             = 2 us\nOutput buffer:\n000: 00 01 \n"
    )


def test_a_good_ipi_run_passes() -> None:
    """Three PASS lines, STATUS=1 and a normal end."""
    assert judge_ipi(GOOD, OFF) == (True, "SUMMARY: 3 tests")


@pytest.mark.parametrize(
    ("text", "ended", "why"),
    [
        (GOOD.replace("PASS: gicv3: ipi: self", "FAIL: gicv3: ipi: self"), OFF, "gicv3: ipi: self"),
        (GOOD.replace("STATUS=1", "STATUS=3"), OFF, "STATUS=3"),
        (GOOD.replace("PASS: gicv3: ipi: broadcast: Interrupts received\n", ""), OFF, "no PASS line for broadcast"),
        (PASSES, OFF, "no EXIT line"),
        (GOOD, "crash: guest0.vcpu1: boom", "boom"),
        ("ABORT: gicv3: ipi: At least 2 cpus required\n", OFF, "At least 2 cpus"),
    ],
)
def test_anything_else_of_ipi_fails_and_says_why(text: str, ended: str, why: str) -> None:
    """A failure line, a bad status, a missing line, a crash or an abort each fail the test with its reason."""
    verdict = judge_ipi(text, ended)
    assert not verdict.passed and why in verdict.detail


def test_ten_good_blocks_pass() -> None:
    """Result blocks 1 to 10 with status 0."""
    assert judge_smmute("".join(block(n) for n in range(1, 11)), 10, OFF).passed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("".join(block(n) for n in range(1, 10)), "1 to 10"),
        ("".join(block(n) for n in range(1, 10)) + block(10, "5 Input/output error"), "transaction 10: status 5"),
        (
            "smmute 0000:00:01.0: missed MSI for transaction 1 (vector 0)\n" + "".join(block(n) for n in range(1, 11)),
            "missed MSI",
        ),
        ("", "1 to 10"),
    ],
)
def test_anything_else_of_smmute_fails_and_says_why(text: str, why: str) -> None:
    """A missing block, a bad status, a missed MSI or silence each fail the test with its reason."""
    verdict = judge_smmute(text, 10, OFF)
    assert not verdict.passed and why in verdict.detail
