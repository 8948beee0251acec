"""What compiling would give: the hot path by mypyc, from the same sources, in a copy beside the checkout.

    python -m benchmarks.compiled [--repeat N]

Prints the rate of the compiled copy over that of the interpreted one, by workload: `report limits` keeps it. Needs mypyc
(requirements/dev.txt) and a C compiler; the copy is deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    *(f"cosim/core/{name}.py" for name in ("barrier", "codec", "kernel", "digest", "journal", "tasks")),
    *(f"cosim/link/{name}.py" for name in ("zmtp", "unix_link")),
    *(f"cosim/run/{name}.py" for name in ("hub", "hubstate", "hubfaults", "hubview", "hubparts")),
    "cosim/node/worker.py",
)
"""Models and what they derive from stay interpreted: a class cannot inherit from a compiled one."""
WORKLOADS = (
    ("ping-pong, process per node", ("pingpong", "--nodes", "2", "--workers", "per-node")),
    ("barrier, process per node", ("barrier", "--nodes", "19", "--workers", "per-node")),
    ("barrier on 2 workers", ("barrier", "--nodes", "19", "--workers", "2")),
    ("fan-out, process per node", ("fanout", "--nodes", "19", "--workers", "per-node")),
    ("fan-out on 2 workers", ("fanout", "--nodes", "19", "--workers", "2")),
    ("register reads in one process", ("mmio", "--nodes", "2", "--workers", "0")),
    ("interrupts in one process", ("interrupts", "--nodes", "8", "--workers", "0")),
)


def build(folder: Path) -> None:
    """A compiled copy in `folder`; raises RuntimeError with the compiler's last words."""
    for name in ("cosim", "nodes", "topologies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    mypyc = Path(sys.executable).with_name("mypyc")
    done = subprocess.run(
        [sys.executable, mypyc, "--strict", "--ignore-missing-imports", *MODULES],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "MYPYC_OPT_LEVEL": "3"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"mypyc must compile the hot path: {(done.stdout + done.stderr)[-600:]}")


def rate(folder: Path, words: tuple[str, ...]) -> float:
    """One run of ``cosim bench`` from the sources in `folder`; the geometric middle of its rows' rates."""
    command = [sys.executable, "-m", "cosim", "bench", *words, "--repeat", "1", "--seconds", "0.5", "--json"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(folder)}
    )
    return statistics.geometric_mean(row["rate"] for row in json.loads(done.stdout))


def measure(repeat: int) -> list[dict[str, float | str]]:
    """[{what, gain}]: the compiled rate over the interpreted one, medians of pairs."""
    with tempfile.TemporaryDirectory(prefix="cosim-bench-") as name:
        folder = Path(name)
        build(folder)
        found: list[dict[str, float | str]] = []
        for what, words in WORKLOADS:
            gains = [rate(folder, words) / rate(ROOT, words) for _ in range(repeat)]
            found.append({"what": what, "gain": statistics.median(gains)})
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description="Measure what mypyc gives.")
    parser.add_argument("--repeat", type=int, default=3, help="pairs of runs of each workload (3)")
    for row in measure(parser.parse_args().repeat):
        print(f"{row['gain']:.2f} x  {row['what']}")


if __name__ == "__main__":
    main()
