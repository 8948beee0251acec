"""`cosim sweep`: grids, results that are kept, points that fail, the interrupt paths of three generations in one table."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cosim.errors import UsageError
from cosim.run.sweep import Options, default_jobs, parse_grid, points_of, prepare, worst
from cosim.view.sweep import total
from tests.support.processes import is_running
from tests.support.runs import ROOT, command, cosim, environment, ring

SWEEP = ("--allow-models", "tests.support", "--json")


def sweep(tmp_path: Path, *options: str | Path, topology: Path | None = None) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON and stderr of a sweep of a small ring into tmp_path/out."""
    done = cosim("sweep", topology or ring(tmp_path), "--out", tmp_path / "out", *SWEEP, *options)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def test_a_grid_is_the_product_of_its_values() -> None:
    """The first name is slowest; directories are named by values and are all different."""
    points = points_of(parse_grid(["a=1,2", "b=x, y", "c="]), Path("out"))
    assert [p.sets for p in points] == [{"a": a, "b": b, "c": ""} for a in "12" for b in "xy"]
    assert points[0].directory == Path("out/points/a=1,b=x,c=none")
    assert len({p.directory for p in points}) == 4


@pytest.mark.parametrize("pairs", [[], ["a"], ["=1"], ["a=1", "a=2"]])
def test_what_is_no_grid_is_refused(pairs: list[str]) -> None:
    """No --set, no value, no name, a name twice."""
    with pytest.raises(UsageError):
        parse_grid(pairs)


def test_jobs_follow_cores_and_workers() -> None:
    """One run per core when each is one process, one at a time when each takes all cores."""
    cores = len(os.sched_getaffinity(0))
    assert (default_jobs("0"), default_jobs("1"), default_jobs("per-node")) == (cores, cores, 1)


def test_patterns_sum_counters_of_numbered_nodes() -> None:
    """its* takes its0 and its12, not itsy or the counter of another name."""
    counters = {"its0.c": 1, "its12.c": 2, "itsy.c": 4, "its1.d": 8, "h.c": 16}
    assert (total(counters, ["its*.c"]), total(counters, ["h.c"]), total(counters, ["x.c"])) == (3, 16, 0)


def test_a_sweep_leaves_a_table_a_report_and_a_figure(tmp_path: Path) -> None:
    """Six points run; CSV, Markdown, SVG and JSON say the same."""
    code, got, errors = sweep(tmp_path, "--set", "nodes=2,3,4", "--set", "rounds=4,8")
    assert (code, errors) == (0, "")
    assert [(p["nodes"], p["rounds"]) for p in got["points"]] == [(n, r) for n in "234" for r in "48"]
    assert len({p["digest"] for p in got["points"]}) == 6
    out = tmp_path / "out"
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["digest"] for row in rows] == [p["digest"] for p in got["points"]]
    report = (out / "results.md").read_text()
    assert report.count("| passed |") == 6
    assert "| latency   | 10ns  | of each link |" in report
    assert ElementTree.parse(out / "results.svg").getroot().tag.endswith("svg")
    assert [t["name"] for t in got["timing"]] == ["latency"]


def test_results_are_kept_while_they_are_true(tmp_path: Path) -> None:
    """Again: nothing runs. Other topology, a result that is gone, --fresh: those points run again, with the same digests."""
    points = {n: tmp_path / "out" / "points" / f"nodes={n}" / "result.json" for n in (2, 3)}
    _, first, _ = sweep(tmp_path, "--set", "nodes=2,3")
    times = {n: path.stat().st_mtime_ns for n, path in points.items()}
    points[3].unlink()
    _, second, _ = sweep(tmp_path, "--set", "nodes=2,3")
    assert points[2].stat().st_mtime_ns == times[2]
    assert [p["digest"] for p in first["points"]] == [p["digest"] for p in second["points"]]
    file = ring(tmp_path)
    file.write_text(file.read_text().replace("default: 10ns", "default: 11ns"))
    _, third, _ = sweep(tmp_path, "--set", "nodes=2,3", topology=file)
    assert points[2].stat().st_mtime_ns > times[2]
    assert first["points"][0]["digest"] != third["points"][0]["digest"]
    before = points[2].stat().st_mtime_ns
    sweep(tmp_path, "--set", "nodes=2,3", "--fresh", topology=file)
    assert points[2].stat().st_mtime_ns > before


