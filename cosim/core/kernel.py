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
from typing import Any, NoReturn

from cosim.core.digest import NodeDigest
from cosim.core.hosted import Batch, Entry, Hosted, Inlet, LinkEnd, ModelFault, Outlet, Report
from cosim.core.message import KINDS, POWER, PRIORITIES, RecordTuple
from cosim.core.order import PRIORITY_TIMER
from cosim.core.tasks import MAX_STEPS_AT_ONE_INSTANT
from cosim.core.time import NEVER, fmt

__all__ = [
    "MAX_EVENTS_PER_GRANT",
    "MAX_LEAVING_PER_GRANT",
    "Batch",
    "Entry",
    "Hosted",
    "Kernel",
    "LinkEnd",
    "ModelFault",
    "Outlet",
    "Report",
]

MAX_EVENTS_PER_GRANT = 50_000
"""After so many events a worker answers, so that control is served; the rest is granted again."""


MAX_LEAVING_PER_GRANT = 2_048
"""After so many messages to other workers it answers too, at the next instant: with 4 KiB in each, half a frame."""

_PLAIN = frozenset((int, bytes, str, bool, type(None)))
_POWER_OFF = POWER.Off.code
_tuple: Any = tuple.__new__  # of a named tuple, without the call of a function that its own `__new__` is


