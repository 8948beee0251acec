"""RTL in a simulator as a foreign node, by cocotb 2: `RtlNode` keeps the design's clock in step with the grants.

The design's clock is not free running. It runs while the design is busy; when it is not, time is skipped and the node promises
never to send without an input. A period has its rising edge at a multiple of `period_ps`, its falling edge in the middle, and at
three quarters the *sampling point*, at which the adapter reads outputs and drives inputs: never at an edge, where the order of
events differs between simulators. An input that arrives at t is driven at the first sampling point after t, for one period; what
is sampled is sent with the time of the following rising edge. A grant's limit is exclusive; docs/attach-rtl.md has a tutorial.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from cocotb.clock import Clock
from cocotb.simtime import get_sim_time
from cocotb.triggers import FallingEdge, First, RisingEdge, Timer

from cosim.attach.client import NEVER, AttachClient, Message

__all__ = ["NEVER", "Access", "AttachClient", "Dma", "Message", "Registers", "RtlNode"]

Signals = Mapping[str, int]


class Channel(Protocol):
    """A group of signals of the design."""

    def step(self, edge: int) -> bool:
        """At a sampling point: read outputs, drive inputs. `edge` (ps) is the rising edge that follows, at which outputs are
        valid. Returns whether an input is active, so that another step must follow one period later."""
        ...


class RtlNode:
    """The design `dut` with its client, clock and channels.

    Args:
        dut: cocotb's handle; the simulator's precision must be 1 ps.
        client: joined.
        receive: takes an input at its arrival (`client.now`); it may answer at once, or give it to a channel.
        period_ps: of the clock, a multiple of 4.
        channels: stepped in this order at each sampling point.
        clock, attention, busy, ahead: names of signals. `attention`: an output wants to be sampled. `busy`: the design, with its
            present inputs, has something to do. `ahead` (optional): it will not ask for attention at this many rising edges.
    """

    def __init__(
        self,
        dut: Any,
        client: AttachClient,
        receive: Callable[[Message], None],
        *,
        period_ps: int,
        channels: tuple[Channel, ...],
        clock: str = "clk",
        attention: str = "attention",
        busy: str = "busy",
        ahead: str = "",
    ) -> None:
        if period_ps <= 0 or period_ps % 4:
            raise ValueError(f"period_ps must be a positive multiple of 4, not {period_ps!r}")
        self.client = client
        self.period = period_ps
        self.channels = channels
        self._receive = receive
        self._signal = getattr(dut, clock)
        self._signal.value = 0
        self._clock = Clock(self._signal, period_ps, unit="ps", impl="gpi")
        self._attention, self._busy = getattr(dut, attention), getattr(dut, busy)
        self._ahead = getattr(dut, ahead) if ahead else None
        self.grants = self.idle_grants = 0  # idle: the clock stood still throughout, and no input was there
        self._running = False
        self._due = NEVER  # next sampling point at which there is something to do
        self._sampled = -period_ps  # the last one

    async def serve(self) -> None:
        """Until the end of the run. Raises AttachError; RuntimeError when the simulator ends before it."""
        try:
            await self._serve()
        except CancelledError:  # says nothing by itself, and the client would pass it on
            raise RuntimeError(
                "the simulator ended before the run ($finish, $fatal, or another of its tests): see its output"
            ) from None

    async def _serve(self) -> None:
        await Timer(1, "ps")  # the design's own initialisation
        self.client.ready()
        while self.client.wait() is not None:
            idle = not self._running and min(self.client.peek(), self._due) >= self.client.stop
            self.grants += 1
            self.idle_grants += idle
            await self._advance()
            self.client.done(*self._promise())

    def wake(self) -> None:
        """Step the channels at the first sampling point after `client.now`: there is something to drive."""
        self._due = min(self._due, self._point(self.client.now))

    # -- time ----------------------------------------------------------------------------------------------------------

    def _point(self, after: int) -> int:
        """The first sampling point later than a time (ps)."""
        quarter = self.period // 4
        return max((after + quarter) // self.period * self.period + 3 * quarter, self._sampled + self.period)

    async def _advance(self) -> None:
        """Inputs and sampling points below the limit, in order of time."""
        client = self.client
        while not client.off:
            limit = min(client.peek(), self._due, client.stop)
            if self._running and await self._run(limit):
                continue
            if limit >= client.stop:
                return
            if client.peek() <= self._due:
                message = client.take()
                if message is not None:
                    self._receive(message)
            else:
                await self._sample()

    async def _run(self, limit: int) -> bool:
        """Let the clock run below `limit` (ps), or until there is something to do; whether that is before the limit."""
        while self._due >= limit and self._due > self._sampled + self.period:
            if self._wants():
                self._due = min(self._due, self._point(_now()))
                return self._due < limit
            left = limit - 1 - _now()
            if left <= 0:
                return False
            await First(RisingEdge(self._attention), FallingEdge(self._busy), Timer(left, "ps"))
        return False

    def _wants(self) -> bool:
        return bool(self._attention.value) or not self._busy.value

    async def _sample(self) -> None:
        """Go to the sampling point that is due, and step the channels."""
        point, quarter = self._due, self.period // 4
        if not self._running:
            await _go(point - quarter)  # a falling edge: the clock's next rising edge is in phase
            self._clock.start(start_high=False)
            self._running = True
        await _go(point)
        self.client.now = max(self.client.now, point)
        self._sampled, self._due = point, NEVER
        attention = bool(self._attention.value)
        active = [channel.step(point + quarter) for channel in self.channels]
        if attention or any(active):
            self._due = point + self.period
        elif not self._busy.value:
            self._clock.stop()
            self._running = False
            self.client.count["clock_stops"] += 1

    def _promise(self) -> tuple[int, int]:
        """(next event, earliest send) without another input."""
        point = self._due
        if self._running and point == NEVER:
            now = max(self.client.stop - 1, 0)
            ahead = int(self._ahead.value) if self._ahead is not None else 0
            edge = (now + self.period - 1) // self.period - 1  # counts from an edge that has surely been executed
            point = max(self._point(now), (edge + ahead + 1) * self.period + 3 * self.period // 4)
        return (point, point + self.period // 4) if point < NEVER else (NEVER, NEVER)


def _now() -> int:
    return int(get_sim_time("ps"))


async def _go(time: int) -> None:
    left = time - _now()
    if left > 0:
        await Timer(left, "ps")


# -- channels ----------------------------------------------------------------------------------------------------------


class Access(NamedTuple):
    """A register access: values of the request's signals (without ``valid``), and what is called with the response's (None: none
    came) and the time (ps)."""

    signals: Signals
    done: Callable[[Signals | None, int], None]


class Registers:
    """Register accesses, one at a time: a request is valid for one period, its response comes one or more periods later.

    Args:
        dut: cocotb's handle.
        request: signals of a request by name; ``valid`` is among them, the others are 0 without a request.
        response: likewise.
        timeout: periods after which a request without a response is given up.
    """

    def __init__(
        self, dut: Any, request: Mapping[str, str], response: Mapping[str, str], *, timeout: int = 1000
    ) -> None:
        self._request = {name: getattr(dut, signal) for name, signal in request.items()}
        self._response = {name: getattr(dut, signal) for name, signal in response.items()}
        self._timeout = timeout
        self._waiting: deque[Access] = deque()
        self._open: Access | None = None
        self._periods = 0
        self._drive({})

    def submit(self, access: Access) -> None:
        """Queue an access; the node must be woken."""
        self._waiting.append(access)

    def step(self, edge: int) -> bool:
        """See `Channel`. While an access is open, every period is a step: for the time-out."""
        if self._open is not None:
            self._periods += 1
            answered = bool(self._response["valid"].value)
            if answered or self._periods > self._timeout:
                values = {name: int(signal.value) for name, signal in self._response.items()} if answered else None
                done, self._open = self._open.done, None
                done(values, edge)
            elif self._periods == 1:
                self._drive({})
        if self._open is None:
            if self._waiting:
                self._open, self._periods = self._waiting.popleft(), 0
                self._drive({"valid": 1, **self._open.signals})
            else:
                self._drive({})
        return self._open is not None

    def _drive(self, values: Signals) -> None:
        for name, signal in self._request.items():
            signal.value = values.get(name, 0)


class Dma:
    """Requests of the design, taken at once, and completions for it, one per period.

    Args:
        dut: cocotb's handle.
        request: signals by name, with ``valid``.
        ready: signal; driven 1 for ever.
        completion: signals by name, with ``valid``.
        issue: called with the request's values and the time (ps) at which it is sent.
    """

    def __init__(
        self,
        dut: Any,
        request: Mapping[str, str],
        ready: str,
        completion: Mapping[str, str],
        issue: Callable[[Signals, int], None],
    ) -> None:
        self._request = {name: getattr(dut, signal) for name, signal in request.items()}
        self._completion = {name: getattr(dut, signal) for name, signal in completion.items()}
        self._issue = issue
        self._completions: deque[Signals] = deque()
        getattr(dut, ready).value = 1
        self._drive({})

    def complete(self, values: Signals) -> None:
        """Queue a completion; the node must be woken."""
        self._completions.append(values)

    def step(self, edge: int) -> bool:
        """See `Channel`."""
        if self._request["valid"].value:
            self._issue({name: int(signal.value) for name, signal in self._request.items()}, edge)
        active = bool(self._completions)
        self._drive({"valid": 1, **self._completions.popleft()} if active else {})
        return active

    def _drive(self, values: Signals) -> None:
        for name, signal in self._completion.items():
            signal.value = values.get(name, 0)
