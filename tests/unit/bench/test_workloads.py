"""Every workload runs, small, and its row says what a script may rely on. No timing is asserted."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import subprocess
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cosim.bench import harness, interrupts, plans
from cosim.bench.catalogue import WORKLOADS, cases
from cosim.bench.harness import Case, Reading, measure, run_plan
from cosim.cli.main import group
from cosim.errors import CosimError, UsageError
from tests.support.runs import command, environment

SYNTHETIC = ("barrier", "pingpong", "fanout", "sparse", "mmio", "compute")
FIELDS = {
    "name": str, "nodes": int, "workers": str, "rate": float, "unit": str, "cpu_us": float, "floor_rate": float,
    "ratio": float, "load1": float,
}  # fmt: skip


def sane(row: dict[str, Any]) -> None:
    """All fields of the contract, finite, and a ratio that is what it says."""
    for name, kind in FIELDS.items():
        assert isinstance(row[name], kind), f"{name} of {row}"
    assert row["rate"] > 0 and row["floor_rate"] > 0 and row["cpu_us"] > 0
    assert math.isclose(row["ratio"], row["rate"] / row["floor_rate"], rel_tol=0.01)
    assert row["rate_min"] <= row["rate"] <= row["rate_max"]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_synthetic_workload_gives_a_row(name: str) -> None:
    """A small run of each, in this process, fills every field of its row."""
    (case,) = cases(name, nodes=3, workers=("0",), operations=30)
    row = measure(case, repeat=2)
    sane(row)
    assert (row["name"], row["nodes"], row["workers"], row["link"], row["runs"]) == (name, 3, "0", "memory", 2)


@pytest.mark.parametrize("name", ("barrier", "pingpong", "fanout", "sparse", "mmio"))
def test_placement_and_link_change_no_digest(name: str) -> None:
    """A process per node by either link, two workers and one process give one digest."""
    build = getattr(plans, name)
    digests = set()
    for workers, link in (("per-node", "fast"), ("per-node", "zmq"), ("2", "fast"), ("0", "memory")):
        sample = run_plan(plans.place(build(3, 20), workers), workers, link)
        assert sample.result["status"] == "passed"
        digests.add(sample.result["digest"])
    assert len(digests) == 1


def test_a_step_of_the_barrier_is_a_grant_of_each_node() -> None:
    """Latencies let no node run ahead: N nodes and S steps are N * S grants."""
    sample = run_plan(plans.place(plans.barrier(4, 50), "per-node"), "per-node")
    assert sample.result["grants"] == 4 * 50
    assert sample.frames == 2 * (4 * 50 - 4) and sample.grants == 4 * 50 - 4, "without the first grant of each"


@pytest.mark.parametrize("build", [plans.pingpong, plans.sparse])
def test_bystanders_cost_no_grant(build: Any) -> None:
    """A round trip is two grants, with two nodes or with eight."""
    few, many = (run_plan(plans.place(build(n, 50), "per-node"), "per-node") for n in (2, 8))
    assert few.grants == many.grants == 2 * 50 - 1
    assert few.frames == many.frames == 2 * few.grants


def test_startup_has_figures_of_its_own() -> None:
    """Start-up of two workers has figures of its own for getting ready and for stopping."""
    case, other = cases("startup", nodes=2, workers=("per-node",))
    assert (case.name, other.name) == ("startup", "startup-exec")
    row = measure(case, repeat=1)
    sane(row)
    assert all(row[figure] > 0 for figure in ("up_cpu_s", "cpu_s", "up_s", "stop_s"))


def test_memory_is_compared_with_a_bare_interpreter() -> None:
    """Private memory of a worker, with the proportional set size beside it; one process for all has none to show."""
    forked, executed = (measure(case, repeat=1) for case in cases("memory", nodes=2, workers=("per-node",)))
    sane(executed)
    assert executed["name"] == "memory-exec" and executed["rate"] > 1.3 * forked["rate"], (
        "a forked worker shares its code"
    )
    row = forked
    sane(row)
    assert row["unit"] == "MiB/worker" and row["pss"] > 0
    with pytest.raises(UsageError, match="must be measured of processes"):
        cases("memory", workers=("0",))


@pytest.mark.parametrize("kind", interrupts.KINDS)
def test_interrupts_are_counted_at_the_guest(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of the machine that differ by what was asked for differ by as many interrupts taken."""
    monkeypatch.setattr(interrupts, "TRANSACTIONS", (1, 101))
    case = interrupts.case(4, "0", "fast", kind=kind)
    row = measure(case, repeat=1)
    sane(row)
    assert row["name"] == f"interrupts-{kind}"
    assert row["interrupts"] == (100 if kind == "vlpi" else 400 * 3)


