"""The barrier of one host in a tree of hubs: to the root hub a worker, to its own workers a hub.

Theory of operation
===================

The root hub grants a host a bound R, with all inputs for its workers, by the rules of `cosim.core.barrier` over the distances
between hosts. Within that grant the host decides alone: nothing can come from outside that arrives below R, but for answers to
what it sends itself while the grant is open. A message m that leaves the host is not in its books any more, and the root will
act on it only after the host's report. Until a root grant covers m, it therefore limits every worker b of the host:

    cap(b) = min(R, over messages m that left in this grant: arrival(m) + reaction(dest) + dist(dest, b))

`dist` is the one of the WHOLE topology, paths through other hosts included. (With a host's own distances alone: hosts {a, b}
and {k}, links a to k 10, k to b 10, b has a timer at 50: b would run past the reply at 20.) A worker that runs already when m
leaves was granted no more than that: its bound counted the sender's base, and dist is closed over the way through `dest`.

When nobody runs and nobody may, the host reports. That can be with work left below caps: a worker that is held back by its own
cap may hold others back through its base. `now` is the least of the workers' bounds, below which everything has been executed;
`next_event` and `next_out` are the least of its workers'; messages are summed up per destination host.

Source: design section 3, "Hosts".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cosim.core.barrier import Barrier, Grant, Out, Times
from cosim.core.time import NEVER


class HostReport(NamedTuple):
    """A host's answer to the root's grant; times in ps. `outs` are per destination *host*."""

    now: int
    next_event: int
    next_out: int
    outs: list[Out]


class HostBarrier(Barrier):
    """The state machine of a host's hub. Workers are numbered over the whole topology.

    between  all workers x all workers, from `Distances.between`
    own      the workers of this host, ascending
    host_of  host of each worker
    names    of all workers
    """

    def __init__(
        self, between: Sequence[Sequence[int]], own: Sequence[int], host_of: Sequence[int], *, names: Sequence[str] = ()
    ) -> None:
        super().__init__(
            [[between[a][b] for b in own] for a in own],
            until=0,
            names=[names[w] for w in own] if names else [str(w) for w in own],
        )
        self._all_between = between
        self._own = tuple(own)
        self._local = {worker: index for index, worker in enumerate(own)}
        self._host_of = host_of
        self._left: dict[int, Out] = {}
        self._stuck = False

    def index(self, worker: int) -> int:
        """This barrier's number of a worker; grants carry these numbers."""
        return self._local[worker]

    def worker(self, index: int) -> int:
        """The inverse of `index`."""
        return self._own[index]

    def open(self, bound: int, inputs: Sequence[Out]) -> None:
        """The root's grant: run below `bound`; `inputs` are the times of what came with it, by destination worker.

        Raises:
            ProtocolViolation: rule "safety", an input below what its worker has executed.
        """
        for out in inputs:
            slot = self._slots[self._local[out.dst]]
            if out.arrival < slot.limit:
                text = f"an input from the root must arrive at or after {slot.limit} ps, not at {out.arrival} ps"
                self._violated("safety", self._local[out.dst], text)
            slot.arrival = min(slot.arrival, out.arrival)
            slot.wake = min(slot.wake, out.wake)
        self._left = {}
        self._stuck = False
        for index in range(len(self._own)):
            self._caps[index] = bound
            self._settle(index)

    def report(self, w: int, seq: int, now: int, next_event: int, next_out: int, outs: Sequence[Times]) -> None:
        """As `Barrier.report`; `w` is this barrier's number, the destinations of `outs` are numbered over all workers."""
        inner = [Out(self._local[out[0]], out[1], out[2]) for out in outs if out[0] in self._local]
        outer = [Out(out[0], out[1], out[2]) for out in outs if out[0] not in self._local]
        for out in outer:
            self._check_outer(w, out)
        super().report(w, seq, now, next_event, next_out, inner)
        self._stuck = False
        for out in outer:
            self._leave(out)

    def grants(self) -> list[Grant]:
        """As `Barrier.grants`."""
        granted = super().grants()
        self._stuck = not granted and not self._running
        return granted

    def _assert_live(self) -> None:
        """Work may be left: see the module's text; the root's liveness carries the host's."""

    @property
    def idle(self) -> bool:
        """Nobody runs and nobody may: the host reports to the root."""
        return not self._joining and not self._running and (self._stuck or not self._due)

    def _check_outer(self, w: int, out: Out) -> None:
        last = len(self._host_of) - 1
        if not 0 <= out.dst <= last or not out.arrival <= out.wake <= NEVER:
            self._violated(
                "output", w, f"an output must go to a worker in 0..{last}, and wake it no earlier than it arrives"
            )
        promised = self._slots[w].held + self._all_between[self._own[w]][out.dst]
        if out.arrival < promised:
            self._violated(
                "promise", w, f"an output must arrive at or after {promised} ps (promised), not at {out.arrival} ps"
            )

    def _leave(self, out: Out) -> None:
        """A message left the host: cap every worker by the earliest answer to it."""
        row = self._all_between[out.dst]
        for index, worker in enumerate(self._own):
            cap = out.wake + row[worker]
            if cap < self._caps[index]:
                self._caps[index] = cap
                self._settle(index)
        host = self._host_of[out.dst]
        known = self._left.get(host)
        if known is not None:
            out = Out(host, min(known.arrival, out.arrival), min(known.wake, out.wake))
        self._left[host] = out._replace(dst=host)

    def close(self) -> HostReport:
        """The answer to the root's grant, once `idle`; or earlier, when nobody runs: with too much to hand to the root."""
        assert not (self._joining or self._running), "a host reports when none of its workers runs"
        workers = range(len(self._own))
        need = min(self._slots[w].need() for w in workers)
        return HostReport(
            min(need, *(self._bound(w)[0] for w in workers)),
            need,
            min(self.base(w) for w in workers),
            [self._left[host] for host in sorted(self._left)],
        )

    def first(self) -> tuple[int, int]:
        """(next_event, next_out) before the root's first grant, once all workers are ready."""
        report = self.close()
        return report.next_event, report.next_out
