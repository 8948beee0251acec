"""Stock QEMU as a GICv3 with ITS: a paused `virt` machine whose state moves only when it is told to; docs/attach-qemu.md.

The machine never runs. Registers and RAM are reached by qtest, in which an access and all its consequences are done when it is
answered; a system register of a CPU by one single step of an MRS or MSR in scratch RAM; an interrupt line by ISR_EL1 of that
CPU. An MSI of DeviceID 0 is a write to GITS_TRANSLATER by qtest, one of another DeviceID is sent by the PCI function with that
requester ID: QEMU's device `edu`, of which only the MSI capability is used. None of it depends on wall-clock time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cosim.attach.qemu_process import ANSWER_S, BINARY, QemuProcess, version
from cosim.attach.qemu_wire import Gdb, QemuError

__all__ = [
    "BINARY",
    "GICD",
    "GICR",
    "GITS",
    "LINES",
    "RAM",
    "TRANSLATER",
    "QemuError",
    "QemuGic",
    "Window",
    "encoding",
    "version",
]

MIB = 1 << 20
GICD, GITS, GICR, RAM = 0x0800_0000, 0x0808_0000, 0x080A_0000, 0x4000_0000
GITS_TRANSLATER_FRAME, FRAME = GITS + 0x1_0000, 0x1_0000
TRANSLATER = GITS_TRANSLATER_FRAME + 0x40
DEVICE_TREE = MIB
"""At start and reset QEMU puts a device tree, with random seeds in it, at the beginning of RAM: up to so many bytes."""
GICR_STRIDE = {"3": 0x2_0000, "4.0": 0x4_0000}
SPIS = 256
LINES = ("irq", "fiq", "virq", "vfiq")

# QEMU's device edu (docs/specs/edu): registers in BAR 0, MSI capability.
_ECAM, _MMIO32 = 0x40_1000_0000, 0x1000_0000
_BAR0, _COMMAND, _MSI_CAPABILITY = 0x10, 0x04, 0x40
_RAISE, _ACKNOWLEDGE = 0x60, 0x64

_ISR_EL1 = (3, 0, 12, 1, 0)
_CPU_ON = 0xC400_0003  # PSCI, 64-bit calls
_HVC, _SMC, _ERET = 0xD400_0002, 0xD400_0003, 0xD69F_03E0
_MRS, _MSR = 0xD520_0000, 0xD500_0000  # of x0; the register's encoding is bits [20:5]
_ICH_HCR_EL2, _HCR_EL2, _SPSR_EL2, _ELR_EL2 = (3, 4, 12, 11, 0), (3, 4, 1, 1, 0), (3, 4, 4, 0, 0), (3, 4, 4, 0, 1)
_HCR = 1 << 31 | 1 << 4 | 1 << 3  # EL1 is AArch64; IRQ and FIQ go to EL2, so that EL1 sees the virtual ones
_EL1 = 0x3C5  # EL1h, all exceptions masked


class Window(NamedTuple):
    """A range of QEMU's physical addresses, in bytes."""

    base: int
    size: int

    def holds(self, address: int, size: int) -> bool:
        """Whether an access lies in it."""
        return self.base <= address and address + size <= self.base + self.size


