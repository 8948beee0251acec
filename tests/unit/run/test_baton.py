"""The baton at the hub: who gets it, in which order answers count, and what is refused. The test plays the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cosim.core.codec import LIMITS, Frame, FrameType, decode, encode, pack_records
from cosim.core.journal import read_records
from cosim.core.plan import HostPlan, LinkPlan, NodePlan, Plan
from cosim.core.time import NEVER
from cosim.link.memory_link import MemorySocket, Switch
from cosim.run import hub as hub_module
from cosim.run.hosthub import HostHub
from cosim.run.hub import Hub
from cosim.run.roothub import RootHub

EXTERNAL: dict[str, Any] = {"wall_limit_ms": None, "wait_ms": 1000, "ports": {}, "kinds": []}
IDLE = (NEVER, NEVER)


class Passing(Switch):
    """A link of which the hub is told that workers reach each other."""

    passes = True


def machine(count: int, foreign: int | None = None) -> Plan:
    """Nodes of a worker each, every one linked to every other, 10 ps apart; one may be a foreign one."""
    nodes = tuple(
        NodePlan(n, f"n{n}", "node", {}, 0, {}, "m:M", EXTERNAL if n == foreign else None) for n in range(count)
    )
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    links = tuple(LinkPlan(k, a, "o", b, "i", 10, {}) for k, (a, b) in enumerate(pairs))
    return Plan("p", 1, nodes, links, tuple((n,) for n in range(count)))


class Rig:
    """A hub whose workers have joined with these (next_event, next_out)."""

    def __init__(
        self,
        *ready: tuple[int, int],
        link: Switch | None = None,
        journal: Path | None = None,
        foreign: int | None = None,
    ) -> None:
        self.link = Passing() if link is None else link
        self.events: list[list[Any]] = []
        self.pending: list[list[Any]] = []
        plan = machine(len(ready), foreign)
        self.hub = Hub(plan, self.link, self.events.append, journal=journal, commands=self._take)
        names = [f"n{w}" if w == foreign else f"w{w}" for w in range(len(ready))]
        self.workers = [self.link.connect(name) for name in names]
        for w, figures in enumerate(ready):
            self.say(w, FrameType.HELLO, (1, 0), names[w], "python", 7, {"token": "", "ports": {}})
            self.say(w, FrameType.READY, *figures)
        self.step()
        for w in range(len(ready)):
            assert self.heard(w, first=True)[0].type is FrameType.WELCOME

    def _take(self) -> list[list[Any]]:
        commands, self.pending = self.pending, []
        return commands

    def say(self, w: int, kind: FrameType, *body: Any) -> None:
        """Worker w sends a frame."""
        self.workers[w].send(encode(kind, *body))

    def step(self) -> None:
        """The hub takes what there is."""
        while not self.link._inbox.empty():
            self.hub._step()

    def heard(self, w: int, *, first: bool = False) -> list[Frame]:
        """What worker w was sent; only the first of it."""
        return heard(self.workers[w], 1 if first else 100)

    def errors(self) -> list[tuple[str, Any]]:
        """Code and node of each error."""
        return [(e[1]["code"], e[1]["node"]) for e in self.events if e[0] == "error"]

    def records(self, folder: Path) -> dict[str, list[bytes]]:
        """The journals, by file."""
        self.hub.journal.close()
        return {file.name: read_records(file.read_bytes())[0] for file in sorted(folder.iterdir())}


def heard(worker: MemorySocket, most: int = 100) -> list[Frame]:
    """The frames that wait for a worker."""
    found: list[Frame] = []
    while len(found) < most and (data := worker.receive(0)) is not None:
        found.append(decode(data))
    return found


def answer(seq: int, now: int, figures: tuple[int, int], *outs: tuple[int, int], events: int = 1) -> bytes:
    """A DONE; `outs` are (worker, arrival)."""
    return encode(FrameType.DONE, seq, now, *figures, events, [(w, t, t, blob(t)) for w, t in outs], None)


def passing(to: int, bound: int, done: bytes) -> bytes:
    """A PASSED."""
    return encode(FrameType.PASSED, to, bound, done)


def blob(arrival: int) -> bytes:
    """A blob, told from others by its time."""
    return pack_records([(arrival, 0, 0, 1, ())])


def lead(frame: Frame) -> tuple[tuple[int, ...], Frame]:
    """What a LEAD carries."""
    assert frame.type is FrameType.LEAD
    return frame.body[:3], decode(frame.body[3])


def test_the_only_worker_that_runs_gets_the_baton() -> None:
    """Its GRANT comes in a LEAD, with the time below which nobody else speaks."""
    rig = Rig((0, 0), (500, 600))
    (frame,) = rig.heard(0)
    assert lead(frame) == ((500, 1, NEVER), Frame(FrameType.GRANT, (1, 610, ())))
    assert rig.heard(1) == []


def test_nobody_gets_the_baton_when_two_run() -> None:
    """Both are granted as ever; nor does the second of them get it while the first still runs."""
    rig = Rig((0, 0), (5, 5))
    assert [f.type for w in (0, 1) for f in rig.heard(w)] == [FrameType.GRANT] * 2
    rig.workers[1].send(answer(1, 10, (11, 11)))
    rig.step()
    assert rig.heard(1) == []
    rig.workers[0].send(answer(1, 15, (15, 15)))
    rig.step()
    assert [f.type for w in (0, 1) for f in rig.heard(w)] == [FrameType.GRANT] * 2


def test_nobody_gets_the_baton_on_a_link_without_ways_between_workers() -> None:
    """Within a process, and over tcp, the hub grants everybody itself."""
    rig = Rig((0, 0), IDLE, link=Switch())
    assert [f.type for f in rig.heard(0)] == [FrameType.GRANT]


def test_a_foreign_node_never_gets_the_baton() -> None:
    """Whether it runs alone or is the one that is sent to: it sees GRANT and DONE."""
    rig = Rig((0, 0), (500, 500), foreign=0)
    assert [f.type for f in rig.heard(0)] == [FrameType.GRANT]
    rig = Rig((0, 0), IDLE, foreign=1)
    assert [f.type for f in rig.heard(0)] == [FrameType.LEAD]
    rig.workers[0].send(passing(1, 15, answer(1, 5, IDLE, (1, 15))))
    rig.step()
    assert rig.errors() == [("order", "n0")]
    assert "the baton must go to one of cosim's own workers" in rig.events[-1][1]["what"]


def test_a_foreign_node_can_not_claim_the_baton() -> None:
    """PASSED, LEAD and PASS from a foreign node are frames that a hub must not get."""
    for kind, body in (
        (FrameType.PASSED, (0, 15, answer(1, 5, IDLE, (0, 15)))),
        (FrameType.LEAD, (15, 0, 15, b"")),
        (FrameType.PASS, (15, 0, 15, 15, 0, b"")),
    ):
        rig = Rig(IDLE, (0, 0), foreign=1)
        rig.say(1, kind, *body)
        rig.step()
        assert rig.errors() == [("bad-frame", "n1")]
        assert f"a hub must not get {kind.name}" in rig.events[-1][1]["what"]


def test_hubs_of_a_run_over_hosts_keep_the_baton() -> None:
    """A host's hub has only a window for its workers, and the root's workers are hubs: nobody there may grant."""
    plan = machine(2)._replace(hosts=(HostPlan("h0", "", (0,)), HostPlan("h1", "", (1,))))
    assert not RootHub(plan, Passing(), list[list[Any]]().append, orders={})._passes

    class Root:
        coming = [encode(FrameType.GRANT, 1, 100, [])]

        def receive(self, timeout_ms: int | None = None) -> bytes | None:
            return self.coming.pop() if self.coming else None

        def send(self, frame: bytes) -> None:
            pass

        def close(self) -> None:
            pass

    link = Passing()
    hub = HostHub(plan, 0, Root(), link, lambda event: None)
    assert not hub._passes
    worker = link.connect("w0")
    worker.send(encode(FrameType.HELLO, (1, 0), "w0", "python", 1, {}))
    worker.send(encode(FrameType.READY, 50, 50))
    hub._step()
    hub._step()
    assert [frame.type for frame in heard(worker)] == [FrameType.WELCOME, FrameType.GRANT]


def test_answers_count_in_the_order_in_which_the_baton_went_round() -> None:
    """What comes before the answer that it follows waits for it; the hub grants again when the baton has come back."""
    rig = Rig((0, 0), (900, 900))
    rig.heard(0)
    barrier = rig.hub.barrier
    second = passing(0, 40, answer(1, 16, (900, 900), (0, 26)))
    first = passing(1, 40, answer(1, 5, (50, 50), (1, 15)))
    third = answer(2, 40, (50, 50))
    rig.workers[1].send(second)
    rig.step()
    assert (rig.hub.events, rig.hub.grants, barrier.explain()[0].state) == (0, 1, "running")
    rig.workers[0].send(first)
    rig.step()
    assert (rig.hub.events, rig.hub.grants, barrier.explain()[0].seq) == (2, 3, 2)
    assert rig.heard(0) == rig.heard(1) == []
    rig.workers[0].send(third)
    rig.step()
    assert (rig.hub.events, rig.hub.grants, rig.errors()) == (3, 4, [])
    (frame,) = rig.heard(0)
    assert lead(frame) == ((900, 1, NEVER), Frame(FrameType.GRANT, (3, 910, ())))


def test_the_hub_grants_nobody_until_the_baton_is_back() -> None:
    """By the books the one who passed it on could run beside the other, up to 25 ps: it may have been granted by that one."""
    rig = Rig((0, 0), (900, 900))
    rig.heard(0)
    rig.workers[0].send(passing(1, 26, answer(1, 5, (16, 16), (1, 15))))
    rig.step()
    assert (rig.heard(0), rig.hub.grants) == ([], 2)
    rig.workers[1].send(answer(1, 26, (900, 900)))
    rig.step()
    (frame,) = rig.heard(0)
    assert lead(frame)[1].body[:2] == (2, 910) and rig.errors() == []


def test_all_answers_may_come_before_the_first() -> None:
    """A worker that was stopped after it passed the baton on holds up the books of all the others, and nothing else."""
    rig = Rig((0, 0), IDLE, IDLE)
    rig.heard(0)
    for step, t in enumerate(range(15, 75, 20), 1):  # 1 and 2 in turn
        rig.workers[1].send(passing(2, 90, answer(step, t, IDLE, (2, t + 10))))
        last = t == 55
        done = answer(step, t + 10, IDLE, *() if last else ((1, t + 20),))
        rig.workers[2].send(done if last else passing(1, 90, done))
    rig.step()
    assert (rig.hub.events, rig.hub.grants) == (0, 1)
    rig.workers[0].send(passing(1, 90, answer(1, 5, (90, 90), (1, 15))))
    rig.step()
    assert (rig.hub.events, rig.errors()) == (7, [])
    (frame,) = rig.heard(0)
    assert lead(frame)[1].body[0] == 2


def test_journals_do_not_tell_who_granted(tmp_path: Path) -> None:
    """The records of grants that were passed are those of the hub's, so that replay needs to know nothing."""
    kept = []
    for name in ("hub", "passed"):
        (tmp_path / name).mkdir()
        by_hub = name == "hub"
        rig = Rig((0, 0), IDLE, link=Switch() if by_hub else Passing(), journal=tmp_path / name)
        first, second = answer(1, 5, (30, 30), (1, 15)), answer(1, 16, IDLE, (0, 26))
        rig.workers[0].send(first if by_hub else passing(1, 40, first))
        rig.step()
        rig.workers[1].send(second if by_hub else passing(0, 36, second))
        rig.step()
        rig.workers[0].send(answer(2, 30, (31, 31)))
        rig.step()
        assert rig.errors() == []
        kept.append(rig.records(tmp_path / name))
    by_hub_records, passed_records = ([decode(r[1:]) for r in files["w1.journal"]] for files in kept)
    assert by_hub_records == passed_records
    assert passed_records[0] == Frame(FrameType.GRANT, (1, 40, ((0, blob(15)),)))
    # The second grant ends where the hub would have set no end: the rest is the same.
    left, right = (files["w0.journal"] for files in kept)
    assert left[:2] == right[:2] and left[3] == right[3] and len(left) == len(right)
    assert decode(left[2][1:]).body == (2, NEVER, ((1, blob(26)),))
    assert decode(right[2][1:]).body == (2, 36, ((1, blob(26)),))


