"""Measure, and write docs/performance.md.

    python -m benchmarks.report bench     the workloads of `cosim bench`
    python -m benchmarks.report runs      whole runs of RD-N2-Cfg1 by `cosim up`
    python -m benchmarks.report limits    what a hop is made of, bare stars, what compiling would give (requirements/dev.txt)
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


def bench(repeat: int, seconds: float, name: str) -> dict[str, Any]:
    """The rows of a workload, and what went wrong with those that gave none."""
    about = machine()
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
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
    rows.append(whole_runs.summary("rdn2cfg1", "per-node", repeat, hosts=2))
    if len({row["digest"] for row in rows}) != 1:
        raise RuntimeError(f"placement must not change the digest: {[(row['workers'], row['digest']) for row in rows]}")
    return {"machine": about, "repeat": repeat, "rows": rows}


def limits(repeat: int) -> dict[str, Any]:
    """Where the time of a hop goes."""
    from benchmarks import bare, compiled
    from benchmarks import limits as hop

    about = machine()
    return {
        "machine": about,
        "repeat": repeat,
        "hop": hop.measure(repeat),
        "compiled": compiled.measure(repeat),
        "bare": bare.measure(repeat),
    }


def peers(repeat: int, seconds: float, only: list[str] | None) -> int:
    """Measure and keep the tables beside other frameworks, one by one; the number of rows without result."""
    from importlib.metadata import version

    from benchmarks.compare import WORKLOADS as compared
    from benchmarks.compare import compare

    about, faults = {**machine(), **{name: version(name) for name in ("helics", "mosaik", "simpy")}}, 0
    for name, nodes in compared:
        if only and name not in only:
            continue
        table = compare(name, nodes, repeat, seconds)
        faults += sum(row["rate"] is None for row in table["rows"])
        tables = {(t["workload"], t["nodes"]): t for t in results().get("peers", {}).get("tables", [])}
        tables[name, nodes] = table
        kept = [tables[key] for key in compared if key in tables]
        store({"peers": {"machine": about, "repeat": repeat, "tables": kept}})
    return faults


def main() -> int:
    """Measure one part and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="Measure; write docs/performance.md."
    )
    parser.add_argument("part", choices=("bench", "runs", "limits", "peers", "page"))
    parser.add_argument("--repeat", type=int, default=5, help="runs of each row; medians are shown (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each run lasts (1)")
    parser.add_argument("--only", action="append", choices=WORKLOADS, help="only this workload; may be repeated")
    options = parser.parse_args()
    if options.repeat < 1 or options.seconds <= 0:
        parser.error("--repeat and --seconds must be above 0")
    faults = 0
    if options.part == "bench":
        for name in options.only or WORKLOADS:
            found = bench(options.repeat, options.seconds, name)
            faults += len(found["faults"])
            store({"bench": merged(found, name)})
    elif options.part == "runs":
        store({"runs": runs(options.repeat)})
    elif options.part == "limits":
        store({"limits": limits(options.repeat)})
    elif options.part == "peers":
        faults = peers(options.repeat, options.seconds, options.only)
    else:
        store({})
    print(PAGE.relative_to(ROOT))
    return 1 if faults else 0


def results() -> dict[str, Any]:
    """All that was measured so far."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def store(parts: dict[str, Any]) -> None:
    """Keep parts, and write the page: after each workload, so that an end in between loses nothing."""
    whole = {**results(), **parts}
    RESULTS.write_text(json.dumps(whole, indent=1) + "\n")
    PAGE.write_text(page.render(whole))


def merged(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Rows and faults of one workload among those of the others, in the order of the workloads."""
    old = results().get("bench", {})
    rows = [row for row in old.get("rows", []) if workload(row) != name] + found["rows"]
    faults = [fault for fault in old.get("faults", []) if not fault.startswith(name)] + found["faults"]
    return {**found, "rows": sorted(rows, key=lambda row: WORKLOADS.index(workload(row))), "faults": faults}


def workload(row: dict[str, Any]) -> str:
    """The name of the workload that a row belongs to."""
    return str(row["name"]).partition("-")[0]


if __name__ == "__main__":
    sys.exit(main())
