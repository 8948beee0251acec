"""What a Dask worker runs for engine `dask`: `hold` as a task, `release` outside the task system. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence

from cosim.engines.base import program
from cosim.engines.slot import order

TAIL = 2000

_held: dict[str, subprocess.Popen[bytes]] = {}
_released: set[str] = set()
_lock = threading.Lock()


class Secret:
    """Bytes that no log shows: Dask writes the arguments of a task that failed."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return "Secret(...)"


def hold(run: str, name: str, command: Sequence[str], credential: Secret, log: str) -> tuple[int, str]:
    """Run a slot's command beside this worker process until it ends; returns its exit status and its last output.

    The command ends with this process: the launcher's stdin does. Nothing is raised, since a task that raised is shown
    with its arguments.

    Args:
        run: token of the run, for `release`.
        name: the slot's.
        command: argv words; "cosim" is the one of this interpreter.
        credential: what it reads from stdin; empty if it reads a file.
        log: path of a file for its output; "" is a temporary one.
    """
    words = [sys.executable, "-m", "cosim.engines.slot", "--", *program(command)]
    try:
        with open(log, "ab+") if log else tempfile.TemporaryFile() as output:
            with _lock:
                if run in _released:
                    return 0, "released before it began"
                process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=output, stderr=output, process_group=0)
                _held[f"{run} {name}"] = process
            try:
                return _to_end(process, credential.data, output.fileno())
            finally:
                _held.pop(f"{run} {name}", None)
                _close(process)
    except OSError as error:
        return 2, f"{name} can't be started on this host: {error}"


def _to_end(process: subprocess.Popen[bytes], credential: bytes, output: int) -> tuple[int, str]:
    assert process.stdin is not None
    try:
        process.stdin.write(order(credential))
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended: its status says how
    status = process.wait()
    size = os.fstat(output).st_size
    return status, os.pread(output, TAIL, max(0, size - TAIL)).decode(errors="replace").strip()


def release(run: str) -> int:
    """End what `hold` runs on this worker for a run, now and later; returns how many commands that were."""
    with _lock:
        _released.add(run)
        mine = [process for key, process in _held.items() if key.startswith(f"{run} ")]
    for process in mine:
        _close(process)
    return len(mine)


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.close()
    except (BrokenPipeError, ValueError):
        pass
