"""The nodes of the workloads: ordinary models, and one thing that no other model may do, `Timed`.

A timed node notes the wall clock and the CPU time of its process at the first and the last operation that count, so that
start-up, warm-up and shutdown are left out exactly. The notes are counters: they go into no message and no digest, and
nothing depends on them.
"""

from __future__ import annotations

import time

from cosim.api import Access, Bank, Block, Channel, MmioInitiator, MmioTarget, Node, Peer, Protocol, Reg, ns, on

BENCH = Protocol("bench", 1000, [("Ball", 50, ("n", "payload"))])
"""A message with a number and 16 bytes."""

PAYLOAD = bytes(range(16))
STEP = ns(10)
"""Latency of every link, and time between two steps of what steps: each step of a node is a grant of its worker."""
REGISTERS = 16
BEGAN, ENDED, BEGAN_CPU, ENDED_CPU = "bench_began_ns", "bench_ended_ns", "bench_began_cpu_ns", "bench_ended_cpu_ns"
"""Counters of a timed node: CLOCK_MONOTONIC, and the CPU time of its process."""


class Timed(Node):
    """Counts operations by `params`: those from number `first` to `last` are measured."""

    def setup(self) -> None:
        self.first: int = self.params["first"]
        self.last: int = self.params["last"]

    def note(self, number: int) -> None:
        """Note the clocks if this operation is the first or the last; call it only then, it is not part of the work."""
        began = number == self.first
        self.count[BEGAN if began else ENDED] = time.monotonic_ns()
        self.count[BEGAN_CPU if began else ENDED_CPU] = time.process_time_ns()


class Ticker(Timed):
    """Steps every `STEP`; sends nothing. Each step takes `work_us` of CPU time, as a model of real size would."""

    links = Channel(BENCH)

    def start(self) -> None:
        """The first step."""
        self.number = 0
        self.work_ns: int = self.params.get("work_us", 0) * 1000
        self.step()

    def step(self) -> None:
        """One step."""
        number = self.number = self.number + 1
        if number == self.first or number == self.last:
            self.note(number)
        if self.work_ns:
            self.compute()
        if number < self.last:
            self.after(STEP, self.step)

    def compute(self) -> None:
        """Use CPU time."""
        until = time.thread_time_ns() + self.work_ns
        while time.thread_time_ns() < until:
            pass


class Ping(Timed):
    """Sends ball n + 1 when ball n has come back."""

    links = Channel(BENCH)

    def start(self) -> None:
        """The first ball."""
        self.other = self.links.peer(self.params["partner"])
        self.links.send(self.other, BENCH.Ball, 1, PAYLOAD)

    @on(BENCH.Ball)
    def ball(self, _peer: Peer, n: int, payload: bytes) -> None:
        """A round trip is over."""
        if n == self.first or n == self.last:
            self.note(n)
        if n < self.last:
            self.links.send(self.other, BENCH.Ball, n + 1, payload)


class Pong(Timed):
    """Sends each ball back."""

    links = Channel(BENCH)

    @on(BENCH.Ball)
    def ball(self, peer: Peer, n: int, payload: bytes) -> None:
        """Send it back."""
        if n == self.first or n == self.last:
            self.note(n)
        self.links.send(peer, BENCH.Ball, n, payload)


class Waiting(Node):
    """A bystander: a task that waits for a message that nobody sends."""

    links = Channel(BENCH)

    def start(self) -> None:
        """Wait, as a daemon."""
        self.spawn(self.wait(), "wait", daemon=True)

    async def wait(self) -> None:
        """Until a message comes."""
        await self.future("a message")

    @on(BENCH.Ball)
    def ball(self, _peer: Peer, _n: int, _payload: bytes) -> None:
        """Count it."""
        self.count["balls"] += 1


class Sleeping(Waiting):
    """A bystander whose next event lies after the end of the run."""

    def start(self) -> None:
        """Set the alarm."""
        self.after(self.params["alarm"], self.wake)

    def wake(self) -> None:
        """Count it."""
        self.count["alarms"] += 1


class Source(Timed):
    """Every `STEP`, a ball for each peer."""

    links = Channel(BENCH)

    def start(self) -> None:
        """The first step."""
        self.number = 0
        self.step()

    def step(self) -> None:
        """One step."""
        number = self.number = self.number + 1
        if number == self.first or number == self.last:
            self.note(number)
        for peer in self.links.peers:
            self.links.send(peer, BENCH.Ball, number, PAYLOAD)
        if number < self.last:
            self.after(STEP, self.step)


class Sink(Timed):
    """Takes balls."""

    links = Channel(BENCH)

    @on(BENCH.Ball)
    def ball(self, _peer: Peer, n: int, _payload: bytes) -> None:
        """Count it."""
        if n == self.first or n == self.last:
            self.note(n)


DEVICE = Block("DEVICE", 0x1000, [Reg(0, 64, "VALUE", Access.RO, count=REGISTERS, stride=8)])


class Device(Node):
    """A block of read-only registers."""

    regs = MmioTarget("DEVICE, 4 KiB")
    links = Channel(BENCH)

    def setup(self) -> None:
        self.bank = Bank(DEVICE)
        self.bank.on_read("VALUE", self.value)
        self.regs.serve_bank(self.bank)

    def value(self, index: int) -> int:
        """What register `index` reads as."""
        return index * 0x0101_0101


class Reader(Timed):
    """A coroutine that reads one register after the other."""

    bus = MmioInitiator("reads of DEVICE")
    links = Channel(BENCH)

    async def start(self) -> None:
        """The whole program."""
        base, first, last, read64 = self.params["base"], self.first, self.last, self.bus.read64
        total = 0
        for number in range(1, last + 1):
            total += await read64(base + 8 * (number % REGISTERS))
            if number == first or number == last:
                self.note(number)
        self.count["sum"] = total