def test_what_waits_at_the_hub_stays_there_when_its_receiver_is_granted_by_another(tmp_path: Path) -> None:
    """A passed grant's record has the one blob that went with it; the older one comes with the hub's next grant."""
    rig = Rig((0, 0), (1, 100), IDLE, journal=tmp_path)
    for w in (0, 1):
        assert [f.type for f in rig.heard(w)] == [FrameType.GRANT]
    rig.workers[1].send(answer(1, 1, IDLE, (2, 110)))
    rig.workers[0].send(answer(1, 5, (5, 5)))
    rig.step()
    (frame,) = rig.heard(0)
    assert lead(frame) == ((110, 0, 110), Frame(FrameType.GRANT, (2, 120, ())))
    rig.workers[0].send(passing(2, 110, answer(2, 30, (200, 200), (2, 40))))
    rig.workers[2].send(answer(1, 110, IDLE))
    rig.step()
    (frame,) = rig.heard(2)
    assert frame.type is FrameType.LEAD and lead(frame)[1].body == (2, 210, ((1, blob(110)),))
    records = [decode(r[1:]) for r in rig.records(tmp_path)["w2.journal"]]
    assert records[0].body == (1, 110, ((0, blob(40)),))
    assert [r.type for r in records] == [FrameType.GRANT, FrameType.DONE, FrameType.GRANT]


