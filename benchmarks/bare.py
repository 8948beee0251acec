"""Bare stars: processes that receive and send frames and do nothing else, in the patterns of three workloads.

There is no codec, no barrier, no journal and no model in them: what a workload takes beyond its star is the runtime's own work.
A round of each pattern was read from the frames of the workload's runs:

- ping-pong: a frame to the one player and its answer, a frame to the other and its answer.
- barrier: a frame to each process, and an answer of each.
- fan-out: a frame to the source, and an answer with the balls of two steps, since the early return ends a grant after a latency
  there and back; then a frame to each process with sinks, and an answer of each. That is a grant to each process in two steps:
  9.5 per step for 19 processes, 1 for two.

A child takes each frame for an order to send its answer, which is always the same. The hub sends all frames of a phase, then
waits until all answers are in. So a child has one frame to read at most, and the kernel hands it over in one piece.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import statistics
import struct
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, NoReturn

import zmq

from cosim.bench.floor import Floor
from cosim.node.death import die_with

Kind = Literal["unix", "least", "zmq"]
"""unix: stream sockets and an epoll at the hub, as the fast link has them. least: all that was found to make a star cheaper, fit
for a runtime or not: SOCK_SEQPACKET, a hub that takes the answers in the order of its frames and hears nobody else, and
SCHED_BATCH, so that no child that is woken takes the hub's core. zmq: ROUTER and DEALER over ipc."""
Phase = Sequence[tuple[int, bytes]]
"""(child, frame): what the hub sends before it waits for as many answers."""

FRAME = bytes(60)
"""About as large as a GRANT or DONE with one message (56 to 85 bytes in the ping-pong)."""
BALLS, HALF_OF_BALLS = bytes(1524), bytes(726)
"""DONE of the source with the balls of two steps: for 18 sinks elsewhere, and for those of the second of two workers."""
BALL, HALF = bytes(89), bytes(704)
"""GRANT that hands them on: to one sink, and to the second worker."""
TRIPS = 10_000
SECONDS = 0.5
"""About how long each star of `measure` runs."""
_PILOT = 50
_WARM_UP = 10
_CHUNK = 65_536
_TIMEOUT_MS = 20_000
_USED = struct.Struct("q")


class Figure(NamedTuple):
    """Steps (or round trips) per second, and CPU microseconds of all processes per step."""

    rate: float
    cpu_us: float


class Pattern(NamedTuple):
    """A round of a star: its phases, the answer of each child, and how many steps of the workload it stands for."""

    phases: tuple[Phase, ...]
    answers: tuple[bytes, ...]
    steps: int = 1


def pingpong() -> Pattern:
    """W2 between two nodes in processes of their own."""
    return Pattern((((0, FRAME),), ((1, FRAME),)), (FRAME, FRAME))


def barrier(processes: int) -> Pattern:
    """W1 on so many processes, whatever the number of nodes in each."""
    return Pattern((tuple((child, FRAME) for child in range(processes)),), (FRAME,) * processes)


def fanout(processes: int) -> Pattern:
    """W3 of 19 nodes: the source and 18 sinks in processes of their own, or all of them in two."""
    balls, handed_on = (HALF_OF_BALLS, HALF) if processes == 2 else (BALLS, BALL)
    sinks = tuple((child, handed_on) for child in range(1, processes))
    return Pattern((((0, FRAME),), sinks), (balls, *(FRAME,) * (processes - 1)), steps=2)


