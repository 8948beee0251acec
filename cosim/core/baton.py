"""The baton: the only worker that runs makes the next grant itself. Pure.

Where exactly one worker x runs and nobody else may, the next grant is mostly that of the worker that x sends to, or that
of one that was granted before. So x may make that grant itself, if it was told of the others (`Quiet`)

    quiet(x) = min over w != x of min(next_event(w), base(w), earliest arrival of w's pending inputs)

below which nobody else has anything to do, so that nobody else speaks and nothing else arrives. If x, having run, has sent
to y alone, y may execute every event with t < min(quiet(x) without y, next_out(x) + dist(x, y)): no more than its bound,
since distances are positive. And y may go on like that, with x in place of itself among the others. The same is true of any
y if x has sent to nobody; and, with the arrival of what x has sent as one more limit, of a y that is not the receiver: x
knows which of the others has something to do first. Meanwhile the hub grants nothing; it learns of each step by `passed`,
which checks the bound, in the order in which they were taken.

No more is left to luck than with the hub: the bound of a grant that is passed is never above that which the hub would give.
Nor is anybody forgotten: whoever has work is granted before the baton goes round beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Quiet(NamedTuple):
    """Until when the others have nothing to do, for a worker that has the baton: worker `who` has its next event at `time`
    (ps), or speaks then; none but itself and `who` has one before `then`, and no input that it knows nothing of arrives before.
    Its own number in `who`: nobody is known to be next, and `then` is `time`."""

    time: int
    who: int
    then: int

    def without(self, worker: int) -> int:
        """The time before which nobody has anything to do but the one with the baton and `worker`."""
        return self.then if self.who == worker else self.time

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
        need, to, limit = self
        rest = self
        if receiver == to:
            if arrival < need:
                need = arrival
        elif receiver >= 0 and (arrival <= need or to == giver):
            limit = need  # the other one's event
            to, need = receiver, arrival
        elif to == giver:
            return None
        elif arrival < limit:
            limit = arrival
            rest = Quiet(need, to, limit)
        word = next_out + reach.get(to, 0)
        bound = word if word < limit else limit
        return (to, bound, rest.after(giver, next_event, to)) if need < bound else None

    def after(self, giver: int, next_event: int, taker: int) -> Quiet:
        """What `taker` may know when `giver`, which has its next event then, hands it the baton."""
        time, who, then = self
        if who in (giver, taker):
            return Quiet(next_event, giver, then) if next_event < then else Quiet(then, taker, then)
        return Quiet(next_event, giver, time) if next_event < time else Quiet(time, who, min(then, next_event))
