"""The baton: the only worker that runs makes the next grant itself. Pure.

Where exactly one worker x runs and nobody else may, the next grant is mostly that of the worker
that x sends to. So x may make that grant itself, if it was told of the others (`Quiet`)

    quiet(x) = min over w != x of min(base(w), earliest arrival of w's pending inputs)

below which nobody else speaks and nothing else arrives. If x, having run, has sent to y alone, y may execute
every event with t < min(quiet(x) without y, next_out(x) + dist(x, y)): no more than its bound, since distances
are positive. And y may go on like that, with x in place of itself among the others. Meanwhile the hub grants
nothing; it learns of each step by `passed`, which checks the bound, in the order in which they were taken.

No more is left to luck than with the hub: the bound of a grant that is passed is never above that which the hub would give.
"""

from __future__ import annotations

from typing import NamedTuple


class Quiet(NamedTuple):
    """Until when the others are quiet, for a worker that has the baton: no worker but itself speaks before `time` (ps), none
    but itself and worker `who` before `then`; no input that it knows nothing of arrives before either. Its own number in `who`
    means that there is nobody to leave out."""

    time: int
    who: int
    then: int

    def without(self, worker: int) -> int:
        """The time before which nobody speaks but the one with the baton and `worker`."""
        return self.then if self.who == worker else self.time

    def after(self, giver: int, next_out: int, taker: int) -> Quiet:
        """What `taker` may know when `giver`, which says nothing more before `next_out`, hands it the baton."""
        time, who, then = self
        if who in (giver, taker):
            rest = then if who == taker else time
            return Quiet(next_out, giver, rest) if next_out < rest else Quiet(rest, taker, rest)
        return Quiet(next_out, giver, time) if next_out < time else Quiet(time, who, min(then, next_out))