def test_a_worker_without_the_baton_has_nothing_to_pass() -> None:
    """While two run, PASSED breaks rule "order"; so does an answer of one who was not granted, once nobody has the baton."""
    rig = Rig((0, 0), (5, 5))
    rig.workers[0].send(passing(1, 12, answer(1, 5, IDLE, (1, 15))))
    rig.step()
    assert rig.errors() == [("order", "n0")]
    assert "an answer must not come from a worker that was not granted" in rig.events[-1][1]["what"]


def test_the_baton_goes_on_without_a_message(tmp_path: Path) -> None:
    """To one that has an event of its own: its grant has no blob, and what was sent to a third waits at the hub."""
    rig = Rig((0, 0), (11, 11), IDLE, journal=tmp_path)
    (frame,) = rig.heard(0)
    assert lead(frame) == ((11, 1, NEVER), Frame(FrameType.GRANT, (1, 21, ())))
    rig.workers[0].send(passing(1, 12, answer(1, 2, (30, 30), (2, 12))))
    rig.workers[1].send(answer(1, 12, IDLE))
    rig.step()
    assert rig.errors() == []
    (frame,) = rig.heard(2)
    assert lead(frame)[1] == Frame(FrameType.GRANT, (1, 40, ((0, blob(12)),)))
    records = [decode(r[1:]) for r in rig.records(tmp_path)["w1.journal"]]
    assert records[0] == Frame(FrameType.GRANT, (1, 12, ()))


