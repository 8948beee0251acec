"""The baton at a worker: when it grants the next one itself. The test plays the hub and the other workers."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.core.codec import Frame, FrameType, decode, encode, pack_records, unpack_records
from cosim.core.plan import LinkPlan, NodePlan, Plan
from cosim.core.time import NEVER
from cosim.node import worker as worker_module
from cosim.node.worker import Worker

BYE = encode(FrameType.BYE, "quiescent", None)


class Hub:
    """A worker's socket: gives the frames of a list in turn, keeps what is sent, and passes on if the test lets it."""

    def __init__(self, frames: list[bytes], passes: bool) -> None:
        self.frames = frames
        self.sent: list[Frame] = []
        self.passed: list[tuple[str, Frame]] = []
        self.passes = passes
        self.status = -1

    def receive(self, timeout_ms: int | None = None) -> bytes | None:
        """The next frame of the list."""
        return self.frames.pop(0)

    def send(self, frame: bytes) -> None:
        """Keep it."""
        self.sent.append(decode(frame))

    def pass_on(self, identity: str, frame: bytes) -> bool:
        """Keep it, with whom it is for; False when the test says so."""
        if self.passes:
            self.passed.append((identity, decode(frame)))
        return self.passes

    def close(self) -> None:
        """There is nothing to close."""


class Lone(Hub):
    """The socket of a link whose workers do not reach each other."""

    pass_on = None  # type: ignore[assignment]


def plan(model: str = "tests.support.models:Ring", **params: Any) -> Plan:
    """Two nodes that pass a token to and fro, 10 ns apart, and a third that n0 may send to as well."""
    settings = {"rounds": 100, "work_us": 0, **params}
    nodes = tuple(NodePlan(n, f"n{n}", "ring", {"index": n, **settings}, 0, {}, model) for n in range(2))
    links = tuple(LinkPlan(n, n, "out", 1 - n, "into", 10_000, {}) for n in range(2))
    return Plan("p", 1, nodes, links, ((0,), (1,)))


def run(number: int, *frames: bytes, socket: type[Hub] = Hub, passes: bool = True, made: Plan | None = None) -> Hub:
    """Worker `number` of the plan gets these frames after its WELCOME, then BYE."""
    made = plan() if made is None else made
    returns, between = made.distances().returns(made.groups), made.distances().between(made.groups)
    own = made.worker_plan(number, dict(returns[number]), between[number])
    welcome = encode(FrameType.WELCOME, (1, 0), own.to_msgpack(), [1 << 20, 1000])
    hub = socket([welcome, *frames, BYE], passes)
    hub.status = Worker(hub, f"w{number}").serve()
    assert [frame.type for frame in hub.sent[:2]] == [FrameType.HELLO, FrameType.READY]
    return hub


def lead(quiet: int, seq: int, bound: int, *batches: tuple[int, bytes], who: tuple[int, int] | None = None) -> bytes:
    """A LEAD: nobody has anything to do before `quiet`, but worker who[0] at who[1]."""
    number, time = who or (0, quiet)
    return encode(FrameType.LEAD, time, number, quiet, encode(FrameType.GRANT, seq, bound, batches))


def onward(*blobs: bytes) -> list[bytes]:
    """PASSes from worker 0; nobody has anything to do before 600 ns."""
    return [encode(FrameType.PASS, 600_000, 1, 600_000, 700_000, 0, blob) for blob in blobs]


def passed(frame: Frame) -> tuple[int, Frame]:
    """The bound of a PASSED, and the DONE in it."""
    assert frame.type is FrameType.PASSED
    return frame.body[1], decode(frame.body[2])


def token(arrival: int, n: int, link: int) -> bytes:
    """A blob with one token."""
    return pack_records([(arrival, 0, link, 910 * 64, (n,))])


