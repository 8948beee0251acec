"""Machine code that carries out a program inside QEMU: CPU 0 runs it, CPU 1 does what CPU 0 puts in a mailbox.

CPU 0 stays at EL2 with interrupts masked. An access as a guest goes to EL1 and back by HVC, with ICC_PMR_EL1 0 meanwhile:
an interrupt for EL2 would be taken there whatever PSTATE says. After each step two subroutines log everything that is
compared. The end is a breakpoint.

Registers: x20 log of CPU 0, x21 mailbox, x27 way back from EL1.
"""

from __future__ import annotations

from tests.differential import a64, layout
from tests.differential.layout import CPUS, EL1_REGISTERS, EL2_REGISTERS
from tests.differential.observe import View
from tests.differential.steps import Action, Command, Line, Mrs, Msi, Msr, Program, Store, Write

VECTORS = layout.AGENT + 0x800
CPU1_ENTRY = layout.AGENT + 0x1000
OBSERVE0 = layout.AGENT + 0x2000
OBSERVE1 = layout.AGENT + 0x5000
END = layout.AGENT + 0x400

JOB, RESULT, LOG1 = layout.MAILBOX, layout.MAILBOX + 8, layout.MAILBOX + 16
_HCR = 1 << 31 | 1 << 4 | 1 << 3  # RW, IMO, FMO
_EL1H_MASKED = 0x3C5
_PSCI_CPU_ON = 0xC4000003


def image() -> bytes:
    """Everything that does not depend on a program, but the observations."""
    blocks = {
        layout.AGENT: _boot(),
        END: [a64.BRANCH_SELF],
        VECTORS + 0x400: [a64.branch_register(27)],
        CPU1_ENTRY: _cpu1(),
    }
    return _place(blocks, layout.AGENT)


def observers(version: str) -> dict[int, bytes]:
    """The two subroutines that log, by address."""
    reads: list[int] = []
    for place in View(version).places:
        reads += a64.load_immediate(1, place.address)
        reads += [a64.load(0, 1, place.size), a64.push(0, 20)]
    first = [a64.move(26, 30), *reads, *_registers(20), *a64.load_immediate(1, LOG1), a64.store(20, 1, 8)]
    first += _on_cpu1(OBSERVE1) + [*a64.load_immediate(1, LOG1), a64.load(20, 1, 8), a64.ret(26)]
    second = [a64.move(26, 30), *a64.load_immediate(1, LOG1), a64.load(20, 1, 8), *_registers(20)]
    second += [*a64.load_immediate(1, LOG1), a64.store(20, 1, 8), a64.ret(26)]
    return {OBSERVE0: a64.assemble(first), OBSERVE1: a64.assemble(second)}


def log_words(program: Program) -> int:
    """How much a program logs."""
    return len(program.steps) * (1 + View(program.version).words)


def compile_program(program: Program) -> dict[int, bytes]:
    """Code of a program by address: one part per CPU."""
    parts: tuple[list[int], list[int]] = ([], [])
    queue = 0
    code = parts[0]
    code += a64.load_immediate(20, layout.LOG)
    for action in program.setup:
        queue = _action(parts, action, queue, program.version)
    for step in program.steps:
        for action in step:
            queue = _action(parts, action, queue, program.version)
        code += [a64.push(0, 20), *a64.load_immediate(1, OBSERVE0), a64.call_register(1)]
    code += [*a64.load_immediate(1, END), a64.branch_register(1)]
    if 4 * len(code) > layout.PROGRAM1 - layout.PROGRAM0 or 4 * len(parts[1]) > layout.MAILBOX - layout.PROGRAM1:
        raise ValueError(f"a program of {len(program.steps)} steps must fit its area of memory: write a shorter one")
    return {layout.PROGRAM0: a64.assemble(code), layout.PROGRAM1: a64.assemble(parts[1])}


def _action(parts: tuple[list[int], list[int]], step: Action, queue: int, version: str) -> int:
    """Append an action, its result in x0 of CPU 0; the next offset in the command queue."""
    code = parts[0]
    zero = a64.load_immediate(0, 0)
    if isinstance(step, Write):
        block, offset, size = layout.REGISTERS[step.register]
        code += _store(layout.frame(block, step.cpu, version) + offset, step.value, size) + zero
        if step.register == "GITS_CWRITER":
            queue = step.value
    elif isinstance(step, Store):
        code += _store(step.address, step.value, step.size) + zero
    elif isinstance(step, Command):
        for word in range(4):
            value = int.from_bytes(step.data[8 * word : 8 * word + 8], "little")
            code += _store(layout.QUEUE + queue + 8 * word, value, 8)
        queue = (queue + 32) % layout.QUEUE_BYTES
        code += _store(layout.GITS + 0x88, queue, 8) + zero
    elif isinstance(step, Msi):
        code += _msi(step) + zero
    elif isinstance(step, Line):
        # Data sent leaves the transmit interrupt raised; the mask lets it through.
        code += _store(layout.UART, 0, 4) + _store(layout.UART + 0x38, step.level << 5, 4) + zero
    else:
        access = _system(step)
        if step.cpu == 0:
            code += access
        else:
            job = layout.PROGRAM1 + 4 * len(parts[1])
            parts[1].extend(
                [a64.move(26, 30), *access, *a64.load_immediate(1, RESULT), a64.store(0, 1, 8), a64.ret(26)]
            )
            code += _on_cpu1(job) + a64.load_immediate(1, RESULT) + [a64.load(0, 1, 8)]
    return queue


