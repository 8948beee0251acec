"""Groups of nodes: every node once, no worker empty, neighbours together."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.plan import LinkPlan
from cosim.topo import placement
from cosim.topo.placement import Groups, Traffic, parse_workers


def group(workers: str | int, count: int, links: list[LinkPlan], together: list[list[int]], **more: Any) -> Groups:
    """Placement of nodes called n0, n1, and so on."""
    return placement.group(workers, [f"n{i}" for i in range(count)], links, together, **more)


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
    assert group(2, 4, chain, []) == ((0, 1), (2, 3))


def machine(pes: int, endpoints: int) -> tuple[int, list[LinkPlan]]:
    """Node count and links of a machine: cores, their redistributors, six shared blocks, endpoints; links both ways."""
    shared = 2 * pes
    pairs = []
    for i in range(pes):
        pairs += [(i, pes + i, 1_000), (pes + i, shared, 20_000), (pes + i, shared + 1, 40_000)]
        pairs += [(i, shared + k, 50_000) for k in range(2, 5)]
    pairs += [(shared + 6 + e, shared + 5, 100_000) for e in range(endpoints)]
    both = [way for a, b, latency in pairs for way in ((a, b, latency), (b, a, latency))]
    power = [(shared + 4, i, 1_000_000) for i in range(shared + 6 + endpoints) if i != shared + 4]
    links = [LinkPlan(k, a, "x", b, "x", latency) for k, (a, b, latency) in enumerate(both)]
    links += [LinkPlan(len(links) + k, a, "power", b, "power", latency) for k, (a, b, latency) in enumerate(power)]
    return shared + 6 + endpoints, links


@pytest.mark.parametrize("workers", [2, 3, 16])
def test_a_large_machine_is_cut_quickly(workers: int) -> None:
    """1,500 nodes and 8,000 links in under 2 s of CPU; cores stay with their redistributors, loads are within a quarter."""
    count, links = machine(512, 470)
    assert (count, len(links)) == (1500, 8583)
    began = time.process_time()
    groups = group(workers, count, links, [])
    assert time.process_time() - began < 2
    where = {node: number for number, nodes in enumerate(groups) for node in nodes}
    assert all(where[core] == where[512 + core] for core in range(512))
    assert max(map(len, groups)) <= 1.25 * count / workers


def test_power_lines_do_not_tie_nodes() -> None:
    """The power links carry two messages a run: two chains stay whole though one node has power links to all."""
    chain = [(0, 1, 9), (1, 2, 9), (2, 3, 9), (4, 5, 9), (5, 6, 9), (6, 7, 9)]
    links = [LinkPlan(k, a, "x", b, "x", latency) for k, (a, b, latency) in enumerate(chain)]
    links += [LinkPlan(6 + i, 0, "power", i, "power", 1) for i in range(1, 8)]
    assert group(2, 8, links, []) == ((0, 1, 2, 3), (4, 5, 6, 7))


def test_measured_traffic_goes_before_latency() -> None:
    """Nodes that talked in the profile share a worker, though the topology's latencies say otherwise."""
    links = [LinkPlan(k, k, "x", (k + 1) % 4, "x", (1, 1000)[k % 2]) for k in range(4)]
    assert group(2, 4, links, []) == ((0, 1), (2, 3))
    traffic = Traffic({("n1", "x", "n2", "x"): 500, ("n3", "x", "n0", "x"): 500}, {})
    assert group(2, 4, links, [], traffic=traffic) == ((0, 3), (1, 2))


def test_measured_work_is_balanced() -> None:
    """A node with as many events as all others together has a worker of its own; counted as nodes, they are cut elsewhere."""
    links = [LinkPlan(k, k + 1, "x", k + 2, "x", 10) for k in range(3)]
    traffic = Traffic({}, {"n0": 400, "n1": 100, "n2": 100, "n3": 100, "n4": 100})
    assert group(2, 5, links, [], traffic=traffic) == ((0,), (1, 2, 3, 4))
    assert sorted(map(len, group(2, 5, links, []))) == [2, 3]


def test_a_profile_reads_back(tmp_path: Path) -> None:
    """traffic.json gives what was measured; links without messages are left out, they count as idle anyway."""
    traffic = Traffic({("a", "x", "b", "y"): 3, ("b", "y", "a", "x"): 0}, {"b": 1, "a": 2})
    (tmp_path / "traffic.json").write_text(traffic.text())
    assert Traffic.read(tmp_path) == Traffic({("a", "x", "b", "y"): 3}, {"a": 2, "b": 1})


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({}, "must hold `work`"),
        ([], "must hold `work`"),
        ({"work": {"a": "many"}, "links": []}, "must hold `work`"),
        ({"work": {}, "links": [["a", "x", "b"]]}, "must hold `work`"),
        ({"work": {"a": -1}, "links": []}, "no negative number"),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path: Path, content: Any, what: str) -> None:
    """The error names the file and what it must hold."""
    (tmp_path / "traffic.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=what) as caught:
        Traffic.read(tmp_path)
    assert "traffic.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", r"must be JSON: Expecting value: line 1 column 1"),
        (b"\xff\xfe", "must be JSON: .*can't decode byte 0xff"),
        (b'{"work": {"a": 1e400}, "links": []}', "must hold `work`"),
    ],
)
def test_a_profile_that_is_no_json_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    """The error names the file, says that it must be JSON and where it isn't."""
    (tmp_path / "traffic.json").write_bytes(content)
    with pytest.raises(ValueError, match=what) as caught:
        Traffic.read(tmp_path)
    assert "traffic.json" in str(caught.value)


def test_a_run_without_a_profile_is_refused(tmp_path: Path) -> None:
    """The error says which runs have one."""
    with pytest.raises(ValueError, match=r"can't be read.*only a run that ended by itself"):
        Traffic.read(tmp_path)