@pytest.mark.parametrize(
    ("to", "outs"), [(0, ()), (7, ()), (1, ((1, 15), (2, 15))), (7, ((7, 15),)), (1, ((1, 15), (1, 16)))]
)
def test_the_baton_goes_to_one_other_worker(to: int, outs: tuple[tuple[int, int], ...]) -> None:
    """PASSED to oneself, to nobody, or with two batches breaks rule "order"; nothing of it is believed."""
    rig = Rig((0, 0), IDLE, IDLE)
    rig.workers[0].send(passing(to, 20, answer(1, 5, IDLE, *outs)))
    rig.step()
    assert rig.errors() == [("order", "n0")]
    assert (rig.hub.events, rig.hub.grants) == (0, 1)


def test_a_bound_that_is_not_safe_is_named() -> None:
    """A worker that lets the next one run further than the barrier would breaks rule "overrun"."""
    rig = Rig((0, 0), IDLE, (70, 70))
    rig.workers[0].send(passing(1, 41, answer(1, 5, (30, 30), (1, 15))))
    rig.step()
    assert rig.errors() == [("overrun", "n0")]
    assert "must end at 40 ps, not at 41 ps" in rig.events[-1][1]["what"]


@pytest.mark.parametrize(
    "frame",
    [
        encode(FrameType.PASSED, 1, 5, b"CSA1"),
        encode(FrameType.PASSED, 1, 5, encode(FrameType.LOG, b"\x90")),
        encode(FrameType.PASSED, 1, -1, b""),
        b"CSA1\x0e\0\0\0",
    ],
)
def test_a_passed_that_is_no_answer_is_a_bad_frame(frame: bytes) -> None:
    """PASSED must have a time and a DONE."""
    rig = Rig((0, 0), IDLE)
    rig.workers[0].send(frame)
    rig.step()
    assert rig.errors() == [("bad-frame", "n0")]


def test_the_baton_that_went_to_a_lost_worker(tmp_path: Path) -> None:
    """The answer of who passed it on counts, the grant does not: one error, about the lost worker; its last words are taken."""
    for early in (False, True):
        folder = tmp_path / str(early)
        folder.mkdir()
        rig = Rig((0, 0), IDLE, journal=folder)
        if early:
            rig.workers[1].send(answer(1, 20, IDLE))
            rig.step()
        rig.pending.append(["lost", 1, "killed by SIGKILL"])
        rig.link.wake()
        rig.step()
        rig.workers[0].send(passing(1, 20, answer(1, 5, (90, 90), (1, 15))))
        rig.step()
        assert rig.errors() == [("worker-lost", "n1")]
        assert rig.hub.events == 1
        # It had passed the baton back, and died before it could say so.
        rig.workers[0].send(passing(1, 20, answer(2, 16, (90, 90), (1, 16))))
        rig.workers[0].send(answer(3, 20, (90, 90)))
        rig.step()
        assert rig.errors() == [("worker-lost", "n1")] and rig.hub.events == 1
        # It may have failed in that grant: replay needs it.
        assert [decode(r[1:]).body for r in rig.records(folder)["w1.journal"]] == [(1, 20, ((0, blob(15)),))]


