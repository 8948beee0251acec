"""The hub's barrier: who may run how far, and what no worker gets away with."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from cosim.core.barrier import TRANSITIONS, Barrier, Event, Grant, Out, ProtocolViolation, State
from cosim.core.bounds import Distances
from cosim.core.time import NEVER

PAIR = [[20, 10], [10, 20]]
"""Two workers, 10 ps apart."""


def joined(between: list[list[int]], *figures: tuple[int, int], until: int = NEVER) -> Barrier:
    """A barrier whose workers joined with these (next_event, next_out)."""
    barrier = Barrier(between, until=until)
    for w, (next_event, next_out) in enumerate(figures):
        barrier.ready(w, next_event, next_out)
    return barrier


def running(between: list[list[int]], *figures: tuple[int, int], until: int = NEVER) -> Barrier:
    """A barrier of workers that joined with these figures, its first grants made."""
    barrier = joined(between, *figures, until=until)
    barrier.grants()
    return barrier


def test_nobody_runs_before_all_have_joined() -> None:
    """The first grants come when the last worker has joined."""
    barrier = Barrier(PAIR)
    barrier.ready(0, 0, 0)
    assert barrier.grants() == []
    assert not barrier.idle
    barrier.ready(1, NEVER, NEVER)
    assert barrier.grants() == [Grant(0, 1, NEVER)]


def test_bound_is_the_others_promise_plus_distance() -> None:
    """Two workers with work at 0 may each go until the other's first word could reach it; grants come in order."""
    assert joined(PAIR, (3, 5), (0, 2)).grants() == [Grant(0, 1, 12), Grant(1, 1, 15)]


def test_bound_is_exclusive() -> None:
    """Work at the bound itself has to wait, work one picosecond below it may run."""
    assert [g.worker for g in joined(PAIR, (0, 0), (10, 10)).grants()] == [0]
    assert [g.worker for g in joined(PAIR, (0, 0), (9, 9)).grants()] == [0, 1]


def test_promise_never_with_timers_still_runs() -> None:
    """A node that will not speak bounds nobody, and is granted for its timers all the same."""
    assert joined(PAIR, (4, NEVER), (50, 50)).grants() == [Grant(0, 1, 60), Grant(1, 1, NEVER)]


def test_one_worker_alone_runs_to_the_end() -> None:
    """Nobody bounds a lone worker but the end of the run."""
    assert joined([[5]], (0, 0), until=70).grants() == [Grant(0, 1, 70)]


def test_a_sleeper_can_be_woken_by_a_third() -> None:
    """An idle worker between two others lets the first one's promise through, at closed distance."""
    distances = Distances(3, [(0, 1, 10), (1, 2, 10), (2, 0, 100)], [0, 0, 0])
    barrier = Barrier(distances.between([[0], [1], [2]]))
    for w, first in enumerate((0, NEVER, 50)):
        barrier.ready(w, first, first)
    assert barrier.grants() == [Grant(0, 1, 150)]  # worker 2's timer at 50 is not below 0 + 20


def test_delivered_inputs_count_while_their_worker_runs() -> None:
    """An input handed over with a grant still bounds the others: its receiver may answer at any moment."""
    barrier = joined(PAIR, (0, 0), (NEVER, NEVER))
    assert barrier.grants() == [Grant(0, 1, NEVER)]
    barrier.report(0, 1, 25, 30, 30, [Out(1, 15, 18)])
    assert barrier.grants() == [Grant(1, 1, 40)]  # at 15; worker 0 has to wait for 18 + 10
    assert barrier.base(1) == 18
    assert barrier.grants() == []
    barrier.report(1, 1, 40, NEVER, NEVER, [])
    assert barrier.grants() == [Grant(0, 2, NEVER)]


def test_inputs_that_come_while_running_lower_the_base() -> None:
    """What arrives at the hub for a running worker counts at once, at its wake."""
    barrier = joined(PAIR, (0, 0), (9, 100))
    assert barrier.grants() == [Grant(0, 1, 110), Grant(1, 1, 10)]
    barrier.report(0, 1, 10, NEVER, NEVER, [Out(1, 19, 25)])
    assert barrier.base(1) == 25
    barrier.report(1, 1, 10, NEVER, NEVER, [])
    assert barrier.base(1) == 25
    assert barrier.grants() == [Grant(1, 2, NEVER)]


