"""Contexts and the virtual timer, without a PE around them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.arch.cpu import Cpu, ExternalAbort, UndefinedInstruction
from nodes.pe.context import Crash, Entry, ProgramContext
from nodes.pe.operations import Delay, Load, Mrs, Msr, Store, Wfi
from nodes.pe.timer import VirtualTimer


async def worker(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
    """Writes what it has seen so far with every store, so that its operations show its whole state."""
    state = params["start"]

    async def handler() -> None:
        nonlocal state
        state = state * 3 + await cpu.mrs("ICC_IAR1_EL1") & 0xFFFF
        await cpu.delay(1)
        await cpu.msr("ICC_EOIR1_EL1", state)

    cpu.set_irq_handler(handler)
    cpu.irq_enable()
    while True:
        try:
            state = state * 5 + await cpu.load(0x1000 + state) & 0xFFFF
        except ExternalAbort:
            state ^= 0x5555
        await cpu.store(0x2000, state)
        await cpu.delay(1 + state)
        await cpu.wfi()


def fresh() -> ProgramContext:
    return ProgramContext("worker", worker, "", {"start": 3}, 0x8000_0000)


def drive(context: ProgramContext, choices: list[int]) -> None:
    """Take the context through random completions, failures and interrupts."""
    for n, choice in enumerate(choices):
        operation = context.fetch() if choice % 3 else None
        if choice % 5 == 0 and not context.masked:
            context.interrupt()
            continue
        operation = context.fetch()
        if isinstance(operation, Load) and choice % 7 == 0:
            context.fail(ExternalAbort("nothing there"))
        elif isinstance(operation, Delay) and context.until is None:
            context.begin_delay(n)
        else:
            context.complete(choice if isinstance(operation, (Load, Mrs)) else None)


@given(st.lists(st.integers(0, 0xFFFF), max_size=60))
def test_replay_leads_to_the_same_context(choices: list[int]) -> None:
    """A context rebuilt from its journal is at the same operation with the same stack, mask and delay, whatever happened."""
    original = fresh()
    drive(original, choices)
    copy = ProgramContext.replay("worker", worker, "", {"start": 3}, 0x8000_0000, list(original.journal))
    assert copy.journal == original.journal
    for _ in range(12):
        assert (copy.depth, copy.masked, copy.until) == (original.depth, original.masked, original.until)
        assert copy.fetch() == original.fetch()
        operation = copy.fetch()
        result = 7 if isinstance(operation, (Load, Mrs)) else None
        copy.complete(result)
        original.complete(result)
    copy.close()
    original.close()


def test_replay_refuses_an_unknown_entry() -> None:
    """A journal entry of an unknown kind is named instead of skipped."""
    journal: list[Entry] = [("teleport", 1)]
    with pytest.raises(ValueError, match="teleport"):
        ProgramContext.replay("worker", worker, "", {"start": 3}, 0, journal)


def test_handler_is_a_frame_with_interrupts_masked() -> None:
    """An interrupt suspends the operation below, which is still the same one when the handler has returned."""
    context = fresh()
    below = context.fetch()
    context.interrupt()
    during = context.masked, context.depth
    assert during == (True, 2) and context.fetch() == Mrs("ICC_IAR1_EL1")
    context.complete(5)
    assert context.fetch() == Delay(1)
    context.begin_delay(77)
    assert context.until == 77
    context.complete(None)
    assert context.fetch() == Msr("ICC_EOIR1_EL1", 14)
    context.complete(None)
    assert context.fetch() is below
    after: tuple[bool, int, int | None] = context.masked, context.depth, context.until
    assert after == (False, 1, None)


def test_interrupt_without_handler_is_a_crash() -> None:
    """Unmasking interrupts before installing a handler crashes the program with the remedy."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        cpu.irq_enable()
        await cpu.wfi()

    context = ProgramContext("bad", program, "", {}, 0)
    assert context.fetch() == Wfi()
    with pytest.raises(Crash, match="set_irq_handler"):
        context.interrupt()


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        (lambda cpu: cpu.load(0, 3), "1, 2, 4 or 8 bytes, not 3"),
        (lambda cpu: cpu.store(0, 0x100, 1), "fit 1 bytes, not 0x100"),
        (lambda cpu: cpu.store(0, -1), "fit 8 bytes"),
        (lambda cpu: cpu.delay(-5), "negative"),
        (lambda cpu: cpu.msr("ICC_PMR_EL1", 1 << 64), "fit 8 bytes"),
    ],
    ids=["size", "value", "sign", "delay", "msr"],
)
def test_operands_are_checked(attempt: Any, text: str) -> None:
    """An operand that no instruction could have crashes the program and is named."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await attempt(cpu)

    with pytest.raises(Crash, match=text):
        ProgramContext("bad", program, "", {}, 0).fetch()


def test_awaiting_something_else_is_a_crash() -> None:
    """A program that awaits anything but its Cpu (an asyncio future, say) is told so."""

    class Foreign:
        def __await__(self) -> Any:
            yield "foreign"

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await Foreign()

    with pytest.raises(Crash, match="operations of its Cpu, not str"):
        ProgramContext("bad", program, "", {}, 0).fetch()


def test_undefined_reaches_the_program() -> None:
    """A failed operation raises its own error at the await."""
    seen: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        try:
            await cpu.mrs("X")
        except UndefinedInstruction as error:
            seen.append(str(error))
        await cpu.wfi()

    context = ProgramContext("p", program, "", {}, 0)
    context.fetch()
    context.fail(UndefinedInstruction("no X"))
    assert context.fetch() == Wfi() and seen == ["no X"]


@given(st.integers(0, 3), st.integers(0, 0x2800))
def test_blocks_are_cut_at_pages(page: int, size: int) -> None:
    """A block access is made of pieces that cover it in order, none crossing a 4 KiB boundary."""
    address = 0x8000_0F00 + page * 0x77
    data = bytes(n * 7 & 0xFF for n in range(size))

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.store_block(address, data)
        await cpu.wfi()

    context = ProgramContext("p", program, "", {}, 0)
    at = address
    while isinstance(operation := context.fetch(), Store):
        assert operation.address == at and isinstance(operation.data, bytes) and operation.size == len(operation.data)
        assert operation.data == data[at - address : at - address + operation.size]
        assert at // 4096 == (at + operation.size - 1) // 4096
        at += operation.size
        context.complete(None)
    assert at == address + size


def test_console_keeps_characters_whole() -> None:
    """Text longer than a block goes out in pieces that each decode on their own, all to the UART's data register."""
    text = "é" * 3000

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.console(text)
        await cpu.wfi()

    context = ProgramContext("p", program, "", {}, 0)
    got = []
    while isinstance(operation := context.fetch(), Store):
        assert operation.address == 0x0100_0000 and isinstance(operation.data, bytes) and operation.size <= 4096
        got.append(operation.data.decode())
        context.complete(None)
    assert "".join(got) == text and len(got) == 2


