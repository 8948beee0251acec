"""What is measured in parts is kept together."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from cosim.bench import harness
from cosim.bench.catalogue import cases


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and page in a directory of the test."""
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "performance.md")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """`python -m benchmarks.report` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["report", *words])
    return report.main()


def row(name: str) -> dict[str, Any]:
    """A row with only what keeping it needs."""
    return {"name": name}


def test_a_workload_measured_again_replaces_its_rows_only(kept: Path) -> None:
    """Rows of other workloads stay; all are in the order W1 to W8."""
    old = {"rows": [row("interrupts-vlpi"), row("barrier")], "faults": ["interrupts-vsgi, 8 nodes: no"], "repeat": 5}
    (kept / "results.json").write_text(json.dumps({"bench": old}))
    found = report.merged({"rows": [row("interrupts-vsgi"), row("interrupts-vlpi")], "faults": []}, "interrupts")
    assert [r["name"] for r in found["rows"]] == ["barrier", "interrupts-vsgi", "interrupts-vlpi"]
    assert found["faults"] == []


def test_a_row_that_fails_does_not_end_the_others(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page names it, the exit status tells, the row that worked is there."""

    def measure(case: Any, repeat: int, seconds: float) -> dict[str, Any]:
        if case.workers == "2":
            raise RuntimeError("out of luck")
        return harness.measure(case, repeat, seconds)

    one, two = cases("compute", 2, ("1",), operations=10)[0], cases("compute", 2, ("2",))[0]
    monkeypatch.setattr(report, "cases", lambda _name: [two, one])
    monkeypatch.setattr(report, "measure", measure)
    assert run(monkeypatch, "bench", "--only", "compute", "--repeat", "1") == 1
    page = (kept / "performance.md").read_text()
    assert "No result: compute, 2 nodes, 2, fast: out of luck" in page
    assert "| compute | 2 | 1 | fast |" in page


def test_the_page_alone_needs_no_measurement(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`page` writes what is kept, here nothing."""
    assert run(monkeypatch, "page") == 0
    assert "Not measured yet" in (kept / "performance.md").read_text()
