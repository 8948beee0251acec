"""Texts and tables for a terminal: the summary of a run, `ps`, `why`, errors."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from cosim.core.time import NEVER, fmt


def grid() -> Table:
    """An empty table in the style of all of them: a header, a rule, nothing around."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")


def clean(text: str) -> str:
    """Text of a node without control characters that a terminal would act on; newlines and tabs stay."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def count(number: int, what: str) -> str:
    """``1 grant``, ``3,740 grants``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def error_text(entry: dict[str, Any]) -> str:
    """An error entry of result.json as lines: place and what, then what to do next."""
    place = f"{entry['where']}: " if entry.get("where") else ""
    text = f"{place}{entry['what']}"
    if entry.get("next_step"):
        text += f"\n  next: {entry['next_step']}"
    return clean(text)


def summary(result: dict[str, Any]) -> Table:
    """Per test: status, interrupts delivered directly and by list register (LR), hypervisor exits, latency p50 and p99.

    Fits 80 columns.
    """
    table = grid()
    for column in ("test", "status", "irqs", "direct", "LR", "exits", "p50", "p99"):
        table.add_column(column, justify="left" if column in ("test", "status", "irqs") else "right", no_wrap=True)
    for test in result["tests"]:
        rows = 0
        for family in ("vsgi", "vlpi"):
            path = test.get("paths", {}).get(family, {"direct": 0, "lr": 0})
            latency = test.get("latency_ps", {}).get(family)
            if latency is None:
                continue
            exits = test.get("counters", {}).get("hypervisor.exits", 0)
            table.add_row(
                test["name"],
                test["status"],
                f"{latency['count']} {family}",
                str(path["direct"]),
                str(path["lr"]),
                str(exits),
                fmt(latency["p50"]),
                fmt(latency["p99"]),
            )
            rows += 1
        if not rows:
            table.add_row(test["name"], test["status"], "none", "-", "-", "-", "-", "-")
    return table


def closing_line(result: dict[str, Any]) -> str:
    """One line: status, digest, simulated and wall time, rates."""
    wall = result["wall_s"] or 1e-9
    digest = result["digest"]
    return (
        f"{result['status']}: {result['nodes']} nodes in {count(result['workers'], 'worker')}, "
        f"{fmt(result['sim_time_ps'])} simulated in {result['wall_s']:.2f} s, "
        f"{result['events']:,} events ({result['events'] / wall:,.0f}/s), {count(result['grants'], 'grant')}, "
        f"digest {digest[:16] if digest else 'none'}"
    )


def progress_line(progress: dict[str, int], rate: float, test: str) -> str:
    """The line that `up` keeps on a terminal."""
    where = f"  {test}" if test else ""
    return (
        f"simulated {fmt(progress['sim_time_ps'])}  {rate:,.0f} events/s  {count(progress['grants'], 'grant')}{where}"
    )


def ps_rows(
    view: dict[str, Any] | None, plan: dict[str, Any], host: str, end_ps: int | None = None
) -> list[dict[str, Any]]:
    """Rows of `cosim ps`: node, pid, worker, host, sim_time_ps, state; `end_ps` is the simulated time of a run that is over."""
    names = [node["name"] for node in plan["nodes"]]
    workers = {} if view is None else {w["worker"]: w for w in view["workers"]}
    clocks = {} if view is None else dict(view["clocks"])
    rows = []
    for worker, group in enumerate(plan["groups"]):
        entry = workers.get(worker)
        for node in group:
            rows.append(
                {
                    "node": names[node],
                    "pid": entry["pid"] if entry else None,
                    "worker": worker,
                    "host": entry.get("host", host) if entry else host,
                    "sim_time_ps": clocks.get(names[node], entry["now"] if entry else end_ps),
                    "state": entry["state"] if entry else "ended",
                }
            )
    return sorted(rows, key=lambda row: row["node"])


def ended_line(result: dict[str, Any], ended: str) -> str:
    """How, when and after how long a run ended: from its result.json and the time in its run.json."""
    text = f"run is over: {result['status']}"
    if ended:
        text += f", ended {ended}"
    if "wall_s" in result:
        text += f", after {result['wall_s']:.2f} s; {fmt(result['sim_time_ps'])} simulated"
    return text


def ps_table(rows: list[dict[str, Any]]) -> Table:
    """`cosim ps` as a table."""
    table = grid()
    for column in ("node", "pid", "worker", "host", "simulated time", "state"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        clock = "-" if row["sim_time_ps"] is None else fmt(row["sim_time_ps"])
        table.add_row(row["node"], str(row["pid"] or "-"), f"w{row['worker']}", row["host"], clock, row["state"])
    return table


def why_lines(view: dict[str, Any]) -> list[str]:
    """Who waits for whom: per worker its state and what limits it, then what tasks wait for."""
    workers = {w["worker"]: w for w in view["workers"]}
    horizon = view.get("sim_time_ps")
    lines = [
        f"run is {view['state']}"
        + ("" if horizon is None or horizon >= NEVER else f", at {fmt(horizon)} of simulated time")
    ]
    # Those that do something, or could, come first; the idle ones wait for nobody.
    for worker in sorted(workers.values(), key=lambda w: (w["state"] == "idle", w["worker"])):
        lines.append(_worker_line(worker, workers))
    waits = [(node, task, what) for node, task, what, daemon in view["waits"] if not daemon]
    if waits:
        lines.append("tasks:")
        lines.extend(f"  {node}: {task} waits for {what}" for node, task, what in waits)
    standing = dict.fromkeys(node for node, _task, _what, daemon in view["waits"] if daemon)
    if standing:
        lines.append(f"tasks that may wait for ever, for work to come: of {', '.join(standing)}")
    return [clean(line) for line in lines]


def _worker_line(worker: dict[str, Any], workers: dict[int, dict[str, Any]]) -> str:
    name, state = worker["name"], worker["state"]
    if state == "running":
        limit = "without limit" if worker["bound"] >= NEVER else f"up to {fmt(worker['bound'])}"
        return f"  {name}: running for {worker['running_s']:.1f} s, granted {limit}"
    if state == "blocked" and worker["limiter"] is not None:
        limiter = workers[worker["limiter"]]
        chain = " <- ".join(workers[w]["name"] for w in worker["chain"])
        return (
            f"  {name}: has work at {fmt(worker['next_event'])}, waits for {limiter['name']}, which may speak from "
            f"{fmt(worker['base'])} on, {fmt(worker['distance'])} away (chain: {chain})"
        )
    if state in ("ready", "blocked"):
        return f"  {name}: {state}, work at {fmt(worker['next_event'])}"
    return f"  {name}: {state} at {fmt(worker['now'])}"