# -- the timer ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 4_000_000_000), st.integers(0, 1 << 40), st.integers(0, 10**12))
def test_timer_rises_exactly_when_due(frequency: int, ahead: int, now: int) -> None:
    """The output is low just before the time that `due` names and high at it, for any frequency and compare value."""
    timer = VirtualTimer(frequency)
    timer.write("CNTV_CVAL_EL0", timer.count(now) + ahead, now)
    timer.write("CNTV_CTL_EL0", 1, now)
    due = timer.due(now)
    if ahead == 0:
        assert due is None and timer.output(now)
    elif due is not None:
        assert due > now and not timer.output(due - 1) and timer.output(due)
        assert timer.due(due) is None


def test_timer_registers() -> None:
    """Mask and enable gate the output, ISTATUS ignores the mask, TVAL is CVAL relative to the counter with a sign."""
    timer = VirtualTimer(1_000_000_000)
    now = 5_000_000  # 5000 counts
    timer.write("CNTV_TVAL_EL0", 0xFFFF_FFFF, now)
    assert timer.cval == 4999 and timer.read("CNTV_TVAL_EL0", now) == 0xFFFF_FFFF
    timer.write("CNTV_CTL_EL0", 3, now)
    assert timer.read("CNTV_CTL_EL0", now) == 7 and not timer.output(now) and timer.due(now) is None
    timer.write("CNTV_CTL_EL0", 1, now)
    assert timer.output(now)
    timer.write("CNTV_CTL_EL0", 0, now)
    assert timer.read("CNTV_CTL_EL0", now) == 0 and not timer.output(now)
    assert timer.read("CNTFRQ_EL0", now) == 1_000_000_000 and timer.read("CNTVCT_EL0", now) == 5000
    assert not timer.write("CNTVCT_EL0", 1, now) and timer.read("CNTV_CVAL_EL0", now) == 4999
    timer.load(7, 6000)
    assert (timer.ctl, timer.cval) == (3, 6000)
    with pytest.raises(ValueError, match="cntfrq"):
        VirtualTimer(0)
