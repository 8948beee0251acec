"""The wire codec is total: any bytes are a frame or a WireError."""

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.core.codec import (
    LIMITS,
    MAGIC,
    PREFIX_SIZE,
    QUICK_SIZE,
    FrameType,
    Limits,
    WireError,
    decode,
    encode,
    pack_records,
    quick_done,
    quick_grant,
    quick_own,
    quick_records,
    unpack_records,
)
from cosim.core.message import Record
from cosim.core.time import NEVER

BODIES: dict[FrameType, tuple[Any, ...]] = {
    FrameType.HELLO: ((1, 0), "w0", "python", 123, {}),
    FrameType.WELCOME: ((1, 0), b"plan", (1, 2)),
    FrameType.READY: (0, NEVER),
    FrameType.GRANT: (1, 500, ((0, b"blob"), (3, b""))),
    FrameType.DONE: (1, 500, 600, 600, 7, ((2, 510, 520, b"blob"),), None),
    FrameType.LOG: (b"side",),
    FrameType.ERROR: ("node-raised", "pe0", 17, "what", "traceback"),
    FrameType.BYE: ("done", None),
    FrameType.REFUSED: ("version", "text"),
    FrameType.QUERY: (4, 1),
    FrameType.STATUS: (4, b"report"),
    FrameType.LEAD: (900, 2, 950, b"a GRANT"),
    FrameType.PASS: (900, 2, 950, 970, 1, b"blob"),
    FrameType.PASSED: (1, 900, b"a DONE"),
}

fields = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20) | st.text(max_size=10) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)
times = st.integers(0, NEVER)
records = st.builds(Record, times, times, times, times, st.lists(fields, max_size=4).map(tuple))


@pytest.mark.parametrize("kind", list(FrameType))
def test_every_frame_type_survives_the_wire(kind: FrameType) -> None:
    """Each type's body comes back as it was sent."""
    assert decode(encode(kind, *BODIES[kind])) == (kind, BODIES[kind])


@given(st.lists(records, max_size=5))
def test_records_survive_the_wire(batch: list[Record]) -> None:
    """Messages with any legal fields come back equal and in order."""
    assert list(unpack_records(pack_records(batch))) == batch


@settings(max_examples=300)
@given(st.binary(max_size=60), st.booleans(), st.sampled_from(list(FrameType)))
def test_any_bytes_are_a_frame_or_a_wire_error(data: bytes, prefixed: bool, kind: FrameType) -> None:
    """No bytes raise anything but WireError, with or without a valid prefix."""
    if prefixed:
        data = MAGIC + bytes((kind, 0, 0, 0)) + data
    for call in (decode, unpack_records):
        try:
            call(data)
        except WireError:
            pass


@settings(max_examples=300)
@given(st.sampled_from(list(FrameType)), st.data())
def test_a_mutated_frame_is_a_frame_or_a_wire_error(kind: FrameType, data: st.DataObject) -> None:
    """Changing, cutting or adding bytes of a valid frame raises nothing but WireError."""
    frame = bytearray(encode(kind, *BODIES[kind]))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(frame) - 1))
        frame[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    try:
        decode(bytes(frame[:cut]))
    except WireError:
        pass


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "must begin with"),
        (b"CSA2\x01\0\0\0\x90", "must begin with"),
        (MAGIC + b"\x63\0\0\0\x90", "frame type must be one of"),
        (MAGIC + b"\x0a\x01\0\0\x91\x01", "flags and reserved"),
        (MAGIC + b"\x0a\0\0\0\x91", "must be msgpack"),
        (MAGIC + b"\x0a\0\0\0\x93\x01\x01\x01", "array of 2 fields"),
        (MAGIC + b"\x0a\0\0\0\x92\xff\x01", "in 0..2"),
        (MAGIC + b"\x0a\0\0\0\x92\xc3\x01", "must be <class 'int'>"),
        (MAGIC + b"\x04\0\0\0\x93\x01\x01\x91\x91\x01", "batch of GRANT"),
        (MAGIC + b"\x06\0\0\0\x91\xc7\x01\x05x", "must be msgpack"),
    ],
)
def test_the_error_names_the_broken_rule(data: bytes, text: str) -> None:
    """Magic, type, flags, msgpack, shape, range, type of field and extension types each have their text."""
    with pytest.raises(WireError, match=text):
        decode(data)


