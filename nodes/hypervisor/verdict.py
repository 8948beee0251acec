"""What the host concludes from what a guest printed: nothing but the text and how the session ended is looked at."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

SUBTESTS: Final = ("self", "target-list", "broadcast")
SYSTEM_OFF: Final = "system_off"
_EXIT = re.compile(r"^EXIT: STATUS=(\d+)\s*$", re.MULTILINE)
_SUMMARY = re.compile(r"^SUMMARY: (\d+) tests(.*)$", re.MULTILINE)
_FAILURE = re.compile(r"^(?:FAIL|ABORT): (.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^- transaction\s+= (\d+)\s*\n- status\s+= (\d+) ?(.*)$", re.MULTILINE)
_MISSED = re.compile(r"^.*\bmissed MSI\b.*$", re.MULTILINE | re.IGNORECASE)


class Verdict(NamedTuple):
    """Whether the test passed, and why (not)."""

    passed: bool
    detail: str

    @property
    def status(self) -> str:
        """As result.json has it."""
        return "passed" if self.passed else "failed"


def judge_ipi(text: str, ended: str) -> Verdict:
    """The gic `ipi` test: PASS of each subtest, no failure, EXIT: STATUS=1, and the guest switched itself off."""
    wrong = [] if ended == SYSTEM_OFF else [f"session ended: {ended}"]
    failures = _FAILURE.findall(text)
    if failures:
        wrong.append("; ".join(failures))
    missing = [name for name in SUBTESTS if f"PASS: gicv3: ipi: {name}: Interrupts received" not in text.splitlines()]
    if missing and not failures:
        wrong.append(f"no PASS line for {', '.join(missing)}")
    status = _EXIT.search(text)
    if status is None:
        wrong.append("no EXIT line")
    elif status[1] != "1":
        wrong.append(f"EXIT: STATUS={status[1]}")
    if wrong:
        return Verdict(False, "; ".join(wrong))
    summary = _SUMMARY.search(text)
    return Verdict(True, summary[0] if summary else f"{len(SUBTESTS)} tests")


def judge_report(text: str, ended: str) -> Verdict:
    """A guest that reports as kvm-unit-tests do: some PASS lines, no failure, EXIT: STATUS=1, and it switched itself off."""
    wrong = [] if ended == SYSTEM_OFF else [f"session ended: {ended}"]
    wrong += _FAILURE.findall(text)
    summary, status = _SUMMARY.search(text), _EXIT.search(text)
    if summary is None or int(summary[1]) == 0 or "\nPASS: " not in "\n" + text:
        wrong.append("no test was reported")
    if status is None:
        wrong.append("no EXIT line")
    elif status[1] != "1":
        wrong.append(f"EXIT: STATUS={status[1]}")
    if wrong or summary is None:
        return Verdict(False, "; ".join(wrong))
    return Verdict(True, summary[0])


def judge_smmute(text: str, transactions: int, ended: str) -> Verdict:
    """smmute: a result block of status 0 for each transaction, in order, no missed MSI, and a normal end."""
    wrong = [] if ended == SYSTEM_OFF else [f"session ended: {ended}"]
    blocks = _BLOCK.findall(text)
    bad = [
        f"transaction {number}: status {status} {words}".rstrip() for number, status, words in blocks if status != "0"
    ]
    wrong += bad
    numbers = [int(number) for number, _, _ in blocks]
    if numbers != list(range(1, transactions + 1)):
        wrong.append(f"result blocks must be of transactions 1 to {transactions}, not {numbers}")
    missed = _MISSED.findall(text)
    if missed:
        wrong.append(f"{len(missed)} missed MSI-X: {missed[0].strip()}")
    if wrong:
        return Verdict(False, "; ".join(wrong))
    return Verdict(True, f"{transactions} transactions, status 0 Success")