def test_kept_promise_outlives_a_cautious_report() -> None:
    """A report that promises less than was promised does not take the promise back."""
    barrier = joined(PAIR, (0, 100), (30, 30))
    assert barrier.grants() == [Grant(0, 1, 40), Grant(1, 1, 110)]
    barrier.report(0, 1, 40, 60, 60, [])
    assert barrier.base(0) == 100


def test_early_return_moves_the_limit_back() -> None:
    """A worker that stopped below its bound may get messages from where it stopped, not from its bound."""
    barrier = joined(PAIR, (0, 0), (NEVER, NEVER))
    barrier.grants()
    barrier.report(0, 1, 20, 20, 20, [Out(1, 10, 10)])
    barrier.grants()
    barrier.report(1, 1, 15, NEVER, NEVER, [Out(0, 20, 20)])
    assert barrier.grants() == [Grant(0, 2, NEVER)]


def test_until_is_exclusive_and_ends_the_run() -> None:
    """Nothing at or after `until` runs, and the barrier says that work was left."""
    barrier = joined(PAIR, (0, 0), (70, 70), until=70)
    assert barrier.grants() == [Grant(0, 1, 70)]
    assert (barrier.idle, barrier.reached_until) == (False, False)
    barrier.report(0, 1, 70, NEVER, NEVER, [])
    assert barrier.grants() == []
    assert (barrier.idle, barrier.reached_until) == (True, True)


def test_quiescence_is_not_reached_until() -> None:
    """With nobody having anything to do the run is over, not cut off."""
    barrier = joined(PAIR, (NEVER, NEVER), (NEVER, NEVER), until=70)
    assert barrier.grants() == []
    assert barrier.idle
    assert not barrier.reached_until


def test_explain_follows_the_chain_to_its_cause() -> None:
    """Blocked workers name who limits them, by how much, and who is behind that one."""
    barrier = Barrier([[9, 10, 50], [9, 9, 10], [9, 9, 9]], names=["a", "b", "c"], until=900)
    barrier.ready(0, 5, 5)
    barrier.ready(2, 30, 30)
    absent = {view.name: view for view in barrier.explain()}
    assert (absent["b"].state, absent["a"].state, absent["a"].chain) == ("joining", "blocked", (1,))
    assert (absent["a"].bound, absent["a"].base, absent["a"].distance) == (0, 0, 0)
    barrier.ready(1, 15, 15)
    assert [view.state for view in barrier.explain()] == ["ready", "blocked", "blocked"]
    assert barrier.grants() == [Grant(0, 1, 24)]
    a, b, c = barrier.explain()
    assert (a.state, a.seq, a.bound, a.limiter, a.chain) == ("running", 1, 24, None, ())
    assert (b.state, b.next_event, b.bound, b.limiter, b.base, b.distance, b.chain) == (
        "blocked",
        15,
        15,
        0,
        5,
        10,
        (0,),
    )
    assert (c.bound, c.limiter, c.base, c.distance, c.chain) == (25, 1, 15, 10, (1, 0))
    barrier.report(0, 1, 24, NEVER, NEVER, [])
    idle = barrier.explain()[0]
    assert (idle.state, idle.now, idle.next_event, idle.limiter) == ("idle", 24, NEVER, None)


def test_idle_worker_is_idle_though_others_have_not_joined() -> None:
    """A worker without work waits for nobody."""
    barrier = Barrier(PAIR)
    barrier.ready(0, NEVER, NEVER)
    assert [view.state for view in barrier.explain()] == ["idle", "joining"]


@pytest.mark.parametrize("running", [True, False])
def test_lost_worker_holds_the_others(running: bool) -> None:
    """What a dead worker could have said bounds the others for ever, whatever comes in for it, and it is not idle."""
    barrier = joined(PAIR, (0, 0), (5, 5))
    if running:
        barrier.grants()
    barrier.lost(0)
    if not running:
        assert barrier.grants() == [Grant(1, 1, 10)]
    barrier.report(1, 1, 10, 40, 40, [Out(0, 15, 15)])
    assert barrier.grants() == []
    lost, blocked = barrier.explain()
    assert lost.state == "lost"
    assert (blocked.state, blocked.bound, blocked.chain) == ("blocked", 10, (0,))
    assert not barrier.idle
    barrier.lost(0)  # seen twice: by its process and by its socket


def test_worker_lost_before_joining_bounds_from_the_start() -> None:
    """A worker that died before its READY may have spoken at any time."""
    barrier = Barrier(PAIR)
    barrier.ready(0, 3, 3)
    barrier.lost(1)
    assert barrier.grants() == [Grant(0, 1, 10)]


