"""A worker without I/O: executes the events of the nodes it hosts, below the bound that it was granted.

All nodes of a worker share one heap of events in the total order of `cosim.core.order`. A message to a node of the same
worker goes straight onto the heap; the others are collected for the answer. After each message that leaves, the worker may
go no further than the earliest time at which a consequence of it could come back (early return):

    stop = min(bound, arrival + reaction(dest) + dist(dest, this worker))

`returns` holds that sum, without the arrival, per destination node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple, NoReturn, Protocol

from cosim.core.digest import NodeDigest
from cosim.core.message import KINDS, POWER, PRIORITIES, RecordTuple
from cosim.core.order import PRIORITY_TIMER
from cosim.core.tasks import MAX_STEPS_AT_ONE_INSTANT
from cosim.core.time import NEVER, fmt

MAX_EVENTS_PER_GRANT = 50_000
"""After so many events a worker answers, so that control is served; the rest is granted again."""


MAX_LEAVING_PER_GRANT = 2_048
"""After so many messages to other workers it answers too, at the next instant: with 4 KiB in each, half a frame."""

_PLAIN = frozenset((int, bytes, str, bool, type(None)))
_POWER_OFF = POWER.Off.code


class ModelFault(Exception):
    """A model raised or broke a rule of time; carries the node's name and simulated time."""

    def __init__(self, node: str, sim_time_ps: int, what: str, rule: str = "node-raised") -> None:
        super().__init__(f"{node} at {fmt(sim_time_ps)}: {what}")
        self.node = node
        self.sim_time_ps = sim_time_ps
        self.what = what
        self.rule = rule


class Hosted(Protocol):
    """What the kernel needs of a node."""

    id: int
    name: str
    now: int
    reaction: int

    @property
    def promising(self) -> bool:
        """Whether `promise` is to be asked at all."""

    def deliver(self, link: int, kind: int, fields: tuple[Any, ...]) -> None:
        """Handle one message at `now`."""

    def settle(self) -> int:
        """Run ready tasks until all wait; returns the number of steps taken."""

    def promise(self) -> int | None:
        """Earliest send time of any later message without a new input; None: the earliest event."""


class LinkEnd(NamedTuple):
    """What the kernel knows of a link: its ends (node ids), latency in ps and the worker that hosts the destination."""

    src: int
    dst: int
    latency: int
    worker: int


class Batch(NamedTuple):
    """Messages for one other worker: earliest arrival, earliest arrival + reaction of its destination, records in seq order."""

    worker: int
    arrival: int
    wake: int
    records: list[RecordTuple]


class Report(NamedTuple):
    """Answer to a grant (the body of DONE): times in ps and one batch per destination worker."""

    now: int
    next_event: int
    next_out: int
    batches: list[Batch]
    events: int


Entry = tuple[int, int, int, int, int, int, int, Any]
"""(arrival, priority, src, seq, dst, link, kind, fields). For a timer kind is -1, fields the function to call, and in place of
the link stands the earliest time at which its node may send (its floor, see `send`)."""


