"""docs/performance.md from what was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import page_text as text_of

Row = dict[str, Any]

_SEE = '\nWhat bounds those that are not met is measured under "The least that a star of processes costs here".\n'

_ASKED = {
    ("pingpong", "per-node", "unix"): 0.65,
    ("pingpong", "per-node", "zmq"): 0.28,
    ("barrier", "per-node", "unix"): 6,
    ("barrier", "per-node", "zmq"): 3,
    ("barrier", "2", "unix"): 40,
    ("barrier", "2", "zmq"): 20,
    ("fanout", "per-node", "unix"): 10,
    ("fanout", "2", "unix"): 30,
}
"""(workload, workers, link): times the floor for the ping-pong, times the best HELICS for the others."""

UNITS = {
    "barrier": "W1 barrier: all nodes step together, no messages",
    "pingpong": "W2 ping-pong between two nodes, the others wait",
    "fanout": "W3 fan-out: one node to all others, messages delivered",
    "mmio": "W5 register reads by a coroutine",
}


def render(results: dict[str, Any]) -> str:
    """The page; a part that was not measured yet says so."""
    parts = [text_of.HEAD]
    bench, peers, runs = (results.get(part) for part in ("bench", "peers", "runs"))
    if bench:
        parts += [
            "## The workloads\n",
            text_of.WORKLOADS,
            _machine(bench),
            _bench_table(bench["rows"]),
            *(f"No result: {fault}\n" for fault in bench.get("faults", [])),
            *_interrupts(bench["rows"]),
            "## Targets\n",
            _targets(bench["rows"], peers, runs),
        ]
    else:
        parts.append("## The workloads\n\nNot measured yet: `make bench`.\n")
    if runs:
        parts += ["## Whole runs of RD-N2-Cfg1\n", _machine(runs), _runs_table(runs["rows"])]
    if limits := results.get("limits"):
        parts += [
            "## Where the time of a hop goes\n",
            _machine(limits),
            _limits(limits, bench["rows"] if bench else []),
        ]
        if "bare" in limits:
            parts += [text_of.BARE, _bare(limits, bench["rows"] if bench else [], peers)]
    parts.append("## Beside HELICS, mosaik and SimPy\n")
    if peers:
        parts.append(_machine(peers))
        parts.append(
            "HELICS has a federate, a core and a Python interpreter per process, and a broker process; mosaik its simulators\n"
            "in processes (remote) or in its own (inproc); SimPy is one process, by `Store` where messages pass. `x best HELICS`\n"
            "is the rate over that of the fastest HELICS core type in the same table, `x floor` that over the floor above it.\n"
        )
        parts += [_peer_table(table) for table in peers["tables"]]
    else:
        parts.append("Not measured yet: `make bench-peers`.\n")
    lose = [text_of.LOSE, _beside_simbricks(bench["rows"] if bench else []), text_of.LOSE_WHY]
    return "\n".join([*parts, *lose])


def _beside_simbricks(rows: list[Row]) -> str:
    """SimBricks' figures, and those of a process per node over the fast link."""
    lines = []
    for name, nodes, cpu, rate in text_of.SIMBRICKS:
        place = (name, nodes, "per-node", "fast")
        own = next((r for r in rows if (r["name"], r["nodes"], r["workers"], r["link"]) == place), None)
        ours = [number(own["cpu_us"]), number(own["rate"]), number(own["rate"] / rate)] if own else ["-"] * 3
        lines.append([name, str(nodes), cpu, number(rate), *ours])
    head = ["workload", "nodes", "SimBricks CPU µs", "SimBricks rate/s", "cosim CPU µs", "cosim rate/s", "x SimBricks"]
    return _table(head, lines)


