"""A QEMU process that is paused and obeys: its sockets, its end with ours, and its own words when something is wrong."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cosim.attach.qemu_wire import Gdb, QemuError, Qmp, QTest

BINARY = "qemu-system-aarch64"
PACKAGE = "Debian package qemu-system-arm"
START_S = 30.0
"""Wall-clock limit of QEMU's start."""
ANSWER_S = 20.0
"""Wall-clock limit of one answer, unless another one is given."""
_SLICE_S = 0.25


def version(binary: str = BINARY) -> str:
    """What `binary` says about itself, such as ``QEMU emulator version 7.2.22 (...)``. Raises QemuError."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=START_S)
    except FileNotFoundError:
        raise QemuError(f"{binary} must be installed ({PACKAGE}), but was not found") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QemuError(f"{binary} must tell its version: {error}") from None
    first = done.stdout.partition("\n")[0]
    if done.returncode or "QEMU" not in first:
        said = (first or done.stderr).strip() or "nothing"
        raise QemuError(f"{binary} must be QEMU for AArch64 ({PACKAGE}); asked for its version it said {said}")
    return first


def _die_with(parent: int) -> None:
    """In the child: end when the parent ends, however it ends (PR_SET_PDEATHSIG, prctl(2))."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    listener.listen(1)
    listener.settimeout(_SLICE_S)
    return listener


class QemuProcess:
    """A paused machine with a client of each of its sockets: `qtest`, `qmp`, `gdb`. Close it.

    Args:
        machine: what QEMU is to simulate: its options, without those for sockets, display and start.
        binary: of QEMU.
        answer_s: wall-clock limit of each of its answers; None: no limit.

    Raises:
        QemuError: it did not start; QEMU's own output is in the text.
    """

    qtest: QTest
    qmp: Qmp
    gdb: Gdb

    def __init__(self, machine: Sequence[str], *, binary: str = BINARY, answer_s: float | None = ANSWER_S) -> None:
        self._machine, self._binary, self._answer_s = machine, binary, answer_s
        self._output = tempfile.TemporaryFile()
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[socket.socket] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        with tempfile.TemporaryDirectory(
            prefix="cosim-qemu-"
        ) as name:  # of the sockets, which need no names afterwards
            qtest, qmp, gdb = self._connect(Path(name))
        self.qtest = QTest(qtest)
        try:
            self.qmp = Qmp(qmp)
            self.gdb = Gdb(gdb)
        except QemuError as error:
            raise self.blame(error) from None

    def _command(self, folder: Path) -> list[str]:
        return [
            self._binary, "-no-user-config", "-nodefaults", "-display", "none", "-S", *self._machine,
            "-qtest", f"unix:{folder}/qtest", "-qtest-log", "/dev/null", "-qmp", f"unix:{folder}/qmp",
            "-chardev", f"socket,id=gdb,path={folder}/gdb", "-gdb", "chardev:gdb",
        ]  # fmt: skip

    def _connect(self, folder: Path) -> list[socket.socket]:
        """Start the process, which connects to three sockets of ours."""
        names = ("qtest", "qmp", "gdb")
        parent = os.getpid()
        with ExitStack() as stack:
            try:
                listeners = [stack.enter_context(_listen(folder / name)) for name in names]
            except OSError as error:
                raise QemuError(f"{folder} must take sockets, but: {error}; set TMPDIR to a shorter path") from None
            try:
                self._process = subprocess.Popen(
                    self._command(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=lambda: _die_with(parent),
                )
            except FileNotFoundError:
                raise QemuError(f"{self._binary} must be installed ({PACKAGE}), but was not found") from None
            except OSError as error:
                raise QemuError(f"{self._binary} must start, but: {error}") from None
            return [self._accept(name, listener) for name, listener in zip(names, listeners, strict=True)]

    def _accept(self, name: str, listener: socket.socket) -> socket.socket:
        assert self._process is not None
        for _ in range(int(START_S / _SLICE_S)):
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if self._process.poll() is not None:
                    break
                continue
            self._sockets.append(connection)
            connection.settimeout(self._answer_s)
            return connection
        raise self.blame(QemuError(f"{self._binary} must connect to its {name} socket within {START_S:g} s"))

    def blame(self, error: QemuError) -> QemuError:
        """The error with what is known about the process."""
        assert self._process is not None
        try:
            status = self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            state = "it is still there"
        else:
            state = f"it ended by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"
        self._output.seek(0)
        output = self._output.read().decode(errors="replace").strip()[-1000:]
        return QemuError(f"{error}; {state}, and its output is: {output or 'nothing'}")

    def close(self) -> None:
        """End the process."""
        for connection in self._sockets:
            connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._output.close()
