"""``cosim sweep``: a topology over a grid of parameters, with one table and one figure."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import click

FIGURE, CSV, REPORT = "results.svg", "results.csv", "results.md"


@click.command()
@click.argument("topology")
@click.option("--set", "sets", multiple=True, metavar="NAME=A,B,C", help="Values of a parameter; may be repeated.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Directory of the sweep; an earlier one is continued."
)
@click.option("--jobs", "-j", type=click.IntRange(1), help="Runs at a time (default: as many as cores allow).")
@click.option("--workers", default="0", show_default=True, help="Of each run, as in `cosim up`; changes no result.")
@click.option("--test", "tests", multiple=True, metavar="NAME", help="Only this test; may be repeated.")
@click.option("--until", metavar="TIME", help="End of each run in simulated time, e.g. 5ms (exclusive).")
@click.option("--seed", type=int, help="Seed of each run (default: the topology's, else 1).")
@click.option("--fresh", is_flag=True, help="Run all points again, also those whose results are there.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print rows and timing parameters as JSON and nothing else on stdout."
)
@click.option("--allow-models", multiple=True, metavar="PREFIX", help="Let the topology load models from this package.")
def sweep(**options: Any) -> None:
    """Run TOPOLOGY for every combination of the values given by --set.

    Leaves results.csv, results.md and results.svg in the directory --out, and each run below points/. A sweep that was stopped
    goes on where it was: a point is kept when its result is there, for the same machine and parameters.

    The exit code is the largest of the points', see `cosim up`; 130, 143 interrupted.

    \b
    Examples:  cosim sweep topologies/rdn2cfg1.yaml --set gic_version=3,4.0,4.1 --out sweep
               cosim sweep rdn2cfg1 --set vcpus=2,4,8 --set guest_wait=wfi,spin --out sweep --jobs 2
    """
    import anyio

    from cosim.run.sweep import Options, Sweep, default_jobs, parse_grid, prepare, worst

    out: Path = options["out"]
    shared = Options(
        options["topology"], options["workers"], options["tests"], options["seed"], options["until"], options["allow_models"]
    )  # fmt: skip
    grid = parse_grid(options["sets"])
    points = prepare(shared, grid, out)
    quiet = options["as_json"] or not sys.stderr.isatty()
    done = 0

    def tell(point: Any, seconds: float) -> None:
        nonlocal done
        done += 1
        if not quiet:
            click.echo(f"[{done}/{len(points)}] {point.label}: {_how(point, seconds)}", err=True)

    running = Sweep(shared, points, options["jobs"] or default_jobs(shared.workers), tell)
    anyio.run(running.run_all, options["fresh"])
    report(shared.topology, points, list(grid), out, options["as_json"])
    sys.exit(worst(points, running.stopped))


def _how(point: Any, seconds: float) -> str:
    status = (point.result or {}).get("status", f"exit {point.exit_code}")
    return f"{status}, kept from before" if point.kept else f"{status} in {seconds:.1f} s"


def report(topology: str, points: list[Any], names: list[str], out: Path, as_json: bool) -> None:
    """Write results.csv, .md and .svg; print them, or the rows as JSON."""
    from rich.console import Console

    from cosim.topo.find import find_topology
    from cosim.topo.load import load
    from cosim.view.figure import figure
    from cosim.view.sweep import csv_text, failures, markdown, rows_of, series_of, table, text_line, timing_of

    spec = load(find_topology(topology)).spec
    docs = {name: " ".join(parameter.doc.split()) for name, parameter in spec.parameters.items()}
    rows = rows_of(points)
    timing = timing_of(points, docs)
    title = f"{spec.name}: {', '.join(names)}"
    (out / CSV).write_text(csv_text(rows))
    (out / FIGURE).write_text(figure(title, series_of(points, rows), footnote(timing)))
    (out / REPORT).write_text(markdown(spec.name, points, rows, docs, FIGURE))
    failed = failures(points)
    if as_json:
        keyed = [{"name": name, "value": value, "doc": doc} for name, value, doc in timing]
        click.echo(json.dumps({"points": rows, "timing": keyed, "failed": failed}, indent=1))
    else:
        Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(table(rows, names))
        click.echo(f"\n{text_line(rows)}")
        click.echo("\n".join(footnote(timing, shutil.get_terminal_size((120, 24)).columns)))
        click.echo(f"written: {out / REPORT}, {out / CSV}, {out / FIGURE}")
    for line in failed:
        click.echo(line, err=True)


def footnote(timing: list[tuple[str, str, str]], width: int = 140) -> list[str]:
    """The timing parameters as lines of text."""
    lines = ["Timing parameters:"]
    for name, value, _doc in timing:
        part = f" {name} {value};"
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] = (lines[-1] + part).strip()
    lines[-1] = lines[-1].rstrip(";")
    return lines if timing else []