def _interrupts(rows: list[Row]) -> list[str]:
    """Interrupts per second by size of the machine and placement."""
    found = [row for row in rows if row["name"].startswith("interrupts-")]
    places = list(dict.fromkeys(row["workers"] for row in found))
    rates = {(row["name"], int(row["pes"]), row["nodes"], row["workers"]): number(row["rate"]) for row in found}
    lines = [
        [
            name.removeprefix("interrupts-"),
            str(pes),
            str(nodes),
            *(rates.get((name, pes, nodes, p), "-") for p in places),
        ]
        for name, pes, nodes in sorted(dict.fromkeys(key[:3] for key in rates))
    ]
    head = ["interrupts/s", "PEs", "nodes", *(f"workers {place}" for place in places)]
    return ["### Interrupts delivered per second\n", _table(head, lines), text_of.INTERRUPTS] if lines else []


def _machine(part: dict[str, Any]) -> str:
    about = ", ".join(f"{name} {value}" for name, value in part["machine"].items() if name != "load1")
    rows = part.get("rows", [])
    if not any("load1" in row for row in rows):  # else it is in the table: workloads may be measured one by one
        about += f"; load before the first run {part['machine']['load1']}"
    runs = sorted({row["runs"] for row in rows if "runs" in row} or {part["repeat"]})
    return f"{about}; medians of {' to '.join(map(str, (runs[0], runs[-1])[: len(runs)]))}.\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def number(value: float | None) -> str:
    """Three figures, with thousands separated."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


_KNOWN = (
    "name", "nodes", "workers", "link", "rate", "unit", "cpu_us", "floor_rate", "floor_unit", "ratio", "load1", "runs",
    "rate_min", "rate_max",
)  # fmt: skip


def _bench_table(rows: list[Row]) -> str:
    head = ["workload", "nodes", "workers", "link", "rate", "from", "to", "CPU µs", "floor", "x floor", "load", "and"]
    return _table(
        head,
        [
            [
                row["name"], str(row["nodes"]), row["workers"], row["link"], f"{number(row['rate'])} {row['unit']}",
                number(row["rate_min"]), number(row["rate_max"]), number(row["cpu_us"]), number(row["floor_rate"]),
                number(row["ratio"]), str(row["load1"]),
                ", ".join(f"{key} {number(value)}" for key, value in row.items() if key not in _KNOWN),
            ]
            for row in rows
        ],
    )  # fmt: skip


def _runs_table(rows: list[Row]) -> str:
    columns = (
        "workers",
        "processes",
        "total_s",
        "best_total_s",
        "startup_s",
        "events",
        "grants",
        "messages",
        "events_per_s",
    )
    return f"{text_of.RUNS}\n{_table(list(columns), [[_cell(row[c]) for c in columns] for row in rows])}"


def _limits(limits: dict[str, Any], bench: list[Row]) -> str:
    """What bounds a round trip between processes, and what was tried against it."""
    hop = limits["hop"]
    bare, handled = 1e6 / hop["star_rate"], 2 * (hop["hub_us"] + hop["worker_us"])
    rows = [
        [
            "four hops of bare Unix sockets by three processes, nothing else",
            f"{bare:.0f} µs",
            number(hop["star_ratio"]),
        ],
        ["the hub's Python for two grants, caches warm", f"{2 * hop['hub_us']:.0f} µs", ""],
        ["the workers' Python for two grants, caches warm", f"{2 * hop['worker_us']:.0f} µs", ""],
        [
            "sum: the least that a round trip by way of the hub takes",
            f"{bare + handled:.0f} µs",
            number(1e6 / (bare + handled) / hop["floor"]),
        ],
    ]
    for row in bench:
        if (row["name"], row["nodes"], row["workers"], row["link"]) == ("pingpong", 2, "per-node", "fast"):
            rows.append(["measured: the workers grant each other", f"{1e6 / row['rate']:.0f} µs", number(row["ratio"])])
    gains = _table(["compiled", "rate over interpreted"], [[g["what"], f"{g['gain']:.2f}"] for g in limits["compiled"]])
    inside = text_of.INSIDE.format(whole=hop["message_us"], digest=hop["digest_us"])
    few, many = (hop["hypervisor_share"][vcpus] for vcpus in ("8", "256"))
    serial = text_of.SERIAL.format(few=few, many=many, most=1 / many)
    parts = [text_of.HOP, _table(["part", "time", "x floor"], rows), text_of.COMPILED, gains, inside, serial]
    return "\n".join(parts)


def _bare(limits: dict[str, Any], rows: list[Row], peers: dict[str, Any] | None) -> str:
    """Bare stars beside the product, and beside what is asked for."""
    bare, cpus = limits["bare"], limits["machine"]["cpus"]
    stars = [
        [
            star["name"], str(star["nodes"]), star["workers"], star["link"], number(star["rate"]), number(star["rate_max"]),
            number(star["ratio"]), number(star["cpu_us"]), number(star["rate"] * star["cpu_us"] / 1e6),
            *_beside(star, _product(star, rows)),
        ]
        for star in bare["rows"]
    ]  # fmt: skip
    head = ["workload", "nodes", "workers", "link", "bare/s", "best/s", "x floor", "CPU µs", "cores"]
    text = _table([*head, "cosim/s", "of bare", "cosim CPU µs", "of it bare", "cosim cores"], stars)
    asked = [line for star in bare["rows"] if (line := _asked(star, bare["floor"], peers, cpus, rows))]
    if not asked:
        return text
    head = ["workload", "workers", "link", "asked for", "as a rate/s", "of best", "lies", "cores for bare frames"]
    hop = limits["hop"]
    about = text_of.BARE_TARGETS.format(python=hop["hub_us"] + hop["worker_us"])
    missed = dict.fromkeys(s["name"] for s in bare["rows"] if _missed(s, bare["floor"], peers, rows))
    why = "\n".join(text_of.NOT_MET[name] for name in missed if name in text_of.NOT_MET)
    return f"{text}\n{about}\n{_table([*head, 'left, µs', 'taken, µs', 'left a grant, µs'], asked)}\n{why}"


def _deliveries(row: Row) -> int:
    """Operations in a step of this row's workload."""
    return int(row["nodes"]) - 1 if row["name"] == "fanout" else 1


