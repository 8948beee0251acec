"""What goes between a host's hub and the root inside of the protocol's frames; docs/protocol.md has it as a table.

To the root a host is a worker: the frames are those of a worker, and the root passes their blobs on unopened. Only what is in
them differs. A *parcel* is the blob of a batch between hosts: what goes from one host to another in one grant, an entry for each
pair of workers, each with the blob that the sending worker made, unopened.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgpack

from cosim.core.barrier import Out
from cosim.core.codec import LIMITS, WireError
from cosim.core.time import NEVER

PARCEL_BYTES = OUTBOX_BYTES = 1 << 20
"""Most bytes of blobs in one parcel, but for a blob that has more by itself; and what a host may have to send before it reports to
the root. A frame may have far more, but on a slow network a host is heard when a whole frame has come."""
REPORT_BYTES = SIDE_BYTES = 256 << 10
"""Most bytes of reports in one BYE or STATUS, and of side records in one frame, but for one that has more by itself."""
WELCOME_BYTES = 256 << 20
"""Most bytes of a plan once it is unpacked."""
RECEIVED = "received"
"""Reason of the BYE with which the root answers the last part of a host's: then the host may close its connection."""
HEARTBEAT = 0
"""Number of a QUERY or STATUS that asks nothing and answers nothing: it tells that the sender lives."""


Batch = tuple[int, int, int, bytes]
"""Of a DONE to the root: host, earliest arrival and wake in ps, parcel."""


class Entry(NamedTuple):
    """What one worker sends to one of another host in a grant: numbers of both in the plan, earliest arrival and wake in ps
    (as in `cosim.core.barrier.Out`), the messages as their sender packed them."""

    dst: int
    src: int
    arrival: int
    wake: int
    blob: bytes


def pack_parcels(host: int, entries: Sequence[Entry]) -> Iterator[Batch]:
    """The batches (host, arrival, wake, parcel) of a DONE for one host."""
    first = size = 0
    for place, entry in enumerate(entries):
        if size and size + len(entry.blob) > PARCEL_BYTES:
            yield _batch(host, entries[first:place])
            first, size = place, 0
        size += len(entry.blob)
    yield _batch(host, entries[first:])


def _batch(host: int, entries: Sequence[Entry]) -> Batch:
    arrival, wake = min(e.arrival for e in entries), min(e.wake for e in entries)
    packed: bytes = msgpack.packb(entries, use_bin_type=True)
    return host, arrival, wake, packed


def split_batches(batches: Sequence[Batch]) -> tuple[list[Sequence[Batch]], Sequence[Batch]]:
    """The batches of a DONE as what goes ahead in DONEs of sequence number 0, and what is left for the DONE itself, each of
    `OUTBOX_BYTES` at most, or of one batch: workers that run at once may together have sent far more than one frame takes."""
    parts: list[list[Batch]] = [[]]
    size = 0
    for batch in batches:
        if parts[-1] and size + len(batch[3]) > OUTBOX_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(batch)
        size += len(batch[3])
    return list(parts[:-1]), parts[-1]


def unpack_parcel(data: bytes, own: Iterable[int], sender: Iterable[int]) -> list[Entry]:
    """The entries of a parcel.

    Raises:
        WireError: not a parcel, for a worker that is not among `own`, or from one that is not among the `sender`'s.
    """
    try:
        body = msgpack.unpackb(data, use_list=False, max_bin_len=LIMITS.max_frame, max_ext_len=0)
        entries = [Entry(*entry) for entry in body]
    except Exception as error:  # msgpack raises ValueError, TypeError, UnicodeError and its own
        raise WireError(
            f"parcel must be an array of [to, from, arrival, wake, blob], not {type(error).__name__}: {error}"
        ) from None
    for entry in entries:
        if entry.dst not in own or entry.src not in sender:
            raise WireError(
                f"parcel must be from a worker of the sending host to one of this, not {entry.src} to {entry.dst}"
            )
        if not (
            _time(entry.arrival) and _time(entry.wake) and entry.arrival <= entry.wake and type(entry.blob) is bytes
        ):
            raise WireError(
                f"entry of a parcel must be arrival <= wake in ps and a blob, not {entry.arrival}, {entry.wake}"
            )
    return entries