def test_limits_are_enforced() -> None:
    """A frame, a number of messages, nesting and types of fields beyond the limits are refused."""
    with pytest.raises(WireError, match="max_frame"):
        decode(b"x" * 100, Limits(max_frame=99))
    batch = [Record(1, 1, 1, 1, ())] * 3
    with pytest.raises(WireError, match="at most 2 messages"):
        unpack_records(pack_records(batch), LIMITS._replace(max_messages=2))
    deep: tuple[Any, ...] = ()
    for _ in range(20):
        deep = (deep,)
    with pytest.raises(WireError, match="nest at most"):
        unpack_records(pack_records([Record(1, 1, 1, 1, deep)]))
    for bad in (1.5, {"a": 2}):
        with pytest.raises(WireError, match="must be int, bytes"):
            unpack_records(msgpack.packb([[1, 1, 1, 1, [bad]]]))
    with pytest.raises(WireError, match=r"\.\.\."):
        unpack_records(msgpack.packb([["x" * 200, 1, 1, 1, []]]))


VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "frames.json").read_text())


def plain(value: Any) -> Any:
    """A decoded body in the form of the vector file."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda v: v["type"])
def test_frames_are_as_the_vectors_say(vector: dict[str, Any]) -> None:
    """Each frame of the vector file decodes to its body, and encodes to its bytes."""
    frame = decode(bytes.fromhex(vector["hex"]))
    assert (frame.type.name, plain(frame.body)) == (vector["type"], vector["body"])
    assert encode(frame.type, *frame.body).hex() == vector["hex"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda v: v["why"])
def test_bytes_that_the_vectors_refuse_are_refused(vector: dict[str, Any]) -> None:
    """Each malformed vector is a WireError."""
    with pytest.raises(WireError):
        decode(bytes.fromhex(vector["hex"]))


def test_blobs_are_as_the_vectors_say() -> None:
    """A blob of the vector file gives its records."""
    for vector in VECTORS["blobs"]:
        assert plain(unpack_records(bytes.fromhex(vector["hex"]))) == vector["records"]


QUICK = {FrameType.GRANT: quick_grant, FrameType.DONE: quick_done}
odd = times | st.sampled_from((-1, 2**64 - 1, True, None, 1.5, b"", ()))


@settings(max_examples=400)
@given(st.data())
def test_the_quick_look_says_what_the_full_check_says_or_nothing(data: st.DataObject) -> None:
    """Whatever the bytes: a body found quickly is the one that `decode` finds."""
    kind = data.draw(st.sampled_from(list(QUICK)))
    batch = st.tuples(odd, st.binary(max_size=4)) | st.tuples(odd, odd, odd, st.binary(max_size=4)) | odd
    shape = [odd] * (2 if kind is FrameType.GRANT else 5) + [st.lists(batch, max_size=2).map(tuple)]
    body = data.draw(st.tuples(*shape, *[st.none() | st.binary(max_size=4)] * (kind is FrameType.DONE)))
    frame = bytearray(encode(data.draw(st.sampled_from((kind, kind, kind, FrameType.READY))), *body))
    if data.draw(st.booleans()):
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    found = QUICK[kind](bytes(frame))
    assert found is None or decode(bytes(frame)) == (kind, found)


@given(st.lists(records | st.tuples(odd, times, times, times, st.just(())), max_size=3), st.binary(max_size=3))
def test_messages_found_quickly_are_those_of_the_full_check(batch: list[Any], tail: bytes) -> None:
    """Whatever the blob: messages found quickly are those that `unpack_records` finds."""
    blob = pack_records(batch) + tail
    found = quick_records(blob)
    assert found is None or unpack_records(blob) == found


BATON = {FrameType.LEAD: 3, FrameType.PASS: 5, FrameType.PASSED: 2}
"""Times and numbers before the bytes at the end."""


@settings(max_examples=300)
@given(st.data())
def test_the_quick_look_at_the_baton_says_what_the_full_check_says_or_nothing(data: st.DataObject) -> None:
    """Whatever follows the prefix of LEAD, PASS or PASSED: a body found quickly is the one that `decode` finds."""
    kind = data.draw(st.sampled_from(list(BATON)))
    wanted = [times] * BATON[kind] + [st.binary(max_size=4)]
    body = data.draw(st.tuples(*wanted) | st.lists(odd, max_size=4).map(tuple))
    frame = bytearray(encode(kind, *body))
    if data.draw(st.booleans()):
        frame[data.draw(st.integers(PREFIX_SIZE, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    found = quick_own(bytes(frame))
    assert found is None or decode(bytes(frame)) == (kind, found)


@pytest.mark.parametrize("kind", list(BATON))
def test_the_usual_frames_of_the_baton_are_found_quickly(kind: FrameType) -> None:
    """A usual body is found; a large frame, cut bytes, no array, other lengths, types and ranges are left to the full check."""
    quick, usual = quick_own, BODIES[kind]
    assert quick(encode(kind, *usual)) == usual
    assert quick(encode(FrameType.LOG, b"side")) is None
    assert quick(encode(kind, *usual[:-1], bytes(QUICK_SIZE))) is None
    assert quick(encode(kind, *usual)[:-1]) is None
    assert quick(encode(kind)[:PREFIX_SIZE] + msgpack.packb(7)) is None
    for place, value in enumerate(usual):
        for wrong in (-1, 2**64 - 1, "text") if type(value) is int else (7, "text"):
            assert quick(encode(kind, *usual[:place], wrong, *usual[place + 1 :])) is None
    assert quick(encode(kind, *usual, 1)) is None


def test_the_usual_frames_are_found_quickly() -> None:
    """Grants, answers and blobs as runs are full of need no full check; a large frame always gets it."""
    for kind, quick in QUICK.items():
        assert quick(encode(kind, *BODIES[kind])) == BODIES[kind]
        assert quick(encode(kind, *BODIES[kind]) + bytes(QUICK_SIZE)) is None
    usual = [Record(5, 1, 2, 3, (1, b"x", None)), Record(6, 2, 2, 3, ())]
    assert quick_records(pack_records(usual)) == tuple(usual)
    assert quick_records(pack_records(usual) + bytes(QUICK_SIZE)) is None
    assert quick_records(msgpack.packb(7)) is None
    odd_batch = (1, 5, 6, 6, 0, ((0, 9, 8, b""),), None)  # it would wake its receiver before it arrives
    assert quick_done(encode(FrameType.DONE, *odd_batch)) is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FrameType.GRANT, (1, -1, ())),
        (FrameType.GRANT, (1, 5, ((-1, b""),))),
        (FrameType.GRANT, (1, 5, ((1, "text"),))),
        (FrameType.GRANT, (1, 5, 7)),
        (FrameType.GRANT, (1, 5)),
        (FrameType.DONE, (1, 5, 4, 6, 0, (), None)),
        (FrameType.DONE, (1, 5, 6, 6, 0, ((1, 3, 2, b""),), None)),
        (FrameType.DONE, (1, 5, 6, 6, 0, (7,), None)),
        (FrameType.DONE, (1, 5, 6, 6, 0, (), "text")),
    ],
)
def test_what_is_unusual_is_left_to_the_full_check(kind: FrameType, body: tuple[Any, ...]) -> None:
    """Figures out of order or of the wrong type are never found quickly."""
    assert QUICK[kind](encode(kind, *body)) is None


@pytest.mark.parametrize("entry", [(1, 2, 3, 4, 5), (-1, 2, 3, 4, ()), (1, 2, 3, 4, ((),)), (1, 2), 7])
def test_an_unusual_message_is_left_to_the_full_check(entry: Any) -> None:
    """Wrong types, nested fields and arrays of another length are never found quickly."""
    assert quick_records(msgpack.packb([entry])) is None


def test_the_full_check_names_what_is_wrong_with_a_grant_or_an_answer() -> None:
    """Figures out of range, batches of the wrong shape."""
    for kind, body, text in [
        (FrameType.GRANT, (1, -1, ()), "in 0..2"),
        (FrameType.GRANT, (1, 5, ((-1, b""),)), "in 0..2"),
        (FrameType.DONE, (1, 5, 6, 6, 0, ((1, 2, 3),), None), "batch of DONE"),
        (FrameType.HELLO, ("x",), "array of"),
    ]:
        with pytest.raises(WireError, match=text):
            decode(encode(kind, *body))
