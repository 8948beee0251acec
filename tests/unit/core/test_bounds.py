"""Latency distances: closure over the topology, reactions, grouping, ways back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.bounds import Distances
from cosim.core.time import NEVER

A, K, B, X = range(4)
Topology = tuple[int, list[tuple[int, int, int]], list[int], list[list[int]]]
LINE = [(A, K, 10), (K, B, 10), (B, A, 100)]


def closure(n: int, links: list[tuple[int, int, int]], reaction: list[int]) -> list[list[int]]:
    """Floyd-Warshall, the slow independent way: paths from a send to an arrival, reactions in between added."""
    table = [[NEVER] * n for _ in range(n)]
    for src, dst, latency in links:
        table[src][dst] = min(table[src][dst], latency)
    for k in range(n):
        for a in range(n):
            for b in range(n):
                table[a][b] = min(table[a][b], table[a][k] + reaction[k] + table[k][b])
    return table


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """(n, links, reactions, groups); groups may leave nodes out and may be empty."""
    n = draw(st.integers(1, 7))
    node = st.integers(0, n - 1)
    links = draw(st.lists(st.tuples(node, node, st.integers(1, 20)), max_size=20))
    reaction = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    groups: list[list[int]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for i in range(n):
        home = draw(st.integers(0, len(groups)))
        if home < len(groups):
            groups[home].append(i)
    return n, links, reaction, groups


def test_distance_goes_through_idle_nodes() -> None:
    """A path through a third node counts, and no path at all is NEVER."""
    distances = Distances(4, LINE, [0] * 4)
    assert [distances.dist(A, i) for i in (A, K, B, X)] == [120, 10, 20, NEVER]
    assert distances.dist(A, B) == 20  # a second look comes from the kept row


def test_only_reactions_in_between_count() -> None:
    """The reaction of a node passed through is added; those of the two ends are not."""
    assert Distances(4, LINE, [1000, 7, 1000, 0]).dist(A, B) == 27


def test_own_cycle_is_the_distance_to_oneself() -> None:
    """dist(i, i) is the shortest way out and back, not zero."""
    assert Distances(2, [(0, 1, 3), (1, 0, 4)], [50, 5]).dist(0, 0) == 12


def test_sums_saturate_at_never() -> None:
    """A path longer than the end of time is no path."""
    huge = NEVER - 5
    assert Distances(3, [(0, 1, huge), (1, 2, huge)], [0, 0, 0]).dist(0, 2) == NEVER
    assert Distances(3, [(0, 1, 3), (1, 2, 3)], [0, NEVER, 0]).dist(0, 2) == NEVER


@given(topologies())
def test_distances_equal_floyd_warshall(topology: Topology) -> None:
    """Node distances, worker distances and ways back all follow from the closed table by their definitions."""
    n, links, reaction, groups = topology
    table = closure(n, links, reaction)
    distances = Distances(n, links, reaction)
    assert [[distances.dist(a, b) for b in range(n)] for a in range(n)] == [
        [min(cell, NEVER) for cell in row] for row in table
    ]
    between = distances.between(groups)
    for w, group in enumerate(groups):
        for x, other in enumerate(groups):
            assert between[w][x] == min([table[a][b] for a in group for b in other] + [NEVER])
    for group, back in zip(groups, distances.returns(groups), strict=True):
        outside = {dst for src, dst, _ in links if src in group} - set(group)
        assert back == {d: min(NEVER, reaction[d] + min(table[d][b] for b in group)) for d in outside}


def test_rows_are_sequences() -> None:
    """Lazy rows behave as a sequence: length, negative index, slice, end of range, and the same object again."""
    between = Distances(3, [(0, 1, 5), (1, 2, 6)], [0, 0, 0]).between([[0], [1], [2]])
    assert len(between) == 3
    assert list(between) == [[NEVER, 5, 11], [NEVER, NEVER, 6], [NEVER] * 3]
    assert between[-3] is between[0]
    assert between[1:] == [between[1], between[2]]
    with pytest.raises(IndexError):
        between[3]


def test_way_back_search_goes_no_further_than_needed() -> None:
    """Ways back are right next door even when the topology goes on behind it, and NEVER behind a one-way link."""
    chain = [(i, i + 1, 1) for i in range(50)] + [(i + 1, i, 2) for i in range(50)]
    back = Distances(52, [*chain, (0, 51, 1)], [3] * 52).returns([[0], [1, 2]])
    assert back[0] == {1: 5, 51: NEVER}
    assert back[1] == {0: 4, 3: 5}


@pytest.mark.parametrize(
    ("links", "reaction", "text"),
    [
        ([(0, 1, 0)], [0, 0], r"latency of link 0 -> 1 must be > 0 ps, not 0"),
        ([(1, 0, -4)], [0, 0], r"latency of link 1 -> 0 must be > 0 ps, not -4"),
        ([(0, 2, 1)], [0, 0], r"link 0 -> 2 must join nodes 0\.\.1"),
        ([(-1, 0, 1)], [0, 0], r"link -1 -> 0 must join nodes 0\.\.1"),
        ([], [0], r"reaction must have one entry per node \(2\), not 1"),
        ([], [0, -1], r"reaction of node 1 must be >= 0 ps, not -1"),
    ],
)
def test_wrong_topologies_are_refused(links: list[tuple[int, int, int]], reaction: list[int], text: str) -> None:
    """Each refusal says what must hold and what was found, and names both ends of a link."""
    with pytest.raises(ValueError, match=text):
        Distances(2, links, reaction)


def test_wrong_placements_are_refused() -> None:
    """A node is hosted once, and exists."""
    distances = Distances(2, [], [0, 0])
    with pytest.raises(ValueError, match="node 1 must be in one worker, not in both 0 and 1"):
        distances.between([[0, 1], [1]])
    with pytest.raises(ValueError, match=r"node 2 of worker 0 must be in 0\.\.1"):
        distances.returns([[2]])


def test_better_way_found_later_replaces_the_first() -> None:
    """Both searches keep the short way 1 -> 2 -> 0 when they saw the long direct one first."""
    links = [(1, 0, 10), (2, 0, 1), (1, 2, 1), (3, 1, 100), (0, 3, 1)]
    distances = Distances(4, links, [0] * 4)
    assert [distances.dist(1, i) for i in range(4)] == [2, 103, 1, 3]
    assert distances.returns([[0]])[0] == {3: 102}