def _time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= NEVER


def outs(entries: Iterable[Entry]) -> list[Out]:
    """The times of entries, as the barrier takes them."""
    return [Out(entry.dst, entry.arrival, entry.wake) for entry in entries]


def pack_welcome(order: dict[str, Any]) -> bytes:
    """The plan in a host's WELCOME: the host's part of the plan, and how it is to run it."""
    packed: bytes = msgpack.packb(order, use_bin_type=True)
    return zlib.compress(packed, 1)


def unpack_welcome(data: bytes) -> dict[str, Any]:
    """The inverse of `pack_welcome`; WireError for anything else."""
    try:
        opener = zlib.decompressobj()
        packed = opener.decompress(data, WELCOME_BYTES)
        order = msgpack.unpackb(packed, strict_map_key=False)
    except (zlib.error, ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"plan in a host's WELCOME must be a compressed map: {error}") from None
    if not isinstance(order, dict):
        raise WireError(f"plan in a host's WELCOME must be a map, not {type(order).__name__}")
    return order


def pack_side(records: list[Any]) -> list[bytes]:
    """Side records in parts that fit into a frame (or of one record)."""
    packed: bytes = msgpack.packb(records, use_bin_type=True)
    if len(packed) <= SIDE_BYTES or len(records) == 1:
        return [packed]
    half = len(records) // 2
    return pack_side(records[:half]) + pack_side(records[half:])


def pack_reports(reports: Iterable[bytes], last: dict[str, Any]) -> Iterator[bytes]:
    """What workers reported (final reports, answers to a query), each as it came, in parts of [[report, ...], None]; the last part
    has in place of None what the host adds."""
    part: list[bytes] = []
    size = 0
    for report in reports:
        if part and size + len(report) > REPORT_BYTES:
            yield msgpack.packb([part, None], use_bin_type=True)
            part, size = [], 0
        part.append(report)
        size += len(report)
    yield msgpack.packb([part, last], use_bin_type=True)


def unpack_reports(data: bytes | None) -> tuple[list[Any], dict[str, Any] | None]:
    """The reports of a part, unpacked, and what the host adds to the last one; WireError for anything else."""
    try:
        reports, last = msgpack.unpackb(data or b"", strict_map_key=False)
        return [msgpack.unpackb(report, strict_map_key=False) for report in reports], last
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"a host's report must be [[report, ...], nil or map], not {error!r}") from None


def error_text(fields: dict[str, Any]) -> str:
    """What a host's ERROR has in place of a traceback: where, next_step, exit_code and the traceback, as JSON text."""
    return json.dumps({name: fields.get(name, "") for name in ("where", "next_step", "exit_code", "traceback")})


def error_fields(text: str) -> dict[str, Any]:
    """The inverse of `error_text`; WireError for anything else."""
    try:
        found = json.loads(text)
        return {
            "where": str(found["where"]),
            "next_step": str(found["next_step"]),
            "exit_code": int(found["exit_code"]),
            "traceback": str(found["traceback"]),
        }
    except (ValueError, TypeError, KeyError) as error:
        raise WireError(
            f"text of a host's ERROR must be a JSON object with where, next_step, exit_code, traceback: {error!r}"
        ) from None


def pack_beat(seq: int, horizon: int, now: int, figures: tuple[int, int, int]) -> bytes:
    """A host's heartbeat: number of the grant that it works on (or of the last), the time (ps) below which all is executed there,
    its furthest worker's clock (ps), and its events, grants and messages so far."""
    packed: bytes = msgpack.packb([seq, horizon, now, *figures])
    return packed


def unpack_beat(data: bytes) -> tuple[int, int, int, int, int, int]:
    """The inverse of `pack_beat`; WireError for anything else."""
    try:
        seq, horizon, now, events, grants, messages = body = msgpack.unpackb(data, use_list=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"a heartbeat must be six integers: {error!r}") from None
    if not all(_time(value) for value in body):
        raise WireError(f"a heartbeat must be six integers of 0..2**63-1, not {body}")
    return seq, horizon, now, events, grants, messages
