"""docs/performance.md from what was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

HEAD = """\
# Performance

Written by `make bench` and `make bench-peers` from what they measured; do not edit. Rates depend on the machine and on what
else it does: compare the ratios. `x floor` is the rate over that of a raw pyzmq PAIR ping-pong (16 bytes, ipc, blocking
receives, two processes), measured between the runs of the same row. `CPU` is the CPU time of all processes that take part,
hub and supervisor included, per operation. Each figure is the median of the runs.

What decides speed is how often a process boundary is crossed and whom a step wakes. Where nodes share a process, their
messages never leave it; where they do not, a grant and its answer are two crossings by the hub, which wakes only nodes that
have something to do. Where one of them runs at a time, it grants the next one itself.

`cosim bench NAME` measures one workload by itself; `--nodes`, `--workers` and `--link` ask for other rows than these, and
`--json` prints them for scripts:

    cosim bench pingpong --nodes 64 --workers per-node --link zmq --json
"""

LOSE = """\
## Where this design loses

Lock-step of a few compiled simulators that synchronise every few nanoseconds, with a core each, over shared memory:
SimBricks. Measured earlier on a machine of this kind (2 virtual cores, shared; SimBricks' base library compiled with
gcc -O3 and yielding in its poll loop, no model code, synchronisation interval = latency = 10 ns):

| workload                       | SimBricks, CPU µs | rate          |
|--------------------------------|-------------------|---------------|
| barrier, 2 nodes               | 1.2               | 725,000/s     |
| barrier, 19 nodes              | 103               | 10,800/s      |
| ping-pong, 2 nodes             | 2.4               | 483,000/s     |
| fan-out, 19 nodes              | 3.4 per message   | 417,000/s     |
| sparse ping-pong, 4 nodes      | 10                | 110,000/s     |
| sparse ping-pong, 19 nodes     | 102               | 10,300/s      |
| sparse ping-pong, 64 nodes     | 740               | 701/s         |
| sparse ping-pong, 128 nodes    | 949               | 711/s         |

A grant over a process boundary costs tens of microseconds here, so that two processes in lock-step are two orders of
magnitude behind it. Every link of SimBricks synchronises in every interval, though: its cost grows with the number of nodes
whether they do anything or not, and where there are more processes than cores and traffic is sparse, the lines cross
between 19 and 64 nodes (`sparse` above; with a core for each process they would not). As shipped, SimBricks spins
instead of yielding; with more processes than cores that fell to 3 steps/s in the barrier of 19 nodes.

Also out of reach: bulk data as many small messages between processes (send blocks), and pacing by real time below a
millisecond.
"""

BARE = """\
### The least that a star of processes costs here: bare frames

