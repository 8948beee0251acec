"""The wire codec: bytes to frames and back; docs/protocol.md is its specification.

A frame is an 8-byte prefix (magic ``CSA1``, type, flags 0, two reserved zero bytes) and a msgpack array body. Decoding is
total: any bytes give a `Frame` or a `WireError`; every limit is explicit in `Limits`. Message records travel in opaque blobs
(one per destination worker), which a hub passes on unopened; `unpack_records` opens one at the receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn

import msgpack

from cosim.core.message import Record, RecordTuple
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
    LEAD = 12  # quiet (three fields), a GRANT (bin)
    PASS = 13  # quiet (three fields), bound, from worker, blob
    PASSED = 14  # to worker, bound, a DONE (bin)


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
    FrameType.LEAD: "iiib",
    FrameType.PASS: "iiiiib",
    FrameType.PASSED: "iib",
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
DONE_PREFIX, GRANT_PREFIX = _PREFIXES[FrameType.DONE], _PREFIXES[FrameType.GRANT]
LEAD_PREFIX, PASS_PREFIX, PASSED_PREFIX = (
    _PREFIXES[FrameType.LEAD],
    _PREFIXES[FrameType.PASS],
    _PREFIXES[FrameType.PASSED],
)
_OWN_SIZES = {_PREFIXES[t]: len(_SHAPES[t]) for t in (FrameType.LEAD, FrameType.PASS, FrameType.PASSED)}
_packer = msgpack.Packer(use_bin_type=True, autoreset=True)
pack: Callable[[Any], bytes] = _packer.pack
_unpackb = msgpack.unpackb
QUICK_SIZE = 65_536
"""Frames and blobs up to so many bytes keep within every limit of `Limits` by their size alone: those on arrays too."""


def encode(type: FrameType, *body: Any) -> bytes:
    """The bytes of a frame; the caller gives the fields that `FrameType` lists."""
    return _PREFIXES[type] + pack(body)


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
    _check(kind.name, body, _SHAPES[kind])
    item = _ITEM_SHAPES.get(kind)
    if item is not None:
        position, shape = item
        list(map(lambda entry: _check(f"batch of {kind.name}", entry, shape), body[position]))  # noqa: C417
    return Frame(kind, body)


def quick_done(data: bytes) -> Any:
    """The body of a DONE as it comes nearly always; None for every other frame, and for what `decode` should judge.

    Beyond the shape it asks for now <= next_event <= next_out and arrival <= wake, so that one comparison does for many.
    """
    if data[:PREFIX_SIZE] != DONE_PREFIX or len(data) > QUICK_SIZE:
        return None
    try:
        body = _unpackb(data[PREFIX_SIZE:], use_list=False)
        seq, now, next_event, next_out, events, batches, side = body
        if not (
            type(seq) is type(now) is type(next_event) is type(next_out) is type(events) is int
            and 0 <= now <= next_event <= next_out <= NEVER >= seq >= 0 <= events <= NEVER
            and type(batches) is tuple
            and (side is None or type(side) is bytes)
        ):
            return None
        for worker, arrival, wake, blob in batches:
            if not (
                type(worker) is type(arrival) is type(wake) is int
                and 0 <= arrival <= wake <= NEVER >= worker >= 0
                and type(blob) is bytes
            ):
                return None
    except (TypeError, ValueError, msgpack.UnpackException):
        return None
    return body


def quick_grant(data: bytes) -> Any:
    """The body of a GRANT as it comes nearly always; None for every other frame, and for what `decode` should judge."""
    if data[:PREFIX_SIZE] != GRANT_PREFIX or len(data) > QUICK_SIZE:
        return None
    try:
        body = _unpackb(data[PREFIX_SIZE:], use_list=False)
        seq, bound, batches = body
        if not (type(seq) is type(bound) is int and 0 <= seq <= NEVER >= bound >= 0 and type(batches) is tuple):
            return None
        for worker, blob in batches:
            if not (type(worker) is int and 0 <= worker <= NEVER and type(blob) is bytes):
                return None
    except (TypeError, ValueError, msgpack.UnpackException):
        return None
    return body


def quick_records(blob: bytes) -> Sequence[RecordTuple] | None:
    """The messages in a blob as they come nearly always, without their names; None for what `unpack_records` should judge."""
    if len(blob) > QUICK_SIZE:
        return None
    try:
        body: tuple[RecordTuple, ...] = _unpackb(blob, use_list=False)
        if type(body) is not tuple:
            return None
        for arrival, seq, link, kind, fields in body:
            if not (
                type(arrival) is type(seq) is type(link) is type(kind) is int
                and 0 <= arrival <= NEVER >= seq >= 0 <= link <= NEVER >= kind >= 0
                and type(fields) is tuple
                and _PLAIN.issuperset(map(type, fields))
            ):
                return None
    except (TypeError, ValueError, msgpack.UnpackException):
        return None
    return body


def quick_own(data: bytes) -> Any:
    """The body of a LEAD, PASS or PASSED, which only our own workers and hub exchange: times and numbers, and bytes at the end.
    None for what `decode` should judge."""
    shape = _OWN_SIZES.get(data[:PREFIX_SIZE])
    if shape is None or len(data) > QUICK_SIZE:
        return None
    try:
        body = _unpackb(data[PREFIX_SIZE:], use_list=False)
    except (ValueError, msgpack.UnpackException):
        return None
    if type(body) is not tuple or len(body) != shape or type(body[-1]) is not bytes:
        return None
    for value in body[:-1]:
        if type(value) is not int or not 0 <= value <= NEVER:
            return None
    return body


def _refuse_prefix(data: bytes) -> NoReturn:
    """Say what is wrong with the first bytes of a frame."""
    if data[:4] != MAGIC or len(data) < PREFIX_SIZE:
        raise WireError(f"frame must begin with {MAGIC!r}, not {bytes(data[:4])!r}")
    if data[5:8] != b"\0\0\0":
        raise WireError(f"flags and reserved bytes must be 0, not {bytes(data[5:8])!r}")
    raise WireError(f"frame type must be one of {', '.join(t.name for t in FrameType)}, not {data[4]}")


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


def pack_records(records: Iterable[RecordTuple]) -> bytes:
    """The blob of a batch of messages."""
    return pack(records if type(records) is list else list(records))


def unpack_records(blob: bytes, limits: Limits = LIMITS) -> tuple[Record, ...]:
    """The messages in a blob, in the order in which they were sent.

    Raises:
        WireError: not a blob of records, too many of them, or nested too deeply.
    """
    body = _unpack(blob, limits)
    if type(body) is not tuple or len(body) > limits.max_messages:
        raise WireError(f"blob must be an array of at most {limits.max_messages} messages, not {_brief(body)}")
    for entry in body:
        _check("message", entry, "iiiia")
        if _depth(entry[4]) > limits.max_nesting:
            raise WireError(f"fields of a message must nest at most {limits.max_nesting} deep")
    return tuple(map(Record._make, body))


def _depth(value: tuple[Any, ...]) -> int:
    deepest = 1
    for item in value:
        if type(item) is tuple:
            deepest = max(deepest, 1 + _depth(item))
        elif type(item) not in _PLAIN:
            raise WireError(f"fields of a message must be int, bytes, str, bool, nil or arrays, not {_brief(item)}")
    return deepest
