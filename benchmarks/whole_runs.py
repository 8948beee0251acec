"""Measure whole runs: wall time, and events, grants and messages per second, for several placements.

    python -m benchmarks.whole_runs [--topology T] [--repeat N] [--workers W]... [--json]

Each run is a process of its own, as users start it. Of N runs the fastest and the median are shown, with
the load of the machine before the first: a figure without it means nothing. Start-up is what a run
takes until its plan is resolved, all processes have joined and nothing happens (`--until 1ps`).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

PLACEMENTS = ("per-node", "4", "1", "0")


def measure(topology: str, workers: str, *extra: str) -> dict[str, Any]:
    """One run of `cosim up`: its result.json, with `total_s`, the wall time of the whole process in seconds.

    Raises RuntimeError with the run's own message if it printed no result.
    """
    with tempfile.TemporaryDirectory(prefix="cosim-bench-") as directory:
        command = [
            sys.executable,
            "-m",
            "cosim",
            "up",
            topology,
            "--json",
            "--workers",
            workers,
            "--run-dir",
            os.path.join(directory, "run"),
            *extra,
        ]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        total = time.perf_counter() - start
    try:
        result = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}") from None
    return {**result, "total_s": total}


def summary(topology: str, workers: str, repeat: int, hosts: int = 0) -> dict[str, Any]:
    """The figures of one placement: medians of `repeat` runs, rates from the run's own wall time. `hosts` hubs of this machine
    under a root; 0 is one hub."""
    more = ("--hosts", str(hosts)) if hosts else ()
    runs = [measure(topology, workers, *more) for _ in range(repeat)]
    starts = [measure(topology, workers, "--until", "1ps", *more) for _ in range(repeat)]
    digests = {run["digest"] for run in runs}
    if len(digests) != 1:
        raise RuntimeError(f"runs of one topology must have one digest, not {sorted(digests)}")
    wall = statistics.median(run["wall_s"] for run in runs)
    first = runs[0]
    return {
        "workers": f"{workers}, {hosts} hosts" if hosts else workers,
        "processes": first["workers"],
        "status": first["status"],
        "digest": first["digest"],
        "total_s": round(statistics.median(run["total_s"] for run in runs), 3),
        "best_total_s": round(min(run["total_s"] for run in runs), 3),
        "wall_s": round(wall, 3),
        "startup_s": round(statistics.median(run["total_s"] for run in starts), 3),
        "events": first["events"],
        "grants": first["grants"],
        "messages": first["messages"],
        "events_per_s": round(first["events"] / wall),
        "grants_per_s": round(first["grants"] / wall),
        "messages_per_s": round(first["messages"] / wall),
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    """Print one line per placement, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_runs", description="Measure whole runs.")
    parser.add_argument("--topology", default="topologies/rdn2cfg1.yaml")
    parser.add_argument("--repeat", type=int, default=3, help="runs per placement (3)")
    parser.add_argument("--workers", action="append", help=f"placement, repeatable ({', '.join(PLACEMENTS)})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error(f"--repeat must be at least 1, not {options.repeat}")
    about = machine()
    rows = [summary(options.topology, workers, options.repeat) for workers in options.workers or PLACEMENTS]
    if options.json:
        print(json.dumps({"machine": about, "runs": rows}, indent=2))
    else:
        print(", ".join(f"{name} {value}" for name, value in about.items()))
        columns = [name for name in rows[0] if name != "digest"]
        print("  ".join(f"{name:>14}" for name in columns))
        for row in rows:
            print("  ".join(f"{row[name]:>14}" for name in columns))
    return 0 if len({row["digest"] for row in rows}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
