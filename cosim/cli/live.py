"""``cosim ps``, ``why``, ``logs`` and ``down``: look at a run, and end it."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

POLL_S = 0.2
LONGEST = 120


@click.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list of {node, pid, worker, host, sim_time_ps, state}.")
def ps(run: str | None, as_json: bool) -> None:
    """List the nodes of RUN (a run directory or topology name; default: the latest run); of one that is over, when it ended.

    \b
    Example:  cosim ps rdn2cfg1
    """
    from rich.console import Console

    from cosim.run.control import ask
    from cosim.run.rundir import find_run, remove_stale_socket_dirs
    from cosim.view.text import ended_line, ps_rows, ps_table

    remove_stale_socket_dirs()
    directory = find_run(run)
    view = ask(directory, {"ask": "view"})
    result = _result(directory) if view is None else {}
    rows = ps_rows(view, _plan(directory), platform.node(), result.get("sim_time_ps"))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(ps_table(rows))
    if view is None:
        click.echo(ended_line(result, json.loads((directory / "run.json").read_text()).get("ended", "")))


@click.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the hub's view as JSON.")
def why(run: str | None, as_json: bool) -> None:
    """Tell who waits for whom in RUN, as the hub sees it now; for a run that is over, how it ended.

    \b
    Example:  cosim why
    """
    from cosim.run.control import ask
    from cosim.run.rundir import find_run
    from cosim.view.text import error_text, why_lines

    directory = find_run(run)
    view = ask(directory, {"ask": "view"})
    if view is not None:
        click.echo(json.dumps(view, indent=1) if as_json else "\n".join(why_lines(view)))
        return
    result = _result(directory)
    if as_json:
        click.echo(json.dumps({"state": result["status"], "errors": result["errors"]}, indent=1))
        return
    click.echo(f"run is over: {result['status']}")
    for entry in result["errors"]:
        click.echo(error_text(entry))


@click.command()
@click.argument("node", required=False)
@click.option("--run", help="Run directory or topology name (default: the latest run).")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option(
    "-a", "--all", "every", is_flag=True, help="Also events of level debug, such as each PCI function's configuration."
)
@click.option("--json", "as_json", is_flag=True, help="Print the lines of log.jsonl as they are.")
def logs(node: str | None, run: str | None, follow: bool, every: bool, as_json: bool) -> None:
    """Print the log of NODE (default: all), or the console of that name (host, or a test's guest).

    \b
    Examples:  cosim logs its0
               cosim logs -f vlpi.smmute
    """
    from cosim.errors import UsageError
    from cosim.run.rundir import find_run

    directory = find_run(run)
    console = directory / "console" / f"{node}.log"
    names = {entry["name"] for entry in _plan(directory)["nodes"]} | {"cosim"}
    is_console = node is not None and node not in names
    path = console if is_console else directory / "log.jsonl"
    shown = _follow(path, directory, follow, lambda line: _line(line, node, as_json, is_console, every))
    if not shown and not is_console and not as_json and node is not None:
        _elsewhere(directory, node)
    if is_console and not console.exists():
        consoles = sorted(p.stem for p in (directory / "console").glob("*.log"))
        late = ", and none of that name came while the run went on" if follow else ""
        raise UsageError(
            f"node must be one of {', '.join(sorted(names))} or a console ({', '.join(consoles) or 'none yet'}), "
            f"not {node!r}{late}",
            code="no-node",
            next_step="`cosim ps` lists the nodes" + ("" if follow else "; -f waits for a console that comes later"),
        )


def _elsewhere(directory: Path, node: str) -> None:
    """Of a node that logged nothing: which files have what it printed."""
    places = [directory / "console" / f"{node}.log", directory / "workers" / f"{node}.log"]
    found = [str(path) for path in places if path.exists() and path.stat().st_size]
    click.echo(f"{node} logged nothing" + (f"; what it printed is in {', '.join(found)}" if found else ""), err=True)


def _line(line: str, node: str | None, as_json: bool, is_console: bool, every: bool) -> str | None:
    from cosim.view.text import clean

    if is_console:
        return clean(line)
    entry = json.loads(line)
    if node is not None and entry.get("node") != node:
        return None
    if as_json:
        return line
    if entry.get("level") == "debug" and not every:
        return None
    when = entry.pop("t", entry.pop("wall", ""))
    fields = {k: v for k, v in entry.items() if k not in ("run", "t_ps", "node", "event", "wall", "traceback")}
    text = f"{when:>14} {entry['node']}: {entry['event']}" + "".join(f" {k}={_short(v)}" for k, v in fields.items())
    trace = entry.get("traceback")
    return clean(text + (f"\n{trace.rstrip()}" if trace else "")) + "\n"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:32]}... ({len(text)} characters; see --json)"


def _follow(path: Path, directory: Path, follow: bool, render: Any) -> int:
    """Show a file that grows, or is not there yet, line by line; to the end of the run if `follow`. How many lines were shown."""
    offset = shown = 0
    pending = ""
    while True:
        over = not follow or _over(directory)
        if path.exists():
            with path.open() as file:
                file.seek(offset)
                pending += file.read()
                offset = file.tell()
        while "\n" in pending:
            line, _, pending = pending.partition("\n")
            text = render(line + "\n")
            if text is not None:
                click.echo(text, nl=False)
                shown += 1
        if over:
            if pending and path.suffix == ".log":
                click.echo(render(pending + "\n"), nl=False)  # a console need not end its last line
            return shown
        time.sleep(POLL_S)


def _over(directory: Path) -> bool:
    """Whether the run has its result, or its supervisor is gone without one."""
    if (directory / "result.json").exists():
        return True
    pid = json.loads((directory / "run.json").read_text()).get("pid")
    return pid is not None and not _alive(pid)


@click.command()
@click.argument("run", required=False)
@click.option(
    "--timeout", default=10.0, show_default=True, metavar="SECONDS", help="How long to wait for an orderly end."
)
def down(run: str | None, timeout: float) -> None:
    """End RUN (default: the latest); returns when no process of it is left. Its exit code is 143.

    \b
    Example:  cosim down rdn2cfg1
    """
    from cosim.run.control import ask
    from cosim.run.rundir import find_run, remove_stale_socket_dirs

    remove_stale_socket_dirs()
    directory = find_run(run)
    answer = ask(directory, {"ask": "down"})
    if answer is None:
        click.echo(f"{directory}: not running")
        return
    deadline = time.monotonic() + timeout
    pid = answer["pid"]
    while _alive(pid) and not (directory / "result.json").exists():
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    click.echo(f"{directory}: ended")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def _plan(directory: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((directory / "plan.json").read_text())
    return plan


def _result(directory: Path) -> dict[str, Any]:
    path = directory / "result.json"
    if not path.exists():
        return {"status": "gone without a result (its supervisor was killed)", "errors": []}
    result: dict[str, Any] = json.loads(path.read_text())
    return result
