"""Models for tests of the runtime: a token that goes round, and nodes that misbehave in one way each."""

from __future__ import annotations

import os
import signal
import time

from cosim.api import Channel, Node, Peer, Protocol, ns, on, us

TOKEN = Protocol("test-token", 910, [("Token", 30, ("n",))])


class Ring(Node):
    """Passes a token to its `out` peer, `rounds` times; the first one starts it. Works `work_us` of wall time per token."""

    kind = "ring"
    out = Channel(TOKEN)
    into = Channel(TOKEN)

    def start(self) -> None:
        """Node 0 makes the token."""
        if self.params["index"] == 0:
            self.out.send(None, TOKEN.Token, 1, delay=ns(self.params.get("delay_ns", 0)))

    @on(TOKEN.Token)
    def token(self, _peer: Peer, n: int) -> None:
        """Count, work, pass on; the last one says so."""
        self.count["tokens"] += 1
        self.busy(self.params.get("work_us", 0))
        if n < self.params["rounds"]:
            self.out.send(None, TOKEN.Token, n + 1)
        else:
            self.log("the last token", n=n)
            self.console("ring", f"token {n} came home to {self.name}\n")

    @staticmethod
    def busy(microseconds: int) -> None:
        """Use CPU time."""
        until = time.thread_time() + microseconds / 1e6
        while microseconds and time.thread_time() < until:
            pass


class Raises(Ring):
    """Raises at the third token."""

    @on(TOKEN.Token)
    def token(self, _peer: Peer, n: int) -> None:
        """Raise at the third."""
        if n >= 3:
            raise ValueError("the third token is bad luck")
        self.out.send(None, TOKEN.Token, n + 1)


class Dies(Ring):
    """Its process ends at the third token without a word."""

    @on(TOKEN.Token)
    def token(self, _peer: Peer, n: int) -> None:
        """Exit at the third."""
        if n >= 3:
            os._exit(7)
        self.out.send(None, TOKEN.Token, n + 1)


class Sleeps(Ring):
    """Sleeps for ever (wall time) at the third token."""

    @on(TOKEN.Token)
    def token(self, _peer: Peer, n: int) -> None:
        """Sleep at the third."""
        if n >= 3:
            time.sleep(3600)
        self.out.send(None, TOKEN.Token, n + 1)


class Spins(Ring):
    """Loops for ever, without an await, at the third token."""

    @on(TOKEN.Token)
    def token(self, _peer: Peer, n: int) -> None:
        """Loop at the third."""
        while n >= 3:
            n += 1
        self.out.send(None, TOKEN.Token, n + 1)


class Killed(Ring):
    """Its process is killed at the thousandth token or later, while it has the grant."""

    @on(TOKEN.Token)
    def token(self, _peer: Peer, n: int) -> None:
        """Die at the thousandth."""
        if n >= 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        self.out.send(None, TOKEN.Token, n + 1)


class Twice(Ring):
    """Makes a second token after 5 ns."""

    def start(self) -> None:
        """Both tokens."""
        super().start()
        self.after(ns(5), self.second)

    def second(self) -> None:
        """The second."""
        self.out.send(None, TOKEN.Token, 1)


class Both(Ring):
    """Makes a token for another peer, too."""

    other = Channel(TOKEN)

    def start(self) -> None:
        """Both tokens."""
        super().start()
        self.other.send(None, TOKEN.Token, 1)


class Waits(Node):
    """A task that waits for a token that its peer would send after its own."""

    kind = "waits"
    out = Channel(TOKEN)
    into = Channel(TOKEN)

    async def start(self) -> None:
        """Wait first, then answer: with two of these, for ever."""
        self.got = self.future(("a token from {}", self.into.peers[0].name))
        await self.got
        self.out.send(None, TOKEN.Token, 1)

    @on(TOKEN.Token)
    def token(self, _peer: Peer, n: int) -> None:
        """Wake the task."""
        self.got.set(n)


class Loops(Node):
    """A task that never lets simulated time pass."""

    kind = "loops"
    out = Channel(TOKEN)
    into = Channel(TOKEN)

    async def start(self) -> None:
        """Sleep zero, for ever, from 1 us on."""
        await self.sleep(us(1))
        while True:
            await self.sleep(0)


class Chatters(Ring):
    """Prints a kilobyte at each of many instants, more than a frame takes in one grant."""

    def start(self) -> None:
        """The first line."""
        self.after(ns(1), self.chatter, 0)

    def chatter(self, n: int) -> None:
        """A line, and the next one a nanosecond later."""
        self.console("chatter", f"{n:07d} {'x' * 1000}\n")
        if n < 20_000:
            self.after(ns(1), self.chatter, n + 1)


class Source(Node):
    """Sends 4 KiB each nanosecond, `blocks` times; the first takes `wait_s` seconds of wall time."""

    kind = "source"
    out = Channel(TOKEN)

    def start(self) -> None:
        """The first block."""
        self.after(ns(1), self.block, 1)

    def block(self, n: int) -> None:
        """A block, and the next one a nanosecond later."""
        if n == 1:
            time.sleep(self.params["wait_s"])
        self.out.send(None, TOKEN.Token, n.to_bytes(4096, "little"))
        if n < self.params["blocks"]:
            self.after(ns(1), self.block, n + 1)


class Sink(Node):
    """Takes whatever comes."""

    kind = "sink"
    into = Channel(TOKEN)

    @on(TOKEN.Token)
    def token(self, _peer: Peer, data: bytes) -> None:
        """Count."""
        self.count["bytes"] += len(data)
