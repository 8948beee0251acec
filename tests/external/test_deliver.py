"""A grant of more than one frame: deliveries of sequence number 0 go ahead of it, to nodes that can take them."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from cosim.attach.client import AttachClient, AttachError
from cosim.attach.plan import DELIVER
from cosim.core.codec import LIMITS, FrameType, decode, encode, pack_records
from cosim.core.message import Record
from cosim.run.hubparts import grant_frames
from tests.external.test_foreign import foreign, hello
from tests.vectors import make_attach

BLOCK = 4096
BLOBS = 5
PER_BLOB = 1200


class Wire:
    """A socket that has its frames already, and keeps what is sent."""

    def __init__(self, frames: list[bytes]) -> None:
        self.frames = deque(frames)
        self.sent: list[bytes] = []

    def receive(self, timeout_ms: int | None = None) -> bytes:
        """The next frame."""
        return self.frames.popleft()

    def send(self, frame: bytes) -> None:
        """Keep it."""
        self.sent.append(frame)

    def close(self) -> None:
        """Nothing is open."""


def client(monkeypatch: pytest.MonkeyPatch, frames: list[bytes]) -> tuple[AttachClient, Wire]:
    """The node of the vectors, joined."""
    wire = Wire([bytes.fromhex(make_attach.vectors()["welcome"]), *frames])
    monkeypatch.setattr("cosim.attach.client._open", lambda *_arguments: wire)
    return AttachClient("ipc://nowhere", "dut", {"regs": "mmio_target"}, "secret"), wire


def blobs() -> list[tuple[int, bytes]]:
    """Posted writes of 4 KiB, more than a frame takes, in blobs of 5 MB."""
    writes = [
        [Record(100_000 + n, b * PER_BLOB + n, 4, 66, (0, BLOCK, bytes(BLOCK), 3)) for n in range(PER_BLOB)]
        for b in range(BLOBS)
    ]
    return [(1, pack_records(records)) for records in writes]


def test_more_than_a_frame_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 MB of inputs go out in frames within the limit, and are one grant to the node: all inputs, one answer."""
    frames = grant_frames(1, 200_000, blobs(), whole=False)
    assert len(frames) > 2 and max(map(len, frames)) <= LIMITS.max_frame < sum(map(len, frames))
    assert [decode(frame).body[0] for frame in frames] == [0] * (len(frames) - 1) + [1]
    made, wire = client(monkeypatch, frames)
    with made as node:
        grant = node.wait()
        assert grant is not None and grant.bound == 200_000
        assert sum(1 for _ in grant) == BLOBS * PER_BLOB
        node.done()
    answers = [decode(frame) for frame in wire.sent]
    assert DELIVER in answers[0].body[4]["caps"]
    assert [a.body[0] for a in answers if a.type is FrameType.DONE] == [1]


def test_numbers_of_grants_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery has no number: the grant after it must have the next one."""
    made, _wire = client(monkeypatch, [encode(FrameType.GRANT, 0, 0, []), encode(FrameType.GRANT, 2, 10, [])])
    with made as node, pytest.raises(AttachError, match="GRANT must have number 1"):
        node.wait()


def test_counters_beyond_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that no report can carry is named."""
    made, _wire = client(monkeypatch, [encode(FrameType.BYE, "quiescent", None)])
    with made as node, pytest.raises(AttachError, match=r"a counter must fit in 64 bits, not rings \(0x1000"):
        node.count["rings"] = 1 << 64
        node.wait()


@pytest.mark.parametrize(("caps", "whole"), [((DELIVER,), False), (("wave",), True), ((), True)])
def test_who_can_not_gets_whole_grants(caps: tuple[Any, ...], whole: bool) -> None:
    """The hub splits grants for nodes only whose HELLO says that they take it."""
    node = foreign()
    node.admit(hello(caps=caps))
    assert node.whole is whole
