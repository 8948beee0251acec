"""QEMU as the oracle: a paused `virt` machine of two CPUs, which runs one program at a time to its breakpoint.

A program's run is: reset, tables zeroed, code written (qtest), continue to the breakpoint (debugger stub), log read (qtest).
The CPUs share one thread, so that the order of their steps is the program's.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.differential import agent, layout
from tests.differential.observe import View
from tests.differential.steps import Program
from tests.differential.wire import Gdb, OracleError, Qmp, QTest

BINARY = "qemu-system-aarch64"
TIMEOUT_S = 60.0

Observed = tuple[int, dict[str, object]]
"""A step's result (what a read gave, else 0) and everything that is compared after it."""


def missing() -> str:
    """Why there is no oracle, or ""."""
    return "" if shutil.which(BINARY) else f"{BINARY} is not installed (Debian package qemu-system-arm)"


class Oracle:
    """One QEMU process for one GIC version ("3" or "4.0"); close it."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.view = View(version)
        self._folder = Path(tempfile.mkdtemp(prefix="cosim-qemu-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._streams: list[Any] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        listeners = {name: self._listen(name) for name in ("qtest", "qmp", "gdb")}
        number = {"3": 3, "4.0": 4}[self.version]
        command = [
            BINARY, "-nodefaults", "-display", "none", "-cpu", "cortex-a57", "-smp", str(layout.CPUS), "-m", "128M",
            "-machine", f"virt,gic-version={number},virtualization=on,its=on", "-accel", "tcg,thread=single", "-S",
            "-qtest", f"unix:{self._folder}/qtest", "-qtest-log", "/dev/null", "-qmp", f"unix:{self._folder}/qmp",
            "-chardev", f"socket,id=gdb,path={self._folder}/gdb", "-gdb", "chardev:gdb",
            "-device", f"loader,addr={layout.AGENT:#x},cpu-num=0", "-device", "edu,addr=1.0", "-device", "edu,addr=2.0",
        ]  # fmt: skip
        if shutil.which("setpriv"):  # however this process ends, QEMU ends too
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        try:
            with (self._folder / "output").open("wb") as output:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
            connections = {name: self._accept(name, listener) for name, listener in listeners.items()}
        finally:
            for listener in listeners.values():
                listener.close()
        self.qtest, self.gdb = QTest(connections["qtest"]), Gdb(connections["gdb"])
        self._streams += [self.qtest, self.gdb]
        self.qmp = Qmp(connections["qmp"])
        self._streams.append(self.qmp)
        self.gdb.ask("qSupported:swbreak+;vContSupported+")
        self.gdb.breakpoint(agent.END)
        self.qtest.write(layout.AGENT, agent.image())
        for address, code in agent.observers(self.version).items():
            self.qtest.write(address, code)

    def _listen(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._folder / name))
        listener.listen(1)
        listener.settimeout(TIMEOUT_S)
        return listener

    def _accept(self, name: str, listener: socket.socket) -> socket.socket:
        assert self._process is not None
        listener.settimeout(0.5)
        for _ in range(int(TIMEOUT_S * 2)):
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if self._process.poll() is not None:
                    break
                continue
            connection.settimeout(TIMEOUT_S)
            return connection
        raise OracleError(f"QEMU must connect to its {name} socket, but said: {self._output()}")

    def _output(self) -> str:
        return (self._folder / "output").read_text(errors="replace")[-2000:] or "nothing"

    def run(self, program: Program) -> list[Observed]:
        """Execute a program from reset; one entry per step."""
        if program.version != self.version:
            raise ValueError(f"the program must be for GICv{self.version}, not {program.version}")
        self.qmp.command("system_reset", "RESET")
        self.qtest.fill_zero(layout.TABLES, layout.TABLES_END - layout.TABLES)
        self.qtest.fill_zero(layout.MAILBOX, 24)
        for address, code in agent.compile_program(program).items():
            if code:
                self.qtest.write(address, code)
        stop = self.gdb.resume()
        if not stop.startswith("T05"):
            raise OracleError(f"QEMU must stop at the breakpoint, not with {stop!r}")
        count = agent.log_words(program)
        words = struct.unpack(f"<{count}Q", self.qtest.read(layout.LOG, 8 * count))
        size = 1 + self.view.words
        rows = [words[start : start + size] for start in range(0, count, size)]
        return [(row[0], self.view.decode(row[1:])) for row in rows]

    def close(self) -> None:
        """End the process and remove its files."""
        for stream in self._streams:
            stream.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