def test_points_that_fail_are_listed_and_give_the_exit_code(tmp_path: Path) -> None:
    """A model that raises: both points are named with the reason, and the exit code is theirs."""
    code, got, errors = sweep(tmp_path, "--set", "nodes=3", "--set", "rounds=4,8", topology=ring(tmp_path, "Raises"))
    assert code == max(p["exit_code"] for p in got["points"]) == 3
    assert len(got["failed"]) == 2
    assert all(line in errors for line in got["failed"])
    assert "nodes=3 rounds=4: exit 3; " in got["failed"][0]
    assert "Points that did not pass" in (tmp_path / "out" / "results.md").read_text()


def test_the_worst_point_decides() -> None:
    """The largest exit code; a signal goes before all."""
    points = points_of({"a": ["1", "2", "3"]}, Path("out"))
    for point, code in zip(points, (0, 4, 1), strict=True):
        point.exit_code = code
    assert (worst(points, None), worst(points, 2)) == (4, 130)


def test_wrong_points_start_nothing(tmp_path: Path) -> None:
    """A value that one point cannot have: exit 2, before any run; so with a directory that is no sweep's."""
    code, _, errors = sweep(tmp_path, "--set", "nodes=2,many")
    assert code == 2
    assert "many" in errors
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(UsageError, match="--out must be new"):
        prepare(Options(str(ring(tmp_path)), allow_models=("tests.support",)), {"nodes": ["2"]}, tmp_path / "mine")


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGINT: 130, no process left behind; started again it keeps the points that were finished."""
    topology, out = ring(tmp_path), tmp_path / "out"
    argv: list[str | Path] = ["sweep", topology, "--out", out, *SWEEP, "--jobs", "1", "--set", "work_us=0,3000000"]
    process = subprocess.Popen(
        command(*argv), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (out / "points" / "work_us=3000000" / "run.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    kept = out / "points" / "work_us=0" / "result.json"
    before = kept.stat().st_mtime_ns
    code, got, _ = sweep(tmp_path, "--set", "work_us=0")
    assert (code, got["points"][0]["status"]) == (0, "passed")
    assert kept.stat().st_mtime_ns == before


def test_a_killed_sweep_leaves_no_process(tmp_path: Path) -> None:
    """kill -9 of the sweep ends the run under way, too."""
    topology, out = ring(tmp_path), tmp_path / "out"
    argv: list[str | Path] = ["sweep", topology, "--out", out, *SWEEP, "--set", "work_us=3000000"]
    process = subprocess.Popen(command(*argv), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    info = out / "points" / "work_us=3000000" / "run.json"
    deadline = time.monotonic() + 60
    while not info.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    pid = json.loads(info.read_text())["pid"]
    assert is_running(pid)
    process.kill()
    process.wait(timeout=30)
    while is_running(pid):
        assert time.monotonic() < deadline + 30
        time.sleep(0.05)


def test_three_generations_in_one_table(tmp_path: Path) -> None:
    """The main comparison: exact counts for v3, v4.0 and v4.1, one text in all, direct injection is faster in each family."""
    done = cosim(
        "sweep", "topologies/rdn2cfg1.yaml", "--set", "gic_version=3,4.0,4.1", "--out", tmp_path / "out", "--json"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["points"]
    expected = {
        "exits_sgi_trap": [3, 3, 3],
        "sgir_writes": [0, 0, 12],
        "lr_injections": [22, 12, 0],
        "host_lpis": [10, 0, 0],
        "vsgi_direct": [0, 0, 12],
        "vlpi_direct": [0, 10, 10],
        "vsgi_lr": [12, 12, 0],
        "vlpi_lr": [10, 0, 0],
        "doorbells": [0, 0, 0],
        "guest_text": ["A", "A", "A"],
    }
    assert {name: [row[name] for row in rows] for name in expected} == expected
    v3, v40, v41 = rows
    assert v3["vlpi_p50_ps"] > v40["vlpi_p50_ps"] > 0
    assert min(v3["vsgi_p50_ps"], v40["vsgi_p50_ps"]) > v41["vsgi_p50_ps"] > 0
    report = (tmp_path / "out" / "results.md").read_text()
    assert "The guests print the same text at all points" in report
    assert "| t_trap " in report