class Kernel:
    """The event loop of one worker; `grant` executes and reports.

    Args:
        worker: own index.
        nodes: the hosted nodes, any order.
        links: every link that starts or ends at one of them, by id.
        reactions: reaction (ps) of each node that a link from here leads to, by node id; missing means 0.
        returns: early-return time (ps) after a message arriving at a node of another worker, by node id; missing means
            that nothing can come back.
    """

    def __init__(
        self,
        worker: int,
        nodes: Sequence[Hosted],
        links: Mapping[int, LinkEnd],
        reactions: Mapping[int, int],
        returns: Mapping[int, int],
    ) -> None:
        self.worker = worker
        self.nodes = {node.id: node for node in nodes}
        self.digests = {node.id: NodeDigest() for node in nodes}
        self.off: set[int] = set()
        self.now = 0
        self.stop = 0
        self.events = 0
        self.end_time = 0
        self.current: Hosted | None = None
        self.noted: list[Any] = []  # nodes with records beside the simulation, for whoever fetches these
        self._links = links
        self.sent = {number: 0 for number, end in links.items() if end.src in self.nodes}
        self._reactions = reactions
        self._returns = returns
        self._heap: list[Entry] = []
        self._seq = {node.id: 0 for node in nodes}
        self._outbox: dict[int, list[Any]] = {}
        self._inlets = {number: (end.src, end.dst) for number, end in links.items() if end.dst in self.nodes}
        self._reacting = any(node.reaction for node in nodes)
        self._promising = [node for node in nodes if node.promising]
        self._promised = {node.id: 0 for node in self._promising}
        self._floor = 0
        self._leaving = 0  # messages to other workers in this grant
        self._instant = -1
        self._at_instant = 0
        self._steps: dict[int, int] = {}  # of each node at this instant, once it has taken any

    @property
    def messages(self) -> int:
        """Messages sent so far by the nodes of this worker; `sent` has them by link."""
        return sum(self.sent.values())

    def work(self) -> list[tuple[int, int]]:
        """(node id, events so far): messages delivered and timers set, as what a placement weighs."""
        made = dict(self._seq)  # numbers of messages and timers
        for link, count in self.sent.items():
            made[self._links[link].src] -= count
        return [(node, digest.count + made[node]) for node, digest in self.digests.items()]

    # -- called by nodes, during an event ------------------------------------------------------------------------------

    def send(self, src: int, link: int, kind: int, fields: tuple[Any, ...], delay: int = 0) -> None:
        """Send from node `src` at its now + `delay` over `link`; arrives after the link's latency.

        Raises:
            ModelFault: not in an event of that node, a negative delay or a foreign link (rule "bad-send"); earlier than the
                node's reaction or its own promise allow (rule "broken-promise").
        """
        source, dst, latency, worker = self._links[link]
        time = self.now + delay
        arrival = time + latency
        current = self.current
        if current is None or current.id != src or source != src or delay < 0 or time < self._floor or arrival >= NEVER:
            self._refuse_send(src, link, delay, arrival)
        seq = self._seq[src]
        self._seq[src] = seq + 1
        self.sent[link] += 1
        if not _PLAIN.issuperset(map(type, fields)):
            fields = self._plain(src, fields)
        if worker == self.worker:
            if dst not in self.off:
                heappush(self._heap, (arrival, PRIORITIES[kind], src, seq, dst, link, kind, fields))
            return
        wake = arrival + self._reactions.get(dst, 0)
        box = self._outbox.get(worker)
        if box is None:
            self._outbox[worker] = [arrival, wake, [(arrival, seq, link, kind, fields)]]
        else:
            if arrival < box[0]:
                box[0] = arrival
            if wake < box[1]:
                box[1] = wake
            box[2].append((arrival, seq, link, kind, fields))
        self._leaving += 1
        if self._leaving >= MAX_LEAVING_PER_GRANT and self.now < self.stop:
            self.stop = self.now + 1
        back = self._returns.get(dst)
        if back is not None and arrival + back < self.stop:
            self.stop = arrival + back

    def _plain(self, src: int, fields: Iterable[Any]) -> tuple[Any, ...]:
        """The fields as every receiver gets them, on this worker or another: values of their own, in tuples."""
        plain: list[Any] = []
        for value in fields:
            if type(value) in _PLAIN:
                plain.append(value)
            elif isinstance(value, (list, tuple)):
                plain.append(self._plain(src, value))
            elif isinstance(value, (bytes, bytearray, memoryview)):
                plain.append(bytes(value))
            elif isinstance(value, int):
                plain.append(int(value))
            elif isinstance(value, str):
                plain.append(str.__str__(value))
            else:
                raise ModelFault(
                    self.nodes[src].name,
                    self.now,
                    f"fields of a message must be int, bytes, str, bool, None or lists of these, not {type(value).__name__}",
                    "bad-send",
                )
        return tuple(plain)

    def _refuse_send(self, src: int, link: int, delay: int, arrival: int) -> NoReturn:
        """Say which rule a send broke."""
        name, current, time = self.nodes[src].name, self.current, self.now + delay
        if delay < 0 or self._links[link].src != src or current is None or current.id != src:
            raise ModelFault(
                name,
                self.now,
                f"a node must send in an event of its own, over its own link, not into the past (link {link}, delay {delay} ps)",
                "bad-send",
            )
        if time < self._floor:
            raise ModelFault(
                name,
                self.now,
                f"a send must not lie before {fmt(self._floor)}, as reaction and promise() say, not at {fmt(time)}",
                "broken-promise",
            )
        assert arrival >= NEVER, "the caller found one of the rules broken"
        raise ModelFault(name, self.now, "message would arrive after the end of time (2**63 - 1 ps)", "bad-send")

    def at(self, node: int, time: int, fn: Callable[[], None]) -> Entry:
        """Call `fn` as an event of `node` at `time` >= now; the entry may be given to `cancel`."""
        if time < self.now:
            raise ModelFault(
                self.nodes[node].name, self.now, f"timer must not lie in the past ({fmt(time)})", "bad-timer"
            )
        seq = self._seq[node]
        self._seq[node] = seq + 1
        floor = self._floor if self.current is not None else 0
        entry: Entry = (time, PRIORITY_TIMER, node, seq, node, floor, -1, fn)
        if time < NEVER and node not in self.off:
            heappush(self._heap, entry)
        return entry

    def cancel(self, entry: Entry) -> None:
        """Take a timer back; no effect when it has fired. Costs a scan: for many timers use a flag in the function."""
        try:
            self._heap.remove(entry)
        except ValueError:
            return
        heapify(self._heap)

    def power_off(self, node: int) -> None:
        """End the node's part of the run: it has no more events, and what still comes for it is dropped."""
        self.off.add(node)
        # In place: `grant` holds a reference to the list.
        self._heap[:] = [entry for entry in self._heap if entry[4] != node]
        heapify(self._heap)

    # -- called by the worker's loop -----------------------------------------------------------------------------------

    def take(
        self, records: Iterable[RecordTuple], hosted_by: int | None = None, worker_of: Mapping[int, int] | None = None
    ) -> None:
        """Keep delivered inputs.

        Raises:
            ModelFault: an input that no link brings here, whose source the sending worker does not host, or whose time
                lies below this worker's clock (rules "bad-link", "forged-source", "message-in-the-past").
        """
        heap, inlets, off, now = self._heap, self._inlets, self.off, self.now
        for arrival, seq, link, kind, fields in records:
            inlet, priority = inlets.get(link), PRIORITIES.get(kind)
            if inlet is None or priority is None or arrival < now:
                self._refuse_input(link, kind, arrival)
            src, dst = inlet
            if worker_of is not None and worker_of.get(src) != hosted_by:
                text = f"worker {hosted_by} sent for node {src}, which it does not host"
                raise ModelFault(self.nodes[dst].name, now, text, "forged-source")
            if dst not in off:
                heappush(heap, (arrival, priority, src, seq, dst, link, kind, fields))

    def _refuse_input(self, link: int, kind: int, arrival: int) -> NoReturn:
        """Say which rule a delivered input broke."""
        inlet = self._inlets.get(link)
        if inlet is None:
            text = f"a message came over link {link}, which does not end here"
            raise ModelFault("worker", self.now, text, "bad-link")
        src, name = inlet[0], self.nodes[inlet[1]].name
        if kind not in KINDS:
            raise ModelFault(name, self.now, f"message kind {kind} is unknown here", "unknown-kind")
        text = f"a {KINDS[kind]!r} from node {src} for {fmt(arrival)} came when the clock was at {fmt(self.now)}"
        raise ModelFault(name, self.now, text, "message-in-the-past")

    def grant(
        self, bound: int, max_events: int = MAX_EVENTS_PER_GRANT, hurry: Callable[[], bool] | None = None
    ) -> Report:
        """Execute every event with t < bound (or less far, see `stop` in the module's text) and report.

        `hurry` is asked between two events while messages wait to leave: True ends the grant there, so that those who get them
        may work at the same time. It changes how often is granted, never what is executed.
        """
        heap, nodes, digests, promised, steps_of = self._heap, self.nodes, self.digests, self._promised, self._steps
        power_off = _POWER_OFF
        self.stop = bound
        self._leaving = done = 0
        while heap and heap[0][0] < self.stop and done < max_events:
            time, priority, src, seq, dst, link, kind, fields = heappop(heap)
            self.now = time
            node = nodes[dst]
            self.current = node
            node.now = time
            done += 1
            if kind >= 0:
                self._floor = time + node.reaction
                digests[dst].add(time, priority, src, seq, kind, fields)
                if kind == power_off:
                    self.power_off(dst)
                    continue
                node.deliver(link, kind, fields)
            else:
                self._floor = max(link, promised[dst]) if dst in promised else link
                fields()
            if time != self._instant:
                self._instant, self._at_instant = time, 0
                steps_of.clear()
            steps = node.settle() + 1
            self._at_instant += steps
            steps_of[dst] = steps_of.get(dst, 0) + steps
            if self._at_instant > MAX_STEPS_AT_ONE_INSTANT:
                self._check_steps(node)
            if dst in promised:
                self._note_promise(node, kind >= 0)
            if hurry is not None and self._leaving and hurry():
                max_events = done
        self.current = None
        next_event = heap[0][0] if heap else NEVER
        if done:
            self.end_time = max(self.end_time, self.now)
        self.now = min(self.stop, next_event) if done >= max_events else max(self.now, min(self.stop, bound))
        self.events += done
        outbox = self._outbox
        batches: list[Batch] = []
        if outbox:
            batches = [
                Batch(worker, *box) for worker, box in (sorted(outbox.items()) if len(outbox) > 1 else outbox.items())
            ]
            outbox.clear()
        next_out = self._next_out(next_event) if self._reacting or self._promising else next_event
        return Report(self.now, next_event, next_out, batches, done)

    def initial(self) -> tuple[int, int]:
        """(next_event, next_out) before the first grant."""
        next_event = self._heap[0][0] if self._heap else NEVER
        return next_event, self._next_out(next_event)

    def _check_steps(self, node: Hosted) -> None:
        """This worker's nodes have taken many steps at this instant: whether one of them has gone beyond the limit."""
        if self._steps[node.id] > MAX_STEPS_AT_ONE_INSTANT:
            raise ModelFault(
                node.name,
                self.now,
                f"more than {MAX_STEPS_AT_ONE_INSTANT:,} steps at one instant: a loop without simulated time",
                "zero-time-loop",
            )

    def _note_promise(self, node: Hosted, input_came: bool) -> None:
        """A promise stands until an input comes; without one it can only grow."""
        promise = node.promise() or 0
        self._promised[node.id] = promise if input_came else max(promise, self._promised[node.id])

    def _next_out(self, next_event: int) -> int:
        promises = {n.id: p for n in self._promising if (p := n.promise()) is not None}
        if not promises and not self._reacting:
            return next_event
        nodes, earliest = self.nodes, NEVER
        for entry in self._heap:
            dst = entry[4]
            if entry[6] >= 0:
                time = entry[0] + nodes[dst].reaction
            elif dst in promises:
                continue
            else:
                time = entry[0]
            if time < earliest:
                earliest = time
        for node_id, promise in promises.items():
            if node_id not in self.off and promise < earliest:
                earliest = promise
        return max(earliest, next_event)
