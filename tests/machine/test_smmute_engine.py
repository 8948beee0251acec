"""The engine's arithmetic: generator, coverage of strides, order (sheet 9.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.smmute.engine import Job, Rand48, RandomFill, Spans, misconfigured
from nodes.smmute.regs import MEMCPY, RAND48, SUM64


def job(begin: int, end: int, stride: int = 1, seed: int = 0, destination: int = 0, command: int = MEMCPY) -> Job:
    return Job(command, begin, end, stride, seed, destination, 0x42FF42FF, 0, 0, 0xFFFF_FFFF, 0)


@pytest.mark.parametrize(
    ("seed", "values"),
    [
        (0, [0x95DDB16E, 0x8C55E80A, 0x49E514D0, 0x5899D169]),
        (0x1234, [0x0E06ED80, 0x20583F6C, 0xC304C002, 0x1E06FCEB]),
    ],
)
def test_generator(seed: int, values: list[int]) -> None:
    """The first values for two seeds are those computed from the header."""
    generator = Rand48(seed)
    assert [generator.next() for _ in values] == values


def covered(spans: Spans) -> list[int]:
    return [byte for n in range(spans.number) for byte in range(spans[n].address, spans[n].address + spans[n].size)]


ranges = st.tuples(st.integers(0, 20_000), st.integers(0, 9_000))


@given(ranges)
def test_stride_one_covers_each_byte_once(where: tuple[int, int]) -> None:
    """With stride 1 the accesses are exactly the bytes begin..end_incl, none twice, none across a 4 KiB boundary."""
    begin, length = where
    spans = Spans(job(begin, begin + length))
    assert covered(spans) == list(range(begin, begin + length + 1))
    assert spans.total == length + 1
    for n in range(spans.number):
        span = spans[n]
        assert span.address // 4096 == (span.address + span.size - 1) // 4096


@given(ranges, st.integers(1, 3_000))
def test_strides_of_beats_against_a_byte_model(where: tuple[int, int], beats: int) -> None:
    """With stride 8k each beat starts at (begin & ~7) + 8kn, while its last byte is at most end_incl | 7."""
    begin, length = where
    end, stride = begin + length, 8 * beats
    expected: list[int] = []
    at = begin & ~7
    while at + 7 <= end | 7:
        expected += range(at, at + 8)
        at += stride
    spans = Spans(job(begin, end, stride))
    assert covered(spans) == expected
    assert spans.total == len(expected)
    if stride > max(8, length + 1) and begin % 8 == 0:
        assert spans.number == 1


@given(ranges, st.integers(0, 5), st.integers(0, 0xFFFF_FFFF))
def test_order_is_a_permutation_from_both_ends(where: tuple[int, int], beats: int, seed: int) -> None:
    """Any seed visits each access once, always the first or the last of those that are left."""
    begin, length = where
    spans = Spans(job(begin, begin + length % 1000, 8 * beats or 1, seed))
    left = list(range(spans.number))
    for n in spans.order():
        assert n in (left[0], left[-1])
        left.remove(n)
    assert left == []


def test_order_of_the_two_named_seeds() -> None:
    """Seed 0 goes up, 0xFFFFFFFF down, another is neither."""
    orders = [list(Spans(job(0, 511, 8, seed)).order()) for seed in (0, 0xFFFF_FFFF, 77)]
    assert orders[0] == list(range(64))
    assert orders[1] == list(range(63, -1, -1))
    assert orders[2] not in orders[:2]


@given(ranges, st.integers(0, 1 << 40))
def test_copy_destination_keeps_the_distance(where: tuple[int, int], destination: int) -> None:
    """Byte begin + i of a copy goes to udata[0] + i."""
    begin, length = where
    spans = Spans(job(begin, begin + length, destination=destination))
    assert all(spans[n].destination - destination == spans[n].address - begin for n in range(spans.number))


@given(st.integers(0, 0x3000), st.integers(0, 0xFFFF_FFFF), st.data())
def test_random_fill_is_a_function_of_the_address(begin: int, seed: int, data: st.DataObject) -> None:
    """Reading the fill in any pieces and order gives the same bytes: the order of accesses does not show in memory."""
    page = begin & ~0xFFF
    whole = {
        at: RandomFill(begin, seed).bytes(max(begin, at), 4096 - max(begin, at) % 4096) for at in (page, page + 4096)
    }
    pieces = RandomFill(begin, seed)
    for _ in range(4):
        at = data.draw(st.integers(begin, page + 8191))
        size = data.draw(st.integers(1, 4096 - at % 4096))
        start = max(begin, at & ~0xFFF)
        assert pieces.bytes(at, size) == whole[at & ~0xFFF][at - start : at - start + size]


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, 64))
def test_rules_of_range_and_stride(begin: int, end: int, stride: int) -> None:
    """A SUM64 is accepted exactly when its range is whole words in order, not all of the space, with a legal stride."""
    wanted = job(begin, end, stride, command=SUM64)
    legal = (
        stride in (1, 8, 16, 24, 32, 40, 48, 56, 64)
        and begin <= end
        and begin % 8 == 0
        and end % 8 == 7
        and (begin, end) != (0, (1 << 64) - 1)
    )
    assert (misconfigured(wanted) == "") == legal


def test_huge_range_needs_no_list() -> None:
    """A range of nearly the whole space gives its first and last access at once."""
    spans = Spans(job(8, (1 << 64) - 1, 8, 0xFFFF_FFFF, command=RAND48))
    assert next(spans.order()) == spans.number - 1 == (1 << 61) - 2
    assert spans[spans.number - 1].address == (1 << 64) - 8
