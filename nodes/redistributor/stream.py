"""One side, physical or virtual, of the stream interface to the CPU interface: what was sent and not yet answered.

The CPU interface holds one interrupt. A new Set takes its place, and the old one comes back by Release; Clear withdraws it.
Every interrupt that was sent is answered exactly once, by Activate (taken) or Release (given back), whatever crosses it on
the way. Everything here rests on that:

* an INTID whose answer is still outstanding is not sent again, so that an Activate is never ambiguous;
* its pending state belongs to the redistributor until the answer. The arrival of Activate is the moment of the acknowledge:
  what was pended again before it, collapses into the one taken (the architecture gives software DSB to order this);
* except that a pend which came after the pending state was *cleared* is a new interrupt: the Activate that crosses the
  withdrawal is that of the old one and leaves it pending (`cancel`).

Source: IHI 0069 appendix A, GIC Stream Protocol (the packets' meaning).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from nodes.arch.waiters import Waiters
from nodes.redistributor.effects import Done


class Offer(NamedTuple):
    """A pending interrupt as sent by Set or VSet: priority 8 bits (Secure view), group 0, 1 (Non-secure) or 2."""

    intid: int
    priority: int
    group: int

    def beats(self, other: Offer | None) -> bool:
        """Higher priority (lower value), or as high with a lower INTID (the architecture leaves ties open)."""
        return other is None or (self.priority, self.intid) < (other.priority, other.intid)


def best_of(offers: Iterable[Offer]) -> Offer | None:
    """The one to send."""
    best: Offer | None = None
    for offer in offers:
        if offer.beats(best):
            best = offer
    return best


class Slot:
    """What the CPU interface holds, as far as the redistributor knows."""

    __slots__ = ("_cancelled", "_send_clear", "_send_set", "_waits", "current", "outstanding", "refused")

    def __init__(self, send_set: Callable[[Offer], None], send_clear: Callable[[int], None]) -> None:
        self._send_set = send_set
        self._send_clear = send_clear
        self.current: Offer | None = None
        self.outstanding: dict[int, None] = {}
        self.refused: set[int] = set()
        self._cancelled: set[int] = set()
        self._waits = Waiters()

    def available(self, intid: int) -> bool:
        """Whether it may be the next offer: it is the current one, or neither under way nor refused."""
        if intid in self.outstanding:
            return self.current is not None and self.current.intid == intid
        return intid not in self.refused

    def offer(self, best: Offer | None) -> None:
        """Bring the CPU interface to hold `best`, which is available, or nothing."""
        current = self.current
        if best == current:
            return
        if current is not None and (best is None or best.intid == current.intid):
            # Gone, or changed: a changed one is sent anew when it has come back.
            self.current = None
            self._send_clear(current.intid)
            return
        assert best is not None and best.intid not in self.outstanding
        self.current = best
        self.outstanding[best.intid] = None
        self._send_set(best)

    def cancel(self, intid: int) -> None:
        """Its pending state was cleared: an Activate still under way will be that of the past."""
        if intid in self.outstanding:
            self._cancelled.add(intid)

    def is_cancelled(self, intid: int) -> bool:
        """Whether its Activate must leave the pending state alone."""
        return intid in self._cancelled

    def answered(self, intid: int) -> None:
        """Activate or Release came and was dealt with."""
        del self.outstanding[intid]
        self._cancelled.discard(intid)
        if self.current is not None and self.current.intid == intid:
            self.current = None
        self._waits.over(intid)

    def after_return(self, intids: Iterable[int], done: Done) -> None:
        """Call `done` when none of these is outstanding; at once if that is so."""
        self._waits.after((intid for intid in intids if intid in self.outstanding), done)

    def settle(self, done: Done) -> None:
        """Call `done` when every withdrawn or replaced one is answered, so that only the current one may be taken."""
        keep = self.current.intid if self.current is not None else -1
        self.after_return([intid for intid in self.outstanding if intid != keep], done)
