"""The wire codec: bytes to frames and back; docs/protocol.md is its specification.

A frame is an 8-byte prefix (magic ``CSA1``, type, flags 0, two reserved zero bytes) and a msgpack array body. Decoding is
total: any bytes give a `Frame` or a `WireError`; every limit is explicit in `Limits`. Message records travel in opaque blobs
(one per destination worker), which a hub passes on unopened; `unpack_records` opens one at the receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn

import msgpack

from cosim.core.message import Record
from cosim.core.time import NEVER

MAGIC = b"CSA1"
VERSION = (1, 0)
PREFIX_SIZE = 8


class FrameType(IntEnum):
    """Frame types; the comment gives the body's fields."""

    HELLO = 1  # version [major, minor], name, kind, pid, options {}
    WELCOME = 2  # version, worker plan (bin), limits [max_frame, max_messages]
    READY = 3  # next_event, next_out
    GRANT = 4  # seq, bound, [[worker, blob], ...]
    DONE = 5  # seq, now, next_event, next_out, events, [[worker, arrival, wake, blob], ...], side (bin or nil)
    LOG = 6  # side (bin)
    ERROR = 7  # code, node, sim_time_ps, what, traceback
    BYE = 8  # hub: reason; worker: final report (bin)
    REFUSED = 9  # code, what
    QUERY = 10  # number, registers (0 or 1)
    STATUS = 11  # number, report (bin)


class Limits(NamedTuple):
    """What a peer may send: frame size and string or blob size in bytes, array length, messages per frame, nesting."""

    max_frame: int = 16 * 1024 * 1024
    max_messages: int = 65_536
    max_array: int = 131_072
    max_nesting: int = 12


LIMITS = Limits()


class WireError(Exception):
    """Bytes that are not a frame, or break a limit; the text names the rule."""


class Frame(NamedTuple):
    """A decoded frame."""

    type: FrameType
    body: tuple[Any, ...]


# Per type: how the body's fields must look. i: int of 0..2**63-1, s: str, b: bytes, a: array, m: map, n: bytes or nil.
_SHAPES = {
    FrameType.HELLO: "assim",
    FrameType.WELCOME: "aba",
    FrameType.READY: "ii",
    FrameType.GRANT: "iia",
    FrameType.DONE: "iiiiian",
    FrameType.LOG: "b",
    FrameType.ERROR: "ssiss",
    FrameType.BYE: "sn",
    FrameType.REFUSED: "ss",
    FrameType.QUERY: "ii",
    FrameType.STATUS: "ib",
}
_ITEM_SHAPES = {FrameType.GRANT: (2, "ib"), FrameType.DONE: (5, "iiib")}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "i": int,
    "s": str,
    "b": bytes,
    "a": tuple,
    "m": dict,
    "n": (bytes, type(None)),
}
_PLAIN = frozenset((int, bytes, str, bool, type(None)))
_PREFIXES = {t: MAGIC + bytes((t, 0, 0, 0)) for t in FrameType}
_KINDS = {prefix: kind for kind, prefix in _PREFIXES.items()}
_packer = msgpack.Packer(use_bin_type=True, autoreset=True)


def encode(type: FrameType, *body: Any) -> bytes:
    """The bytes of a frame; the caller gives the fields that `FrameType` lists."""
    packed: bytes = _packer.pack(body)
    return _PREFIXES[type] + packed


def decode(data: bytes, limits: Limits = LIMITS) -> Frame:
    """The frame in `data`.

    Raises:
        WireError: wrong magic, unknown type, malformed or too large body, fields that do not fit the type.
    """
    size = len(data)
    if size > limits.max_frame:
        raise WireError(f"frame must have at most {limits.max_frame} bytes (max_frame), not {size}")
    kind = _KINDS.get(data[:PREFIX_SIZE]) or _refuse_prefix(data)
    body = _unpack(data[PREFIX_SIZE:], limits)
    quick = _QUICK.get(kind)
    if quick is None or not quick(body):
        _check(kind.name, body, _SHAPES[kind])
        item = _ITEM_SHAPES.get(kind)
        if item is not None:
            position, shape = item
            list(map(lambda entry: _check(f"batch of {kind.name}", entry, shape), body[position]))  # noqa: C417
    return Frame(kind, body)


def _refuse_prefix(data: bytes) -> NoReturn:
    """Say what is wrong with the first bytes of a frame."""
    if data[:4] != MAGIC or len(data) < PREFIX_SIZE:
        raise WireError(f"frame must begin with {MAGIC!r}, not {bytes(data[:4])!r}")
    if data[5:8] != b"\0\0\0":
        raise WireError(f"flags and reserved bytes must be 0, not {bytes(data[5:8])!r}")
    raise WireError(f"frame type must be one of {', '.join(t.name for t in FrameType)}, not {data[4]}")


