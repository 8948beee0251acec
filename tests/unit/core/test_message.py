"""Protocols, digests and journals: small tables and layouts that everything rests on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core import journal
from cosim.core.digest import NodeDigest, run_digest
from cosim.core.message import KINDS, MMIO, POWER, Protocol, from_bus, to_bus
from cosim.core.order import PRIORITY_TIMER, Key


def test_codes_are_numbered_by_protocol_and_position() -> None:
    """A kind's code is protocol number * 64 + position, and finds the kind again."""
    assert MMIO.Read.code == 64
    assert MMIO.Completion.code == 67
    assert KINDS[POWER.Off.code] is POWER.Off
    assert repr(POWER.Off) == "power.Off"
    assert [kind.name for kind in MMIO] == ["Read", "Write", "WritePosted", "Completion"]


def test_a_protocol_number_belongs_to_one_protocol() -> None:
    """A second protocol with a taken number, a number out of range and too many kinds are refused."""
    with pytest.raises(ValueError, match="taken by 'mmio'"):
        Protocol("other", 1, [])
    with pytest.raises(ValueError, match="must be in 0..1023"):
        Protocol("other", 5000, [])
    with pytest.raises(ValueError, match="at most 64 kinds"):
        Protocol("many", 901, [(f"K{i}", 1, ()) for i in range(65)])


def test_a_protocol_may_be_made_by_keyword() -> None:
    """Its arguments have the names that the documentation gives them."""
    protocol = Protocol(name="keywords", number=903, kinds=[("A", 1, ())])
    assert (protocol.name, protocol.number, protocol.A.code) == ("keywords", 903, 903 * 64)


def test_an_unknown_kind_is_named_with_those_that_exist() -> None:
    """Asking a protocol for a kind that it has not raises AttributeError naming the ones it has."""
    with pytest.raises(AttributeError, match=r"protocol mmio \(Read, Write, .*no attribute 'Raed'"):
        _ = MMIO.Raed


def test_a_kind_may_have_any_name() -> None:
    """One that is called like something that a protocol has is found among its kinds; what has that name stays what it is."""
    protocol = Protocol("any", 902, [("name", 1, ()), ("Other", 2, ())])
    assert protocol.name == "any"
    assert [repr(kind) for kind in protocol] == ["any.name", "any.Other"]


@given(st.binary(min_size=1, max_size=64))
def test_bus_data_survives_its_wire_form(data: bytes) -> None:
    """Bytes of any size come back from the wire form, which is an int exactly for 1, 2, 4 and 8 bytes."""
    wire = to_bus(data)
    assert isinstance(wire, int) == (len(data) in (1, 2, 4, 8))
    assert from_bus(wire, len(data)) == data


def test_timers_come_after_every_message_of_an_instant() -> None:
    """A timer's key sorts after a message's of the same instant."""
    assert Key(5, 99, 3, 7) < Key(5, PRIORITY_TIMER, 0, 0) < Key(6, 0, 0, 0)


def test_a_digest_depends_on_each_part_of_a_message_and_on_order() -> None:
    """Changing time, source, kind or a field, or the order of two messages, changes the node's digest."""
    first, second = (1, 2, 3, 4, 64, (5,)), (2, 2, 3, 5, 64, (6,))

    def of(*messages: tuple[int, int, int, int, int, tuple[int, ...]]) -> bytes:
        digest = NodeDigest()
        for message in messages:
            digest.add(*message)
        assert digest.result()[0] == len(messages)
        return digest.result()[1]

    seen = {of(first, second), of(second, first), of(first)}
    for changed in [(9, 2, 3, 4, 64, (5,)), (1, 2, 9, 4, 64, (5,)), (1, 2, 3, 4, 65, (5,)), (1, 2, 3, 4, 64, (9,))]:
        seen.add(of(changed, second))
    assert len(seen) == 7


def test_a_run_digest_does_not_depend_on_the_order_of_its_nodes() -> None:
    """The run digest is of the sorted names; another name gives another digest."""
    a, b = (1, b"a"), (2, b"b")
    assert run_digest({"x": a, "y": b}) == run_digest({"y": b, "x": a}) != run_digest({"x": b, "y": a})


def record(payload: bytes) -> bytes:
    """A record of a journal."""
    return b"".join(journal.record_parts(payload[:1], payload[1:]))


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_a_torn_journal_reads_up_to_the_tear(payloads: list[bytes], data: st.DataObject) -> None:
    """Cut at any byte, a journal gives the whole records before the cut and says where and why it stopped."""
    whole = journal.HEADER + b"".join(map(record, payloads))
    assert journal.read_records(whole) == (payloads, journal.Tail(len(whole), None))
    cut = data.draw(st.integers(0, len(whole)))
    records, tail = journal.read_records(whole[:cut])
    assert records == payloads[: len(records)]
    assert tail.offset <= cut
    assert (tail.torn is None) == (tail.offset == cut and cut >= len(journal.HEADER))


def test_a_journal_with_a_flipped_bit_stops_there() -> None:
    """A record whose checksum fails ends the reading; a foreign header is an error."""
    data = bytearray(journal.HEADER + record(b"one") + record(b"two"))
    data[-1] ^= 1
    records, tail = journal.read_records(bytes(data))
    assert records == [b"one"]
    assert tail.torn == "record fails its checksum"
    assert journal.read_records(bytes(data[:12]))[1] == journal.Tail(8, "record prefix cut short")
    assert journal.read_records(bytes(data[:17]))[1] == journal.Tail(8, "record cut short")
    assert journal.read_records(b"CSJ1")[1] == journal.Tail(0, "header cut short")
    with pytest.raises(journal.JournalError, match="must begin with"):
        journal.read_records(b"not a journal at all")