class _Star(ABC):
    """The children of a star, and the hub's part of it; a context manager that leaves no child behind.

    Raises:
        RuntimeError: on leaving it, when a child did not end as it should.
    """

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = answers
        self.children: list[int] = []
        self.cpu_s = 0.0
        """CPU seconds of all children in their loops, known when the star has ended."""

    def __enter__(self) -> _Star:
        self._prepare()
        self._used, self._report = os.pipe()
        try:
            self._fork()
            self._open()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _fork(self) -> None:
        hub = os.getpid()
        try:
            for number in range(len(self._answers)):
                child = os.fork()
                if not child:
                    self._live(number, hub)
                self.children.append(child)
        finally:
            os.close(self._report)

    def _live(self, number: int, hub: int) -> NoReturn:
        status = 1
        try:
            die_with(hub)
            os.write(self._report, _USED.pack(self._serve(number)))
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        notes = b""
        try:
            if error is None:
                self._dismiss()
                with os.fdopen(self._used, "rb", closefd=False) as used:
                    notes = used.read()
        finally:
            for child in self.children:
                os.kill(child, signal.SIGKILL)  # of no effect on one that has ended by itself
                os.waitpid(child, 0)
            os.close(self._used)
            self._close()
        if error is None and len(notes) != _USED.size * len(self.children):
            raise RuntimeError(
                f"all {len(self.children)} children must end in order, not {len(notes) // _USED.size}: their errors are on stderr"
            )
        self.cpu_s = sum(spent for (spent,) in _USED.iter_unpack(notes)) / 1e9

    @abstractmethod
    def turn(self, phases: Sequence[Phase], rounds: int) -> None:
        """So many rounds; RuntimeError, OSError or zmq.ZMQError when a child is gone."""

    @abstractmethod
    def _prepare(self) -> None:
        """What must be there before the children."""

    @abstractmethod
    def _open(self) -> None:
        """What comes after them."""

    @abstractmethod
    def _serve(self, number: int) -> int:
        """A child: answer until the end; nanoseconds of CPU time that the loop took."""

    @abstractmethod
    def _dismiss(self) -> None:
        """Let the children end."""

    @abstractmethod
    def _close(self) -> None:
        """Close what is the hub's."""


class _Unix(_Star):
    form = socket.SOCK_STREAM

    def _prepare(self) -> None:
        self._pairs = [socket.socketpair(socket.AF_UNIX, self.form) for _ in self._answers]
        self._ends = [ours for ours, _ in self._pairs]
        self._epoll = select.epoll()

    def _open(self) -> None:
        for ours, theirs in self._pairs:
            theirs.close()
            self._epoll.register(ours, select.EPOLLIN)

    def _serve(self, number: int) -> int:
        end = self._pairs[number][1]
        for ours, theirs in self._pairs:  # whoever has a copy of an end keeps it open
            ours.close()
            if theirs is not end:
                theirs.close()
        receive, send, answer = end.recv, end.send, self._answers[number]
        began = time.process_time_ns()
        while receive(_CHUNK):
            send(answer)
        return time.process_time_ns() - began

    def turn(self, phases: Sequence[Phase], rounds: int) -> None:
        ends, poll, most = self._ends, self._epoll.poll, len(self._ends)
        receive = {end.fileno(): end.recv for end in ends}
        work = [
            ([(ends[child].send, frame) for child, frame in phase], sum(len(self._answers[c]) for c, _ in phase))
            for phase in phases
        ]
        for _ in range(rounds):
            for frames, left in work:
                for send, frame in frames:
                    send(frame)
                while left > 0:
                    for number, _events in poll(-1, most):
                        size = len(receive[number](_CHUNK))
                        if not size:
                            raise RuntimeError(_GONE)
                        left -= size

    def _dismiss(self) -> None:
        for end in self._ends:
            end.shutdown(socket.SHUT_WR)

    def _close(self) -> None:
        for end in self._ends:
            end.close()
        self._epoll.close()


class _Least(_Unix):
    form = socket.SOCK_SEQPACKET

    def _prepare(self) -> None:
        super()._prepare()
        self._policy = os.sched_getscheduler(0)
        if self._policy == os.SCHED_OTHER:  # a lower one is what somebody wants
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

    def _close(self) -> None:
        super()._close()
        if self._policy == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    def turn(self, phases: Sequence[Phase], rounds: int) -> None:
        ends = self._ends
        work = [[(ends[child].send, frame, ends[child].recv) for child, frame in phase] for phase in phases]
        for _ in range(rounds):
            for frames in work:
                for send, frame, _receive in frames:
                    send(frame)
                for _send, _frame, receive in frames:
                    if not receive(_CHUNK):
                        raise RuntimeError(_GONE)