def _product(star: Row, rows: list[Row]) -> tuple[float, float] | None:
    """Steps per second and CPU microseconds per step of the product over the same link, if it was measured."""
    row = _row_of(star, rows)
    return (row["rate"] / _deliveries(row), row["cpu_us"] * _deliveries(row)) if row else None


def _row_of(star: Row, rows: list[Row]) -> Row | None:
    """The product's row of the same workload over the same link."""
    link = "fast" if star["link"] == "unix" else star["link"]
    place = (star["name"], star["nodes"], star["workers"], link)
    return next((row for row in rows if (row["name"], row["nodes"], row["workers"], row["link"]) == place), None)


def _beside(star: Row, product: tuple[float, float] | None) -> list[str]:
    """The product's rate, that over the star's, its CPU, the star's over that, and how many cores it keeps busy."""
    if product is None:
        return ["-"] * 5
    rate, cpu = product
    return [
        number(rate),
        number(rate / star["rate"]),
        number(cpu),
        number(star["cpu_us"] / cpu),
        number(rate * cpu / 1e6),
    ]


def _asked(star: Row, floor: float, peers: dict[str, Any] | None, cpus: int, rows: list[Row]) -> list[str] | None:
    """The line of a star's target; None where none is set, or HELICS was not measured."""
    wanted = _wanted(star, floor, peers)
    if wanted is None:
        return None
    (rate, what), product = wanted, _product(star, rows)
    left, grants = min(cpus, star["at_once"]) * 1e6 / rate - star["cpu_us"], _grants(star, rows)
    return [
        star["name"], star["workers"], star["link"], what, number(rate), number(rate / star["rate_max"]),
        "above the limit" if rate > star["rate_max"] else "below it",
        number(rate * star["cpu_us"] / 1e6), number(left), number(product[1] - star["cpu_us"]) if product else "-",
        number(left / grants) if grants else "-",
    ]  # fmt: skip


