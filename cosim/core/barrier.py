"""The hub's barrier: reports in, grants out. Pure: it never sees a message, only its times.

Theory of operation
===================

Each worker w hosts nodes with a common clock. It runs only under a grant, and knows nothing but its own
events. The barrier knows four figures of each worker, all in picoseconds:

``now``         everything of w below it has been executed.
``next_event``  w's earliest local event or kept input, as of its last report. Only it says whether w has
                work: a node that promises never to speak may still have timers to run.
``next_out``    w's promise: no later send of w is stamped below it, unless something reaches w that was not
                delivered to it yet. Inputs that w keeps count at arrival + reaction of their node.
                ``next_event <= next_out``.
``pending``     what waits for w at the hub, sent but not delivered: its earliest arrival, and its earliest
                *wake*, arrival + reaction of the destination node, before which it cannot make w speak.

From these follows the earliest time at which w can speak, whoever may have talked to it so far:

    base(w) = min(next_out(w), wake of w's pending inputs)

A grant hands all pending inputs over, and with that they leave the hub's books although w may answer them at
any moment. So while w runs, base(w) is *held*: it stays at most its value from before the hand-over, and
inputs that come in meanwhile can only lower it. A promise once made also stands after the run: a report may
be more cautious than the promise under which it ran (a worker that knows no better gives its next event), but
what was promised is still true, since everything that could have broken it was counted in it.

A send at w reaches worker x no earlier than dist(w, x) later, over whatever path (`cosim.core.bounds`: closed
over the whole topology, reactions of the nodes in between included). Therefore everything that can still
reach x arrives at

    bound(x) = min over w != x of base(w) + dist(w, x)

or later, and x may execute every event with t < bound(x) (bounds are exclusive), capped by the end of the
run. There is no further fixpoint: that a quiet worker can be woken by another is what the closed distances
say.

x's own future outputs are left out: they could come back to x below its bound. Instead x stops by itself in
time (early return): having sent a message, it goes no further than its arrival + reaction of its node + dist
from there to x, and answers with ``now < bound``. From the report on the message is pending, and bounds
everybody, x included. So the limit below which nothing may arrive at x is its bound while it runs and its
``now`` as soon as it has answered.

x is granted when it has an event, or a pending input, below its bound. It has at most one grant out.

*Liveness.* If nobody runs, let x be the worker with the least need(x) = min(next_event, earliest pending
arrival). base(w) >= need(w) >= need(x) for every w, and every distance is positive, so bound(x) > need(x): x
is granted, if its need is below the end of the run. Nothing running and nobody granted therefore means that
the run is over; `Barrier.idle` says so, and a model that still waits for something has deadlocked by itself.

*The baton.* Where exactly one worker runs, it may make the next grant itself: `cosim.core.baton`. The hub learns of
each step by `passed`, which checks the bound, in the order in which they were taken.

*Trust.* A worker may be a foreign simulator. Each report is checked whole before any of it is believed; a
breach is a `ProtocolViolation` that leaves the barrier as it was.

Source: design section 3; K. M. Chandy, J. Misra, "Distributed simulation", IEEE TSE 5(5), 1979 (safety by
promises); B. D. Lubachevsky, CACM 32(1), 1989 (bounded lag over distances); early return: FMI 3.0,
`fmi3DoStep`.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from cosim.core.baton import Quiet
from cosim.core.time import NEVER
from cosim.core.waits import Wait, chain

__all__ = ["TRANSITIONS", "Barrier", "Event", "Grant", "Out", "ProtocolViolation", "State", "Wait"]


class State(enum.Enum):
    """Where a worker stands with the barrier."""

    __hash__ = object.__hash__  # members are unique; Enum's own hashes the name, in Python

    JOINING = "joining"
    WAITING = "waiting"
    RUNNING = "running"
    LOST = "lost"


class Event(enum.Enum):
    """What moves a worker from state to state: frames of the protocol, and its death."""

    __hash__ = object.__hash__

    READY = "READY"
    GRANT = "GRANT"
    DONE = "DONE"
    LOST = "LOST"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.JOINING, Event.READY): State.WAITING,
    (State.WAITING, Event.GRANT): State.RUNNING,
    (State.RUNNING, Event.DONE): State.WAITING,
    (State.JOINING, Event.LOST): State.LOST,
    (State.WAITING, Event.LOST): State.LOST,
    (State.RUNNING, Event.LOST): State.LOST,
    (State.LOST, Event.LOST): State.LOST,
}
"""The whole protocol. What is not in the table is a violation of the rule "order"."""


# Bound once: an attribute of an enum class costs a call each time.
_WAITING, _RUNNING = State.WAITING, State.RUNNING


class ProtocolViolation(Exception):
    """A worker broke a rule of the barrier.

    rule    short stable name: "order", "sequence", "times", "overrun", "clock", "past-event",
            "promise-order", "output", "promise", "safety"
    text    what was expected, what was found
    worker  index of the worker that broke it
    """

    def __init__(self, rule: str, text: str, worker: int) -> None:
        super().__init__(text)
        self.rule = rule
        self.text = text
        self.worker = worker


class Out(NamedTuple):
    """Times of one blob of messages for another worker.

    dst      worker that hosts the destinations
    arrival  earliest arrival in the blob, ps
    wake     earliest arrival + reaction of its destination node, ps
    """

    dst: int
    arrival: int
    wake: int


Times = tuple[int, int, int, *tuple[Any, ...]]
"""An `Out`, or a longer tuple that begins with the same figures."""


class Grant(NamedTuple):
    """Leave for `worker` to execute all events with t < `bound` (ps); its undelivered inputs go with it."""

    worker: int
    seq: int
    bound: int


class _Slot:
    """What the barrier knows of one worker; see the essay for the figures."""

    __slots__ = ("arrival", "base", "bound", "held", "limit", "next_event", "next_out", "now", "seq", "state", "wake")

    def __init__(self) -> None:
        self.state = State.JOINING
        self.seq = 0
        self.now = 0
        self.next_event = NEVER
        self.next_out = NEVER
        self.arrival = NEVER  # of undelivered inputs
        self.wake = NEVER  # of undelivered inputs
        self.held = 0  # base when granted (or lost), before the hand-over
        self.bound = 0  # last bound granted
        self.limit = 0  # nothing may arrive below it
        self.base = NEVER  # as last entered into the barrier's order

    def need(self) -> int:
        """Time of the earliest thing to do."""
        return min(self.next_event, self.arrival)


class Barrier:
    """The state machine of one hub; see the module's text.

    between  worker x worker: least time from a send at one to an arrival at the other, ps
             (`Distances.between`)
    until    end of the run, exclusive, ps: nothing at or after it is executed
    names    of the workers, for texts; their numbers when left out

    All methods are deterministic; none blocks. `ready` and `report` raise ProtocolViolation and then change
    nothing.
    """

    def __init__(self, between: Sequence[Sequence[int]], *, until: int = NEVER, names: Sequence[str] = ()) -> None:
        n = len(between)
        if names and len(names) != n:
            raise ValueError(f"names must have one entry per worker ({n}), not {len(names)}")
        if until < 0:
            raise ValueError(f"until must be >= 0 ps, not {until}")
        self._between = between
        self._caps = [until] * n
        self._names = tuple(names) or tuple(str(w) for w in range(n))
        self._slots = [_Slot() for _ in range(n)]
        self._joining = n
        self._running: set[int] = set()
        self._order: list[tuple[int, int]] = []  # finite (base, worker), earliest first: idle ones cost nothing
        self._due: set[int] = set()  # waiting, with work before their caps (`until`)
        self._check: set[int] = set()  # those of them that may run for all that is known
        self._silent: set[int] = set()  # waiting, with work before anything that they can say
        self._pending: set[int] = set()  # those with undelivered inputs
        self._watch: list[set[int]] = [set() for _ in range(n)]  # by limiter: those found blocked by its base

    # -- events -----------------------------------------------------------------------------------------

    def ready(self, w: int, next_event: int, next_out: int) -> None:
        """Worker w joined, with its first event and promise (ps). Grants begin when the last has joined."""
        self._move(w, Event.READY, dry=True)
        self._check_times(w, 0, next_event, next_out)
        slot = self._move(w, Event.READY)
        slot.next_event, slot.next_out = next_event, next_out
        self._joining -= 1
        self._settle(w)

    def report(self, w: int, seq: int, now: int, next_event: int, next_out: int, outs: Sequence[Times]) -> None:
        """DONE of worker w to its grant `seq`: its figures (ps) and the times of each blob it sent (`Out`, or what begins
        like it)."""
        slots, between = self._slots, self._between[w]
        slot = slots[w]
        if not (
            slot.state is _RUNNING
            and seq == slot.seq
            and slot.now <= now <= slot.bound
            and now <= next_event <= next_out <= NEVER
        ):
            self._refuse_report(w, seq, now, next_event, next_out)
        held = slot.held
        for out in outs:
            dst, arrival = out[0], out[1]
            if not (
                0 <= dst < len(slots)
                and dst != w
                and arrival <= out[2] <= NEVER
                and arrival >= held + between[dst]
                and arrival >= slots[dst].limit
            ):
                self._refuse_out(w, Out(dst, arrival, out[2]))
        slot.state = _WAITING
        self._running.discard(w)
        slot.now = slot.limit = now
        slot.next_event = next_event
        slot.next_out = next_out if next_out > held else held
        for out in outs:
            receiver = slots[out[0]]
            self._pending.add(out[0])
            if out[1] < receiver.arrival:
                receiver.arrival = out[1]
            if out[2] < receiver.wake:
                receiver.wake = out[2]
            self._settle(out[0])
        self._settle(w)

    def grants(self) -> list[Grant]:
        """All workers that may run now, in order of their numbers; they count as running from here on."""
        if self._joining:
            return []
        granted = []
        for w in sorted(self._check) if len(self._check) > 1 else tuple(self._check):
            slot = self._slots[w]
            need = slot.next_event if slot.next_event < slot.arrival else slot.arrival
            bound, limiter = self._bound(w, need)
            if need < bound:
                granted.append(self._grant(w, bound))
            else:
                assert limiter is not None, "a bound at or below a need before `until` is somebody's"
                self._watch[limiter].add(w)
        self._check.clear()
        if not self._running and self._due:
            self._assert_live()
        return granted

    def quiet(self, w: int) -> Quiet | None:
        """What the only worker that runs may know of the others; None if there are more. To be asked when `grants` has just
        been."""
        if len(self._running) != 1 or w not in self._running:
            return None
        waiting = self._caps[w]
        for j in self._pending:
            if self._slots[j].arrival < waiting:
                waiting = self._slots[j].arrival
        first = {j: base for base, j in self._order[:3] if j != w}
        for j in self._silent:
            first[j] = self._slots[j].next_event
        others = sorted((time, j) for j, time in first.items() if time < waiting)
        if not others:
            return Quiet(waiting, w, waiting)
        return Quiet(*others[0], others[1][0] if len(others) > 1 else waiting)

    def distances(self, w: int) -> Sequence[int]:
        """Least time (ps) from a send at worker w to an arrival at each worker."""
        return self._between[w]

    def inputs(self, w: int) -> tuple[int, int]:
        """Earliest arrival and earliest wake (ps) of what waits for worker w."""
        return self._slots[w].arrival, self._slots[w].wake

    def passed(self, w: int, bound: int, kept: tuple[int, int]) -> int:
        """The only worker that ran has answered, and has made worker w's grant itself, up to `bound` (ps), with what it sent to
        w, if anything, and nothing else: `kept` is `inputs` of w before that answer. Returns the number of the grant.

        Raises:
            ProtocolViolation: w does not wait, or not for that (rule "order"); the bound is not safe (rule "overrun").
        """
        slot = self._slots[w]
        if self._running or slot.state is not _WAITING or not slot.need() < bound:
            self._violated("order", w, f"a grant up to {bound} ps must not be passed to it: {slot.state.value}")
        safe, _limiter = self._bound(w)
        safe = min(safe, kept[0])
        if bound > safe:
            self._violated("overrun", w, f"a grant that is passed to it must end at {safe} ps, not at {bound} ps")
        return self._hand_on(w, bound, kept)

    def _hand_on(self, w: int, bound: int, kept: tuple[int, int]) -> int:
        """Enter a grant that is passed to worker w into the books."""
        slot = self._slots[w]
        self._check.discard(w)
        grant = self._grant(w, bound)
        if kept[0] < NEVER:
            slot.arrival, slot.wake = kept
            self._pending.add(w)
        return grant.seq

    def granted(self, w: int) -> int:
        """Number of worker w's last grant; 0 before the first."""
        return self._slots[w].seq

    def _assert_live(self) -> None:
        assert self._lost(), "liveness: the least need is always below its bound"

    def lost(self, w: int) -> None:
        """Worker w died: no grant goes to it any more; what it could have said still bounds the others."""
        self._slots[w].held = self.base(w)
        self._joining -= self._slots[w].state is State.JOINING
        self._move(w, Event.LOST)
        self._running.discard(w)
        self._settle(w)

    # -- views ------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """The run is over: all have joined, nothing runs and nobody has an event below `until`."""
        return not (self._joining or self._running or self._due)

    @property
    def reached_until(self) -> bool:
        """Idle because `until` was reached: some worker still has work at or after it."""
        return self.idle and any(slot.need() < NEVER for slot in self._slots)

    def base(self, w: int) -> int:
        """Earliest time (ps) stamped on anything worker w may still send, given all that was sent to it."""
        slot = self._slots[w]
        if slot.state is _WAITING:
            return min(slot.next_out, slot.wake)
        return min(slot.held, slot.wake)

    def explain(self) -> list[Wait]:
        """Per worker: what it does or waits for, and on account of whom."""
        views = [self._view(w) for w in range(len(self._slots))]
        return [view._replace(chain=chain(views, view)) for view in views]

    # -- inside -----------------------------------------------------------------------------------------

    def _move(self, w: int, event: Event, *, dry: bool = False) -> _Slot:
        """Take the transition (or only look whether there is one)."""
        slot = self._slots[w]
        target = TRANSITIONS.get((slot.state, event))
        if target is None:
            self._violated("order", w, f"{event.value} must not come while the worker is {slot.state.value}")
        if not dry:
            slot.state = target
        return slot

    def _violated(self, rule: str, w: int, text: str) -> NoReturn:
        raise ProtocolViolation(rule, f"worker {self._names[w]}: {text}", w)

    def _check_times(self, w: int, now: int, next_event: int, next_out: int) -> None:
        if not (0 <= now <= NEVER and next_event <= NEVER and next_out <= NEVER):
            figures = (now, next_event, next_out)
            self._violated("times", w, f"now, next_event, next_out must be in 0..2**63-1 ps, not {figures}")
        if next_event < now:
            self._violated("past-event", w, f"next_event must be >= now = {now} ps, not {next_event} ps")
        if next_out < next_event:
            text = f"next_out must be >= next_event = {next_event} ps (no output without it), not {next_out}"
            self._violated("promise-order", w, text)

    def _refuse_report(self, w: int, seq: int, now: int, next_event: int, next_out: int) -> NoReturn:
        """Say which rule the figures of a report broke."""
        slot = self._move(w, Event.DONE, dry=True)
        if seq != slot.seq:
            self._violated("sequence", w, f"answer must be to grant {slot.seq}, not {seq}")
        if now > slot.bound:
            self._violated("overrun", w, f"clock must stop at the bound {slot.bound} ps, not at {now} ps")
        if now < slot.now:
            self._violated("clock", w, f"clock must not go back from {slot.now} ps to {now} ps")
        self._check_times(w, now, next_event, next_out)
        raise AssertionError("the caller found one of the rules broken")

    def _refuse_out(self, w: int, out: Out) -> NoReturn:
        """Say what is wrong with one blob: it must go to another worker, keep the promise of w, come in time for its receiver."""
        last = len(self._slots) - 1
        if not (0 <= out.dst <= last and out.dst != w):
            self._violated("output", w, f"an output must go to another worker in 0..{last}, not {out.dst}")
        if not out.arrival <= out.wake <= NEVER:
            text = f"an output's wake must be in {out.arrival} (its arrival)..2**63-1 ps, not {out.wake} ps"
            self._violated("output", w, text)
        held, distance = self._slots[w].held, self._between[w][out.dst]
        if out.arrival < held + distance:
            limit = f"{held} ps (promised) + {distance} ps (latency)"
            self._violated("promise", w, f"{self._must(out)} {limit}, not at {out.arrival} ps")
        bound = self._slots[out.dst].limit
        self._violated("safety", w, f"{self._must(out)} that worker's bound {bound} ps, not at {out.arrival} ps")

    def _must(self, out: Out) -> str:
        return f"an output to worker {self._names[out.dst]} must arrive at or after"

    def _settle(self, w: int) -> None:
        """Enter worker w's figures into the books that `grants` reads.

        Who was found blocked stays blocked while its limiter's base and its own figures stand. So it is looked at again
        only when one of them changes: a report costs what it sets free, however many wait.
        """
        slot = self._slots[w]
        waiting = slot.state is _WAITING
        base = slot.next_out if waiting else slot.held
        if slot.wake < base:
            base = slot.wake
        if base != slot.base:
            order = self._order
            if slot.base < NEVER:
                del order[bisect_left(order, (slot.base, w))]
            if base < NEVER:
                insort(order, (base, w))
            slot.base = base
            watch = self._watch[w]
            if watch:
                self._check.update(watch & self._due)
                watch.clear()
        if waiting and (slot.next_event < self._caps[w] or slot.arrival < self._caps[w]):
            self._due.add(w)
            self._check.add(w)
            if slot.next_event < base:
                self._silent.add(w)
                return
        else:
            self._due.discard(w)
            self._check.discard(w)
        if self._silent:
            self._silent.discard(w)

    def _bound(self, w: int, need: int = -1) -> tuple[int, int | None]:
        """Safe bound of worker w and the worker that sets it (None: the end of the run).

        Later bases cannot lower a bound that they do not lie below, so the scan ends early. It also ends when
        the bound has come down to `need`: that worker will not be granted, and the figure no longer matters.
        """
        bound, limiter, between = self._caps[w], None, self._between
        for base, j in self._order:
            if base >= bound or bound <= need:
                break
            if j != w and base + between[j][w] < bound:
                bound, limiter = base + between[j][w], j
        return bound, limiter

    def _grant(self, w: int, bound: int) -> Grant:
        slot = self._slots[w]
        assert slot.state is _WAITING, "only one who waits is in the books of those that may run"
        slot.held = slot.next_out if slot.next_out < slot.wake else slot.wake
        slot.state = _RUNNING
        slot.seq += 1
        slot.bound = slot.limit = bound
        slot.arrival = slot.wake = NEVER
        self._pending.discard(w)
        self._running.add(w)
        self._due.discard(w)
        if self._silent:
            self._silent.discard(w)
        return Grant(w, slot.seq, bound)

    def _lost(self) -> bool:
        return any(slot.state is State.LOST for slot in self._slots)

    def _view(self, w: int) -> Wait:
        """Worker w's line of `explain`, without the chain."""
        slot = self._slots[w]
        need, state, bound = slot.need(), slot.state.value, slot.bound
        limiter: int | None = None
        base = distance = NEVER
        if slot.state is _WAITING:
            bound, limiter = self._bound(w)
            state = "idle" if need >= self._caps[w] else "ready" if need < bound else "blocked"
            if self._joining and state != "idle":
                joining = [v for v, other in enumerate(self._slots) if other.state is State.JOINING]
                state, limiter, bound, base, distance = "blocked", joining[0], 0, 0, 0
            elif state == "blocked":
                assert limiter is not None, "a bound at or below a need before `until` is somebody's"
                base, distance = self.base(limiter), self._between[limiter][w]
            else:
                limiter = None
        return Wait(w, self._names[w], state, slot.seq, slot.now, need, bound, limiter, base, distance, ())
