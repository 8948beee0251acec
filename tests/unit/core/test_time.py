"""Units of simulated time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.time import NEVER, fmt, ms, ns, parse_span, ps, seconds, us


def test_units_are_thousands_of_each_other() -> None:
    """Each unit is a thousand of the next finer one, in int picoseconds."""
    assert (ps(1), ns(1), us(1), ms(1), seconds(1)) == (1, 10**3, 10**6, 10**9, 10**12)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5ns", 5_000), ("1.5 us", 1_500_000), ("250ps", 250), ("1_000ms", 10**12), ("2µs", 2_000_000), ("0s", 0)],
)
def test_parse_span_reads_numbers_with_units(text: str, value: int) -> None:
    """A number with a unit, with or without fraction, space and separators, gives picoseconds."""
    assert parse_span(text) == value


@pytest.mark.parametrize("text", ["5", "ns", "-1ns", "1.5ps", "1 h", "0.0001ns", "1e3ns", "5ns extra", "200000000s"])
def test_parse_span_refuses_what_is_not_exact(text: str) -> None:
    """No unit, a sign, a fraction of a picosecond or a time past the end of time is refused with the text quoted."""
    with pytest.raises(ValueError, match="time must be"):
        parse_span(text)


@given(st.integers(0, 10**15))
def test_fmt_says_the_same_time_to_three_decimals(value: int) -> None:
    """What fmt prints is read back within a thousandth of the unit that it chose."""
    text = fmt(value)
    back = parse_span(text)
    assert back <= value < back + max(1, back // 1000 + 1)


def test_fmt_of_never_and_negative_spans() -> None:
    """NEVER has a word of its own; a negative span keeps its sign."""
    assert fmt(NEVER) == "never"
    assert fmt(-1_500) == "-1.5ns"
