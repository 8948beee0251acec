"""The PE node: world switch, what exits and with which syndrome, interrupts of host and guest, timer lines."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import ModelError, ns, us
from nodes.arch.cpu import UART, Cpu, ExternalAbort, UndefinedInstruction
from nodes.arch.trap import HCR_TWI, TRAP
from tests.machine.pe_bench import HCR, HOLE_IPA, ICH_ON, RAM_IPA, TRAP_LATENCY, PeBench, idle, idle_guest

# -- exits -------------------------------------------------------------------------------------------------------------


async def send_sgi(cpu: Cpu) -> None:
    await cpu.msr("ICC_SGI1R_EL1", 0x0100_0002)


async def call(cpu: Cpu) -> None:
    await cpu.hvc(0x8400_0000, 1, 2, 3)


async def wait(cpu: Cpu) -> None:
    await cpu.wfi()


async def store_word(cpu: Cpu) -> None:
    await cpu.store(0x3FFF_0000, 0x113, 4)


async def store_byte(cpu: Cpu) -> None:
    await cpu.post(0x3FFF_0400, 0xA0, 1)


async def load_double(cpu: Cpu) -> None:
    await cpu.load(0x3FEF_0008, 8)


async def load_half(cpu: Cpu) -> None:
    await cpu.load(0x4000_0002, 2)


async def print_text(cpu: Cpu) -> None:
    await cpu.console("hello\n")


async def load_many(cpu: Cpu) -> None:
    await cpu.load_block(0x4000_0000, 24)


EXITS = [
    (send_sgi, "sysreg", 0x623A_3016, 0, 0x0100_0002),
    (call, "hvc", 0x5A00_0000, 0, (0x8400_0000, 1, 2, 3)),
    (wait, "wfx", 0x07E0_0000, 0, 0),
    (store_word, "abort", 0x9380_0047, 0x3FFF_0000, 0x113),
    (store_byte, "abort", 0x9300_0047, 0x3FFF_0400, 0xA0),
    (load_double, "abort", 0x93C0_8007, 0x3FEF_0008, 8),
    (load_half, "abort", 0x9340_0007, 0x4000_0002, 2),
    (print_text, "abort", 0x9200_0047, UART, b"hello\n"),
    (load_many, "abort", 0x9200_0007, 0x4000_0000, 24),
]


@pytest.mark.parametrize(("body", "reason", "esr", "ipa", "data"), EXITS, ids=lambda v: getattr(v, "__name__", None))
def test_exit_syndromes(body: Any, reason: str, esr: int, ipa: int, data: Any) -> None:
    """Each kind of exit carries the architected syndrome, the IPA and the data that EL2 needs."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await body(cpu)

    pe = PeBench(program)
    pe.start(hcr=HCR | HCR_TWI)
    (left,) = pe.exits()
    assert (left["reason"], left["esr"], left["ipa"], left["far"], left["data"]) == (reason, esr, ipa, ipa, data)
    assert left["vcpu"] == "vm.vcpu0" and left["time"] == TRAP_LATENCY


@pytest.mark.parametrize(
    ("body", "resume", "expected"),
    [
        (lambda cpu: cpu.load(0x3FFF_0000, 4), 0x1234, 0x1234),
        (lambda cpu: cpu.load_block(0x4000_0000, 3), b"abc", b"abc"),
        (lambda cpu: cpu.hvc(1), (5, 6, 7, 8), (5, 6, 7, 8)),
        (lambda cpu: cpu.store(0x3FFF_0000, 1), None, None),
    ],
    ids=["load", "block", "hvc", "store"],
)
def test_enter_completes_what_exited(body: Any, resume: Any, expected: Any) -> None:
    """The value that Enter brings is the result of the operation that exited, and the program goes on after it."""
    got: list[Any] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        got.append(await body(cpu))
        await idle(cpu)

    pe = PeBench(program)
    pe.start()
    pe.enter(resume=resume)
    pe.run(us(1))
    assert got == [expected]


def test_resume_that_does_not_fit_is_refused() -> None:
    """A resume value that can't be the result of the trapped read stops the run and names vCPU and operation."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.load(0x3FFF_0000, 4)

    pe = PeBench(program)
    pe.start()
    pe.enter(resume="text")
    with pytest.raises(Exception, match=r"vm\.vcpu0.*Load.*0|resume"):
        pe.run(us(1))


def test_direct_accesses_do_not_exit() -> None:
    """Loads and stores inside Enter's ranges reach memory at the translated address, without an exit."""
    got: list[Any] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.store(RAM_IPA + 8, 0x1122_3344, 4)
        await cpu.post_block(RAM_IPA + 0xFF8, bytes(range(16)))
        await cpu.dsb()
        got.append(await cpu.load(RAM_IPA + 8, 4))
        got.append(await cpu.load_block(RAM_IPA + 0xFF8, 16))
        await idle(cpu)

    pe = PeBench(program)
    pe.start(us(2))
    assert got == [0x1122_3344, bytes(range(16))]
    assert [a for _, a, d in pe.ram.seen if d is not None] == [8, 0xFF8, 0x1000]
    assert pe.exits() == []