def running_pair() -> Barrier:
    """Worker 0 runs below 30 after it was at 6 and promised 8, worker 1 runs below 18."""
    barrier = joined(PAIR, (0, 0), (20, 20))
    assert barrier.grants() == [Grant(0, 1, 30)]
    barrier.report(0, 1, 6, 8, 8, [])
    assert barrier.grants() == [Grant(0, 2, 30)]
    return barrier


@pytest.mark.parametrize(
    ("rule", "text", "act"),
    [
        ("order", "READY must not come while the worker is running", lambda b: b.ready(0, 9, 9)),
        ("order", "DONE must not come while the worker is waiting", lambda b: b.report(1, 0, 0, 20, 20, [])),
        ("sequence", "answer must be to grant 2, not 1", lambda b: b.report(0, 1, 30, 30, 30, [])),
        ("overrun", "clock must stop at the bound 30 ps, not at 31 ps", lambda b: b.report(0, 2, 31, 40, 40, [])),
        ("clock", "clock must not go back from 6 ps to 5 ps", lambda b: b.report(0, 2, 5, 40, 40, [])),
        ("past-event", "next_event must be >= now = 30 ps, not 29", lambda b: b.report(0, 2, 30, 29, 40, [])),
        ("promise-order", "next_out must be >= next_event = 40 ps", lambda b: b.report(0, 2, 30, 40, 39, [])),
        ("times", "now, next_event, next_out must be in", lambda b: b.report(0, 2, 30, 2**63, 2**63, [])),
        ("output", r"another worker in 0\.\.1, not 0", lambda b: b.report(0, 2, 30, 40, 40, [Out(0, 50, 50)])),
        ("output", r"another worker in 0\.\.1, not 2", lambda b: b.report(0, 2, 30, 40, 40, [Out(2, 50, 50)])),
        ("output", r"another worker in 0\.\.1, not -1", lambda b: b.report(0, 2, 30, 40, 40, [Out(-1, 50, 50)])),
        ("output", "wake must be in 50", lambda b: b.report(0, 2, 30, 40, 40, [Out(1, 50, 49)])),
        (
            "promise",
            r"worker 1 must arrive at or after 8 ps \(promised\) \+ 10 ps \(latency\), not at 17 ps",
            lambda b: b.report(0, 2, 30, 40, 40, [Out(1, 17, 17)]),
        ),
    ],
)
def test_violations_are_named_and_change_nothing(rule: str, text: str, act: Callable[[Barrier], None]) -> None:
    """Each breach has its rule and worker; afterwards the right answer is still accepted."""
    barrier = running_pair()
    before = barrier.explain()
    with pytest.raises(ProtocolViolation, match=text) as caught:
        act(barrier)
    assert caught.value.rule == rule
    assert caught.value.worker == (1 if "waiting" in text else 0)
    assert barrier.explain() == before
    barrier.report(0, 2, 30, 40, 40, [Out(1, 18, 18)])
    assert barrier.grants() == [Grant(1, 1, 50)]


def test_message_below_the_receivers_bound_is_refused() -> None:
    """An output that keeps the promise of its worker as a whole, but not the receiver's bound, is caught as well.

    Worker 0 hosts two nodes; the one that was written to lies far from worker 1, so that worker 1 went
    further than the distance between the workers suggests.
    """
    barrier = joined([[9, 1, 100], [100, 9, 100], [10, 110, 9]], (NEVER, NEVER), (40, 40), (0, 0))
    assert barrier.grants() == [Grant(1, 1, 110), Grant(2, 1, 140)]
    barrier.report(2, 1, 20, NEVER, NEVER, [Out(0, 10, 10)])
    assert barrier.grants() == [Grant(0, 1, 140)]
    with pytest.raises(ProtocolViolation, match="after that worker's bound 110 ps, not at 109 ps") as caught:
        barrier.report(0, 1, 140, NEVER, NEVER, [Out(1, 109, 109)])
    assert caught.value.rule == "safety"


