"""What the kernel refuses: sends, timers and inputs that break a rule of time, each named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cosim.core.kernel import MAX_LEAVING_PER_GRANT, Kernel, LinkEnd, ModelFault
from cosim.core.message import Protocol, Record
from cosim.core.tasks import MAX_STEPS_AT_ONE_INSTANT
from cosim.core.time import NEVER

TEST = Protocol("kernel-test", 900, [("A", 30, ("n",)), ("B", 40, ("n",))])
LINKS = {0: LinkEnd(0, 1, 10, 1), 1: LinkEnd(1, 0, 10, 0), 2: LinkEnd(0, 2, 10, 0), 3: LinkEnd(2, 0, 10, 0)}


class Scripted:
    """A node whose handler and promise the test gives."""

    def __init__(self, node_id: int, reaction: int = 0, promising: bool = False) -> None:
        self.id, self.name, self.now, self.reaction, self.promising = node_id, f"n{node_id}", 0, reaction, promising
        self.seen: list[tuple[int, int, tuple[Any, ...]]] = []
        self.react: Callable[[], None] = lambda: None
        self.promised: int | None = None
        self.ready: list[Any] = []
        self.answer: Any = None

    def receiver(self, link: int, kind: int) -> Callable[..., Any]:
        """Record, then do what the test says."""

        def receive(*fields: Any) -> Any:
            self.seen.append((self.now, link, fields))
            self.react()
            return self.answer

        return receive

    def accept(self, result: Any) -> None:
        """Nothing comes of a message."""

    def settle(self) -> int:
        """No tasks."""
        return 0

    def promise(self) -> int | None:
        """What the test says."""
        return self.promised


def make(**kwargs: Any) -> tuple[Kernel, Scripted, Scripted]:
    """Nodes 0 and 2 here, node 1 with another worker that needs 25 ps to answer."""
    node, neighbour = Scripted(0, **kwargs), Scripted(2)
    return Kernel(0, [node, neighbour], LINKS, {1: 5}, {1: 25}), node, neighbour


def rule_of(kernel: Kernel, bound: int = 1000) -> str:
    """The rule that the next grant breaks."""
    with pytest.raises(ModelFault) as caught:
        kernel.grant(bound)
    return caught.value.rule


@pytest.mark.parametrize(
    ("link", "delay", "rule"), [(0, -1, "bad-send"), (1, 0, "bad-send"), (0, NEVER - 5, "bad-send")]
)
def test_a_bad_send_is_refused(link: int, delay: int, rule: str) -> None:
    """A send into the past, over another node's link, or past the end of time is the sender's fault."""
    kernel, node, _ = make()
    kernel.at(0, 5, lambda: kernel.outlet(link)(TEST.A.code, (1,), delay))
    assert rule_of(kernel) == rule
    assert node.seen == []


def test_a_send_outside_of_an_event_is_refused() -> None:
    """Nothing may be sent in set-up, nor in the event of another node."""
    kernel, _, _ = make()
    with pytest.raises(ModelFault, match="in an event of its own"):
        kernel.outlet(0)(TEST.A.code, (1,))
    kernel.at(2, 5, lambda: kernel.outlet(0)(TEST.A.code, (1,)))
    assert rule_of(kernel) == "bad-send"


def test_a_timer_in_the_past_is_refused() -> None:
    """A timer below the clock is the node's fault."""
    kernel, _, _ = make()
    kernel.at(0, 5, lambda: kernel.at(0, 4, lambda: None) and None)
    assert rule_of(kernel) == "bad-timer"


@pytest.mark.parametrize("wait", [0, 7])
def test_a_node_that_answers_faster_than_its_reaction_is_caught(wait: int) -> None:
    """A send, also from a timer set by the handler, below arrival + reaction breaks the node's promise."""
    kernel, node, _ = make(reaction=20)

    def answer() -> None:
        kernel.outlet(2)(TEST.A.code, (1,))

    def later() -> None:
        kernel.at(0, kernel.now + wait, answer)

    node.react = later if wait else answer
    kernel.take([Record(100, 0, 1, TEST.A.code, (0,))])
    assert rule_of(kernel) == "broken-promise"


def test_a_node_that_keeps_its_reaction_may_speak() -> None:
    """A send at arrival + reaction is delivered."""
    kernel, node, neighbour = make(reaction=20)
    node.react = lambda: kernel.outlet(2)(TEST.A.code, (1,), 20)
    kernel.take([Record(100, 0, 1, TEST.A.code, (0,))])
    kernel.grant(1000)
    assert neighbour.seen == [(130, 2, (1,))]


