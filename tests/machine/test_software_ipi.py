"""The ipi guest: what it prints follows from the interrupts that its CPUs acknowledged, and from nothing else."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from nodes.arch.cpu import vcpu_mpidr
from nodes.software.gicv3 import sgi1r_values
from nodes.software.ipi import program
from tests.machine.guest_board import Board

PASSED = """\
PASS: gicv3: ipi: self: Interrupts received
PASS: gicv3: ipi: target-list: Interrupts received
PASS: gicv3: ipi: broadcast: Interrupts received
SUMMARY: 3 tests

EXIT: STATUS=1
"""


class Broken(Board):
    """Delivers as `change(index, intid)` says: how many times, and which INTID."""

    def __init__(self, change: Any, **params: Any) -> None:
        self.change = change
        super().__init__(program, "ipi", params)

    def deliver(self, index: int, intid: int) -> None:
        for n, given in enumerate(self.change(index, intid)):
            if n:
                self.after(10**9 * n, partial(Board.deliver, self, index, given))
            else:
                super().deliver(index, given)


@pytest.mark.parametrize("wait", ["wfi", "spin"])
@pytest.mark.parametrize("vcpus", [2, 5, 8])
def test_everything_delivered_passes(vcpus: int, wait: str) -> None:
    """With every SGI delivered once, exactly the three PASS lines, the summary and status 1 are printed, then power-off."""
    board = Board(program, "ipi", {"vcpus": vcpus, "guest_wait": wait}).run()
    assert board.off and board.text == PASSED
    assert len(board.sgi1r) == 3


def test_sgi1r_values() -> None:
    """The three writes have the values of the fact sheet for 8 CPUs: self, even CPUs, broadcast."""
    board = Board(program, "ipi", {}).run()
    assert board.sgi1r == [0x0000_0000_0100_0002, 0x0000_0000_0100_0055, 0x0000_0100_0100_0000]


def test_sgi1r_has_one_write_per_affinity_group() -> None:
    """Targets that differ above Aff0 need a write each; within a group they share the target list."""
    targets = [vcpu_mpidr(n) for n in (0, 3, 16, 18)]
    assert sgi1r_values(targets, 2) == [0x0200_0009, 0x0201_0005]


@pytest.mark.parametrize(
    ("nassgireq", "nassgicap", "off", "on"),
    [(True, True, 0x100, 0x113), (True, False, 0x0, 0x13), (False, True, 0x0, 0x13)],
)
def test_distributor_is_switched_by_every_cpu(nassgireq: bool, nassgicap: bool, off: int, on: int) -> None:
    """Each CPU writes GICD_CTLR twice, with nASSGIreq in both writes if wanted and offered, in neither otherwise."""
    board = Board(program, "ipi", {"nassgireq": nassgireq}, nassgicap=nassgicap).run()
    for cpu in range(8):
        assert [d for c, o, d in board.gicd_writes if c == cpu and o == 0] == [off, on]


def test_redistributor_is_found_and_programmed() -> None:
    """Every CPU programs its own frame, found by affinity: Group 1, priority 0xA0, all SGIs enabled."""
    board = Board(program, "ipi", {}).run()
    wanted = [(0x1_0080, 0xFFFF_FFFF), *((0x1_0400 + 4 * n, 0xA0A0_A0A0) for n in range(4)), (0x1_0100, 0xFFFF)]
    for cpu in range(8):
        assert [(o, d) for f, o, d in board.gicr_writes if f == cpu] == wanted


def test_lost_interrupt_of_one_cpu_fails_two_tests() -> None:
    """When CPU 2 gets no SGI, target-list and broadcast fail with missing=1 after their timeout, and self passes."""
    board = Broken(lambda index, intid: [] if index == 2 else [intid]).run()
    assert board.off and board.text == (
        "PASS: gicv3: ipi: self: Interrupts received\n"
        "INFO: gicv3: ipi: target-list: interrupts timed-out (5s)\n"
        "INFO: gicv3: ipi: target-list: ACKS: missing=1 extra=0 unexpected=0\n"
        "FAIL: gicv3: ipi: target-list: Interrupts received\n"
        "INFO: gicv3: ipi: broadcast: interrupts timed-out (5s)\n"
        "INFO: gicv3: ipi: broadcast: ACKS: missing=1 extra=0 unexpected=0\n"
        "FAIL: gicv3: ipi: broadcast: Interrupts received\n"
        "SUMMARY: 3 tests, 2 unexpected failures\n"
        "\nEXIT: STATUS=3\n"
    )


def test_doubled_interrupt_is_extra() -> None:
    """A CPU that takes the interrupt twice is counted as extra, and the test fails."""
    board = Broken(lambda index, intid: [intid, intid] if index == 4 else [intid]).run()
    assert "INFO: gicv3: ipi: target-list: ACKS: missing=0 extra=1 unexpected=0\n" in board.text
    assert board.text.endswith("SUMMARY: 3 tests, 2 unexpected failures\n\nEXIT: STATUS=3\n")


def test_stray_interrupt_is_unexpected() -> None:
    """A CPU that was not addressed but takes an interrupt is counted as unexpected."""

    class Stray(Board):
        def deliver(self, index: int, intid: int) -> None:
            super().deliver(index, intid)
            if index == 6:
                super().deliver(7, intid)

    board = Stray(program, "ipi", {}).run()
    assert "INFO: gicv3: ipi: target-list: ACKS: missing=0 extra=0 unexpected=1\n" in board.text
    assert "FAIL: gicv3: ipi: target-list: Interrupts received\n" in board.text


def test_wrong_interrupt_fails() -> None:
    """The right number of acknowledges with another INTID doesn't pass."""
    board = Broken(lambda index, intid: [intid + 1] if index == 3 else [intid]).run()
    assert "INFO: gicv3: ipi: broadcast: cpu3 received wrong irq 2\n" in board.text
    assert "FAIL: gicv3: ipi: broadcast: Interrupts received\n" in board.text


