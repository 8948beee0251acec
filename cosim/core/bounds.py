"""Latency distances: how soon can something sent here be felt there?

A node that sends at time t can make another node receive something at t + dist, never earlier, where dist is
the shortest path through the whole topology, *including* the nodes that the message would have to wake on its
way. The barrier turns these distances into safe bounds (the LBTS of the PDES literature), the worker turns
the way back into early returns.

Direct latencies are not enough. With links a to k (10 ps) and k to b (10 ps), an idle k looks harmless to b;
but a message from a wakes it, and b hears of it 20 ps after a's send. So distances are closed over all nodes.

A node in between does not answer at once: its *reaction* (``lookahead_ps`` of its HELLO) is the least time
from the arrival of an input to the send of an output caused by it. It is added for every node passed through,
not for the two ends: the sender's promise is about sends, the receiver's bound is about arrivals.

All figures are picoseconds; ``NEVER`` stands for "no path" and absorbs every addition.

Source: bounded lag over minimum propagation delays, B. D. Lubachevsky, "Efficient distributed event-driven
simulations of multiple-loop networks", CACM 32(1), 1989; R. M. Fujimoto, "Parallel and Distributed Simulation
Systems", 2000, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import TypeVar, overload

from cosim.core.time import NEVER

__all__ = ["Distances"]

T = TypeVar("T")


class _Lazy(Sequence[T]):
    """A sequence whose items are computed when first read, then kept.

    One shortest-path search per row costs milliseconds in a large topology, and mostly idle machines never
    read most of the rows.
    """

    __slots__ = ("_make", "_rows")

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._rows: list[T | None] = [None] * length
        self._make = make

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self._rows)))]
        row = self._rows[index]
        if row is None:
            row = self._rows[index] = self._make(index % len(self._rows))
        return row


class Distances:
    """Latency distances over the whole topology (design section 3, ``dist``).

    n         number of nodes; they are numbered 0 .. n-1 (node ids)
    links     (source, destination, latency in ps); directed, parallel links allowed, latency must be above
              zero
    reaction  per node: least time in ps from an input's arrival to an output caused by it

    Raises ValueError for a latency that is not positive (naming both ends), a negative reaction, an unknown
    node. Searches run on demand and are kept; the object is otherwise immutable.
    """

    def __init__(self, n: int, links: Iterable[tuple[int, int, int]], reaction: Sequence[int]) -> None:
        if len(reaction) != n:
            raise ValueError(f"reaction must have one entry per node ({n}), not {len(reaction)}")
        for node, value in enumerate(reaction):
            if value < 0:
                raise ValueError(f"reaction of node {node} must be >= 0 ps, not {value}")
        self._n = n
        self._reaction = tuple(reaction)
        self._out: list[list[tuple[int, int]]] = [[] for _ in range(n)]
        self._in: list[list[tuple[int, int]]] = [[] for _ in range(n)]
        for src, dst, latency in links:
            if not (0 <= src < n and 0 <= dst < n):
                raise ValueError(f"link {src} -> {dst} must join nodes 0..{n - 1}")
            if latency <= 0:
                raise ValueError(
                    f"latency of link {src} -> {dst} must be > 0 ps, not {latency}: "
                    "without it no node could ever be granted any time"
                )
            self._out[src].append((dst, latency))
            self._in[dst].append((src, latency))
        self._rows: dict[int, list[int]] = {}

    def dist(self, j: int, i: int) -> int:
        """Least time in ps from a send at node j to an arrival at node i; NEVER when there is no path.

        ``dist(i, i)`` is the shortest cycle: how soon a node can feel its own output.
        """
        row = self._rows.get(j)
        if row is None:
            row = self._rows[j] = self._arrivals((j,))
        return row[i]

    def between(self, groups: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """Distances between workers: ``[w][x]`` is the least dist(a, b) over nodes a of w and b of x, in ps.

        ``groups[w]`` are the nodes of worker w. ``[w][w]`` follows the same rule; the barrier does not read
        it. Rows are computed when first read: one shortest-path search each, whatever the size of the worker.
        """
        groups = self._checked(groups)

        def row(w: int) -> list[int]:
            arrivals = self._arrivals(groups[w])
            return [min((arrivals[b] for b in group), default=NEVER) for group in groups]

        return _Lazy(len(groups), row)

    def returns(self, groups: Sequence[Sequence[int]]) -> Sequence[dict[int, int]]:
        """Early-return times per worker: how soon after a message's arrival its consequences can come back.

        Entry i maps each node *outside* worker i that has a link from it to reaction(node) + the minimum over
        the worker's nodes b of dist(node, b), in ps; NEVER when nothing can come back. A worker that sent a
        message arriving there at t must stop at t plus this time and answer (design section 3, early return).
        """
        groups = self._checked(groups)
        return _Lazy(len(groups), lambda i: self._ways_back(groups[i]))

    def _checked(self, groups: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        """The groups as tuples; each node may be hosted once only."""
        owner: dict[int, int] = {}
        for w, group in enumerate(groups):
            for node in group:
                if not 0 <= node < self._n:
                    raise ValueError(f"node {node} of worker {w} must be in 0..{self._n - 1}")
                if owner.setdefault(node, w) != w:
                    raise ValueError(f"node {node} must be in one worker, not in both {owner[node]} and {w}")
        return tuple(tuple(group) for group in groups)

    def _arrivals(self, sources: Iterable[int]) -> list[int]:
        """Dijkstra's search from a send at any of the sources (at time 0) to the first arrival at every node.

        A source has no distance of its own at the start: it is reached, like any node, only by an arrival.
        """
        best = [NEVER] * self._n
        heap: list[tuple[int, int]] = []
        for node in sources:
            for dst, latency in self._out[node]:
                if latency < best[dst]:
                    best[dst] = latency
                    heappush(heap, (latency, dst))
        while heap:
            arrival, node = heappop(heap)
            if arrival > best[node]:
                continue
            send = arrival + self._reaction[node]
            for dst, latency in self._out[node]:
                # Sums at or above NEVER never improve on NEVER: that is the saturation.
                if send + latency < best[dst]:
                    best[dst] = send + latency
                    heappush(heap, (send + latency, dst))
        return best

    def _ways_back(self, group: tuple[int, ...]) -> dict[int, int]:
        """Search backwards from the group, until every node that it can write to has its way back."""
        home = set(group)
        wanted = {dst for node in group for dst, _ in self._out[node]} - home
        found = dict.fromkeys(sorted(wanted), NEVER)
        best = dict.fromkeys(group, 0)
        heap = [(0, node) for node in sorted(home)]
        while heap and wanted:
            back, node = heappop(heap)
            if back > best[node]:
                continue
            if node in wanted:
                wanted.discard(node)
                found[node] = back
            for src, latency in self._in[node]:
                through = back + latency + self._reaction[src]
                if through < best.get(src, NEVER):
                    best[src] = through
                    heappush(heap, (through, src))
        return found