def three(first: str = "tests.support.models:Ring") -> Plan:
    """A third node, that n0 may send to as well if its model, `first`, is Both."""
    made = plan()
    third = NodePlan(2, "n2", "ring", {"index": 2, "rounds": 100}, 0, {}, "tests.support.models:Ring")
    more = (LinkPlan(2, 0, "other", 2, "into", 10_000, {}),) if first.endswith("Both") else ()
    nodes = (made.nodes[0]._replace(model=first), made.nodes[1], third)
    return made._replace(nodes=nodes, links=(*made.links, *more), groups=((0,), (1,), (2,)))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No grant is a long one, however loaded the machine."""
    monkeypatch.setattr(worker_module, "PASS_S", 600.0)
    monkeypatch.setattr(worker_module, "HURRY_S", 600.0)


def test_one_who_leads_grants_the_one_it_sends_to() -> None:
    """The other gets the blob and the bound up to which nobody else speaks; the hub gets that bound and the DONE."""
    hub = run(0, lead(700_000, 1, 900_000))
    bound, done = passed(hub.sent[2])
    ((identity, frame),) = hub.passed
    assert (identity, bound, done.type) == ("w1", 700_000, FrameType.DONE)
    ((to, arrival, _wake, blob),) = done.body[5]
    assert (to, arrival) == (1, 10_000)
    assert frame == Frame(FrameType.PASS, (700_000, 1, 700_000, 700_000, 0, blob))
    assert hub.sent[2].body[0] == 1
    assert [record[0] for record in unpack_records(blob)] == [10_000]


def test_the_bound_is_that_of_the_promise_where_that_is_lower() -> None:
    """One who may speak again at 5 ns lets the other, 10 ns away, run to 15 ns, and count with a word of its own from 5 ns on."""
    made = plan()
    made = made._replace(nodes=(made.nodes[0]._replace(model="tests.support.models:Twice"), made.nodes[1]))
    hub = run(0, lead(NEVER, 1, 1), made=made)
    assert passed(hub.sent[2])[0] == 15_000
    ((identity, frame),) = hub.passed
    assert (identity, frame.body[:5]) == ("w1", (5_000, 0, NEVER, 15_000, 0))


def test_a_passed_grant_is_executed_and_passed_on() -> None:
    """PASS has no number: it is the next one, of the hub's too; up to its bound nobody else speaks, so it goes on from there."""
    hub = run(
        1,
        *onward(token(10_000, 1, 0), token(30_000, 3, 0)),
        encode(FrameType.GRANT, 3, 80_000, [(0, token(50_000, 5, 0))]),
    )
    assert [frame.type for frame in hub.sent[2:]] == [FrameType.PASSED, FrameType.PASSED, FrameType.DONE, FrameType.BYE]
    dones = [passed(frame)[1] for frame in hub.sent[2:4]] + [hub.sent[4]]
    assert [done.body[0] for done in dones] == [1, 2, 3]
    assert [done.body[5][0][1] for done in dones] == [20_000, 40_000, 60_000]
    assert [(identity, frame.body[:5]) for identity, frame in hub.passed] == [
        ("w0", (600_000, 0, 600_000, 600_000, 1))
    ] * 2


@pytest.mark.parametrize("frame", [encode(FrameType.GRANT, 1, 900_000, []), lead(10_000, 1, 900_000)])
def test_one_who_was_not_told_to_or_would_grant_nothing_does_not(frame: bytes) -> None:
    """After a GRANT, and where the message arrives when others may speak, the hub grants."""
    hub = run(0, frame)
    assert hub.passed == [] and hub.sent[2].type is FrameType.DONE


@pytest.mark.parametrize(("socket", "passes"), [(Hub, False), (Lone, True)])
def test_one_who_can_not_reach_the_other_leaves_it_to_the_hub(socket: type[Hub], passes: bool) -> None:
    """A link that says no, now or because it has no such thing: the answer is a DONE like any other."""
    hub = run(0, lead(700_000, 1, 900_000), socket=socket, passes=passes)
    assert hub.passed == [] and hub.sent[2].type is FrameType.DONE
    assert len(hub.sent[2].body[5]) == 1


