"""The sentences of docs/performance.md; `benchmarks.page` puts the figures beside them."""

from __future__ import annotations

HEAD = """\
# Performance

Written by `make bench`, `make bench-limits` and `make bench-peers` from what they measured (`benchmarks/results.json`); do not
edit. `python -m benchmarks.report page` writes it again without measuring.

What decides speed is how often messages cross from one process to another, and how many processes a step wakes. Nodes that
share a process exchange their messages inside it. Between processes, the hub *grants* a worker the right to execute up to some
simulated time, and the worker answers: two crossings. The hub wakes only workers that have something to do; while only one has,
that one grants the next one directly, and the hub is told meanwhile.

How to read the figures:

- Rates depend on the machine and on what else it does: compare ratios. `x floor` is the rate over that of a raw pyzmq ping-pong
  (PAIR sockets, 16 bytes, ipc, blocking receives, two processes) measured between the runs of the same row: the `floor`.
- Rates and CPU are per operation, see the first table. `CPU` is the CPU time of all processes that take part, hub and supervisor
  included.
- Each figure is the median of the runs; `from` and `to` are the lowest and the highest rate among them.
- `load` is the machine's load average of the last minute when a row was done. It counts the processes of the benchmark itself:
  after some hundreds of them were started at once it says 15 and more on an otherwise idle machine.
- Workers `per-node` are a process per node, `0` is one process for all, `auto` as many as there are cores. Link `fast` is ZMTP
  spoken by the main thread over Unix sockets, `zmq` is libzmq, `memory` stays in the process.
- All runs of a row must have one digest, or it has no result. That placement and link change no digest is for the tests.

`cosim bench NAME` measures one workload by itself; `--nodes`, `--workers` and `--link` ask for other rows than these, and
`--json` prints them for scripts ([commands](commands.md)):

    cosim bench pingpong --nodes 64 --workers per-node --link zmq --json
"""

WORKLOADS = """\
| workload | operation that is counted |
|---|---|
| barrier (W1) | a step of simulated time that every node takes, together; no messages |
| pingpong (W2) | a round trip of a message between two nodes; the others wait for messages that never come |
| fanout (W3) | a message delivered; in every step one node sends one to each of the others |
| sparse (W4) | a round trip as in W2, among ever more nodes whose next event lies after the end |
| mmio (W5) | a register read that a coroutine awaits; the other nodes wait |
| interrupts-vlpi, -vsgi (W6) | a virtual LPI, a virtual SGI acknowledged by the guest; RD-N2-Cfg1, or `scale.yaml` above 8 PEs |
| startup, startup-exec (W7) | a node in a process of its own that was started (by fork, by exec), joined the run and ended |
| memory, memory-exec (W8) | none: `rate` is a worker's private memory, `floor` that of Python with pyzmq and msgpack alone |
| compute | as W1, with 1 ms of work of each node in each step |
| working | a virtual SGI as in W6, `scale.yaml`, with 1 ms of work of a PE for each message to it |

The last column: `grants_per_round`, `frames_per_round` (or `grants_per_op`, `events_per_op`, `messages_per_op`) are what the
runtime did for one step, round trip, read or interrupt; a frame is a grant or its answer. `pes` are PEs of the machine,
`interrupts` how many were measured. `up_s` and `up_cpu_s` are wall and CPU seconds until all are ready, `stop_s` from the order to
end until all is gone, `cpu_s` CPU of the whole. `pss` is the proportional set size of a worker, `private_max` the largest private
memory of one, `private_total` of all, in MiB.
"""

RUNS = """\
`cosim up rdn2cfg1` as a process of its own, both tests. `total_s` is the wall time of the whole command (`best_total_s` of the
fastest), `startup_s` that of a run which ends when all workers are ready and nothing has happened. `events_per_s` is by the run's
own wall time, without the interpreter's start. With 2 hosts each half of the nodes has its own hub on this machine, under a root
hub: what a second hub costs where there is no second machine. All runs had one digest.
"""

INTERRUPTS = """\
Each interrupt is a chain of steps of different nodes, one after the other: more processes add hops and let nothing happen at the
same time, so that one process is fastest. Workers pay where several nodes compute at once, for long by comparison with a hop:
`compute` and `working` above, an RTL or SystemC node beside others.
"""

LOSE = """\
## Where this design loses

Lock-step of a few compiled simulators that synchronise every few nanoseconds, with a core each, over shared memory:
SimBricks. Its figures were measured earlier on a machine of this kind (2 virtual cores, shared; SimBricks' base library compiled
with gcc -O3 and yielding in its poll loop, no model code, synchronisation interval = latency = 10 ns). Those of cosim are with a
process per node, from the first table.
"""

