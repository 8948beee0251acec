"""docs/performance.md is made of the figures and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bare, compare, compiled, limits, page, page_text, report
from cosim.bench.catalogue import WORKLOADS

MACHINE = {"python": "3.11", "cpus": 2, "load1": 0.1}
HOP = {
    "star_rate": 25_000.0, "star_ratio": 1.4, "hub_us": 15.0, "worker_us": 15.0, "floor": 20_000.0,
    "message_us": 3.0, "digest_us": 0.6, "hypervisor_share": {"8": 0.3, "256": 0.5},
}  # fmt: skip


def row(name: str, nodes: int, workers: str, link: str, rate: float, **more: Any) -> dict[str, Any]:
    """A row of `cosim bench`."""
    return {
        "name": name, "nodes": nodes, "workers": workers, "link": link, "rate": rate, "unit": "x/s", "cpu_us": 10.0,
        "floor_rate": 1000.0, "floor_unit": "", "ratio": rate / 1000, "load1": 0.1, "runs": 5, "rate_min": rate,
        "rate_max": rate, **more,
    }  # fmt: skip


def bench(*rows: dict[str, Any]) -> dict[str, Any]:
    """Results of the first part."""
    return {"bench": {"machine": MACHINE, "repeat": 5, "rows": list(rows)}}


def test_without_figures_the_page_says_so() -> None:
    """Nothing measured, nothing claimed."""
    text = page.render({})
    assert "Not measured yet: `make bench`." in text and "Not measured yet: `make bench-peers`." in text


@pytest.mark.parametrize(("ratio", "verdict"), [(700.0, "yes"), (600.0, "no")])
def test_a_target_is_met_or_not(ratio: float, verdict: str) -> None:
    """The fast link's target of 0.65 of the floor is judged by the figure."""
    text = page.render(bench(row("pingpong", 2, "per-node", "fast", ratio)))
    assert f"| ping-pong, process per node, fast link: x floor | >= 0.65 | {ratio / 1000:.3g} | {verdict} |" in text
    assert "254 bystanders" not in text, "a target without figures must not be judged"


def test_rows_that_were_measured_one_by_one_are_not_said_to_be_of_one_measurement() -> None:
    """The page has how many runs the medians are of, the least and the most; each row has its own load."""
    text = page.render(
        bench(row("pingpong", 2, "per-node", "fast", 500.0), {**row("mmio", 2, "0", "memory", 1.0), "runs": 3})
    )
    assert "python 3.11, cpus 2; medians of 3 to 5.\n" in text
    assert "medians of 5.\n" in page.render(bench(row("pingpong", 2, "per-node", "fast", 500.0)))


def test_bystanders_are_judged_by_ratios() -> None:
    """Rates of two rows are compared over their own floors."""
    crowd = {**row("pingpong", 256, "per-node", "fast", 450.0), "ratio": 0.9}
    text = page.render(bench(row("pingpong", 2, "per-node", "fast", 500.0), crowd))
    assert "| ping-pong, 254 bystanders: x floor over that of none | >= 0.8 | 1.8 | yes |" in text


def test_a_peer_without_result_is_shown_with_its_reason() -> None:
    """Its row stays in the table; the best of HELICS is that of the others."""
    rows = [
        {"system": "cosim, 2 workers", "ours": True, "rate": 4000.0, "rate_min": 1.0, "rate_max": 9.0, "runs": 5,
         "cpu_us": 5.0, "ratio": 4.0, "fault": ""},
        {"system": "HELICS, tcp", "ours": False, "rate": 200.0, "rate_min": 1.0, "rate_max": 9.0, "runs": 5,
         "cpu_us": 5.0, "ratio": 0.2, "fault": ""},
        {"system": "HELICS, zmq", "ours": False, "rate": None, "fault": "no broker"},
    ]  # fmt: skip
    table = {"workload": "barrier", "nodes": 19, "floor": 1000.0, "rows": rows}
    text = page.render(
        {
            **bench(),
            "peers": {"machine": MACHINE, "repeat": 5, "tables": [table]},
        }
    )
    assert "| HELICS, zmq | no result: no broker |" in text
    assert "| cosim, 2 workers | 4,000 | 1 | 9 | 5 | 4 | 20 |" in text