def _quick_grant(body: Any) -> bool:
    """Whether a GRANT is well formed; the usual cases only, in one expression: `_check` says what is wrong with the rest."""
    if type(body) is not tuple or len(body) != 3:
        return False
    seq, bound, batches = body
    if not (type(seq) is int is type(bound) and 0 <= seq <= NEVER and 0 <= bound <= NEVER and type(batches) is tuple):
        return False
    for batch in batches:
        if type(batch) is not tuple or len(batch) != 2 or type(batch[0]) is not int or type(batch[1]) is not bytes:
            return False
        if not 0 <= batch[0] <= NEVER:
            return False
    return True


def _quick_done(body: Any) -> bool:
    """The same for DONE."""
    if type(body) is not tuple or len(body) != 7:
        return False
    seq, now, next_event, next_out, events, batches, side = body
    if not (type(seq) is int is type(now) and type(next_event) is int is type(next_out) and type(events) is int):
        return False
    if min(seq, now, next_event, next_out, events) < 0 or max(seq, now, next_event, next_out, events) > NEVER:
        return False
    if type(batches) is not tuple or (side is not None and type(side) is not bytes):
        return False
    for batch in batches:
        if type(batch) is not tuple or len(batch) != 4 or type(batch[3]) is not bytes:
            return False
        worker, arrival, wake, _ = batch
        if not (type(worker) is int is type(arrival) and type(wake) is int):
            return False
        if not (0 <= worker <= NEVER and 0 <= arrival <= NEVER and 0 <= wake <= NEVER):
            return False
    return True


_QUICK: dict[FrameType, Callable[[Any], bool]] = {FrameType.GRANT: _quick_grant, FrameType.DONE: _quick_done}


def _unpack(data: bytes, limits: Limits) -> Any:
    try:
        body = msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            strict_map_key=True,
            max_str_len=limits.max_frame,
            max_bin_len=limits.max_frame,
            max_array_len=limits.max_array,
            max_map_len=4096,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises ValueError, TypeError, UnicodeError, RecursionError and its own
        raise WireError(f"body must be msgpack within the limits, not {type(error).__name__}: {error}") from None
    return body


def _check(what: str, body: Any, shape: str) -> None:
    if type(body) is not tuple or len(body) != len(shape):
        raise WireError(f"{what} must be an array of {len(shape)} fields, not {_brief(body)}")
    for position, (value, letter) in enumerate(zip(body, shape, strict=True)):
        if not isinstance(value, _TYPES[letter]) or type(value) is bool:
            raise WireError(f"field {position} of {what} must be {_TYPES[letter]}, not {_brief(value)}")
        if isinstance(value, int) and not 0 <= value <= NEVER:
            raise WireError(f"field {position} of {what} must be in 0..2**63-1, not {value}")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def pack_records(records: Iterable[Record]) -> bytes:
    """The blob of a batch of messages."""
    packed: bytes = _packer.pack(list(records))
    return packed


def unpack_records(blob: bytes, limits: Limits = LIMITS) -> tuple[Record, ...]:
    """The messages in a blob, in the order in which they were sent.

    Raises:
        WireError: not a blob of records, too many of them, or nested too deeply.
    """
    body = _unpack(blob, limits)
    if type(body) is not tuple or len(body) > limits.max_messages:
        raise WireError(f"blob must be an array of at most {limits.max_messages} messages, not {_brief(body)}")
    for entry in body:
        if not _quick_record(entry):
            _check("message", entry, "iiiia")
            if _depth(entry[4]) > limits.max_nesting:
                raise WireError(f"fields of a message must nest at most {limits.max_nesting} deep")
    return tuple(map(Record._make, body))


def _quick_record(entry: Any) -> bool:
    """Whether a message is well formed and its fields are not nested."""
    if type(entry) is not tuple or len(entry) != 5:
        return False
    arrival, seq, link, kind, fields = entry
    if not (type(arrival) is int is type(seq) and type(link) is int is type(kind) and type(fields) is tuple):
        return False
    if min(arrival, seq, link, kind) < 0 or arrival > NEVER or max(seq, link, kind) > NEVER:
        return False
    return _PLAIN.issuperset(map(type, fields))


def _depth(value: tuple[Any, ...]) -> int:
    deepest = 1
    for item in value:
        if type(item) is tuple:
            deepest = max(deepest, 1 + _depth(item))
        elif type(item) not in _PLAIN:
            raise WireError(f"fields of a message must be int, bytes, str, bool, nil or arrays, not {_brief(item)}")
    return deepest