LOSE_WHY = """\
A grant over a process boundary costs tens of microseconds here, so that a few processes in lock-step are far behind it. Every link
of SimBricks synchronises in every interval, though: its cost grows with the number of nodes whether they do anything or not. Where
there are more processes than cores and traffic is sparse, the lines cross between 19 and 64 nodes in CPU time, in rate before
that; with a core for each process they would not. As shipped, SimBricks spins instead of yielding; with more processes than cores
that fell to 3 steps/s in the barrier of 19 nodes.

Also out of reach: bulk data as many small messages between processes (send blocks), and pacing by real time below a
millisecond.
"""

SIMBRICKS = (
    ("barrier", 2, "1.2", 725_000),
    ("barrier", 19, "103", 10_800),
    ("pingpong", 2, "2.4", 483_000),
    ("fanout", 19, "3.4", 417_000),
    ("sparse", 4, "10", 110_000),
    ("sparse", 19, "102", 10_300),
    ("sparse", 64, "740", 701),
    ("sparse", 128, "949", 711),
)
"""Workload, nodes, CPU microseconds per operation, operations per second, of SimBricks."""

HOP = """\
A ping-pong round trip between two nodes in processes of their own takes two grants. By way of the hub that is four hops, worker to
hub and hub to worker, twice: so go the steps of all workloads in which several workers have work. Such a step takes more than the
sum below, because another process has used the core in between and the interpreter's caches are cold: the same Python then takes
two to three times as long. In the ping-pong only one worker has work at a time, and the workers grant each other: two hops; the
hub is told meanwhile.
"""

COMPILED = """\
What compiling would give: kernel, barrier, codec, link, hub and worker compiled by mypyc from the same sources
(`python -m benchmarks.compiled`), rates over the interpreted ones. Asked for was a factor of 1.5 in register reads or interrupts,
for a wheel that has to be built per platform; so it is not kept.
"""

INSIDE = """\
A message between two nodes of one process takes {whole:.1f} µs, {digest:.1f} µs of it for the digest. The rest is the heap that
keeps events in their total order, the checks of link, promise and fields at the send, the limit of steps at one instant, dispatch,
and the model. A register read is two messages, and adds address decode, access attributes, a coroutine and the rules of a register
bank.
"""

SERIAL = """\
The hypervisor is one node, and one node is never spread over workers. On 256 PEs it executes {few:.0%} of the ipi test's events
with 8 vCPUs, {many:.0%} with 256: however many workers there are, that test is at most {most:.1f} times as fast as on one. Two
workers are not held back by it (`working` above).
"""

BARE = """\
### The least that a star of processes costs here: bare frames

Processes around one hub that receive and send frames of the usual sizes and do nothing else, in the patterns of the workloads
(`benchmarks/bare.py`): no codec, no barrier, no journal, no model. All figures are per step, which is a round trip for the
ping-pong and 18 deliveries for the fan-out.

- Links of the bare star: `unix` is stream sockets and an epoll, as the fast link has them; `zmq` is ROUTER and DEALER; `least` is
  all that was found to make a star cheaper, fit for a runtime or not. The star of the ping-pong, and of the fan-out on two
  workers, has the hub between the two; in cosim they grant each other, two hops in place of four, with the hub beside them on
  another core.
- `cores` is the rate times the CPU: how many cores are kept busy. The kernel decides how processes share them, and may put all on
  one: then the rate of a barrier is lower than the machine allows, its CPU is not.
- `of bare` is cosim's rate over that of the bare star, `of it bare` the bare star's share of cosim's CPU.
"""

BARE_TARGETS = """\
The targets of these workloads as rates: so many times the floor, or the best HELICS rate per step.

- `of best` is that rate over the best of the bare star, and `lies` on which side of it: above it, frames alone exclude the target.
- `cores for bare frames` is what receiving and sending alone takes at that rate.
- `left` is the CPU per step that then remains for all else, hub and workers together: of one core where only one process has work
  at a time (ping-pong, fan-out on two workers), else of all. Below zero, the frames alone take more than there is.
- `taken` is what cosim takes for all else now: its CPU per step without that of the bare star.
- `left a grant` is `left` over the grants of a step. Hub and worker together take {python:.0f} µs of Python for a grant with warm
  caches (above): where less is left, what stands between cosim and the target is the interpreter. Of the ping-pong, whose
  targets are met, this says only that they could not be with the hub between the two.
"""

NOT_MET = {
    "barrier": """\
Why the barrier misses targets: at the rates asked for, less CPU is left for a grant than the Python of hub and worker takes for it
with warm caches, and compiling the same sources gains far less than that (above).
""",
    "fanout": """\
Why the fan-out misses targets: the parts of a step follow each other, from source to hub to sinks to hub. With a process per node
the CPU time would about do, but fewer cores are busy than there are ("cosim cores" above). On two workers, which grant each other
here, the two take turns, and only the hub's books are kept beside them; a good part of their work is the models' own: 18 messages
to make and 18 to take.
""",
}