def test_late_interrupt_is_reported_and_passes() -> None:
    """An interrupt that comes within the 5 s but after the first look passes, with a line that says how late it was."""

    class Late(Board):
        def deliver(self, index: int, intid: int) -> None:
            delay = 250 * 10**9 if index == 2 else 0
            self.after(delay, partial(Board.deliver, self, index, intid))

    board = Late(program, "ipi", {}).run()
    assert "INFO: gicv3: ipi: broadcast: interrupts took more than 200 ms\n" in board.text
    assert board.text.endswith("SUMMARY: 3 tests\n\nEXIT: STATUS=1\n")


def test_spurious_interrupts_are_told() -> None:
    """An IRQ with nothing to acknowledge is counted by its CPU and told at the end, without failing."""

    class Spurious(Board):
        def deliver(self, index: int, intid: int) -> None:
            super().deliver(index, intid)
            if index == 5:
                super().deliver(5, 1023)

    board = Spurious(program, "ipi", {}).run()
    assert "INFO: gicv3: ipi: WARN: cpu5 got 1 spurious interrupts\nSUMMARY: 3 tests\n" in board.text


def test_cpu_that_never_starts_aborts() -> None:
    """A secondary that CPU_ON does not bring up ends the test with ABORT instead of a hang."""

    class Missing(Board):
        def start(self, index: int, entry: int, x0: int) -> None:
            if index != 6:
                super().start(index, entry, x0)

    board = Missing(program, "ipi", {}).run()
    assert board.text == "ABORT: gicv3: ipi: CPUs must be ready within 500 ms\nSUMMARY: 0 tests\n\nEXIT: STATUS=255\n"


@pytest.mark.parametrize(
    ("args", "vcpus", "line"),
    [
        ("", 8, "ABORT: no test specified"),
        ("timer", 8, "ABORT: gicv3: Unknown subtest 'timer'"),
        ("ipi", 1, "ABORT: gicv3: ipi: At least 2 cpus required"),
    ],
)
def test_wrong_command_lines_abort(args: str, vcpus: int, line: str) -> None:
    """A missing or unknown subtest and a single CPU abort with kvm-unit-tests' words."""
    board = Board(program, args, {"vcpus": vcpus}).run()
    assert board.off and board.text == f"{line}\nSUMMARY: 0 tests\n\nEXIT: STATUS=255\n"


def test_stale_memory_does_not_matter() -> None:
    """Counters left in RAM by an earlier guest don't count as acknowledges or readiness."""
    board = Board(program, "ipi", {})
    board.memory(0x8020_0000, 512, b"\xff" * 512)
    assert board.run().text == PASSED