def encoding(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """A system register as a number of 16 bits: op0, op1, CRn, CRm, op2 from the top, as in instructions."""
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


class QemuGic:
    """One QEMU process; close it.

    Args:
        cpus: number of CPUs, affinities 0.0.0.0 upwards; 1 to 16.
        ram: bytes of RAM at `RAM` that are offered; whole MiB.
        gic_version: "3" or "4.0".
        device_ids: DeviceIDs that may send MSIs, besides 0: a slot of PCI bus 0 each, so 8, 0x10, ... 0xf8.
        binary: of QEMU.
        answer_s: wall-clock limit of each of its answers; None: no limit.

    Raises:
        QemuError: from every method; QEMU's own output is in the text.
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        *,
        cpus: int = 2,
        ram: int = 16 * MIB,
        gic_version: str = "3",
        device_ids: Iterable[int] = (),
        binary: str = BINARY,
        answer_s: float | None = ANSWER_S,
    ) -> None:
        self.cpus, self.ram_size, self.gic_version = cpus, ram, gic_version
        self.device_ids = tuple(sorted(set(device_ids) - {0}))
        self._check()
        stride = GICR_STRIDE[gic_version]
        self.frames = (Window(GICD, FRAME), Window(GITS, 2 * FRAME), Window(GICR, cpus * stride))
        self.ram = Window(RAM, ram)
        self._scratch = RAM + ram  # a MiB of its own, which nobody else reaches
        self._code: dict[tuple[int, ...], int] = {}
        self._free = self._scratch
        self._virtual = [False] * cpus
        self._process = QemuProcess(self._machine(), binary=binary, answer_s=answer_s)
        self._qtest, self._gdb = self._process.qtest, self._process.gdb
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        if self.gic_version not in GICR_STRIDE:
            raise ValueError(f"gic_version must be one of {', '.join(GICR_STRIDE)}, not {self.gic_version!r}")
        if not 1 <= self.cpus <= 16:
            raise ValueError(f"cpus must be 1 to 16, not {self.cpus}")
        if self.ram_size <= 0 or self.ram_size % MIB:
            raise ValueError(f"ram must be a multiple of 1 MiB, not {self.ram_size} bytes")
        for device_id in self.device_ids:
            if device_id % 8 or not 8 <= device_id <= 0xF8:
                raise ValueError(
                    f"a DeviceID must be 0 or the requester ID of a slot of bus 0 (8, 0x10, ... 0xf8), not {device_id:#x}"
                )

    # -- life ----------------------------------------------------------------------------------------------------------

    def _machine(self) -> list[str]:
        virtualization = "on" if self.gic_version == "4.0" else "off"
        words = [
            "-accel", "tcg,thread=single,tb-size=8", "-cpu", "cortex-a57",
            "-machine", f"virt,gic-version={self.gic_version[0]},its=on,virtualization={virtualization}",
            "-smp", str(self.cpus), "-m", f"{self.ram_size // MIB + 1}M",
        ]  # fmt: skip
        for device_id in self.device_ids:
            words += ["-device", f"edu,addr={device_id >> 3:#x}.0"]
        return words

    def _start(self) -> None:
        try:
            self._gic = self._find("child<arm-gicv3>")
            self._qtest.fill_zero(RAM, DEVICE_TREE)
            self._set_up()
        except QemuError as error:
            raise self._process.blame(error) from None

    def _find(self, kind: str) -> str:
        for entry in self._process.qmp.command("qom-list", path="/machine/unattached"):
            if entry["type"] == kind:
                return f"/machine/unattached/{entry['name']}"
        raise QemuError(f"QEMU's machine must have a device of type {kind}, but has none")

    def _set_up(self) -> None:
        """What firmware would do: secondary CPUs on, PCI functions configured."""
        call = _SMC if self.gic_version == "4.0" else _HVC
        for cpu in range(1, self.cpus):
            at = self._place(call)
            answer = self._gdb.step(0, {0: _CPU_ON, 1: cpu, 2: self._scratch, 3: 0, Gdb.PC: at})[1]
            if answer:
                raise QemuError(f"PSCI CPU_ON of CPU {cpu} must give 0, not {answer:#x}")
        self._virtual = [False] * self.cpus
        if self.gic_version == "4.0":
            for cpu in range(self.cpus):
                self.msr(cpu, encoding(*_HCR_EL2), _HCR)
        for device_id in self.device_ids:
            config, bar = self._function(device_id)
            store = self._qtest.store
            store(config + _BAR0, 4, bar)
            store(config + _COMMAND, 2, 0b110)  # memory space, bus master
            store(config + _MSI_CAPABILITY + 4, 4, TRANSLATER)
            store(config + _MSI_CAPABILITY + 8, 4, 0)
            store(config + _MSI_CAPABILITY + 2, 2, 0x81)  # 64-bit address, enabled

    def _function(self, device_id: int) -> tuple[int, int]:
        """Addresses of a function's configuration space and of its BAR 0."""
        return _ECAM + (device_id << 12), _MMIO32 + (device_id >> 3) * MIB

    def reset(self) -> None:
        """As after power-on, but RAM keeps its contents."""
        try:
            kept = self._qtest.read(RAM, DEVICE_TREE)
            self._process.qmp.command("system_reset", event="RESET")
            self._qtest.write(RAM, kept)
            self._set_up()
        except QemuError as error:
            raise self._process.blame(error) from None

    def close(self) -> None:
        """End the process."""
        self._process.close()

    # -- accesses ------------------------------------------------------------------------------------------------------

    def load(self, address: int, size: int) -> int:
        """Read a register: 1, 2, 4 or 8 bytes."""
        try:
            return self._qtest.load(address, size)
        except QemuError as error:
            raise self._process.blame(error) from None

    def store(self, address: int, size: int, value: int) -> None:
        """Write a register."""
        try:
            self._qtest.store(address, size, value)
        except QemuError as error:
            raise self._process.blame(error) from None

    def read(self, address: int, size: int) -> bytes:
        """Bytes of RAM."""
        try:
            return self._qtest.read(address, size)
        except QemuError as error:
            raise self._process.blame(error) from None

    def write(self, address: int, data: bytes) -> None:
        """Store bytes in RAM."""
        try:
            self._qtest.write(address, data)
        except QemuError as error:
            raise self._process.blame(error) from None

    def msi(self, device_id: int, event_id: int) -> None:
        """A write of EventID (16 bits) to GITS_TRANSLATER by the device with DeviceID 0 or one of `device_ids`."""
        if device_id == 0:
            self.store(TRANSLATER, 4, event_id)
            return
        config, bar = self._function(device_id)
        self.store(config + _MSI_CAPABILITY + 12, 2, event_id)
        self.store(bar + _RAISE, 4, 1)
        self.store(bar + _ACKNOWLEDGE, 4, 1)

    def spi(self, number: int, level: int) -> None:
        """Drive the input of SPI `number` (0 to 255), INTID 32 + `number`."""
        self._drive(number, level)

    def ppi(self, cpu: int, intid: int, level: int) -> None:
        """Drive the input of a CPU's PPI, INTID 16 to 31."""
        self._drive(SPIS + 32 * cpu + intid, level)

    def _drive(self, line: int, level: int) -> None:
        try:
            self._qtest.command(f"set_irq_in {self._gic} unnamed-gpio-in {line} {level}")
        except QemuError as error:
            raise self._process.blame(error) from None

    # -- CPUs ----------------------------------------------------------------------------------------------------------

    def mrs(self, cpu: int, register: int, *, guest: bool = False) -> int | None:
        """Read a system register (see `encoding`) on a CPU at EL1; None: undefined there.

        With GICv4.0 at EL2, or as a `guest` at EL1, which sees the virtual CPU interface (ICV_).
        """
        return self._execute(cpu, _MRS | (register & 0xFFFF) << 5, 0, guest)

    def msr(self, cpu: int, register: int, value: int, *, guest: bool = False) -> bool:
        """Write a system register; False: undefined there."""
        done = self._execute(cpu, _MSR | (register & 0xFFFF) << 5, value, guest) is not None
        if done and not guest and register == encoding(*_ICH_HCR_EL2):
            self._virtual[cpu] = bool(value & 1)
        return done

    def lines(self, cpu: int) -> tuple[int, ...]:
        """Levels of a CPU's IRQ and FIQ, then of its virtual ones, which are low while ICH_HCR_EL2.En is 0."""
        levels: list[int] = []
        for guest in (False, True):
            pending = self.mrs(cpu, encoding(*_ISR_EL1), guest=guest) if not guest or self._virtual[cpu] else 0
            if pending is None:
                raise QemuError(f"ISR_EL1 must be readable on CPU {cpu}")
            levels += (pending >> 7 & 1, pending >> 6 & 1)
        return tuple(levels)

    def _execute(self, cpu: int, opcode: int, value: int, guest: bool) -> int | None:
        """One instruction with x0 = `value`; x0 after it, None if it took an exception."""
        if guest and self.gic_version == "3":
            return None
        try:
            at = self._place(opcode)
            if guest:
                self._enter(cpu, at, value)
                pc, value = self._gdb.step(cpu, {})
                self._gdb.step(cpu, {Gdb.PC: self._place(_HVC)})  # back to EL2
            else:
                pc, value = self._gdb.step(cpu, {0: value, Gdb.PC: at})
        except QemuError as error:
            raise self._process.blame(error) from None
        return value if pc == at + 4 else None

    def _enter(self, cpu: int, at: int, value: int) -> None:
        """From EL2 to the instruction at `at` in EL1, with x0 = `value`."""
        start = self._place(
            _MSR | encoding(*_ELR_EL2) << 5 | 1, _MSR | encoding(*_SPSR_EL2) << 5 | 2, _ERET
        )  # of x1 and x2
        registers = {0: value, 1: at, 2: _EL1, Gdb.PC: start}
        for _ in range(3):
            pc, _x0 = self._gdb.step(cpu, registers)
            registers = {}
        if pc != at:
            raise QemuError(f"ERET of CPU {cpu} must go to {at:#x}, not {pc:#x}")

    def _place(self, *opcodes: int) -> int:
        """Address of instructions in scratch RAM; each sequence has its own place, so that code never changes."""
        at = self._code.get(opcodes)
        if at is None:
            at = self._code[opcodes] = self._free
            self._free += 4 * len(opcodes)
            self._qtest.write(at, b"".join(opcode.to_bytes(4, "little") for opcode in opcodes))
        return at