class Kernel:
    """The event loop of one worker; `grant` executes and reports.

    Args:
        worker: own index.
        nodes: the hosted nodes, any order.
        links: every link that starts or ends at one of them, by id.
        reactions: reaction (ps) of each node that a link from here leads to, by node id; missing means 0.
        returns: early-return time (ps) after a message arriving at a node of another worker, by node id; missing means
            that nothing can come back.
        digest: makes the digest of a node.
    """

    __slots__ = (
        "_first",
        "_first_steps",
        "_floor",
        "_heap",
        "_inlets",
        "_instant",
        "_leaving",
        "_links",
        "_outbox",
        "_outlets",
        "_promised",
        "_promising",
        "_reacting",
        "_reactions",
        "_returns",
        "_seq",
        "_steps",
        "_tallies",
        "_timers",
        "current",
        "digests",
        "end_time",
        "events",
        "nodes",
        "noted",
        "now",
        "off",
        "stop",
        "worker",
    )

    def __init__(
        self,
        worker: int,
        nodes: Sequence[Hosted],
        links: Mapping[int, LinkEnd],
        reactions: Mapping[int, int],
        returns: Mapping[int, int],
        digest: Callable[[], NodeDigest] = NodeDigest,
    ) -> None:
        self.worker = worker
        self.nodes = {node.id: node for node in nodes}
        self.digests = {node.id: digest() for node in nodes}
        self.off: set[int] = set()
        self.now = 0
        self.stop = 0
        self.events = 0
        self.end_time = 0
        self.current: Hosted | None = None
        self.noted: list[Any] = []  # nodes with records beside the simulation, for whoever fetches these
        self._links = links
        self._tallies = {number: [0] for number, end in links.items() if end.src in self.nodes}
        self._reactions = reactions
        self._returns = returns
        self._heap: list[Entry] = []
        self._seq = {node.id: [0] for node in nodes}  # a cell each: its outlets share it
        self._outbox: dict[int, list[Any]] = {}
        self._timers = {node.id: self._inlet(-1, node) for node in nodes}
        self._inlets = {k: self._inlet(k, self.nodes[end.dst]) for k, end in links.items() if end.dst in self.nodes}
        self._outlets: dict[int, Outlet] = {}
        self._reacting = any(node.reaction for node in nodes)
        self._promising = [node for node in nodes if node.promising]
        self._promised = {node.id: 0 for node in self._promising}
        self._floor = 0
        self._leaving = 0  # messages to other workers in this grant
        self._instant = -1
        self._first: Hosted | None = None  # the node of the first event at this instant, and its steps
        self._first_steps = 0
        self._steps: dict[int, int] = {}  # of each node at this instant, from the second event on

    def _inlet(self, link: int, node: Hosted) -> Inlet:
        digest = self.digests[node.id]
        return link, node, vars(node), node.reaction, {}, digest.pack, digest.update, digest, node.ready, node.settle

    @property
    def sent(self) -> dict[int, int]:
        """Messages sent so far by the nodes of this worker, by link."""
        return {link: tally[0] for link, tally in self._tallies.items()}

    @property
    def messages(self) -> int:
        """Messages sent so far by the nodes of this worker."""
        return sum(tally[0] for tally in self._tallies.values())

    def work(self) -> list[tuple[int, int]]:
        """(node id, events so far): messages delivered and timers set, as what a placement weighs."""
        made = {node: cell[0] for node, cell in self._seq.items()}  # numbers of messages and timers
        for link, count in self.sent.items():
            made[self._links[link].src] -= count
        return [(node, digest.count + made[node]) for node, digest in self.digests.items()]

    # -- called by nodes, during an event ------------------------------------------------------------------------------

    def outlet(self, link: int) -> Outlet:
        """The way out over a link that starts at a node of this worker: ``send(kind, fields, delay=0)`` sends from that node at
        its now + `delay` (ps); the message arrives after the link's latency. Fields that are `known` to be of the types int,
        bytes, str, bool and None themselves need no look at each.

        The function raises ModelFault: not in an event of that node or a negative delay (rule "bad-send"); earlier than the
        node's reaction or its own promise allow (rule "broken-promise").

        Raises:
            ModelFault: the link starts elsewhere (rule "bad-send").
        """
        found = self._outlets.get(link)
        if found is None:
            end = self._links[link]
            if end.src not in self.nodes:
                raise ModelFault("worker", self.now, f"link {link} must start at a node of this worker", "bad-send")
            found = self._outlets[link] = (
                self._within(link, end) if end.worker == self.worker else self._across(link, end)
            )
        return found

    def _within(self, link: int, end: LinkEnd) -> Outlet:
        """The outlet of a link between two nodes of this worker."""
        source, dst, latency, latest = self.nodes[end.src], end.dst, end.latency, NEVER - end.latency
        src, cell, tally, off, inlet = end.src, self._seq[end.src], self._tallies[link], self.off, self._inlets[link]
        heap, push, priorities, plain = self._heap, heappush, PRIORITIES, _PLAIN

        def send(kind: int, fields: tuple[Any, ...], delay: int = 0, known: bool = False) -> None:
            time = self.now + delay
            if self.current is not source or time < self._floor or time >= latest:
                self._refuse_send(link, delay)
            seq = cell[0]
            cell[0] = seq + 1
            tally[0] += 1
            if not known:
                for value in fields:
                    if type(value) is not int and type(value) not in plain:
                        fields = self._plain(src, fields)
                        break
            if dst not in off:
                push(heap, (time + latency, priorities[kind], src, seq, inlet, kind, fields))

        return send

    def _across(self, link: int, end: LinkEnd) -> Outlet:
        """The outlet of a link to another worker."""
        source, latency, worker, latest = self.nodes[end.src], end.latency, end.worker, NEVER - end.latency
        src, cell, tally, outbox, plain = end.src, self._seq[end.src], self._tallies[link], self._outbox, _PLAIN
        reaction, back = self._reactions.get(end.dst, 0), self._returns.get(end.dst)

        def send(kind: int, fields: tuple[Any, ...], delay: int = 0, known: bool = False) -> None:
            time = self.now + delay
            if self.current is not source or time < self._floor or time >= latest:
                self._refuse_send(link, delay)
            seq = cell[0]
            cell[0] = seq + 1
            tally[0] += 1
            if not known:
                for value in fields:
                    if type(value) is not int and type(value) not in plain:
                        fields = self._plain(src, fields)
                        break
            arrival = time + latency
            wake = arrival + reaction
            box = outbox.get(worker)
            if box is None:
                outbox[worker] = [arrival, wake, [(arrival, seq, link, kind, fields)]]
            else:
                if arrival < box[0]:
                    box[0] = arrival
                if wake < box[1]:
                    box[1] = wake
                box[2].append((arrival, seq, link, kind, fields))
            self._leaving += 1
            if self._leaving >= MAX_LEAVING_PER_GRANT and self.now < self.stop:
                self.stop = self.now + 1
            if back is not None and arrival + back < self.stop:
                self.stop = arrival + back

        return send

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

    def _refuse_send(self, link: int, delay: int) -> NoReturn:
        """Say which rule a send broke."""
        end, now, current = self._links[link], self.now, self.current
        name = self.nodes[end.src].name
        if delay < 0 or current is not self.nodes[end.src]:
            text = f"a node must send in an event of its own, not into the past (link {link}, delay {delay} ps)"
            raise ModelFault(name, now, text, "bad-send")
        if now + delay < self._floor:
            text = f"a send must not lie before {fmt(self._floor)}, as reaction and promise() say, not at {fmt(now + delay)}"
            raise ModelFault(name, now, text, "broken-promise")
        assert now + delay + end.latency >= NEVER, "the caller found one of the rules broken"
        raise ModelFault(name, now, "message would arrive after the end of time (2**63 - 1 ps)", "bad-send")

    def at(self, node: int, time: int, fn: Callable[[], Any]) -> Entry:
        """Call `fn` as an event of `node` at `time` >= now; the entry may be given to `cancel`. The node gets what it returns."""
        if time < self.now:
            raise ModelFault(
                self.nodes[node].name, self.now, f"timer must not lie in the past ({fmt(time)})", "bad-timer"
            )
        cell = self._seq[node]
        seq = cell[0]
        cell[0] = seq + 1
        floor = self._floor if self.current is not None else 0
        entry: Entry = (time, PRIORITY_TIMER, node, seq, self._timers[node], ~floor, fn)
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
        # In place: the loop and the outlets hold references to the list.
        self._heap[:] = [entry for entry in self._heap if entry[4][1].id != node]
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
        heap, inlets, links, off, now = self._heap, self._inlets, self._links, self.off, self.now
        for arrival, seq, link, kind, fields in records:
            inlet, priority = inlets.get(link), PRIORITIES.get(kind)
            if inlet is None or priority is None or arrival < now:
                self._refuse_input(link, kind, arrival)
            src, dst, _latency, _worker = links[link]
            if worker_of is not None and worker_of.get(src) != hosted_by:
                text = f"worker {hosted_by} sent for node {src}, which it does not host"
                raise ModelFault(self.nodes[dst].name, now, text, "forged-source")
            if dst not in off:
                heappush(heap, (arrival, priority, src, seq, inlet, kind, fields))

    def _refuse_input(self, link: int, kind: int, arrival: int) -> NoReturn:
        """Say which rule a delivered input broke."""
        inlet = self._inlets.get(link)
        if inlet is None:
            text = f"a message came over link {link}, which does not end here"
            raise ModelFault("worker", self.now, text, "bad-link")
        src, name = self._links[link].src, inlet[1].name
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
        self.stop = bound
        self._leaving = 0
        done, max_events = self._run(max_events, hurry)
        heap, stop = self._heap, self.stop
        self.current = None
        next_event = heap[0][0] if heap else NEVER
        if done:
            self.end_time = self.now
        if done >= max_events:
            self.now = next_event if next_event < stop else stop
        elif stop > self.now:
            self.now = stop
        self.events += done
        outbox = self._outbox
        batches: list[Batch] = []
        if outbox:
            boxes = sorted(outbox.items()) if len(outbox) > 1 else outbox.items()
            batches = [_tuple(Batch, (worker, *box)) for worker, box in boxes]
            outbox.clear()
        next_out = self._next_out(next_event) if self._reacting or self._promising else next_event
        report: Report = _tuple(Report, (self.now, next_event, next_out, batches, done))
        return report

    def _run(self, max_events: int, hurry: Callable[[], bool] | None) -> tuple[int, int]:
        """Execute events up to `stop`; how many, and how many it might have been (`hurry` makes that less)."""
        heap, promised, pop = self._heap, self._promised, heappop
        instant, steps_of, first, first_steps = self._instant, self._steps, self._first, self._first_steps
        done = 0
        while True:  # not by its condition: the interpreter specialises only loops that jump back without one
            if not heap or heap[0][0] >= self.stop or done >= max_events:
                break
            time, priority, src, seq, inlet, kind, fields = pop(heap)
            link, node, state, reaction, receivers, pack, update, digest, ready, settle = inlet
            self.now = state["now"] = time
            self.current = node
            done += 1
            if kind >= 0:
                self._floor = time + reaction
                update(pack((time, priority, src, seq, kind, fields)))
                digest.count += 1
                receiver = receivers.get(kind)
                if receiver is None:
                    if kind == _POWER_OFF:
                        self.power_off(node.id)
                        continue
                    receiver = receivers[kind] = node.receiver(link, kind)
                result = receiver(*fields)
                if result is not None:
                    node.accept(result)
            else:
                floor = ~kind
                if promised:
                    floor = max(floor, promised.get(node.id, 0))
                self._floor = floor if floor > time else time
                result = fields()
                if result is not None:
                    node.accept(result)
            steps = settle() + 1 if ready else 1
            if time != instant:
                instant, first, first_steps, taken = time, node, steps, steps
                if steps_of:
                    steps_of.clear()
            else:
                if not steps_of and first is not None:
                    steps_of[first.id] = first_steps
                taken = steps_of[node.id] = steps_of.get(node.id, 0) + steps
            if taken > MAX_STEPS_AT_ONE_INSTANT:
                self._refuse_loop(node)
            if promised and node.id in promised:
                self._note_promise(node, kind >= 0)
            if hurry is not None and self._leaving and hurry():
                max_events = done
        self._instant, self._first, self._first_steps = instant, first, first_steps
        return done, max_events

    def initial(self) -> tuple[int, int]:
        """(next_event, next_out) before the first grant."""
        next_event = self._heap[0][0] if self._heap else NEVER
        return next_event, self._next_out(next_event)

    def _refuse_loop(self, node: Hosted) -> NoReturn:
        text = f"more than {MAX_STEPS_AT_ONE_INSTANT:,} steps at one instant: a loop without simulated time"
        raise ModelFault(node.name, self.now, text, "zero-time-loop")

    def _note_promise(self, node: Hosted, input_came: bool) -> None:
        """A promise stands until an input comes; without one it can only grow."""
        promise = node.promise() or 0
        self._promised[node.id] = promise if input_came else max(promise, self._promised[node.id])

    def _next_out(self, next_event: int) -> int:
        promises = {n.id: p for n in self._promising if (p := n.promise()) is not None}
        if not promises and not self._reacting:
            return next_event
        earliest = NEVER
        for entry in self._heap:
            node = entry[4][1]
            if entry[5] >= 0:
                time = entry[0] + node.reaction
            elif node.id in promises:
                continue
            else:
                time = entry[0]
            if time < earliest:
                earliest = time
        for node_id, promise in promises.items():
            if node_id not in self.off and promise < earliest:
                earliest = promise
        return max(earliest, next_event)
