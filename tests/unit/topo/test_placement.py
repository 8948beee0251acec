"""Groups of nodes: every node once, no worker empty, neighbours together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.plan import LinkPlan
from cosim.topo.placement import group, parse_workers


def cluster(n: int) -> list[LinkPlan]:
    """Nodes 0 to n - 1 are cores, n to 2n - 1 their redistributors, 2n the distributor."""
    pairs = [(i, n + i, 5) for i in range(n)] + [(n + i, 2 * n, 20) for i in range(n)]
    return [LinkPlan(k, a, "x", b, "x", latency) for k, (a, b, latency) in enumerate(pairs)]


def test_one_node_per_worker_is_the_default() -> None:
    """per-node gives each node a worker, in the order of ids."""
    assert group("per-node", 3, [], []) == ((0,), (1,), (2,))


def test_one_worker_hosts_all() -> None:
    """0 and 1 are one group."""
    assert group(0, 3, [], []) == group(1, 3, [], []) == ((0, 1, 2),)


def test_neighbours_stay_together() -> None:
    """A core shares its worker with its redistributor when workers host several nodes."""
    groups = group(4, 17, cluster(8), [])
    assert len(groups) == 4
    assert max(map(len, groups)) - min(map(len, groups)) <= 2
    for core in range(8):
        assert any(core in g and core + 8 in g for g in groups)


def test_together_is_kept() -> None:
    """Nodes that the topology wants together share a worker."""
    groups = group(3, 17, cluster(8), [[2, 16], [16, 5]])
    assert any({2, 5, 16} <= set(g) for g in groups)


def test_auto_takes_the_cores() -> None:
    """auto makes as many workers as processors, or nodes if they are fewer."""
    assert len(group("auto", 17, cluster(8), [], cores=4)) == 4
    assert len(group("auto", 2, [], [], cores=4)) == 2
    assert 1 <= len(group("auto", 17, cluster(8), [])) <= 17


@given(st.integers(1, 12), st.integers(0, 40), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=6))
def test_groups_are_a_partition(n: int, workers: int, wishes: list[tuple[int, int]]) -> None:
    """Every node is in exactly one group, there are as many groups as asked for (at most one per node), and none is empty."""
    together = [[a % n, b % n] for a, b in wishes]
    links = [LinkPlan(i, i, "x", (i + 1) % n, "x", 1 + i % 3) for i in range(n) if n > 1]
    groups = group(workers, n, links, together)
    assert sorted(node for g in groups for node in g) == list(range(n))
    assert len(groups) == max(1, min(workers, n))
    assert all(groups)
    assert groups == group(workers, n, links, together)


@pytest.mark.parametrize(("text", "value"), [("per-node", "per-node"), ("auto", "auto"), ("0", 0), ("12", 12)])
def test_workers_are_read(text: str, value: str | int) -> None:
    """The values of --workers."""
    assert parse_workers(text) == value


@pytest.mark.parametrize("text", ["", "-1", "many", "1.5"])
def test_wrong_workers_are_refused(text: str) -> None:
    """Anything else is an error."""
    with pytest.raises(ValueError, match="per-node, auto or a number"):
        parse_workers(text)


def test_only_mutual_neighbours_stay_together() -> None:
    """A node whose nearest has somebody nearer is free to go elsewhere, else a chain would end in one worker."""
    chain = [LinkPlan(0, 0, "x", 1, "x", 5), LinkPlan(1, 1, "x", 2, "x", 4), LinkPlan(2, 2, "x", 3, "x", 3)]
    assert group(2, 4, chain, []) == ((2, 3), (0, 1))
