"""The vfio-user codec against arbitrary bytes."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.export import vfio_user as codec
from cosim.export.vfio_user import HEADER, Message, Receiver, Refused, StreamError

PARSERS: list[Callable[[Message], object]] = [
    codec.parse_version,
    codec.parse_map,
    codec.parse_unmap,
    codec.parse_set_irqs,
    codec.parse_access,
    lambda message: codec.parse_info(message, 16),
    lambda message: codec.parse_info(message, 32),
]


def cut(data: bytes, sizes: list[int]) -> list[Message]:
    """The messages of a stream that is read in pieces."""
    receiver, found, at, turn = Receiver(), [], 0, 0
    while at < len(data):
        size = min(receiver.wanted, sizes[turn % len(sizes)])
        message = receiver.feed(data[at : at + size])
        at, turn = at + size, turn + 1
        if message is not None:
            found.append(message)
    return found


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_any_bytes_give_messages_or_a_stream_error(data: bytes, sizes: list[int]) -> None:
    """Reading is total, never looks beyond the bytes it has, and what it gives does not depend on how the stream was cut."""

    def outcome(cuts: list[int]) -> list[Message] | str:
        try:
            return cut(data, cuts)
        except StreamError as error:
            return str(error)

    assert outcome(sizes) == outcome([1])


_MESSAGES = st.lists(
    st.builds(
        Message, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.just(0) | st.just(0x10), st.just(0), st.binary()
    ),
    max_size=5,
)


@given(_MESSAGES, st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_messages_come_back_as_they_were(messages: list[Message], sizes: list[int]) -> None:
    """A stream of messages is read back whole, however it was cut."""
    stream = b"".join(
        HEADER.pack(m.id, m.command, HEADER.size + len(m.payload), m.flags, m.error) + m.payload for m in messages
    )
    assert cut(stream, sizes) == messages


@given(st.integers(0, 20), st.binary(max_size=64) | st.binary(min_size=4092, max_size=4200))
def test_any_payload_is_parsed_or_refused(command: int, payload: bytes) -> None:
    """Each parser gives a request or an errno, for any payload."""
    message = Message(1, command, 0, 0, payload)
    for parse in PARSERS:
        try:
            parse(message)
        except Refused as why:
            assert why.code in (errno.EINVAL, errno.ENOTSUP) and str(why)


@given(st.binary(max_size=40), st.sampled_from([11, 12]))
def test_any_answer_to_dma_is_parsed_or_ends_the_stream(payload: bytes, command: int) -> None:
    """The client's answers are checked against what was asked."""
    message = Message(1, command, 1, 0, payload)
    try:
        data = codec.parse_dma_reply(message, 0x1000, 4)
    except StreamError:
        return
    assert len(data) == (4 if command == 11 else 0)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["capabilities", "max_msg_fds", "max_data_xfer_size"]), inner)
    ),
    max_leaves=8,
)


@given(_JSON)
def test_any_json_is_a_version_or_refused(value: object) -> None:
    """Capabilities of the wrong type are refused, and those taken have the right one."""
    import json

    payload = struct.pack("=HH", 0, 0) + json.dumps(value).encode() + b"\0"
    try:
        found = codec.parse_version(Message(1, 1, 0, 0, payload))
    except Refused as why:
        assert why.code == errno.EINVAL
        return
    assert type(found.capabilities.get("max_msg_fds", 1)) is int


@pytest.mark.parametrize("data", [b"[" * 4000 + b"\0", b"9" * 4000 + b"\0", b"\xff\0", b"{}", b"{}\0" + bytes(4094)])
def test_version_data_that_would_break_a_parser(data: bytes) -> None:
    """Deep nesting, endless numbers, bad UTF-8, a missing zero byte and too much of it are EINVAL."""
    payload = struct.pack("=HH", 0, 0) + data
    try:
        codec.parse_version(Message(1, 1, 0, 0, payload))
    except Refused as why:
        assert why.code == errno.EINVAL
    else:
        pytest.fail("it must be refused")


@pytest.mark.parametrize("size, flags", [(15, 0), (0, 0), (codec.MAX_MESSAGE + 1, 0), (16, 2), (16, 0xF)])
def test_headers_that_end_the_stream(size: int, flags: int) -> None:
    """A size out of bounds or an unknown type is a StreamError."""
    with pytest.raises(StreamError, match=r"must be"):
        Receiver().feed(HEADER.pack(1, 1, size, flags, 0))


def test_a_receiver_takes_no_more_than_it_wants() -> None:
    """Bytes of the next message, whose descriptors would then be taken for this one's, are a mistake of the caller's."""
    with pytest.raises(ValueError, match="at most 16 bytes"):
        Receiver().feed(bytes(17))