def test_a_node_that_speaks_before_its_own_promise_is_caught() -> None:
    """A promise binds the node's timers until an input comes, whatever the node says later."""
    kernel, node, _ = make(promising=True)
    node.promised = 500
    kernel.at(0, 5, lambda: None)
    kernel.at(0, 6, lambda: setattr(node, "promised", 7))
    kernel.at(0, 10, lambda: kernel.outlet(0)(TEST.A.code, (1,)))
    assert rule_of(kernel) == "broken-promise"
    kernel, node, _ = make(promising=True)
    node.promised = 500
    node.react = lambda: setattr(node, "promised", None)
    kernel.at(0, 5, lambda: None)
    kernel.at(0, 10, lambda: kernel.outlet(0)(TEST.A.code, (1,)))
    kernel.take([Record(8, 0, 1, TEST.A.code, (0,))])
    assert kernel.grant(1000).batches[0].arrival == 20


def test_a_cancelled_timer_does_not_fire() -> None:
    """cancel takes a pending timer back, and does nothing for one that has fired."""
    kernel, _, _ = make()
    fired: list[int] = []
    first = kernel.at(0, 5, lambda: fired.append(5))
    second = kernel.at(0, 6, lambda: fired.append(6))
    kernel.cancel(second)
    kernel.grant(100)
    kernel.cancel(first)
    assert fired == [5]


def test_a_timer_at_never_is_not_an_event() -> None:
    """A timer for NEVER does not fire and does not count as work."""
    kernel, _, _ = make()
    kernel.at(0, NEVER, lambda: None)
    assert kernel.initial() == (NEVER, NEVER)


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        (Record(5, 0, 99, TEST.A.code, ()), "bad-link"),
        (Record(5, 0, 0, TEST.A.code, ()), "bad-link"),
        (Record(5, 0, 3, TEST.A.code, ()), "forged-source"),
        (Record(5, 0, 1, 65_000, ()), "unknown-kind"),
        (Record(4, 0, 1, TEST.A.code, ()), "message-in-the-past"),
    ],
)
def test_a_bad_input_is_refused(record: Record, rule: str) -> None:
    """A link that does not end here, a forged source, an unknown kind and a time below the clock are each named."""
    kernel, _, _ = make()
    kernel.grant(5)
    with pytest.raises(ModelFault) as caught:
        kernel.take([record], 1, {0: 0, 1: 1, 2: 0})
    assert caught.value.rule == rule


def test_a_message_that_leaves_limits_the_grant() -> None:
    """After a send to another worker the grant stops at arrival + return time, and the batch carries its earliest times."""
    kernel, _, _ = make()

    def two() -> None:
        kernel.outlet(0)(TEST.A.code, (1,), 50)
        kernel.outlet(0)(TEST.B.code, (2,))

    kernel.at(0, 100, two)
    kernel.at(0, 400, lambda: None)
    report = kernel.grant(1000)
    assert (report.now, report.next_event) == (135, 400)
    batch = report.batches[0]
    assert (batch.worker, batch.arrival, batch.wake) == (1, 110, 115)
    assert [r[:2] for r in batch.records] == [(160, 2), (110, 3)]


def test_what_has_been_sent_does_not_wait_for_the_end_of_a_long_grant() -> None:
    """In a hurry a grant ends after the event that sent something; without messages that wait nobody asks."""
    kernel, _, _ = make()
    kernel.at(0, 90, lambda: None)
    kernel.at(0, 100, lambda: kernel.outlet(0)(TEST.A.code, (1,)))
    kernel.at(0, 105, lambda: None)
    report = kernel.grant(1000, hurry=lambda: True)
    assert (report.now, report.next_event, report.next_out, report.events) == (105, 105, 105, 2)
    assert [batch.arrival for batch in report.batches] == [110]
    assert kernel.grant(1000, hurry=lambda: True).events == 1


def test_a_cap_on_events_leaves_the_rest() -> None:
    """With a cap the report says how far the worker got and that the rest is still there."""
    kernel, _, _ = make()
    for time in (1, 2, 3):
        kernel.at(0, time, lambda: None)
    report = kernel.grant(1000, max_events=2)
    assert (report.now, report.next_event, report.events) == (3, 3, 2)
    assert kernel.grant(1000).now == 1000


def test_a_node_that_is_off_gets_nothing_more() -> None:
    """After power-off, timers, own sends to it and inputs are dropped, and the others go on."""
    kernel, node, neighbour = make()
    kernel.at(2, 10, lambda: kernel.power_off(0))
    kernel.at(0, 20, lambda: node.seen.append((0, 0, ())))
    kernel.at(2, 30, lambda: kernel.outlet(3)(TEST.A.code, (1,)))
    kernel.take([Record(40, 0, 1, TEST.A.code, (0,))])
    kernel.grant(15)
    kernel.take([Record(50, 1, 1, TEST.A.code, (0,))])
    kernel.at(0, 60, lambda: None)
    report = kernel.grant(1000)
    assert node.seen == neighbour.seen == []
    assert report.next_event == NEVER


class Word(str):
    """A text of a class of its own."""


