"""QEMU as the oracle: a paused `virt` machine of two CPUs, which runs one program at a time to its breakpoint.

A program's run is: reset, tables zeroed, code written (qtest), continue to the breakpoint (debugger stub), log read (qtest).
The CPUs share one thread, so that the order of their steps is the program's.
"""

from __future__ import annotations

import shutil
import struct

from cosim.attach.qemu_process import BINARY, PACKAGE, QemuProcess
from cosim.attach.qemu_wire import QemuError
from tests.differential import agent, layout
from tests.differential.observe import View
from tests.differential.steps import Program

ANSWER_S = 60.0
"""Wall-clock limit of one answer; the run of a program is one."""

Observed = tuple[int, dict[str, object]]
"""A step's result (what a read gave, else 0) and everything that is compared after it."""


def missing() -> str:
    """Why there is no oracle, or ""."""
    return "" if shutil.which(BINARY) else f"{BINARY} is not installed ({PACKAGE})"


class Oracle:
    """One QEMU process for one GIC version ("3" or "4.0"); close it.

    Raises:
        QemuError: from every method: how the oracle works is in question, not what it says.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.view = View(version)
        number = {"3": 3, "4.0": 4}[version]
        machine = [
            "-cpu", "cortex-a57", "-smp", str(layout.CPUS), "-m", "128M", "-accel", "tcg,thread=single",
            "-machine", f"virt,gic-version={number},virtualization=on,its=on",
            "-device", f"loader,addr={layout.AGENT:#x},cpu-num=0", "-device", "edu,addr=1.0", "-device", "edu,addr=2.0",
        ]  # fmt: skip
        self._qemu = QemuProcess(machine, answer_s=ANSWER_S)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        """Breakpoint and programs that stay the same."""
        (answer,) = self._qemu.gdb.ask(f"Z0,{agent.END:x},4")
        if answer != "OK":
            raise QemuError(f"the debugger stub must set a breakpoint, not answer {answer!r}")
        self._qemu.qtest.write(layout.AGENT, agent.image())
        for address, code in agent.observers(self.version).items():
            self._qemu.qtest.write(address, code)

    def run(self, program: Program) -> list[Observed]:
        """Execute a program from reset; one entry per step."""
        if program.version != self.version:
            raise ValueError(f"the program must be for GICv{self.version}, not {program.version}")
        try:
            return self._run(program)
        except QemuError as error:
            raise self._qemu.blame(error) from None

    def _run(self, program: Program) -> list[Observed]:
        qtest = self._qemu.qtest
        self._qemu.qmp.command("system_reset", event="RESET")
        qtest.fill_zero(layout.TABLES, layout.TABLES_END - layout.TABLES)
        qtest.fill_zero(layout.MAILBOX, 24)
        for address, code in agent.compile_program(program).items():
            if code:
                qtest.write(address, code)
        (stop,) = self._qemu.gdb.ask("vCont;c")
        if not stop.startswith("T05"):
            raise QemuError(f"QEMU must stop at the breakpoint, not with {stop!r}")
        count = agent.log_words(program)
        words = struct.unpack(f"<{count}Q", qtest.read(layout.LOG, 8 * count))
        size = 1 + self.view.words
        rows = [words[start : start + size] for start in range(0, count, size)]
        return [(row[0], self.view.decode(row[1:])) for row in rows]

    def close(self) -> None:
        """End the process."""
        self._qemu.close()
