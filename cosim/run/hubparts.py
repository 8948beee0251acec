"""What the hub uses: its journals, and the final reports of the workers put together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from cosim.core.journal import HEADER, frame_record


class HubLink(Protocol):
    """What the hub needs of its link. `closed` names the workers whose connections ended, `twice` those that came a second
    time, if the link can tell."""

    closed: list[bytes]
    twice: list[bytes]

    def wait(self, timeout_ms: int | None) -> bool: ...

    def receive(self) -> tuple[bytes, bytes] | None: ...

    def send(self, identity: bytes, frame: bytes) -> None: ...


class Journal:
    """One append-only file per worker: what was delivered to it (G) and what came back (D)."""

    def __init__(self, folder: Path | None, workers: int) -> None:
        self._files: list[BinaryIO] = []
        if folder is not None:
            for worker in range(workers):
                file = (folder / f"w{worker}.journal").open("wb", buffering=1 << 16)
                file.write(HEADER)
                self._files.append(file)

    def add(self, worker: int, tag: bytes, frame: bytes) -> None:
        """Append one frame."""
        if self._files:
            self._files[worker].write(frame_record(tag + frame))

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Flush and close."""
        for file in self._files:
            file.close()
        self._files = []


class Reports(NamedTuple):
    """The final reports of all workers: end of the last event (ps), messages, nodes by name, registers, messages per link,
    events per node, side records not yet seen."""

    end_time: int
    messages: int
    nodes: dict[str, Any]
    registers: list[Any]
    sent: list[Any]
    work: list[Any]
    sides: list[bytes]


def gather(finals: Mapping[int, Any]) -> Reports:
    """Put the reports together, by worker."""
    nodes: dict[str, Any] = {}
    registers: list[Any] = []
    sent: list[Any] = []
    work: list[Any] = []
    sides: list[bytes] = []
    end_time = total = 0
    for worker in sorted(finals):
        time_ps, _events, messages, entries, side, snapshots, traffic = finals[worker]
        registers += snapshots
        sent += traffic[0]
        work += traffic[1]
        end_time = max(end_time, time_ps)
        total += messages
        for name, *values in entries:
            nodes[name] = dict(
                zip(("now", "count", "digest", "counters", "waits", "off", "epochs"), values, strict=True)
            )
        if side is not None:
            sides.append(side)
    return Reports(end_time, total, nodes, registers, sent, work, sides)


def place_of(text: str) -> str:
    """The last ``file:line`` of a traceback."""
    place = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith('File "'):
            path, _, rest = line[6:].partition('"')
            place = f"{path}:{rest.split(',')[1].strip().removeprefix('line ')}"
    return place
