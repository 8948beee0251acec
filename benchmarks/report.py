"""Measure, and write docs/performance.md.

    python -m benchmarks.report bench     the workloads of `cosim bench`
    python -m benchmarks.report runs      whole runs of RD-N2-Cfg1 by `cosim up`
    python -m benchmarks.report peers     the same workloads by HELICS, mosaik and SimPy (requirements/bench.txt)
    python -m benchmarks.report page      only write the page again

Figures are kept in benchmarks/results.json, so that either part can be taken in a quiet hour of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks import page, whole_runs
from cosim.bench.catalogue import WORKLOADS, cases
from cosim.bench.harness import measure
from cosim.errors import CosimError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
RUNS = ("per-node", "2", "1", "0")
PAGE = ROOT / "docs" / "performance.md"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)),
        "load1": round(os.getloadavg()[0], 2),
    }


def bench(repeat: int, seconds: float, names: tuple[str, ...]) -> dict[str, Any]:
    """The rows of the workloads named, and what went wrong with those that gave none."""
    about = machine()
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for name in names:
        for case in cases(name):
            what = f"{case.name}, {case.nodes} nodes, {case.workers}, {case.link}"
            print(what, file=sys.stderr, flush=True)
            try:
                rows.append(measure(case, repeat, seconds))
            except (CosimError, RuntimeError) as error:
                faults.append(f"{what}: {error}")
                print(f"no result: {faults[-1]}", file=sys.stderr, flush=True)
    return {"machine": about, "repeat": repeat, "rows": rows, "faults": faults}


def runs(repeat: int) -> dict[str, Any]:
    """Whole runs by placement, as users start them.

    Raises:
        RuntimeError: placements gave different digests.
    """
    about = machine()
    rows = [whole_runs.summary("rdn2cfg1", workers, repeat) for workers in RUNS]
    if len({row["digest"] for row in rows}) != 1:
        raise RuntimeError(f"placement must not change the digest: {[(row['workers'], row['digest']) for row in rows]}")
    return {"machine": about, "repeat": repeat, "rows": rows}


def peers(repeat: int, seconds: float) -> dict[str, Any]:
    """The tables beside other frameworks."""
    from importlib.metadata import version

    from benchmarks.compare import WORKLOADS as compared
    from benchmarks.compare import compare

    about = {**machine(), **{name: version(name) for name in ("helics", "mosaik", "simpy")}}
    return {"machine": about, "repeat": repeat, "tables": [compare(name, n, repeat, seconds) for name, n in compared]}


def main() -> int:
    """Measure one part and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="Measure; write docs/performance.md."
    )
    parser.add_argument("part", choices=("bench", "runs", "peers", "page"))
    parser.add_argument("--repeat", type=int, default=5, help="runs of each row; medians are shown (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each run lasts (1)")
    parser.add_argument("--only", action="append", choices=WORKLOADS, help="bench: only this workload; may be repeated")
    options = parser.parse_args()
    if options.repeat < 1 or options.seconds <= 0:
        parser.error("--repeat and --seconds must be above 0")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.part == "bench":
        names = tuple(options.only or WORKLOADS)
        found = bench(options.repeat, options.seconds, names)
        kept = [row for row in results.get("bench", {}).get("rows", []) if workload(row) not in names]
        found["rows"] = sorted([*kept, *found["rows"]], key=lambda row: WORKLOADS.index(workload(row)))
        results["bench"] = found
    elif options.part == "runs":
        results["runs"] = runs(options.repeat)
    elif options.part == "peers":
        results["peers"] = peers(options.repeat, options.seconds)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page.render(results))
    print(PAGE.relative_to(ROOT))
    return 1 if results.get(options.part, {}).get("faults") else 0


def workload(row: dict[str, Any]) -> str:
    """The name of the workload that a row belongs to."""
    return str(row["name"]).partition("-")[0]


if __name__ == "__main__":
    sys.exit(main())