def test_runs_of_one_case_must_agree() -> None:
    """A second run with another digest is an error, not a median."""
    digests = iter(("aa", "bb"))
    case = Case("odd", 2, "0", "memory", "x/s", lambda _case: Reading(1.0, 1.0, next(digests)), 1, floor=lambda: 1.0)
    with pytest.raises(CosimError, match="one digest"):
        measure(case, repeat=2)


def test_the_number_of_operations_fills_the_time() -> None:
    """Two trials find it out: at 1,000 operations a second, half a second is 500."""
    asked: list[int] = []

    def run(case: Case) -> Reading:
        asked.append(case.operations)
        return Reading(1000.0, 1.0)

    case = Case("steady", 2, "0", "memory", "x/s", run)
    assert harness.calibrated(case, 0.5).operations == 500
    assert asked == [harness.PILOT, harness.PILOT]


def test_every_name_and_number_is_a_workload() -> None:
    """w1 to w8 are the first eight names; what is neither is refused with the names."""
    for number, name in enumerate(WORKLOADS[:5], 1):
        assert [c.name for c in cases(f"w{number}")] == [c.name for c in cases(name)]
    with pytest.raises(UsageError, match="barrier, pingpong"):
        cases("w0")
    with pytest.raises(UsageError, match="per-node, auto or a number"):
        cases("barrier", workers=("many",))
    with pytest.raises(UsageError, match="at least 2 nodes"):
        cases("pingpong", nodes=1)


def test_the_command_prints_a_list_of_objects() -> None:
    """`cosim bench NAME --json` prints rows, and nothing else, on stdout."""
    words = ["bench", "w2", "--nodes", "2", "--workers", "0", "--operations", "50", "--repeat", "1", "--json"]
    done = CliRunner().invoke(group, words, catch_exceptions=False)
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert len(rows) == 1
    sane(rows[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("pingpnog",),
            "one of barrier, pingpong, fanout, sparse, mmio, interrupts, startup, memory, compute, working",
        ),
        (("w9",), r"\(w1 to w8\) or all, not 'w9'"),
        (("pingpong", "--workers", "many"), "--workers must be per-node, auto or a number"),
        (("startup", "--workers", "0"), "start-up must be measured of processes, not of --workers 0"),
        (("interrupts", "--nodes", "600"), "--nodes 600 .PEs.: parameter pes must be at most 512, not 600"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_printed(words: tuple[str, ...], said: str) -> None:
    """No table is begun for a wrong name, placement or size; the text has the option and what it may be."""
    done = CliRunner().invoke(group, ["bench", *words])
    assert isinstance(done.exception, UsageError) and done.stdout == ""
    with pytest.raises(UsageError, match=said):
        raise done.exception


def test_a_misspelt_workload_has_a_suggestion() -> None:
    """The next step is the name that was meant, else the help."""
    for name, next_step in (
        ("pingpnog", "did you mean pingpong?"),
        ("x", "`cosim bench --help` says what each measures"),
    ):
        with pytest.raises(UsageError) as caught:
            cases(name)
        assert caught.value.next_step == next_step


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--seconds", "0", "must be above 0 and at most 3600, not 0"),
        ("--seconds", "-1", "must be above 0 and at most 3600, not -1"),
        ("--seconds", "nan", "must be above 0 and at most 3600, not nan"),
        ("--seconds", "inf", "must be above 0 and at most 3600, not inf"),
        ("--operations", "99999999999999999999", "0<=x<=1000000000"),
        ("--nodes", "1", "2<=x<=4096"),
        ("--repeat", "0", "x>=1"),
    ],
)
def test_numbers_out_of_range_are_refused(option: str, value: str, said: str) -> None:
    """Exit code 2, with the option and its range."""
    done = CliRunner().invoke(group, ["bench", "pingpong", "--workers", "0", option, value])
    assert done.exit_code == 2 and done.stdout == ""
    assert f"Invalid value for '{option}'" in done.stderr and said in done.stderr


