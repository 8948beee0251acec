"""What the hub uses: its journals, and the final reports of the workers put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import msgpack

from cosim.core.codec import GRANT_PREFIX, FrameType, encode, pack
from cosim.core.journal import HEADER, record_parts

JOURNAL_BYTES = 8 << 20
"""Most bytes of frames that wait to be written to the journals."""
DELIVERY_BYTES = 8 << 20
"""Most bytes of messages in one GRANT, but for a blob that has more by itself: half of what a frame may have."""


_GRANT = FrameType.GRANT  # bound once: an attribute of an enum class costs a call each time


class HubLink(Protocol):
    """What the hub needs of its link. `closed` names the workers whose connections ended, `twice` those that came a second
    time, if the link can tell."""

    closed: list[bytes]
    twice: list[bytes]
    refused_peers: list[tuple[str, str]]

    def wait(self, timeout_ms: int | None) -> bool: ...

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next (identity, frame); None when `wait` must look for more."""

    def joined(self, identity: bytes) -> bool: ...

    def send(self, identity: bytes, frame: bytes) -> None: ...


class Journal:
    """One append-only file per worker: what was delivered to it (G) and what came back (D).

    `fault` is why it could not be written (a full disk); nothing is written from then on.
    """

    def __init__(self, folder: Path | None, workers: int) -> None:
        self._files: list[BinaryIO] = []
        self._frames: list[tuple[int, bytes, bytes]] = []  # worker, tag, frame
        self._bytes = 0
        self.fault: OSError | None = None
        if folder is not None:
            for worker in range(workers):
                file = (folder / f"w{worker}.journal").open("wb", buffering=1 << 16)
                file.write(HEADER)
                self._files.append(file)

    def add(self, worker: int, tag: bytes, frame: bytes) -> None:
        """Append one frame. It is only noted here; `flush`, which is called ten times a second, writes it."""
        if self._files:
            self._frames.append((worker, tag, frame))
            self._bytes += len(frame)
            if self._bytes > JOURNAL_BYTES:
                self.flush()

    def flush(self) -> None:
        """Hand what was noted to the operating system."""
        frames, self._frames, self._bytes = self._frames, [], 0
        parts: dict[int, list[bytes]] = {}
        for worker, tag, frame in frames:
            parts.setdefault(worker, []).extend(record_parts(tag, frame))
        try:
            for worker, kept in parts.items():
                self._files[worker].write(b"".join(kept))
                self._files[worker].flush()
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        files, self._files = self._files, []
        for file in files:
            try:
                file.close()
            except OSError as error:
                self.fault = self.fault or error

    def _fail(self, error: OSError) -> None:
        self.fault = error
        self._frames = []
        self.close()


def grant_frames(seq: int, bound: int, blobs: list[tuple[int, bytes]], *, whole: bool) -> list[bytes]:
    """A GRANT; before it, unless it must be `whole`, grants of sequence number 0, which only deliver what is too much for one
    frame: a worker that others hold back has no limit on what waits for it."""
    if len(blobs) < 2:
        return [GRANT_PREFIX + pack((seq, bound, blobs))]
    frames = []
    if not whole:
        first = size = 0
        for place, (_worker, blob) in enumerate(blobs):
            if size and size + len(blob) > DELIVERY_BYTES:
                frames.append(encode(FrameType.GRANT, 0, 0, blobs[first:place]))
                first, size = place, 0
            size += len(blob)
        blobs = blobs[first:]
    return [*frames, encode(_GRANT, seq, bound, blobs)]


def journal_error(fault: OSError, now: int) -> dict[str, Any]:
    """The error of a run whose journal could not be written at `now` ps."""
    return {
        "what": f"the journal in the run directory must be writable to the end of the run: {fault.strerror}",
        "node": None,
        "sim_time_ps": now,
        "where": "journal",
        "next_step": "make room, or name a directory on another disk with --run-dir",
        "exit_code": 2,
    }


class SideRecords:
    """Side records of all nodes, put into the order of (time, node id, number)."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, list[Any]]] = []

    def add(self, packed: bytes) -> None:
        """Account for the records of one frame."""
        for record in msgpack.unpackb(packed, strict_map_key=False):
            heappush(self._heap, (record[0], record[1], record[2], record))

    def take(self, horizon: int) -> Iterator[list[list[Any]]]:
        """The records below `horizon` (ps), in order, some hundreds at a time."""
        heap = self._heap
        while heap and heap[0][0] < horizon:
            part: list[list[Any]] = []
            while heap and heap[0][0] < horizon and len(part) < 500:
                part.append(heappop(heap)[3])
            yield part


def live_view(found: list[Any]) -> dict[str, Any]:
    """Workers' answers to a query (clocks, waits, counters, registers), each put together."""
    return {
        name: [entry for report in found for entry in report[place]]
        for place, name in enumerate(("clocks", "waits", "counters", "registers"))
    }


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
