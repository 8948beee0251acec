"""The baton: the only worker that runs makes the next grant itself. Pure.

Where exactly one worker x runs and nobody else may, the next grant is mostly that of the worker that x sends to, or that
of one that was granted before. So x may make that grant itself, if it was told of the others (`Quiet`)

    quiet(x) = min over w != x of min(base(w), earliest arrival of w's pending inputs)

below which nobody else speaks and nothing else arrives. If x, having run, has sent to y alone, y may execute
every event with t < min(quiet(x) without y, next_out(x) + dist(x, y)): no more than its bound, since distances
are positive. And y may go on like that, with x in place of itself among the others. The same is true of any y if x has
sent to nobody; and, with the arrival of what x has sent as one more limit, of a y that is not the receiver: x knows of
one other worker, its *mate*, when that has something to do. Meanwhile the hub grants nothing; it learns of each step by
`passed`, which checks the bound, in the order in which they were taken.

No more is left to luck than with the hub: the bound of a grant that is passed is never above that which the hub would give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Quiet(NamedTuple):
    """Until when the others are quiet, for a worker that has the baton: no worker but itself speaks before `time` (ps), none
    but itself and worker `who` before `then`; no input that it knows nothing of arrives before either. Its own number in `who`
    means that there is nobody to leave out. Worker `mate` has its next event at `need`; NEVER: none is known of."""

    time: int
    who: int
    then: int
    mate: int
    need: int

    def without(self, worker: int) -> int:
        """The time before which nobody speaks but the one with the baton and `worker`."""
        return self.then if self.who == worker else self.time

    def until(self, arrival: int) -> Quiet:
        """What is left of it when something arrives somewhere at `arrival`."""
        return self._replace(time=min(self.time, arrival), then=min(self.then, arrival))

    def following(
        self, giver: int, next_event: int, next_out: int, receiver: int, arrival: int, reach: Mapping[int, int]
    ) -> tuple[int, int, Quiet] | None:
        """The worker that `giver` may grant now that it has run, the bound, and what that worker may know; None: nobody that it
        knows of has anything to do below a bound that it may give.

        next_event, next_out  figures of `giver` (ps)
        receiver, arrival     the only worker that it has sent to, and the earliest arrival there (ps); -1 and NEVER: to nobody.
                              If another worker is granted, what was sent goes by way of the hub.
        reach                 least time from a send of `giver` to an arrival at each worker (ps); 0 for those left out
        """
        to, need, rest = self.mate, self.need, self
        if receiver == to:
            need = min(need, arrival)
        elif receiver >= 0:
            if arrival <= need:
                to, need = receiver, arrival
            else:
                rest = self.until(arrival)
        bound = min(rest.without(to), next_out + reach.get(to, 0))
        return (to, bound, rest.after(giver, next_event, next_out, to)) if need < bound else None

    def after(self, giver: int, next_event: int, next_out: int, taker: int) -> Quiet:
        """What `taker` may know when `giver`, which has its next event then and says nothing more before `next_out`, hands it
        the baton."""
        time, who, then, mate, need = self
        if next_event <= need or mate == taker:
            mate, need = giver, next_event
        if who in (giver, taker):
            rest = then if who == taker else time
            if next_out < rest:
                return Quiet(next_out, giver, rest, mate, need)
            return Quiet(rest, taker, rest, mate, need)
        if next_out < time:
            return Quiet(next_out, giver, time, mate, need)
        return Quiet(time, who, min(then, next_out), mate, need)
