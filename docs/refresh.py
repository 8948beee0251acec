"""Make the figure and the table of docs/three-generations.md anew: python docs/refresh.py (about ten seconds).

The figure is the one that `cosim sweep` leaves; the table has some of the columns of its results.csv.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGE, FIGURES = DOCS / "three-generations.md", DOCS / "figures"
COMMAND = "cosim sweep rdn2cfg1 --set gic_version=3,4.0,4.1 --set guest_wait=wfi,spin --out generations"
HEAD = (
    "GIC", "guest waits by", "SGIs direct", "by LR", "exits between", "median", "LPIs direct", "by LR", "exits between",
    "median", "host LPIs", "`GITS_SGIR`", "WFI exits", "IRQ exits",
)  # fmt: skip
_TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)


def table(rows: list[dict[str, str]]) -> list[str]:
    """The page's table in Markdown, from the rows of results.csv."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    return lines + [_line(cells(row)) for row in rows]


def cells(row: Mapping[str, str]) -> list[str]:
    """One row of the page's table."""
    found = [row["gic_version"], row["guest_wait"]]
    for family in ("vsgi", "vlpi"):
        found += [row[f"{family}_{key}"] for key in ("direct", "lr", "exits_between")]
        median = int(row[f"{family}_p50_ps"])
        found.append(f"{median / 1e6:.2f} us" if median >= 1_000_000 else f"{median / 1e3:.0f} ns")
    return found + [row[key] for key in ("host_lpis", "sgir_writes", "exits_wfx", "exits_irq")]


def _line(parts: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def main() -> int:
    """Run the sweep; write figure, CSV and table."""
    with tempfile.TemporaryDirectory() as folder:
        argv = COMMAND.split()[1:-1]
        done = subprocess.run([sys.executable, "-m", "cosim", *argv, folder], check=False)
        if done.returncode:
            return done.returncode
        FIGURES.mkdir(exist_ok=True)
        shutil.copy(Path(folder) / "results.svg", FIGURES / "three-generations.svg")
        with (Path(folder) / "results.csv").open() as file:
            rows = list(csv.DictReader(file))
    text = "\n".join(table(rows)) + "\n"
    PAGE.write_text(_TABLE.sub(lambda match: match[1] + text + match[2], PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
