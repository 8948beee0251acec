"""The sweep's figure: well-formed SVG that shows every sample, labelled with units, the same bytes each time."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.view.figure import MAX_DOTS, Distribution, Series, figure, short_time

SVG = "{http://www.w3.org/2000/svg}"
SLOW = Distribution("vlpi", [4_000_000, 4_500_000, 5_000_000], 3, 3)
FAST = Distribution("vlpi", [300_000, 435_000, 435_000, 915_000], 0, 0)
REASONS = {"WFI": 28, "SGI register": 3}


def texts(document: str) -> list[str]:
    """Texts of an SVG in order."""
    return [element.text or "" for element in ElementTree.fromstring(document).iter(f"{SVG}text")]


def dots(document: str) -> list[tuple[float, float]]:
    """Centres of the dots, without those of the legend."""
    found = ElementTree.fromstring(document).iter(f"{SVG}circle")
    return [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in found if c.get("r") == "2.5"]


def test_every_sample_is_a_dot_and_later_is_further_right() -> None:
    """As many dots as samples; in a row their order is that of the latencies; the slower point lies right of the faster."""
    document = figure("t", [Series("a", [FAST], REASONS, 99), Series("b", [SLOW], REASONS, 99)], [])
    found = dots(document)
    assert len(found) == 7
    assert [x for x, _ in found] == sorted(x for x, _ in found)
    assert found[1][0] == found[2][0] and found[1][1] != found[2][1]


def test_labels_units_and_notes_are_there() -> None:
    """Title, labels, median with its way, exits in between and of all, ticks with units, the note and the footnote."""
    series = [Series("gic <3>", [SLOW], REASONS, 420, "failed"), Series("4.1", [FAST], {"WFI": 0}, 399)]
    shown = texts(figure("title & more", series, ["t_trap 300ns"]))
    for text in ("title & more", "gic <3>", "4.5 µs by list register", "435 ns direct", "31 of 420", "0 of 399", "1 µs",
                 "failed", "t_trap 300ns", "28", "1"):  # fmt: skip
        assert text in shown, text


def test_a_point_without_samples_says_so() -> None:
    """A run that never took an interrupt has a row all the same."""
    assert "no interrupts measured" in texts(figure("t", [Series("a", [], {}, 0)], []))


def test_many_samples_are_thinned() -> None:
    """A thousand samples give MAX_DOTS dots, which span the same range but for the outermost."""
    many = Distribution("vsgi", list(range(1_000_000, 2_000_000, 1_000)), 0, 0)
    assert len(dots(figure("t", [Series("a", [many], {}, 0)], []))) == MAX_DOTS


@given(st.lists(st.lists(st.integers(0, 10**13), min_size=1, max_size=6).map(sorted), min_size=1, max_size=4))
def test_any_samples_give_a_document_within_its_width(rows: list[list[int]]) -> None:
    """Whatever the latencies, zero included, the document is well-formed, deterministic, and dots lie inside the panel."""
    series = [Series(str(n), [Distribution("vlpi", row, 0, 0)], {}, 1) for n, row in enumerate(rows)]
    document = figure("t", series, [])
    assert document == figure("t", series, [])
    width = float(ElementTree.fromstring(document).get("width", "0"))
    assert all(0 < x < width / 2 + 150 for x, _ in dots(document))


@pytest.mark.parametrize(
    ("ps", "text"),
    [(0, "0 ps"), (365_000, "365 ns"), (4_780_000, "4.78 µs"), (999_999_999, "1000 µs"), (2 * 10**12, "2 s")],
)
def test_times_have_three_digits_and_a_unit(ps: int, text: str) -> None:
    """The unit is the largest that leaves at least one."""
    assert short_time(ps) == text