def test_access_across_the_end_of_a_range_exits() -> None:
    """An access that begins inside a direct range and ends outside is not direct."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.load(RAM_IPA + 0xFFFC, 8)

    pe = PeBench(program)
    pe.start()
    assert [e["ipa"] for e in pe.exits()] == [RAM_IPA + 0xFFFC]


def test_posted_stores_do_not_wait_and_dsb_does() -> None:
    """Posted stores are in flight at once; dsb returns when all have completed."""
    times: list[int] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        for n in range(4):
            await cpu.post(RAM_IPA + 8 * n, n)
        times.append(await cpu.mrs("CNTVCT_EL0"))
        await cpu.dsb()
        times.append(await cpu.mrs("CNTVCT_EL0"))
        await idle(cpu)

    pe = PeBench(program, delay=ns(500))
    pe.start(us(3))
    assert times == [300, 300 + 60 + 500 + 60]
    assert len({t for t, _, _ in pe.ram.seen}) == 1


def test_posted_stores_are_complete_before_the_exit() -> None:
    """A guest's posted store is in memory when its next exit leaves the PE."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.post(RAM_IPA, 1)
        await cpu.hvc(0)

    pe = PeBench(program, delay=us(5))
    pe.start(us(10))
    (left,) = pe.exits()
    assert left["time"] == TRAP_LATENCY + ns(120) + us(5)


def test_bus_errors_reach_the_program() -> None:
    """A load from nowhere and a posted store that fails raise ExternalAbort in the program, counted and logged."""
    seen: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        for attempt in (cpu.load(HOLE_IPA), cpu.store(RAM_IPA + 0xF000, 1)):
            try:
                await attempt
            except ExternalAbort as abort:
                seen.append(str(abort))
        await cpu.post(RAM_IPA + 0xF008, 1)
        try:
            await cpu.dsb()
        except ExternalAbort as abort:
            seen.append(str(abort))
        await idle(cpu)

    pe = PeBench(program)
    pe.start(us(2))
    assert [text.split(":")[0] for text in seen[:2]] == [
        f"external abort at {HOLE_IPA:#x}",
        f"external abort at {RAM_IPA + 0xF000:#x}",
    ]
    assert len(seen) == 3 and pe.pe.count["external_aborts"] == 3


def test_unknown_registers_are_undefined_in_the_guest() -> None:
    """A register that doesn't exist, or not at EL1, raises UndefinedInstruction and is counted."""
    seen: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        for attempt in (cpu.mrs("ICH_HCR_EL2"), cpu.mrs("NO_SUCH_EL1"), cpu.msr("CNTVCT_EL0", 1)):
            try:
                await attempt
            except UndefinedInstruction as error:
                seen.append(str(error))
        await idle(cpu)

    pe = PeBench(program)
    pe.start()
    assert ["ICH_HCR_EL2" in seen[0], "NO_SUCH_EL1" in seen[1], "CNTVCT_EL0" in seen[2]] == [True] * 3
    assert pe.pe.count["undefined_instructions"] == 3


def test_crash_exits_with_the_traceback_without_paths() -> None:
    """A program that raises exits with reason "crash" and a traceback of file names; it can't be entered again."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.delay(ns(10))
        raise RuntimeError(f"args {args} entry {params['entry']}")

    pe = PeBench(program)
    pe.load("-x", entry=7)
    pe.enter()
    pe.run(us(1))
    (left,) = pe.exits()
    assert left["reason"] == "crash"
    assert left["data"].startswith("RuntimeError: args -x entry 7\n  test_pe.py:") and "/" not in left["data"]
    pe.enter()
    with pytest.raises(Exception, match="crashed"):
        pe.run(us(1))


def test_program_that_returns_is_a_crash() -> None:
    """A program that falls off its end says so instead of leaving a vCPU that does nothing."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await cpu.delay(0)

    pe = PeBench(program)
    pe.start()
    assert "must end by PSCI" in pe.exits()[0]["data"]


def test_loop_without_time_is_a_crash() -> None:
    """A program that spins without letting simulated time pass ends with an exit that says what it did last."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        while await cpu.mrs("CNTVCT_EL0") < 1 << 40:
            pass

    pe = PeBench(program)
    pe.start()
    assert "CNTVCT_EL0" in pe.exits()[0]["data"]


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        (TRAP.Enter, ("vm.vcpu9", HCR, (), ICH_ON, 0, 0, 0), "LoadContext"),
        (TRAP.DropContext, ("vm.vcpu0",), "while it runs"),
        (TRAP.LoadContext, ("vm.vcpu0", "program", "", (), 0), "already"),
        (TRAP.LoadContext, ("vm.vcpu1", "nothing", "", (), 0), "cosim.programs"),
        (TRAP.Enter, ("vm.vcpu0", HCR, (), ICH_ON, 0, 0, 0), "while it runs"),
        (TRAP.SysregRead, (1, "ICC_IAR1_EL1", 2, False), "host context"),
    ],
    ids=["unknown", "drop", "twice", "program", "running", "sysreg"],
)
def test_misuse_by_the_hypervisor_is_named(kind: Any, fields: tuple[Any, ...], text: str) -> None:
    """What a hypervisor may not ask of a PE that runs a guest ends the run with a text that says what to do."""
    pe = PeBench(idle_guest)
    pe.start()
    pe.to_pe(kind, *fields)
    with pytest.raises(Exception, match=text) as failure:
        pe.run(us(1))
    assert isinstance(failure.value, ModelError) or isinstance(failure.value.__cause__, ModelError)
