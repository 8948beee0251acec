"""The hub's check of one foreign node, without processes: records for the log and the final report, admission."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from cosim.attach.plan import AttachPlan, core_kinds
from cosim.core.barrier import ProtocolViolation
from cosim.core.codec import pack_records
from cosim.core.message import MMIO, Record
from cosim.core.plan import LinkPlan, NodePlan, Plan, RegionPlan
from cosim.core.time import NEVER
from cosim.run.foreign import STILL, Foreign, Refusal

TOKEN = "00112233445566778899aabbccddeeff"


def foreign() -> Foreign:
    """A node `dut` with a register port, linked with `pe`; its worker is number 1."""
    external = {
        "argv": ["x"], "connect": False, "wait_ms": 1, "wall_limit_ms": 0, "class": "deterministic", "env": {}, "cwd": ".",
        "ports": [["regs", "mmio_target"], ["power", "power"]], "kinds": [list(row) for row in core_kinds()],
    }  # fmt: skip
    nodes = (NodePlan(0, "dut", "dut", {"a": [1]}, 0, {}, "external", external), NodePlan(1, "pe", "pe", {}))
    links = (LinkPlan(0, 1, "bus", 0, "regs", 20_000), LinkPlan(1, 0, "regs", 1, "bus", 20_000))
    plan = Plan("x", 1, nodes, links, ((1,), (0,)))
    return Foreign(plan, 1, plan.distances().returns(plan.groups)[1], TOKEN, 30.0)


def hello(**changes: Any) -> tuple[Any, ...]:
    """The body of a HELLO that is right but for `changes` to its options."""
    options = {"ports": {"regs": "mmio_target"}, "lookahead_ps": 0, "quantum_ps": 0, "token": TOKEN, **changes}
    return ((1, 0), "dut", "c", 0, options)


def test_what_an_admitted_node_is_told() -> None:
    """The plan has its links with latency and return time, parameters, kinds of its ports; the wall limit 0 is none."""
    plan = AttachPlan.from_msgpack(foreign().admit(hello()))
    assert (plan.name, plan.node, plan.params, plan.wall_limit_ms) == ("dut", 0, {"a": [1]}, 0)
    assert [(k.port, k.out, k.peer, k.latency, k.returns) for k in plan.links] == [
        ("regs", 0, "pe.bus", 20_000, 0),
        ("regs", 1, "pe.bus", 20_000, 20_000),
    ]
    assert {row.name for row in plan.kinds} == {"mmio.Read", "mmio.Write", "mmio.WritePosted", "mmio.Completion"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": "guess"}, "token"),
        ({"token": None}, "token"),
        ({"token": "\N{SNOWMAN}"}, "token"),
        ({"ports": {"regs": "wire"}}, "ports"),
        ({"ports": ["regs"]}, "options"),
        ({"ports": {"regs": 1}}, "options"),
        ({"quantum_ps": 3000}, "quantum"),
        ({"quantum_ps": True}, "options"),
        ({"lookahead_ps": -1}, "options"),
        ({"lookahead_ps": 2**63}, "options"),
    ],
)
def test_refusals(changes: dict[str, Any], code: str) -> None:
    """Each wrong HELLO has its code, and does not count as joined."""
    node = foreign()
    with pytest.raises(Refusal) as refused:
        node.admit(hello(**changes))
    assert refused.value.code == code
    assert not node.joined
    node.admit(hello())


GOOD = [
    [0, 0, 0, 0, ["hello", {"text": "x", "n": 1}]],
    [5, 0, 1, 1, ["console", "text\n"]],
    [5, 0, 2, 2, ["begin", ["anything", 1]]],
    [5, 0, 3, 2, ["msi", [8, 0, 100]]],
]


def test_good_side_records() -> None:
    """Log, console and marks of this node pass, over several frames."""
    node = foreign()
    node.check_side(msgpack.packb(GOOD[:2]))
    node.check_side(msgpack.packb(GOOD[2:]))


@pytest.mark.parametrize(
    "records",
    [
        7,
        [7],
        [[0, 1, 0, 0, ["of another node", {}]]],
        [[0, 0, 1, 0, ["a number is left out", {}]]],
        [GOOD[0], GOOD[0]],
        [[-1, 0, 0, 0, ["before time", {}]]],
        [[0, 0, 0, 3, ["a test's verdict", {}]]],
        [[0, 0, 0, 0, ["no fields", []]]],
        [[0, 0, 0, 0, ["a reserved name", {"node": "pe"}]]],
        [[0, 0, 0, 0, ["an odd name", {"": 1}]]],
        [[0, 0, 0, 2, ["cause", ["vlpi", "g0", "no number", 1]]]],
        [[0, 0, 0, 2, ["cause", ["unknown", "g0", 1, 1]]]],
        [[0, 0, 0, 2, ["ack", ["g0"]]]],
    ],
)
def test_bad_side_records(records: Any) -> None:
    """Whatever would be somebody else's, or make a reader stumble, is a breach of rule `side`."""
    with pytest.raises(ProtocolViolation) as broken:
        foreign().check_side(msgpack.packb(records))
    assert broken.value.rule == "side"