def test_after_a_long_grant_the_hub_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the work is in the models, nodes that could work at the same time must."""
    monkeypatch.setattr(worker_module, "PASS_S", 0.0002)
    hub = run(1, *onward(token(10_000, 1, 0)), made=plan(work_us=1000))
    assert hub.passed == [] and hub.sent[2].type is FrameType.DONE


def test_a_large_blob_goes_by_way_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes, or more messages, than are passed on leave the baton with the hub."""
    monkeypatch.setattr(worker_module, "PASS_BYTES", len(token(10_000, 1, 0)) - 1)
    hub = run(0, lead(700_000, 1, 900_000))
    assert hub.passed == [] and hub.sent[2].type is FrameType.DONE
    monkeypatch.undo()
    monkeypatch.setattr(worker_module, "PASS_RECORDS", 0)
    monkeypatch.setattr(worker_module, "PASS_S", 600.0)
    hub = run(0, lead(700_000, 1, 900_000))
    assert hub.passed == []


def test_one_who_sends_nothing_grants_the_one_that_is_known_to_be_next() -> None:
    """With an empty blob, up to where nobody else speaks; not if that one has nothing to do before."""
    hub = run(1, lead(700_000, 1, 900_000, who=(0, 500_000)))
    assert hub.sent[2].body[0] == 0
    bound, done = passed(hub.sent[2])
    assert (bound, done.body[5]) == (700_000, ())
    ((identity, frame),) = hub.passed
    assert (identity, frame.body) == ("w0", (700_000, 0, 700_000, 700_000, 1, pack_records([])))
    hub = run(1, lead(700_000, 1, 900_000, who=(0, 700_000)))
    assert hub.passed == [] and hub.sent[2].type is FrameType.DONE
    hub = run(0, encode(frame.type, *frame.body))  # and who gets it runs
    assert (hub.passed[0][0], passed(hub.sent[2])[1].body[:2]) == ("w1", (1, 20_000))


def test_what_is_sent_to_one_waits_at_the_hub_while_another_is_granted() -> None:
    """The token for worker 1 arrives at 10 ns; worker 2 has something to do at 8 ns: it is granted up to 10 ns, without it."""
    made = three()
    hub = run(0, lead(700_000, 1, 900_000, who=(2, 8_000)), made=made)
    bound, done = passed(hub.sent[2])
    assert (hub.sent[2].body[0], bound) == (2, 10_000)
    assert [(batch[0], unpack_records(batch[3])[0][0]) for batch in done.body[5]] == [(1, 10_000)]
    ((identity, frame),) = hub.passed
    assert (identity, frame.body) == ("w2", (10_000, 2, 10_000, 10_000, 0, pack_records([])))


def test_who_sends_to_nobody_or_to_two_gives_the_baton_back() -> None:
    """No message and nobody known of, or messages for two workers: DONE."""
    hub = run(1, lead(700_000, 1, 900_000))
    assert hub.passed == [] and hub.sent[2].type is FrameType.DONE and hub.sent[2].body[5] == ()
    hub = run(0, lead(700_000, 1, 900_000, who=(1, 5_000)), made=three("tests.support.models:Both"))
    assert hub.passed == [] and [batch[0] for batch in hub.sent[2].body[5]] == [1, 2]


def test_a_fault_after_the_baton_came_is_told_like_any_other() -> None:
    """A model that raises under a passed grant passes nothing on: ERROR, and the worker ends."""
    hub = run(
        1,
        *onward(token(10_000, 3, 0)),
        made=plan(model="tests.support.models:Raises"),
    )
    assert hub.status == 3 and hub.passed == []
    assert hub.sent[2].type is FrameType.ERROR and hub.sent[2].body[1:3] == ("n1", 10_000)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (encode(FrameType.LEAD, 5, 0, 5, encode(FrameType.QUERY, 1, 0)), "a LEAD must carry a GRANT, not QUERY"),
        (encode(FrameType.LEAD, 5, 0, 5, b"CSA1"), "must begin with"),
        (encode(FrameType.PASS, -1, 0, 0, 0, 0, b""), "in 0.."),
        (encode(FrameType.PASSED, 1, 5, b""), "a worker must get GRANT, QUERY or BYE, not PASSED"),
    ],
)
def test_frames_that_break_a_rule_end_the_worker(frame: bytes, text: str) -> None:
    """LEAD without a GRANT, PASS out of range, PASSED: an ERROR "bad-frame"."""
    hub = run(0, frame)
    assert hub.status == 4
    assert hub.sent[2].type is FrameType.ERROR and hub.sent[2].body[0] == "bad-frame" and text in hub.sent[2].body[3]
