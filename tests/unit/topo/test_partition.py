"""Cuts of graphs: a partition always, balanced, the same each time, and close to what is known to be best."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.topo.partition import SLACK, Graph, cut_weight, partition


def edges(count: int) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    """Edges of random weight between random vertices."""
    vertex = st.integers(0, count - 1)
    return st.lists(st.tuples(vertex, vertex, st.integers(1, 1000)), max_size=3 * count)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Work of the vertices, and edges."""
    work = draw(st.lists(st.integers(0, 50), min_size=1, max_size=120))
    return work, draw(edges(len(work)))


@given(graphs(), st.integers(1, 12))
def test_every_part_has_a_vertex(made: tuple[list[int], list[tuple[int, int, int]]], parts: int) -> None:
    """Whatever the graph, each vertex has one of the parts, no part is empty, and a second call says the same."""
    work, between = made
    parts = min(parts, len(work))
    found = partition(Graph.of(work, between), parts)
    assert len(found) == len(work)
    assert set(found) == set(range(parts))
    assert found == partition(Graph.of(work, between), parts)


@given(st.integers(2, 200).flatmap(lambda n: st.tuples(st.just(n), edges(n))))
def test_two_parts_of_equal_vertices_are_balanced(made: tuple[int, list[tuple[int, int, int]]]) -> None:
    """A half differs from its share by a twentieth of it or by one vertex, whatever the edges."""
    count, between = made
    found = partition(Graph.of([1] * count, between), 2)
    assert abs(found.count(0) - count // 2) <= max(1, count // 2 // SLACK)


@given(graphs())
def test_merging_keeps_weights(made: tuple[list[int], list[tuple[int, int, int]]]) -> None:
    """A cut of the contracted graph weighs what the same cut weighs in the graph itself."""
    work, between = made
    graph = Graph.of(work, between)
    into = [u // 2 for u in range(len(work))]
    small = graph.merged(into, (len(work) + 1) // 2)
    side = [(3 * u) % 2 for u in range(len(small.work))]
    assert small.total == graph.total
    assert cut_weight(small, side) == cut_weight(graph, [side[v] for v in into])


@pytest.mark.parametrize(("parts", "best"), [(2, 40), (4, 80)])
def test_a_grid_is_cut_across(parts: int, best: int) -> None:
    """The least cut of a 40 by 40 grid in equal parts is known; at most a tenth more is found."""
    count = 40 * 40
    between = [(i, i + 1, 1) for i in range(count) if i % 40 != 39] + [(i, i + 40, 1) for i in range(count - 40)]
    graph = Graph.of([1] * count, between)
    assert cut_weight(graph, partition(graph, parts)) <= best * 1.1


def test_clusters_are_found() -> None:
    """Eight cliques on a ring of light edges become four pairs of neighbours, whatever their vertices are called."""

    def name(cluster: int, member: int) -> int:
        return (cluster * 12 + member) * 37 % 96

    between = [(name(c, a), name(c, b), 10) for c in range(8) for a in range(12) for b in range(a)]
    between += [(name(c, 0), name((c + 1) % 8, 1), 1) for c in range(8)]
    graph = Graph.of([1] * 96, between)
    assert cut_weight(graph, partition(graph, 4)) == 4


def test_a_heavy_vertex_counts_for_many() -> None:
    """Work is balanced, not the number of vertices."""
    found = partition(Graph.of([8, *[1] * 8], [(0, i, 5) for i in range(1, 9)]), 2)
    assert found.count(found[0]) == 1


@pytest.mark.parametrize("parts", [0, 4])
def test_impossible_parts_are_refused(parts: int) -> None:
    """There must be a vertex for each part."""
    with pytest.raises(ValueError, match=r"parts must be in 1\.\.3"):
        partition(Graph.of([1, 1, 1], []), parts)
