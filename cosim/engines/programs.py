"""Programs of this machine that stand for slots (ssh, srun): their stdin held open, their output in a log, their end polled."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from cosim.engines.base import Exit
from cosim.errors import UsageError

TAIL = 2000
"""Bytes of a log's end that an `Exit` quotes."""


def tail(log: Path) -> str:
    """The last lines of a log, "" without one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def how(status: int | None, log: Path) -> str:
    """An exit status in words, with the last lines of the log."""
    text = "" if status is None else f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    end = tail(log)
    return f"{text}; it wrote: {end}" if end else text


class Programs:
    """Started programs by slot name."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def start(self, name: str, argv: Sequence[str], log: Path, stdin: bytes) -> None:
        """Start a program, write `stdin` (less than a pipe holds) to it and keep its stdin open.

        In a process group of its own, so that Ctrl-C reaches the supervisor alone. When this process dies, however it
        dies, the program's stdin ends.

        Raises:
            UsageError: there is no such program.
        """
        with log.open("ab") as output:
            try:
                process = subprocess.Popen(
                    list(argv), stdin=subprocess.PIPE, stdout=output, stderr=output, process_group=0
                )
            except FileNotFoundError:
                raise UsageError(
                    f"the program {argv[0]!r} must be there to start {name}, and was not found",
                    code="engine-program",
                    where=argv[0],
                    next_step="install it, or choose another --engine",
                ) from None
        self._running[name] = process, log
        assert process.stdin is not None
        try:
            process.stdin.write(stdin)
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended already; `poll` says how

    def poll(self) -> list[Exit]:
        """Those that have ended since the last call."""
        ended = []
        for name, (process, log) in list(self._running.items()):
            status = process.poll()
            if status is not None:
                self._forget(name)
                ended.append(Exit(name, status, how(status, log)))
        return ended

    async def stop(self, grace_s: float) -> None:
        """End their stdin; after `grace_s` seconds kill those that still run."""
        for process, _ in self._running.values():
            _close(process)
        deadline = time.monotonic() + grace_s
        while self._running and time.monotonic() < deadline:
            self.poll()
            await anyio.sleep(0.02)
        for process, _ in self._running.values():
            process.kill()
            process.wait()
        for name in list(self._running):
            self._forget(name)

    def _forget(self, name: str) -> None:
        process, _ = self._running.pop(name)
        _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.close()
    except BrokenPipeError:
        pass