Processes that receive and send frames of the usual sizes and do nothing else, in the patterns of the workloads
(`benchmarks/bare.py`): no codec, no barrier, no journal, no model. All figures are per step, a round trip for ping-pong; a step
of the fan-out is 18 deliveries. `unix` is stream sockets and an epoll, as the fast link has them; `zmq` is ROUTER and DEALER;
`least` is all that was found to make a star cheaper, fit for a runtime or not. The star of the ping-pong has the hub between the
two: in the product they grant each other, two hops in place of four, with the hub beside them on another core. `cores` is the
rate times the CPU: how many cores the star keeps busy. The kernel decides how its processes share them, and may put all on one:
then the rate of a barrier is lower than the machine allows, its CPU is not.
"""

BARE_TARGETS = """\
What is asked for, as a rate: so many times the floor, or the best HELICS rate (per step). `lies` says on which side of the best
rate of the bare star it is. `cores for bare frames` is what receiving and sending alone takes at the rate asked for, and `left`
the CPU per step that remains then for all else, hub and workers together. Where only one process has work at a time (ping-pong,
fan-out on two workers) that is of one core, elsewhere of all. Below zero, the frames alone take more than there is. `taken` is
what the product has in its place: its CPU per step without that of the bare star. `left a grant` is `left` by the grants of a step:
hub and worker together take {python:.0f} µs of Python for one with warm caches (above). Where less than that is left, what
stands between the product and the target is the interpreter; what compiling would change is said above. Over the ping-pong, whose
targets are met, this says only that they could not be with the hub between the two.
"""

NOT_MET = """\
Where a target is not met (above): in the barrier, hub and worker would have to do with what is left for a grant, a part of what
their Python takes with warm caches, and compiling the same sources gives far less than that. In the fan-out with a process per
node the CPU would nearly do, but the parts of a step follow each other, source, hub, sinks, hub, so that fewer cores are busy
(`cores` of cosim) than there are; on two workers they do so entirely, and much of a step is the models' own messages.
"""

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
    "barrier": "W1 barrier: 19 nodes step together, no messages",
    "pingpong": "W2 ping-pong between two nodes, the others wait",
    "fanout": "W3 fan-out: one node to all others, deliveries",
    "mmio": "W5 register reads by a coroutine",
}


def render(results: dict[str, Any]) -> str:
    """The page; a part that was not measured yet says so."""
    parts = [HEAD]
    bench, peers, runs = (results.get(part) for part in ("bench", "peers", "runs"))
    if bench:
        parts += [
            "## The workloads\n",
            _machine(bench),
            _bench_table(bench["rows"]),
            *(f"No result: {fault}\n" for fault in bench.get("faults", [])),
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
            parts += [BARE, _bare(limits, bench["rows"] if bench else [], peers)]
    parts.append("## Beside HELICS, mosaik and SimPy\n")
    if peers:
        parts.append(_machine(peers))
        parts.append(
            "HELICS has a federate, a core and a Python interpreter per process, and a broker process; mosaik its simulators\n"
            "in processes (remote) or in its own (inproc); SimPy is one process, by `Store` where messages pass. `best HELICS`\n"
            "is the rate over that of the fastest HELICS core type in the same table.\n"
        )
        parts += [_peer_table(table) for table in peers["tables"]]
    else:
        parts.append("Not measured yet: `make bench-peers`.\n")
    return "\n".join([*parts, LOSE])


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
    text = (
        "`cosim up rdn2cfg1` as a process of its own, both tests: total wall time (median and best), and wall time of a run that\n"
        "ends when all workers are ready and nothing has happened. With 2 hosts each half of the nodes has its own hub on this\n"
        "machine, under a root hub: what a second hub costs where there is no second machine. One digest.\n"
    )
    return f"{text}\n{_table(list(columns), [[_cell(row[c]) for c in columns] for row in rows])}"


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
    text = (
        "A ping-pong round trip between two nodes in processes of their own is two grants. By way of the hub it is four hops,\n"
        "each handled once: that is what every step of several workers is made of. What such a step takes beyond the sum is what\n"
        "the interpreter loses when another process had the core in between: two to three times the time of warm caches. Where\n"
        "one worker runs at a time, as here, workers grant each other: two hops, and the hub works beside the round trip.\n"
    )
    gains = ", ".join(f"{row['what']} {row['gain']:.2f}" for row in limits["compiled"])
    tried = (
        "Compiled by mypyc from the same sources (`python -m benchmarks.compiled`), the hot path of kernel, barrier, codec, link,\n"
        f"hub and worker gives these rates over the interpreted ones: {gains}. Asked for was a factor of 1.5 in register reads or\n"
        "interrupts, for a wheel that has to be built per platform: it is not kept.\n"
    )
    whole, digest = hop["message_us"], hop["digest_us"]
    inside = (
        f"A message within a process takes {whole:.1f} µs, its digest {digest:.1f} µs of them. The rest is a heap\n"
        "in total order, checks of link, promise and fields at the send, the step limit, dispatch and the model; a register read\n"
        "is two, and adds the address map, attributes, a coroutine and the bank's rules.\n"
    )
    few, many = (hop["hypervisor_share"][vcpus] for vcpus in ("8", "256"))
    serial = (
        f"The hypervisor is one node. On 256 PEs it has {few:.0%} of the ipi test's events with 8 vCPUs, {many:.0%} with 256:\n"
        f"as many workers as one likes are at most {1 / many:.1f} times as fast as one. Two workers are not held back by that.\n"
    )
    return f"{text}\n{_table(['part', 'time', 'x floor'], rows)}\n{tried}\n{inside}\n{serial}"


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
    about = BARE_TARGETS.format(python=hop["hub_us"] + hop["worker_us"])
    return f"{text}\n{about}\n{_table([*head, 'left, µs', 'taken, µs', 'left a grant, µs'], asked)}\n{NOT_MET}"


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
    factor = _ASKED.get((star["name"], star["workers"], "unix" if star["link"] == "least" else star["link"]))
    unit = floor if star["name"] == "pingpong" else _best_helics(star, peers)
    if factor is None or unit is None:
        return None
    rate, product = factor * unit, _product(star, rows)
    what = f"{factor} x {'floor' if star['name'] == 'pingpong' else 'HELICS'}"
    left, grants = min(cpus, star["at_once"]) * 1e6 / rate - star["cpu_us"], _grants(star, rows)
    return [
        star["name"], star["workers"], star["link"], what, number(rate), number(rate / star["rate_max"]),
        "above the limit" if rate > star["rate_max"] else "below it",
        number(rate * star["cpu_us"] / 1e6), number(left), number(product[1] - star["cpu_us"]) if product else "-",
        number(left / grants) if grants else "-",
    ]  # fmt: skip


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
    head = ["system", "rate/s", "from", "to", "CPU µs", "x floor", "best HELICS"]
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
    check("ping-pong, 254 bystanders: rate over that of none", 0.8, ratio(crowd, fast, "ratio"), True)
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
    for run in runs["rows"] if runs else []:
        if run["workers"] in ("per-node", "2"):
            limit = 4 if run["workers"] == "per-node" else 2
            check(f"RD-N2-Cfg1, --workers {run['workers']}: wall s of the whole", limit, run["total_s"], False)
            check(f"RD-N2-Cfg1, --workers {run['workers']}: wall s of start-up", 2, run["startup_s"], False)
    if peers:
        _peer_targets(peers, check)
    return _table(["what", "target", "measured", "met"], lines)


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