def _wanted(star: Row, floor: float, peers: dict[str, Any] | None) -> tuple[float, str] | None:
    """Steps per second that are asked for, and in words; None as for `_asked`."""
    factor = _ASKED.get((star["name"], star["workers"], "unix" if star["link"] == "least" else star["link"]))
    unit = floor if star["name"] == "pingpong" else _best_helics(star, peers)
    if factor is None or unit is None:
        return None
    return factor * unit, f"{factor} x {'floor' if star['name'] == 'pingpong' else 'HELICS'}"


def _missed(star: Row, floor: float, peers: dict[str, Any] | None, rows: list[Row]) -> bool:
    """Whether the product is slower than what is asked for."""
    wanted, product = _wanted(star, floor, peers), _product(star, rows)
    return wanted is not None and product is not None and product[0] < wanted[0]


def _grants(star: Row, rows: list[Row]) -> float | None:
    """Grants in a step of the product."""
    row = _row_of(star, rows)
    return row.get("grants_per_round") if row else None


def _best_helics(star: Row, peers: dict[str, Any] | None) -> float | None:
    """Steps per second of the fastest HELICS core type in the star's workload."""
    rates = [
        row["rate"] / _deliveries(star)
        for table in (peers or {}).get("tables", [])
        if (table["workload"], table["nodes"]) == (star["name"], star["nodes"])
        for row in table["rows"]
        if row["system"].startswith("HELICS") and row["rate"]
    ]
    return max(rates, default=None)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else number(value)


def _peer_table(table: dict[str, Any]) -> str:
    best = max((r["rate"] for r in table["rows"] if r["system"].startswith("HELICS") and r["rate"]), default=None)
    head = ["system", "rate/s", "from", "to", "CPU µs", "x floor", "x best HELICS"]
    rows = []
    for row in table["rows"]:
        if row["rate"] is None:
            rows.append([row["system"], f"no result: {row['fault']}".replace("|", "/"), "", "", "", "", ""])
            continue
        rows.append(
            [
                row["system"], number(row["rate"]), number(row["rate_min"]), number(row["rate_max"]),
                number(row["cpu_us"]), number(row["ratio"]), number(row["rate"] / best) if best else "-",
            ]
        )  # fmt: skip
    title = (
        f"### {UNITS[table['workload']]} ({table['nodes']} nodes)\n\nFloor {number(table['floor'])} round trips/s.\n"
    )
    return f"{title}\n{_table(head, rows)}"