@pytest.mark.parametrize("packed", [b"\xc1", b"\xd4\x00\x00", b""])
def test_side_records_that_are_no_msgpack(packed: bytes) -> None:
    """Bytes of any kind are a breach, not an exception of another kind."""
    with pytest.raises(ProtocolViolation):
        foreign().check_side(packed)


@pytest.mark.parametrize(
    "report", [1, [], [{}, {}], [{"a": "b"}, []], [{1: 1}, []], [{}, [[0]]], [{}, [[0, {"a": None}]]], [{}, [[-1, {}]]]]
)
def test_bad_reports(report: Any) -> None:
    """A final report that is not [counters, epochs] is a breach."""
    with pytest.raises(ProtocolViolation) as broken:
        foreign().final(msgpack.packb(report))
    assert broken.value.rule in ("report", "side")


def test_a_report() -> None:
    """Counters and epochs come through; without a report there are none."""
    entry = foreign().final(msgpack.packb([{"b": 2, "a": 1}, [[1, {"a": 0}]]]))[3][0]
    assert (entry[0], entry[4], entry[7]) == ("dut", {"a": 1, "b": 2}, [[1, {"a": 0}]])
    assert foreign().final(None)[3][0][4] == {}


def initiator() -> Foreign:
    """A node `dut` that reads from `mem`, joined; its worker is number 1, its requests go over link 1."""
    external = {
        "argv": ["x"], "connect": False, "wait_ms": 1, "wall_limit_ms": 0, "class": "deterministic", "env": {}, "cwd": ".",
        "ports": [["dma", "mmio_initiator"], ["power", "power"]], "kinds": [list(row) for row in core_kinds()],
    }  # fmt: skip
    maps: dict[str, tuple[RegionPlan, ...]] = {"dma": (RegionPlan(0, 1 << 32, 1, 0, "all"),)}
    nodes = (NodePlan(0, "dut", "dut", {}, 0, maps, "external", external), NodePlan(1, "mem", "mem", {}))
    links = (LinkPlan(0, 1, "bus", 0, "dma", 20_000), LinkPlan(1, 0, "dma", 1, "bus", 20_000))
    plan = Plan("x", 1, nodes, links, ((1,), (0,)))
    node = Foreign(plan, 1, plan.distances().returns(plan.groups)[1], TOKEN, 30.0)
    node.admit(hello(ports={"dma": "mmio_initiator"}))
    node.ready(0, 0)
    return node


def read(number: int, at: int, attr: int = 3) -> tuple[int, int, int, bytes]:
    """A batch with a read, the node's message and tag `number`, sent at a time."""
    return (0, 0, 0, pack_records([Record(at + 20_000, number, 1, MMIO.Read.code, (number, 0x1000, 4, attr))]))


@pytest.mark.parametrize(
    ("attr", "good"), [(7, True), (0xABCDE103, True), (8, False), (0x1003, False), (1 << 32, False)]
)
def test_attributes_of_a_request(attr: int, good: bool) -> None:
    """AxPROT passes, and so does a PASID with the bit that says that there is one; other bits are a breach of `fields`."""
    node = initiator()
    node.granted([])
    body = (1, 50, 50, 50, 1, [read(0, 10, attr)], None)
    if good:
        assert node.answered(body)
    else:
        with pytest.raises(ProtocolViolation) as broken:
            node.answered(body)
        assert broken.value.rule == "fields"


def test_a_message_for_never() -> None:
    """A message whose arrival is the time that means never would be lost: it is a breach, not a message that nobody gets."""
    node = initiator()
    node.granted([])
    with pytest.raises(ProtocolViolation, match="must arrive before 9223372036854775807 ps") as broken:
        node.answered((1, 50, 50, 50, 1, [read(0, NEVER - 20_000)], None))
    assert broken.value.rule == "fields"


def test_tags_that_were_answered_are_forgotten() -> None:
    """However many requests a node makes, the hub keeps those only that are open."""
    node = initiator()
    for number in range(50):
        now = 100 * number
        answer = Record(now + 1, number, 0, MMIO.Completion.code, (number - 1, 0, 5))
        node.granted([(0, pack_records([answer]))] if number else [])
        node.answered((number + 1, now + 100, now + 100, now + 100, 1, [read(number, now + 10)], None))
    assert [len(tags) for tags in node._pending.values()] == [1]
    report = node.final(None)
    assert [wait[1] for wait in report[3][0][5]] == ["completion of tag 49 by mem"]


def test_a_clock_that_stands_still() -> None:
    """A node that answers grant after grant without moving its clock breaks `progress`; a few such answers are let pass."""
    node = foreign()
    node.admit(hello())
    node.ready(0, 0)
    for seq in range(STILL):
        node.granted([])
        node.answered((seq, 0, 0, 0, 0, [], None))
    with pytest.raises(ProtocolViolation) as broken:
        node.answered((STILL, 0, 0, 0, 0, [], None))
    assert broken.value.rule == "progress"
