"""The smmute guest: boots, loads the driver, and runs `./smmute -s SIZE -n N` as on Arm's page, then `poweroff`.

The application copies N buffers of SIZE bytes with the engine, each with its own pattern, checks the copy and prints one result
block per transaction (one console write each); it stops at the first transaction that fails. Facts sheet 9.5.

`args` may hold the application's options (``-s 0x100 -n 10 -f read``); otherwise they come from the parameters `smmute_size`,
`smmute_transactions` and `smmute_fault`. With a fault, transaction `smmute_fault_at` (a parameter) reads from, or writes to, an
address that the device's I/O address space does not have. Secondary CPUs stay powered off.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nodes.arch.cpu import BOOT_ENTRY, Cpu
from nodes.software import psci
from nodes.software.smmute_driver import EFAULT, EINVAL, EIO, SUCCESS, Outcome, Smmute

INPUT, OUTPUT = 0x8100_0000, 0x9100_0000
"""Guest-physical addresses of the two buffers; each may be up to 256 MiB."""
MAX_SIZE = OUTPUT - INPUT
UNMAPPED = 0xF_0000_0000
"""I/O virtual address that nothing maps: far above any guest's RAM."""
FAULTS = ("", "read", "write")
SEED_STEP = 0xB00F
DUMP_BYTES = 64
ROW = 16
PROMPT = "# "

_STATUS = {SUCCESS: "Success", EIO: "Input/output error", EFAULT: "Bad address", EINVAL: "Invalid argument"}


class Options(NamedTuple):
    """``-s``, ``-n``, ``-f``: bytes per transaction, how many, which access is to fault, and in which transaction."""

    size: int = 0x100
    transactions: int = 10
    fault: str = ""
    fault_at: int = 1

    @property
    def command(self) -> str:
        """The command line."""
        return f"./smmute -s {self.size:#x} -n {self.transactions}" + (f" -f {self.fault}" if self.fault else "")


def parse_options(args: str, params: dict[str, Any]) -> Options:
    """Options of the command line, else of the parameters.

    Raises:
        ValueError: not a number, out of range, or no such fault.
    """
    given = {
        "-f": str(params.get("smmute_fault", "")),
        "-s": str(params.get("smmute_size", Options().size)),
        "-n": str(params.get("smmute_transactions", Options().transactions)),
    }
    words = args.split()
    for option, value in zip(words, words[1:], strict=False):
        if option in given:
            given[option] = value
    size, count = int(given["-s"], 0), int(given["-n"], 0)
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"-s must be in 1..{MAX_SIZE:#x} bytes, not {size:#x}")
    if count < 1:
        raise ValueError(f"-n must be at least 1, not {count}")
    fault, at = given["-f"], int(params.get("smmute_fault_at", 1))
    if fault not in FAULTS:
        raise ValueError(f"-f must be read or write, not {fault!r}")
    if at < 1:
        raise ValueError(f"smmute_fault_at must be a transaction, 1 or more, not {at}")
    return Options(size, count, fault, at)


def pattern(size: int, seed: int) -> bytes:
    """The input buffer of a transaction: byte i is (i - seed) & 0xFF."""
    first = -seed & 0xFF
    ramp = bytes(range(256))
    return ((ramp[first:] + ramp[:first]) * (size // 256 + 1))[:size]


def dump(data: bytes) -> list[str]:
    """Hex rows, each with a space at its end; of more than 128 bytes the first and the last 64."""
    width = len(f"{len(data):x}")

    def rows(start: int, end: int) -> list[str]:
        return [
            f"{at:0{width}x}: " + "".join(f"{byte:02x} " for byte in data[at : min(at + ROW, end)])
            for at in range(start, end, ROW)
        ]

    if len(data) <= 2 * DUMP_BYTES:
        return rows(0, len(data))
    return [*rows(0, DUMP_BYTES), " ...", *rows(len(data) - DUMP_BYTES, len(data))]


def result_block(outcome: Outcome, output: bytes) -> str:
    """What the application prints of one transaction."""
    fields = [
        ("transaction", str(outcome.transaction)),
        ("status", f"{outcome.status} {_STATUS[outcome.status]}"),
        ("value", f"{outcome.value:#x}"),
        ("duration", f"{outcome.duration_us} us"),
    ]
    lines = ["Result:", *(f"- {name:<20} = {value}" for name, value in fields), "Output buffer:", *dump(output)]
    return "\n".join(lines) + "\n"


async def run_application(cpu: Cpu, device: Smmute, options: Options) -> bool:
    """The application; returns whether every transaction succeeded and copied what it should."""
    seed = 0
    for number in range(1, options.transactions + 1):
        fault = options.fault if number == options.fault_at else ""
        data = pattern(options.size, seed)
        seed += SEED_STEP
        await cpu.post_block(INPUT, data)
        await cpu.post_block(OUTPUT, bytes(options.size))
        await cpu.dsb()
        source, target = (UNMAPPED if fault == kind else at for kind, at in (("read", INPUT), ("write", OUTPUT)))
        outcome = await device.memcpy(source, target, options.size)
        output = await cpu.load_block(OUTPUT, options.size)
        await cpu.console(result_block(outcome, output))
        if outcome.status != SUCCESS:
            return False
        if output != data:
            at = next(i for i, (a, b) in enumerate(zip(output, data, strict=True)) if a != b)
            await cpu.console(f"Error: output buffer must equal the input; byte {at:#x} is {output[at]:#04x}\n")
            return False
    return True


async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
    """Entry of the boot CPU; nobody starts another."""
    entry = params["entry"]
    if entry != BOOT_ENTRY:
        raise ValueError(f"entry of the smmute guest must be {BOOT_ENTRY:#x}, not {entry:#x}")
    options = parse_options(args, params)
    device = Smmute(cpu, params)
    await device.set_up()
    await cpu.console(
        f"{PROMPT}mount -t 9p -o trans=virtio hostshare /tmp/\n{PROMPT}cd /tmp\n{PROMPT}{options.command}\n"
    )
    await run_application(cpu, device, options)
    await cpu.console(f"{PROMPT}poweroff\n")
    await psci.system_off(cpu)