def test_the_grant_of_which_a_model_failed_is_in_the_journal_whoever_is_heard_first(tmp_path: Path) -> None:
    """ERROR may overtake the PASSED of who made that grant: replay needs it to come to the fault again."""
    for early in (False, True):
        folder = tmp_path / str(early)
        folder.mkdir()
        rig = Rig((0, 0), IDLE, journal=folder)
        told = [
            (0, passing(1, 20, answer(1, 5, (90, 90), (1, 15)))),
            (1, encode(FrameType.ERROR, "node-raised", "n1", 15, "ValueError", "")),
        ]
        for w, frame in reversed(told) if early else told:
            rig.workers[w].send(frame)
            rig.step()
        assert rig.errors() == [("node-raised", "n1")]
        assert [decode(r[1:]).body for r in rig.records(folder)["w1.journal"]] == [(1, 20, ((0, blob(15)),))]


def test_a_grant_that_just_fits_a_frame_is_given_without_the_baton() -> None:
    """The LEAD around it would be too long."""
    rig = Rig((0, 0), (5, 5), IDLE)
    head = len(encode(FrameType.DONE, 1, 9, *IDLE, 1, [(2, 19, 19, b"x" * 70_000)], None)) - 70_000
    large = b"x" * (LIMITS.max_frame - head)
    rig.workers[1].send(encode(FrameType.DONE, 1, 9, *IDLE, 1, [(2, 19, 19, large)], None))
    rig.workers[0].send(answer(1, 15, IDLE))
    rig.step()
    assert rig.errors() == []
    (frame,) = rig.heard(2)
    assert frame == Frame(FrameType.GRANT, (1, NEVER, ((1, large),)))


def test_a_lost_worker_is_named_with_those_that_wait_for_it() -> None:
    """Whom it blocks is in the next step, and the views say that it is lost."""
    rig = Rig((0, 0), (30, 30), IDLE)
    rig.heard(0)
    rig.pending.append(["lost", 0, "killed by SIGKILL"])
    rig.link.wake()
    rig.step()
    ((_, error),) = [event for event in rig.events if event[0] == "error"]
    assert (error["code"], error["node"]) == ("worker-lost", "n0")
    assert error["what"] == "worker process of n0 is gone: killed by SIGKILL; its last simulated time was 0ps"
    assert error["next_step"].endswith("; waiting for it: n1")
    assert [wait.state for wait in rig.hub.barrier.explain()] == ["lost", "blocked", "idle"]


def test_a_worker_that_floods_the_hub_with_early_answers_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that follow none are kept up to a limit; then their sender has broken rule "order"."""
    monkeypatch.setattr(hub_module, "EARLY_FRAMES", 2)
    rig = Rig((0, 0), IDLE)
    for seq in (1, 2):
        rig.workers[1].send(answer(seq, 20, IDLE))
    rig.step()
    assert rig.errors() == []
    rig.workers[1].send(answer(3, 20, IDLE))
    rig.step()
    assert rig.errors() == [("order", "n1")]


def test_a_query_while_the_baton_goes_round_asks_those_that_wait() -> None:
    """Who has the baton, as far as the hub knows, is at work; the others answer, whoever of them has it by then."""
    rig = Rig((0, 0), IDLE)
    rig.heard(0)
    rig.pending.append(["query", 4, 0])
    rig.link.wake()
    rig.step()
    assert rig.heard(0) == []
    assert rig.heard(1) == [Frame(FrameType.QUERY, (4, 0))]
    rig.say(1, FrameType.STATUS, 4, b"\x94\x90\x90\x90\x90")
    rig.step()
    (reply,) = [event for event in rig.events if event[0] == "reply"]
    assert reply[1] == 4 and [w["state"] for w in reply[2]["workers"]] == ["running", "idle"]


def test_a_stop_while_the_baton_goes_round() -> None:
    """BYE goes to each worker once it is known not to run; answers still under way count until then."""
    rig = Rig((0, 0), IDLE)
    rig.heard(0)
    rig.pending.append(["stop", "stop"])
    rig.link.wake()
    rig.step()
    rig.workers[0].send(passing(1, 90, answer(1, 5, (90, 90), (1, 15))))
    rig.workers[1].send(answer(1, 15, IDLE))
    final = b"\x97\x05\x01\x01\x90\xc0\x90\x92\x90\x90"
    for w in (0, 1):
        rig.say(w, FrameType.BYE, "stop", final)
    rig.hub.run()
    assert rig.events[-1][0] == "end" and rig.events[-1][1]["events"] == 2
    assert rig.errors() == []