def test_first_figures_are_checked_too() -> None:
    """READY obeys the same rules as DONE."""
    barrier = Barrier(PAIR, names=["pe0", "its0"])
    with pytest.raises(ProtocolViolation, match="worker its0: next_out must be >= next_event = 7 ps"):
        barrier.ready(1, 7, 6)
    with pytest.raises(ProtocolViolation, match="next_event must be >= now = 0 ps, not -1"):
        barrier.ready(1, -1, 6)
    barrier.ready(1, 7, 7)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"names": ["a"]}, r"names must have one entry per worker \(2\), not 1"),
        ({"until": -1}, "until must be >= 0 ps, not -1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], text: str) -> None:
    """A barrier is not made with names missing or an end before the beginning."""
    with pytest.raises(ValueError, match=text):
        Barrier(PAIR, **arguments)  # type: ignore[arg-type]


TRIO = [[20, 10, 10], [10, 20, 10], [10, 10, 20]]
"""Three workers, 10 ps apart."""
NOTHING = (NEVER, NEVER)
"""`inputs` of a worker for which nothing waits."""


def test_quiet_is_what_the_others_and_their_inputs_leave_alone() -> None:
    """The end of the run, another's base, another's or its own undelivered input: the earliest of them; the runner's own base
    does not count."""
    assert running(PAIR, (0, 0), (NEVER, NEVER), until=70).quiet(0) == (70, 0, 70)
    assert running(TRIO, (0, 0), (50, 50), (40, 40)).quiet(0) == (40, 2, 50)
    assert running(TRIO, (0, 0), (2, NEVER), (40, 40), until=1).quiet(0) == (
        1,
        0,
        1,
    )  # it may have work: it can't speak
    barrier = running(PAIR, (0, 0), (5, 100))
    assert barrier.quiet(0) is None, "two run"
    barrier.report(0, 1, 20, 20, 20, [Out(1, 110, 300)])
    barrier.report(1, 1, 10, 200, 200, [])
    assert barrier.grants() == [Grant(0, 2, 210)]
    assert barrier.inputs(1) == (110, 300)
    assert barrier.quiet(0) == (110, 0, 110)  # the input lies before its worker's base
    assert barrier.quiet(1) is None, "it does not run"


def test_quiet_is_asked_of_one_who_runs_alone() -> None:
    """Nobody runs, two run, another runs: None."""
    barrier = joined(PAIR, (0, 0), (5, 5))
    assert barrier.quiet(0) is None
    assert [g.worker for g in barrier.grants()] == [0, 1]
    assert (barrier.quiet(0), barrier.quiet(1)) == (None, None)
    barrier.report(0, 1, 12, 12, 12, [])
    assert (barrier.quiet(0), barrier.quiet(1)) == (None, (12, 0, NEVER))


def test_a_passed_grant_counts_as_one_of_the_hub() -> None:
    """It has the next number and its bound, its answer is taken, and the one who got it can pass one again."""
    barrier = running(PAIR, (0, 0), (NEVER, NEVER))
    barrier.report(0, 1, 5, 30, 30, [Out(1, 15, 15)])
    assert barrier.passed(1, 30, NOTHING) == 1
    assert barrier.inputs(1) == NOTHING
    assert barrier.base(1) == 15  # it may answer at once
    assert (barrier.explain()[1].state, barrier.explain()[1].bound) == ("running", 30)
    barrier.report(1, 1, 16, NEVER, NEVER, [Out(0, 26, 26)])
    assert barrier.passed(0, 30, NOTHING) == 2
    barrier.report(0, 2, 30, 30, 30, [])
    assert barrier.grants() == [Grant(0, 3, NEVER)]
    barrier.report(0, 3, 40, NEVER, NEVER, [])
    assert barrier.grants() == [] and barrier.idle


def test_what_waits_at_the_hub_is_not_passed_with_a_grant() -> None:
    """A passed grant takes along only what its sender sent: an older input stays, bounds it, and comes with the hub's next."""
    barrier = running(TRIO, (0, 0), (1, 100), (NEVER, NEVER))
    assert barrier.explain()[0].state == barrier.explain()[1].state == "running"
    barrier.report(1, 1, 1, NEVER, NEVER, [Out(2, 110, 110)])  # within its promise
    barrier.report(0, 1, 5, 5, 5, [])
    assert barrier.grants() == [Grant(0, 2, 120)]
    assert barrier.quiet(0) == (110, 0, 110)
    kept = barrier.inputs(2)
    barrier.report(0, 2, 30, 200, 200, [Out(2, 40, 45)])
    with pytest.raises(ProtocolViolation, match="must end at 110 ps, not at 111 ps") as caught:
        barrier.passed(2, 111, kept)
    assert (caught.value.rule, caught.value.worker) == ("overrun", 2)
    assert barrier.passed(2, 110, kept) == 1
    assert barrier.inputs(2) == kept == (110, 110)
    barrier.report(2, 1, 110, NEVER, NEVER, [])
    assert barrier.grants() == [Grant(2, 2, 210)]
    assert barrier.inputs(2) == NOTHING


def test_a_grant_must_not_be_passed_to_one_who_runs_or_is_gone_or_needs_none() -> None:
    """While somebody runs, to a dead one, to one without anything below the bound: rule "order", and nothing has changed."""
    barrier = running(PAIR, (0, 0), (5, 5))  # both
    with pytest.raises(
        ProtocolViolation, match="worker 1: a grant up to 9 ps must not be passed to it: running"
    ) as caught:
        barrier.passed(1, 9, NOTHING)
    assert (caught.value.rule, caught.value.worker) == ("order", 1)
    barrier.report(0, 1, 15, 20, 20, [])
    barrier.report(1, 1, 10, 25, 25, [])
    before = barrier.explain()
    with pytest.raises(ProtocolViolation, match="a grant up to 25 ps must not be passed to it: waiting"):
        barrier.passed(1, 25, NOTHING)
    barrier.lost(1)
    with pytest.raises(ProtocolViolation, match="passed to it: lost"):
        barrier.passed(1, 29, NOTHING)
    assert barrier.explain()[0] == before[0]


def test_a_grant_must_not_be_passed_beyond_what_is_safe() -> None:
    """A bound that another worker's word can undercut is refused by rule "overrun"; the hub grants up to there."""
    barrier = running(TRIO, (0, 0), (NEVER, NEVER), (70, 70))
    barrier.report(0, 1, 5, 30, 30, [Out(1, 15, 15)])
    with pytest.raises(ProtocolViolation, match="worker 1: .* must end at 40 ps, not at 41 ps") as caught:
        barrier.passed(1, 41, NOTHING)
    assert (caught.value.rule, caught.value.worker) == ("overrun", 1)
    assert Grant(1, 1, 40) in barrier.grants()


def test_table_covers_what_the_essay_says() -> None:
    """Only a running worker answers, only a waiting one is granted, nobody joins twice or comes back from the dead."""
    moves = {event: {state for state, e in TRANSITIONS if e is event} for event in Event}
    assert moves[Event.READY] == {State.JOINING}
    assert moves[Event.GRANT] == {State.WAITING}
    assert moves[Event.DONE] == {State.RUNNING}
    assert moves[Event.LOST] == set(State)
    assert all(
        target is State.LOST
        for (state, e), target in TRANSITIONS.items()
        if State.LOST in (state, target) or e is Event.LOST
    )


def test_idle_workers_cost_nothing() -> None:
    """With 1,500 workers of which two talk, only their rows of the distances are ever looked at."""
    n = 1500
    links = [(i, (i + step) % n, 10) for i in range(n) for step in (1, 7, 30, n - 1)]
    rows = Distances(n, links, [0] * n).between([[i] for i in range(n)])
    read: set[int] = set()

    class Watched(list[list[int]]):
        def __getitem__(self, index: int) -> list[int]:  # type: ignore[override]
            read.add(index)
            return list(rows[index])

    barrier = Barrier(Watched([[]] * n))
    for w in range(n):
        first = 0 if w in (3, 4) else NEVER
        barrier.ready(w, first, first)
    clocks = {3: 0, 4: 0}
    pick = random.Random(1)
    for _ in range(200):
        for grant in barrier.grants():
            clocks[grant.worker] = grant.bound
            barrier.report(grant.worker, grant.seq, grant.bound, grant.bound + pick.randrange(5), grant.bound + 5, [])
    assert min(clocks.values()) > 1000
    assert read == {3, 4}


def test_a_report_that_broke_no_rule_is_never_refused_in_silence() -> None:
    """Should the check and the text that explains it disagree, that is loud."""
    barrier = joined(PAIR, (3, 5), (0, 2))
    barrier.grants()
    with pytest.raises(AssertionError, match="the caller found one of the rules broken"):
        barrier._refuse_report(0, 1, 3, 5, 6)


def test_quiet_ends_where_one_who_never_speaks_has_work() -> None:
    """Such a worker is in nobody's way, but with the baton going round past its next event it would not be granted at all."""
    barrier = running(TRIO, (0, 0), (NEVER, NEVER), (50, NEVER))
    quiet = barrier.quiet(0)
    assert quiet is not None
    assert [quiet.without(w) for w in range(3)] == [50, 50, NEVER]