def _targets(rows: list[Row], peers: dict[str, Any] | None, runs: dict[str, Any] | None) -> str:
    """What is asked for, beside what was measured."""

    def find(name: str, nodes: int | None, workers: str, link: str | None = None) -> Row | None:
        found = [
            r
            for r in rows
            if r["name"] == name
            and nodes in (None, r["nodes"])
            and r["workers"] == workers
            and link in (None, r["link"])
        ]
        return found[0] if found else None

    lines: list[list[str]] = []

    def check(what: str, limit: float, found: float | None, least: bool) -> None:
        if found is not None:
            met = found >= limit if least else found <= limit
            lines.append([what, f"{'>=' if least else '<='} {number(limit)}", number(found), "yes" if met else "no"])

    def value(row: Row | None, key: str) -> float | None:
        return float(row[key]) if row and key in row else None

    def ratio(one: Row | None, other: Row | None, key: str) -> float | None:
        return one[key] / other[key] if one and other and other.get(key) else None

    node = "per-node"
    zmq, fast = find("pingpong", 2, node, "zmq"), find("pingpong", 2, node, "fast")
    crowd = find("pingpong", 256, node, "fast")
    check("ping-pong, process per node, libzmq: x floor", 0.28, value(zmq, "ratio"), True)
    check("ping-pong, process per node, fast link: x floor", 0.65, value(fast, "ratio"), True)
    check("ping-pong, 254 bystanders: x floor over that of none", 0.8, ratio(crowd, fast, "ratio"), True)
    few, many = find("sparse", 4, node), find("sparse", 256, node)
    check("sparse, CPU of 256 nodes over that of 4", 1.25, ratio(many, few, "cpu_us"), False)
    for what in ("frames", "grants"):
        same = ratio(many, few, f"{what}_per_round")
        check(f"sparse, {what} per round trip of 256 nodes over that of 4", 1.005, same, False)
    for ending, seconds, size in (("-exec", 3, 12), ("", 1, 6)):
        how = ending.removeprefix("-") or "fork"
        start, memory = find(f"startup{ending}", 24, node), find(f"memory{ending}", None, node)
        check(f"start-up of 24 processes by {how}, CPU s until ready", seconds, value(start, "up_cpu_s"), False)
        check(f"private memory of a worker by {how}, MiB", size, value(memory, "rate"), False)
    check(
        "compute, 1 ms per node and step, 2 workers over 1",
        1.7,
        ratio(find("compute", 8, "2"), find("compute", 8, "1"), "rate"),
        True,
    )
    both, alone = find("working", None, "2"), find("working", None, "1")
    check("scale.yaml with 1 ms per message of a PE, 2 workers over 1", 1.5, ratio(both, alone, "rate"), True)
    for kind in ("vlpi", "vsgi"):
        for place in ("2", "0"):
            by_pes = {
                r["pes"]: r for r in rows if r["name"] == f"interrupts-{kind}" and r["workers"] == place and "pes" in r
            }
            what = f"interrupts, {kind}, --workers {place}: CPU of 256 PEs over that of 8"
            check(what, 1.3, ratio(by_pes.get(256), by_pes.get(8), "cpu_us"), False)
    big = [float(r["nodes"]) for r in rows if r.get("pes") == 512 and r["workers"] == "auto"]
    check("512 PEs with --workers auto deliver interrupts: nodes", 1000, max(big, default=None), True)
    for run in runs["rows"] if runs else []:
        if run["workers"] in ("per-node", "2"):
            limit = 4 if run["workers"] == "per-node" else 2
            check(f"RD-N2-Cfg1, --workers {run['workers']}: wall s of the whole", limit, run["total_s"], False)
            check(f"RD-N2-Cfg1, --workers {run['workers']}: wall s of start-up", 2, run["startup_s"], False)
    if peers:
        _peer_targets(peers, check)
    return _table(["what", "target", "measured", "met"], lines) + _SEE * any(line[-1] == "no" for line in lines)


def _peer_targets(peers: dict[str, Any], check: Callable[[str, float, float | None, bool], None]) -> None:
    tables = {(t["workload"], t["nodes"]): {r["system"]: r for r in t["rows"] if r["rate"]} for t in peers["tables"]}

    def against(key: tuple[str, int], ours: str, theirs: str, column: str = "rate") -> float | None:
        table = tables.get(key, {})
        rivals = [r[column] for name, r in table.items() if name.startswith(theirs)]
        return table[ours][column] / max(rivals) if ours in table and rivals else None

    libzmq, node, both, packed, one = (
        f"cosim, {how}"
        for how in ("process per node, libzmq", "process per node", "2 workers, libzmq", "2 workers", "one process")
    )
    for key, asked in (
        (("barrier", 19), ((libzmq, 3), (node, 6), (both, 20), (packed, 40))),
        (("fanout", 19), ((node, 10), (packed, 30))),
    ):
        for ours, least in asked:
            check(f"{key[0]}, {ours.removeprefix('cosim, ')}: x best HELICS", least, against(key, ours, "HELICS"), True)
    check("ping-pong in one process: x SimPy", 3, against(("pingpong", 19), one, "SimPy"), True)
    check("register read in one process: CPU over SimPy's", 0.5, against(("mmio", 19), one, "SimPy", "cpu_us"), False)