def _store(address: int, value: int, size: int) -> list[int]:
    return [*a64.load_immediate(1, address), *a64.load_immediate(0, value), a64.store(0, 1, size), a64.DSB]


def _msi(step: Msi) -> list[int]:
    """Device 0 is the CPU itself; the others are `edu` functions: message data, then raise and acknowledge."""
    if step.device_id == 0:
        return _store(layout.TRANSLATER, step.event_id, 4)
    bar = _bar(step.device_id)
    config = layout.ECAM + (step.device_id << 12)
    return _store(config + 0x4C, step.event_id, 2) + _store(bar + 0x60, 1, 4) + _store(bar + 0x64, 1, 4)


def _bar(device_id: int) -> int:
    return layout.PCI_MMIO + (device_id << 17)


def _system(step: Mrs | Msr) -> list[int]:
    """A system register access, its result in x0."""
    if isinstance(step, Mrs):
        access = [a64.mrs(0, step.register)]
    else:
        access = [*a64.load_immediate(0, step.value), a64.msr(step.register, 0), *a64.load_immediate(0, 0)]
    access.append(a64.ISB)
    return access if step.el == 2 else _as_guest(access)


def _as_guest(body: list[int]) -> list[int]:
    """Run `body` at EL1, physical interrupts masked by priority meanwhile."""
    guest = [*body, a64.HVC]
    # x11 := address of the guest code, x27 := what follows it; by ADR relative to here.
    head = [
        a64.mrs(9, "ICC_PMR_EL1"), *a64.load_immediate(10, 0), a64.msr("ICC_PMR_EL1", 10), a64.ISB,
        *a64.load_immediate(12, _EL1H_MASKED), a64.msr("SPSR_EL2", 12),
    ]  # fmt: skip
    tail_distance = 4  # ADR x11, ADR x27, MSR ELR, ERET
    head += [_adr(11, tail_distance), _adr(27, tail_distance - 1 + len(guest)), a64.msr("ELR_EL2", 11), a64.ERET]
    return [*head, *guest, a64.msr("ICC_PMR_EL1", 9), a64.ISB]


def _adr(rd: int, words: int) -> int:
    """ADR Xd, `words` instructions ahead."""
    return 0x10000000 | words << 5 | rd


def _registers(log: int) -> list[int]:
    """Log a CPU's system registers."""
    code: list[int] = []
    for name in EL2_REGISTERS:
        code += [a64.mrs(0, name), a64.push(0, log)]
    guest: list[int] = []
    for name in EL1_REGISTERS:
        guest += [a64.mrs(0, name), a64.push(0, log)]
    return code + _as_guest(guest)


def _on_cpu1(job: int) -> list[int]:
    """Have CPU 1 call `job` and wait; YIELD lets it run."""
    wait = [a64.YIELD, a64.load(0, 1, 8), a64.branch_if_not_zero(0, -2)]
    return [*a64.load_immediate(1, JOB), *a64.load_immediate(0, job), a64.store(0, 1, 8), a64.DSB, *wait]


def _el2() -> list[int]:
    return [
        *a64.load_immediate(0, VECTORS), a64.msr("VBAR_EL2", 0), *a64.load_immediate(0, _HCR), a64.msr("HCR_EL2", 0),
        a64.ISB,
    ]  # fmt: skip


def _cpu1() -> list[int]:
    loop = [a64.YIELD, a64.load(0, 21, 8), a64.branch_if_zero(0, -2), a64.call_register(0)]
    loop += [a64.store(a64.XZR, 21, 8), a64.DSB]
    return [*_el2(), *a64.load_immediate(21, JOB), *loop, a64.branch(-len(loop))]


def _boot() -> list[int]:
    """Set up EL2, the PCI functions and CPU 1, then the program."""
    code = _el2()
    for device in layout.DEVICES[1:]:
        config = layout.ECAM + (device << 12)
        code += _store(config + 0x10, _bar(device), 4) + _store(config + 0x4, 6, 2)
        code += _store(config + 0x44, layout.TRANSLATER, 4) + _store(config + 0x48, 0, 4)
        code += _store(config + 0x42, 0x81, 2)
    code += a64.load_immediate(0, _PSCI_CPU_ON) + a64.load_immediate(1, 1) + a64.load_immediate(2, CPU1_ENTRY)
    code += [*a64.load_immediate(3, 0), a64.SMC]
    return [*code, *a64.load_immediate(1, layout.PROGRAM0), a64.branch_register(1)]


def _place(blocks: dict[int, list[int]], base: int) -> bytes:
    data = bytearray()
    for address, words in sorted(blocks.items()):
        if len(data) > address - base:
            raise ValueError(f"the agent's part before {address:#x} must be shorter")
        data += bytes(address - base - len(data)) + a64.assemble(words)
    return bytes(data)


assert CPUS == 2, "the agent's mailbox serves one more CPU"