class _Zmq(_Star):
    def _prepare(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cosim-bare-")
        self._endpoint = f"ipc://{self._folder.name}/hub"
        self._names = [b"w%d" % number for number in range(len(self._answers))]
        self._context = zmq.Context()  # it has threads from its first socket on: no child may have half of them

    def _open(self) -> None:
        self._socket = self._socket_of(self._context, zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.bind(self._endpoint)
        for _ in self._names:  # each has said that it is there
            self._socket.recv_multipart()

    @staticmethod
    def _socket_of(context: zmq.Context[zmq.Socket[bytes]], form: int) -> zmq.Socket[bytes]:
        made = context.socket(form)
        for option, value in ((zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.LINGER, 0), (zmq.RCVTIMEO, _TIMEOUT_MS)):
            made.setsockopt(option, value)
        return made

    def _serve(self, number: int) -> int:
        context = zmq.Context()
        end = self._socket_of(context, zmq.DEALER)
        end.setsockopt(zmq.IDENTITY, self._names[number])
        end.setsockopt(zmq.RECONNECT_IVL, 5)  # the hub may not have bound yet
        end.connect(self._endpoint)
        receive, send, answer = end.recv, end.send, self._answers[number]
        send(answer)
        began = time.process_time_ns()
        while receive():
            send(answer)
        used = time.process_time_ns() - began
        end.close()
        context.term()
        return used

    def turn(self, phases: Sequence[Phase], rounds: int) -> None:
        # Part by part is faster than the multipart calls, and a receive that blocks faster than a poll before it.
        send, receive, more = self._socket.send, self._socket.recv, int(zmq.SNDMORE)
        work = [[(self._names[child], frame) for child, frame in phase] for phase in phases]
        for _ in range(rounds):
            for frames in work:
                for name, frame in frames:
                    send(name, more)
                    send(frame)
                for _frame in frames:
                    receive()
                    receive()

    def _dismiss(self) -> None:
        for name in self._names:
            self._socket.send_multipart((name, b""))

    def _close(self) -> None:
        self._context.destroy(0)
        self._folder.cleanup()


_GONE = "a child must answer each frame, and has closed its socket instead"
STARS: dict[Kind, type[_Star]] = {"unix": _Unix, "least": _Least, "zmq": _Zmq}


def run(pattern: Pattern, kind: Kind, rounds: int) -> Figure:
    """What a star makes of a pattern in so many rounds, after a tenth as many that only warm it up.

    Raises:
        RuntimeError, OSError, zmq.ZMQError: a child has gone.
    """
    warm = max(1, rounds // _WARM_UP)
    with STARS[kind](pattern.answers) as star:
        used = time.process_time_ns()
        star.turn(pattern.phases, warm)
        began = time.perf_counter()
        star.turn(pattern.phases, rounds)
        elapsed = time.perf_counter() - began
        used = time.process_time_ns() - used
    cpu_us = used / 1e3 + star.cpu_s * 1e6
    return Figure(pattern.steps * rounds / elapsed, cpu_us / (pattern.steps * (warm + rounds)))


def star(trips: int = TRIPS) -> float:
    """Round trips per second of a star of three processes over Unix sockets."""
    return run(pingpong(), "unix", trips).rate


class Case(NamedTuple):
    """A row: the workload as the product has it, and its pattern."""

    name: str
    nodes: int
    workers: str
    pattern: Pattern


CASES = (
    Case("pingpong", 2, "per-node", pingpong()),
    Case("barrier", 19, "per-node", barrier(19)),
    Case("barrier", 19, "2", barrier(2)),
    Case("fanout", 19, "per-node", fanout(19)),
    Case("fanout", 19, "2", fanout(2)),
)


def measure(repeat: int, seconds: float = SECONDS) -> dict[str, Any]:
    """{floor, rows: [{name, nodes, workers, link, at_once, rate, rate_min, rate_max, cpu_us, ratio}]}: medians of `repeat` runs of
    about `seconds` each, the floor measured between them; rate and cpu_us are those of steps, `at_once` is how many children can
    have work at a time."""
    stars: list[tuple[Case, Kind, int, list[Figure]]] = []
    for case in CASES:
        for kind in STARS:
            pilot = run(case.pattern, kind, _PILOT).rate / case.pattern.steps
            stars.append((case, kind, max(_PILOT, int(pilot * seconds)), []))
    floors = []
    with Floor() as floor:
        for _ in range(repeat):
            for case, kind, rounds, figures in stars:
                if kind == "unix":
                    floors.append(floor.rate())
                figures.append(run(case.pattern, kind, rounds))
    middle = statistics.median(floors)
    return {"floor": middle, "rows": [_row(case, kind, figures, middle) for case, kind, _, figures in stars]}


def _row(case: Case, kind: Kind, figures: list[Figure], floor: float) -> dict[str, Any]:
    rates = [figure.rate for figure in figures]
    rate = statistics.median(rates)
    return {
        "name": case.name,
        "nodes": case.nodes,
        "workers": case.workers,
        "link": kind,
        "at_once": max(map(len, case.pattern.phases)),
        "rate": rate,
        "rate_min": min(rates),
        "rate_max": max(rates),
        "cpu_us": statistics.median(figure.cpu_us for figure in figures),
        "ratio": rate / floor,
    }