def test_targets_beside_peers_need_both_parts() -> None:
    """With figures of cosim and peers, the barrier on two workers is judged against the best HELICS."""
    rows = [{"system": s, "ours": False, "rate": r, "rate_min": r, "rate_max": r, "runs": 5, "cpu_us": 1.0, "ratio": 1.0,
             "fault": ""} for s, r in (("cosim, 2 workers", 3000.0), ("HELICS, tcp", 100.0), ("HELICS, zmq", 90.0))]  # fmt: skip
    peers = {
        "machine": MACHINE,
        "repeat": 5,
        "tables": [{"workload": "barrier", "nodes": 19, "floor": 1.0, "rows": rows}],
    }
    text = page.render({**bench(row("pingpong", 2, "per-node", "fast", 1.0)), "peers": peers})
    assert "| barrier, 2 workers: x best HELICS | >= 40 | 30 | no |" in text


def test_a_peer_that_fails_tells_its_last_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A script that is not there ends with its interpreter's words, not with a rate."""
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match="no_such_peer|benchmarks"):
        compare.peer("no_such_peer", "barrier", 2)(1.0)


def test_where_a_hop_goes_is_the_sum_of_what_was_measured() -> None:
    """Four bare hops, and the Python of two grants at hub and worker; the gain of compiling is shown as it was."""
    found = {"machine": MACHINE, "repeat": 3, "hop": HOP, "compiled": [{"what": "x", "gain": 1.25}]}
    text = page.render({"limits": found})
    assert "bare frames" not in text, "not measured yet"
    assert "| sum: the least that a round trip by way of the hub takes | 100 µs | 0.5 |" in text
    assert "measured: " not in text
    found = {"limits": found, **bench(row("pingpong", 2, "per-node", "fast", 0.75))}
    assert "| measured: the workers grant each other |" in page.render(found)
    assert "| x | 1.25 |" in text and "at most 2.0 times" in text


def test_a_bare_star_is_shown_beside_the_product_and_what_is_asked() -> None:
    """Per step: a fan-out's deliveries are divided by its sinks; each target is above or below the star's best rate."""
    stars = [
        {"name": name, "nodes": 19, "workers": "per-node", "link": "unix", "at_once": 18, "rate": 4000.0,
         "rate_min": 3000.0, "rate_max": 5000.0, "cpu_us": 200.0, "ratio": 4.0} for name in ("barrier", "fanout")
    ]  # fmt: skip
    found = {"machine": MACHINE, "repeat": 3, "hop": HOP, "compiled": [], "bare": {"floor": 1000.0, "rows": stars}}
    alone = page.render({"limits": found})
    assert "| fanout | 19 | per-node | unix | 4,000 | 5,000 | 4 | 200 | 0.8 | - | - | - | - | - |" in alone
    assert "asked for" not in alone, "a target without figures must not be judged"
    rivals = [{"workload": w, "nodes": 19, "floor": 1.0, "rows": [
        {"system": "HELICS, tcp", "rate": r, "rate_min": r, "rate_max": r, "cpu_us": 1.0, "ratio": 1.0}]}
        for w, r in (("barrier", 1000.0), ("fanout", 7200.0))]  # fmt: skip
    ours = row("fanout", 19, "per-node", "fast", 36_000.0, grants_per_round=10.0)
    peers = {"machine": MACHINE, "repeat": 5, "tables": rivals}
    text = page.render({**bench(ours), "peers": peers, "limits": found})
    assert "| 4,000 | 5,000 | 4 | 200 | 0.8 | 2,000 | 0.5 | 180 | 1.11 | 0.36 |" in text
    assert "| barrier | per-node | unix | 6 x HELICS | 6,000 | 1.2 | above the limit | 1.2 | 133 | - | - |" in text
    assert "| fanout | per-node | unix | 10 x HELICS | 4,000 | 0.8 | below it | 0.8 | 300 | -20 | 30 |" in text


def test_a_hop_is_taken_apart() -> None:
    """The bare star makes its round trips, and hub and worker in one thread play to the end."""
    assert bare.star(10) > 0
    hub_us, worker_us = limits.handling(200)
    assert hub_us > 0 and worker_us > 0
    whole, digest = limits.message(200)
    assert whole > 0 and digest > 0