@pytest.mark.parametrize("name", ["pingpong", "sparse", "startup", "memory", "compute"])
def test_a_link_is_that_of_all_rows(name: str) -> None:
    """--link alone gives the workload's own sizes and placements by that link, also where it has no such row of its own."""
    own, found = cases(name), cases(name, link="zmq")
    assert {c.link for c in found} <= {"zmq", "memory"} and "zmq" in {c.link for c in found}
    assert {(c.name, c.nodes, c.workers) for c in found} == {(c.name, c.nodes, c.workers) for c in own}
    assert len(found) == len({(c.name, c.nodes, c.workers) for c in found})


def test_a_row_tells_how_many_workers_there_were() -> None:
    """More workers than nodes are as many as there are nodes."""
    assert [c.workers for c in cases("pingpong", nodes=3, workers=("2", "1000"))] == ["2", "3"]


def test_an_interrupt_is_not_lost_in_the_garbage() -> None:
    """What is raised in a callback of the collector is ignored by Python: SIGINT must come after it."""

    class Cycle:
        pass

    one = Cycle()
    one.me = one  # type: ignore[attr-defined]
    gc.disable()
    try:
        _watch = weakref.ref(one, lambda _ref: signal.raise_signal(signal.SIGINT))
        del one
        with pytest.raises(KeyboardInterrupt):
            harness.collect()
    finally:
        gc.enable()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_so_and_leaves_nothing(number: int, code: int, tmp_path: Any) -> None:
    """Rows that were measured are printed, also as JSON; processes and folders are gone."""
    words = ["bench", "barrier", "--nodes", "3", "--workers", "2", "--operations", "30", "--repeat", "100000", "--json"]
    child = subprocess.Popen(
        command(*words),
        env={**environment(), "TMPDIR": str(tmp_path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob("cosim-bench-*")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child.pid, number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    assert json.loads(out) == [] and err == f"interrupted by {signal.Signals(number).name}\n"
    assert list(tmp_path.glob("cosim-bench-*")) == []


def test_ctrl_c_in_code_made_from_a_string_changes_no_exit_code(tmp_path: Path) -> None:
    """As in a module with a namedtuple that is just imported: CPython would end by SIGINT in spite of the exit code."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "import cosim.cli.main\n"
        "def main():\n"
        "    try:\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(143)\n"
        "cosim.cli.main.main = main\n"
    )
    path = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    done = subprocess.run(command("bench"), env={**environment(), "PYTHONPATH": path}, timeout=60, check=False)
    assert done.returncode == 143


def test_rows_before_a_fault_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json what was measured comes out although a later row failed."""
    rows = iter([{"name": "pingpong"}])

    def one(*_arguments: Any) -> dict[str, Any]:
        row = next(rows, None)
        if row is None:
            raise CosimError("the second failed", code="bench")
        return row

    monkeypatch.setattr(harness, "measure", one)
    done = CliRunner().invoke(group, ["bench", "pingpong", "--json"])
    assert isinstance(done.exception, CosimError) and json.loads(done.stdout) == [{"name": "pingpong"}]
