"""Who waits for whom in a run over hosts: what each host's hub says of its workers, and the root of its hosts, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cosim.core.barrier import Wait
from cosim.core.plan import Plan
from cosim.core.time import NEVER

Row = dict[str, Any]


def merge_waits(plan: Plan, hosts: Sequence[Wait], found: Mapping[int, Sequence[Row]]) -> list[Row]:
    """Rows like those of `Barrier.explain` for the workers of all hosts, in the numbers of the plan.

    A host's hub knows no reason for a worker whose work lies at or after the root's bound: it shows it as idle. Here it is blocked
    by the worker with the earliest work on the host that holds its own back. A host that did not answer has rows without figures.

    Args:
        plan: the whole plan.
        hosts: the root's view.
        found: rows of the hosts that answered, by number.
    """
    rows: dict[int, Row] = {}
    for number, wait in enumerate(hosts):
        for row in found.get(number) or _unknown(plan, number, wait):
            rows[row["worker"]] = dict(row)
    for number, wait in enumerate(hosts):
        cause = _cause(plan, rows, number, wait)
        for worker in plan.hosts[number].workers:
            row = rows[worker]
            if row["state"] == "idle" and row["next_event"] < NEVER and cause not in (None, worker):
                distance = max(0, wait.bound - wait.base) if wait.base < NEVER else 0
                row.update(state="blocked", limiter=cause, base=min(wait.base, wait.bound), distance=distance)
    for row in rows.values():
        row["chain"] = _chain(rows, row)
    return [rows[worker] for worker in sorted(rows)]


def _unknown(plan: Plan, host: int, wait: Wait) -> list[Row]:
    """Rows for the workers of a host that did not answer: what the root knows of the host."""
    entry = plan.hosts[host]
    row = {**wait._asdict(), "limiter": None, "chain": (), "pid": None, "host": entry.name, "running_s": 0.0}
    return [{**row, "worker": w, "name": plan.nodes[plan.groups[w][0]].name} for w in entry.workers]


def _cause(plan: Plan, rows: Mapping[int, Row], host: int, wait: Wait) -> int | None:
    """The worker for which those of a host wait that have no reason of their own: one that runs here, or the one with the earliest
    work on the host that limits this one."""
    running = [w for w in plan.hosts[host].workers if rows[w]["state"] in ("running", "ready")]
    if running:
        return running[0]
    if wait.limiter is None:
        return None
    return min(
        plan.hosts[wait.limiter].workers, key=lambda w: (rows[w]["state"] != "running", rows[w]["next_event"], w)
    )


def _chain(rows: Mapping[int, Row], row: Row) -> tuple[int, ...]:
    """The limiters behind a worker, one behind the other; the views of hosts are not of one moment, so it may close."""
    chain: list[int] = []
    while row["limiter"] is not None and row["limiter"] not in chain:
        chain.append(row["limiter"])
        row = rows[row["limiter"]]
    return tuple(chain)
