"""Address decode: regions, overlaps, edges."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.route import ADDRESS_LIMIT, AddressMap, Region

ITS = Region(0x3005_0000, 0x1_0000, "its0", 0x1_0000, "translation")


def test_decode() -> None:
    """An access inside a region goes to its target, the region's offset added; its edges belong to it."""
    routes = AddressMap([ITS, Region(0x1000, 0x1000, 7)])
    assert routes.decode(0x3005_0040, 4) == ("its0", 0x1_0040)
    assert routes.decode(0x1000, 0x1000) == (7, 0)
    assert routes.decode(0x1FFF, 1) == (7, 0xFFF)
    assert routes.decode(0x0FFF, 1) is None
    assert routes.decode(0x2000, 1) is None
    assert [region.target for region in routes.regions] == [7, "its0"]


def test_straddle() -> None:
    """An access that runs past its region has no target, even where the next region begins at once."""
    routes = AddressMap([Region(0, 16, "a"), Region(16, 16, "b")])
    assert routes.decode(12, 8) is None
    assert routes.decode(28, 8) is None
    assert routes.decode(16, 8) == ("b", 0)


def test_empty() -> None:
    """A map of nothing decodes nothing."""
    assert AddressMap([]).decode(0, 1) is None


@pytest.mark.parametrize(
    ("regions", "text"),
    [
        ([Region(0, 0, "a")], "size of region 'a' at 0x0 must be at least 1 byte, not 0"),
        ([Region(-8, 4, "a")], "base of region 'a' at -0x8 must be at least 0, not -8"),
        ([Region(8, 4, "a", -1)], "offset of region 'a' at 0x8 must be at least 0, not -1"),
        (
            [Region(ADDRESS_LIMIT - 8, 16, "a", 0, "top")],
            "end of region 'top' at 0xffffffffffff8 must be at most 0x10000000000000, not 0x10000000000008",
        ),
        (
            [Region(0x1000, 0x1000, "ram"), Region(0x1FFF, 8, "a", 0, "late")],
            "region 'late' (0x1fff..0x2006) overlaps region 'ram' (0x1000..0x1fff)",
        ),
        (
            [Region(0, 64, "a"), Region(8, 8, "b"), Region(32, 8, "c")],
            "region 'c' (0x20..0x27) overlaps region 'a'",
        ),
        (
            [Region(0, 0, "a"), Region(8, 0, "b")],
            "'a' at 0x0 must be at least 1 byte, not 0; size of region 'b'",
        ),
    ],
)
def test_wrong_map(regions: list[Region], text: str) -> None:
    """A map that cannot be is refused, all its faults at once, both regions of an overlap named in hex."""
    with pytest.raises(ValueError, match=re.escape(text)):
        AddressMap(regions)


def test_wrong_length() -> None:
    """An access of no bytes is the caller's mistake."""
    with pytest.raises(ValueError, match="length must be at least 1 byte, not 0, at address 0x10"):
        AddressMap([]).decode(0x10, 0)


def test_top_of_memory() -> None:
    """A region may end exactly at 2^52."""
    assert AddressMap([Region(ADDRESS_LIMIT - 8, 8, "a")]).decode(ADDRESS_LIMIT - 4, 4) == ("a", 4)


REGIONS = st.lists(
    st.builds(Region, st.integers(0, 200), st.integers(1, 24), st.integers(0, 9), st.integers(0, 64)),
    max_size=12,
)


@given(REGIONS, st.lists(st.tuples(st.integers(-2, 230), st.integers(1, 12)), max_size=30))
def test_decode_is_a_scan(regions: list[Region], accesses: list[tuple[int, int]]) -> None:
    """Maps are refused exactly when two regions meet, and decode as a scan over all regions does."""
    meet = any(
        a.base < b.base + b.size and b.base < a.base + a.size for i, a in enumerate(regions) for b in regions[i + 1 :]
    )
    if meet:
        with pytest.raises(ValueError, match="overlaps"):
            AddressMap(regions)
        return
    routes = AddressMap(regions)
    for addr, length in accesses:
        expected = None
        for region in regions:
            if region.base <= addr and addr + length <= region.base + region.size:
                expected = (region.target, region.offset + addr - region.base)
        assert routes.decode(addr, length) == expected