class Number(int):
    """A number of a class of its own."""


@pytest.mark.parametrize("link", [0, 2])
def test_fields_are_the_receivers_own(link: int) -> None:
    """A receiver gets what was sent, as tuples and bytes, here as on another worker, whatever the sender does to it later."""
    kernel, _, neighbour = make()
    data, values = bytearray(b"ab"), [1, Word("w"), Number(2)]

    def send() -> None:
        kernel.outlet(link)(TEST.A.code, ((data, values, None, True),))
        data[0] = 0
        values.append(9)

    kernel.at(0, 5, send)
    report = kernel.grant(1000)
    fields = neighbour.seen[0][2] if link == 2 else report.batches[0].records[0][4]
    assert fields == ((b"ab", (1, "w", 2), None, True),)
    assert [type(value) for value in fields[0][1]] == [int, str, int]


@pytest.mark.parametrize("link", [0, 2])
def test_fields_that_are_known_to_be_plain_go_as_they_are(link: int) -> None:
    """Who says so is believed: the tuple that was given is the one that goes."""
    kernel, _, neighbour = make()
    given = (1, Number(2))
    kernel.at(0, 5, lambda: kernel.outlet(link)(TEST.A.code, given, 0, True))
    report = kernel.grant(1000)
    got = neighbour.seen[0][2] if link == 2 else report.batches[0].records[0][4]
    assert got[1] is given[1], "a look would have made a plain int of it"


def test_a_link_of_another_worker_has_no_way_out_here() -> None:
    """Asking for one is a fault that names the link."""
    kernel, _, _ = make()
    with pytest.raises(ModelFault, match="link 1 must start at a node of this worker"):
        kernel.outlet(1)
    assert kernel.outlet(0) is kernel.outlet(0)


def test_a_grant_that_ends_before_the_clock_moves_nothing() -> None:
    """The clock never goes back."""
    kernel, _, _ = make()
    assert kernel.grant(100).now == 100
    assert kernel.grant(50).now == 100


def test_what_handlers_and_timers_return_goes_to_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of event: None is nothing, anything else is for the node to take."""
    kernel, node, neighbour = make()
    taken: list[object] = []
    monkeypatch.setattr(node, "accept", taken.append)
    monkeypatch.setattr(neighbour, "accept", taken.append)
    neighbour.answer = "from a handler"
    kernel.at(0, 5, lambda: kernel.outlet(2)(TEST.A.code, (1,)))
    kernel.at(0, 6, lambda: "from a timer")
    kernel.grant(1000)
    assert taken == ["from a timer", "from a handler"]


@pytest.mark.parametrize("link", [0, 2])
def test_a_field_that_cannot_travel_is_the_senders_fault(link: int) -> None:
    """A float is refused at the send, also to a node of the same worker."""
    kernel, _, _ = make()
    kernel.at(0, 5, lambda: kernel.outlet(link)(TEST.A.code, (0.5,)))
    assert rule_of(kernel) == "bad-send"


def test_an_answer_before_the_frame_is_full() -> None:
    """After many messages to others a worker answers, though nothing limits it; none is lost."""
    kernel, node, _ = make()
    kernel = Kernel(0, [node], {0: LINKS[0]}, {}, {})
    for time in range(3 * MAX_LEAVING_PER_GRANT):
        kernel.at(0, time, lambda: kernel.outlet(0)(TEST.A.code, (1,)))
    sent, answers = 0, 0
    while kernel.initial()[0] < NEVER:
        report = kernel.grant(NEVER - 1)
        sent += sum(len(batch.records) for batch in report.batches)
        answers += 1
    assert (sent, answers) == (3 * MAX_LEAVING_PER_GRANT, 3)


def test_the_limit_of_steps_does_not_know_the_neighbours() -> None:
    """A node that takes too many steps at an instant is found, alone on its worker or not; two that share the limit are not."""

    def busy(kernel: Kernel, node: int, steps: int) -> None:
        for _ in range(steps):
            kernel.at(node, 7, lambda: None)

    for nodes in ([Scripted(0)], [Scripted(0), Scripted(2)]):
        kernel = Kernel(0, nodes, {}, {}, {})
        busy(kernel, 0, MAX_STEPS_AT_ONE_INSTANT + 1)
        with pytest.raises(ModelFault) as caught:
            for _ in range(3):
                kernel.grant(1000)
        assert caught.value.rule == "zero-time-loop"
    kernel = Kernel(0, [Scripted(0), Scripted(2)], {}, {}, {})
    busy(kernel, 0, MAX_STEPS_AT_ONE_INSTANT - 1)
    busy(kernel, 2, MAX_STEPS_AT_ONE_INSTANT - 1)
    while kernel.initial()[0] < NEVER:
        kernel.grant(1000)
    assert kernel.events == 2 * (MAX_STEPS_AT_ONE_INSTANT - 1)