def test_what_is_compiled_is_there() -> None:
    """A module that was renamed would be left out of the trial in silence."""
    assert [m for m in compiled.MODULES if not (compiled.ROOT / m).is_file()] == []


def test_every_workload_and_figure_is_explained() -> None:
    """A row's name and the names of its further figures are on the page, in words."""
    rows = json.loads(report.RESULTS.read_text())["bench"]["rows"]
    for name in WORKLOADS:
        assert f"| {name}" in page_text.WORKLOADS
    for figure in {key for row in rows for key in row} - set(page._KNOWN):
        assert f"`{figure}`" in page_text.WORKLOADS, figure


def test_interrupts_have_a_table_by_placement() -> None:
    """A line for each kind and size, a column for each placement, a dash where it was not measured."""
    rows = [
        row("interrupts-vsgi", 25, "per-node", "fast", 100.0, pes=8.0),
        row("interrupts-vsgi", 25, "0", "memory", 300.0, pes=8.0),
        row("interrupts-vsgi", 1033, "auto", "fast", 200.0, pes=512.0),
    ]
    text = page.render(bench(*rows))
    assert "| interrupts/s | PEs | nodes | workers per-node | workers 0 | workers auto |" in text
    assert "| vsgi | 8 | 25 | 100 | 300 | - |\n| vsgi | 512 | 1033 | - | - | 200 |" in text
    assert "| 512 PEs with --workers auto deliver interrupts: nodes | >= 1,000 | 1,030 | yes |" in text
    assert "delivered per second" not in page.render(bench())


def test_simbricks_stands_beside_what_was_measured() -> None:
    """Each line has the process-per-node row of the same workload and size, a dash where there is none."""
    text = page.render(bench(row("sparse", 64, "per-node", "fast", 7010.0)))
    assert "| sparse | 64 | 740 | 701 | 10 | 7,010 | 10 |" in text
    assert "| sparse | 128 | 949 | 711 | - | - | - |" in text


def test_grants_must_not_grow_either() -> None:
    """Frames and grants per round trip of 256 nodes are judged beside those of 4."""
    few = row("sparse", 4, "per-node", "fast", 1.0, grants_per_round=2.0, frames_per_round=4.0)
    many = row("sparse", 256, "per-node", "fast", 1.0, grants_per_round=2.5, frames_per_round=4.0)
    text = page.render(bench(few, many))
    assert "| sparse, grants per round trip of 256 nodes over that of 4 | <= 1 | 1.25 | no |" in text
    assert "| sparse, frames per round trip of 256 nodes over that of 4 | <= 1 | 1 | yes |" in text
    assert "What bounds those that are not met" in text


@pytest.mark.parametrize(("rate", "why"), [(5000.0, True), (7000.0, False)])
def test_reasons_stand_only_where_something_is_missed(rate: float, why: bool) -> None:
    """The barrier's reason is on the page when it is slower than 6 times HELICS, and not when it isn't."""
    star = {"name": "barrier", "nodes": 19, "workers": "per-node", "link": "unix", "at_once": 18, "rate": 9000.0,
            "rate_min": 9000.0, "rate_max": 9000.0, "cpu_us": 100.0, "ratio": 4.0}  # fmt: skip
    rivals = [{"workload": "barrier", "nodes": 19, "floor": 1.0, "rows": [
        {"system": "HELICS, tcp", "rate": 1000.0, "rate_min": 1.0, "rate_max": 1.0, "cpu_us": 1.0, "ratio": 1.0}]}]  # fmt: skip
    about = {"machine": MACHINE, "repeat": 3, "hop": HOP, "compiled": [], "bare": {"floor": 1000.0, "rows": [star]}}
    peers = {"machine": MACHINE, "repeat": 5, "tables": rivals}
    text = page.render({**bench(row("barrier", 19, "per-node", "fast", rate)), "limits": about, "peers": peers})
    assert ("Why the barrier misses targets" in text) == why


def test_the_page_is_that_of_the_figures() -> None:
    """docs/performance.md is what `python -m benchmarks.report page` writes now."""
    assert report.PAGE.read_text() == page.render(report.results())
