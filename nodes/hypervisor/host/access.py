"""Ways to use the bus that cost few round trips: many reads in flight at once, polling with a growing period, parallel tasks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from cosim.api import NONSECURE, OKAY, BusFault, MmioInitiator, ModelError, Node, Span, fmt, ns, seconds

POLL_FIRST: Span = ns(200)
POLL_LIMIT: Span = seconds(1)
"""Linux's bound on most waits for a GIC or SMMU."""
POLL_LONGEST: Span = ns(100_000)


class HardwareTimeout(ModelError):
    """Hardware did not reach a state in time; names the register, its last value and the bound."""


async def read_all(bus: MmioInitiator, accesses: Iterable[tuple[int, int]], attr: int = NONSECURE) -> list[int]:
    """Read every (address, bytes) with all accesses in flight at once; values in the same order.

    Raises:
        BusFault: of the first access that failed.
    """
    pending = [(address, bus.issue(address, size, None, attr)) for address, size in accesses]
    values = []
    for address, future in pending:
        status, data = await future
        if status != OKAY:
            raise BusFault(status, address, write=False)
        values.append(int(data))
    return values


async def poll_all(
    node: Node,
    bus: MmioInitiator,
    accesses: Iterable[tuple[int, int]],
    done: Callable[[int], bool],
    what: str,
    *,
    attr: int = NONSECURE,
    first: Span = 0,
) -> list[int]:
    """Read registers until ``done(value)`` holds for each; waits `first` ps before the first look, then twice as long each.

    Returns:
        The last value of each.

    Raises:
        HardwareTimeout: after one second of simulated time.
    """
    open_ = dict(enumerate(accesses))
    values = dict.fromkeys(open_, 0)
    deadline = node.now + POLL_LIMIT
    period = first
    while True:
        if period:
            await node.sleep(period)
        got = await read_all(bus, open_.values(), attr)
        for key, value in zip(list(open_), got, strict=True):
            values[key] = value
            if done(value):
                del open_[key]
        if not open_:
            return [values[key] for key in sorted(values)]
        period = min(max(2 * period, POLL_FIRST), POLL_LONGEST)
        if node.now + period > deadline:
            where = ", ".join(f"{address:#x} = {values[key]:#x}" for key, (address, _) in open_.items())
            raise HardwareTimeout(f"{what} must happen within {fmt(POLL_LIMIT)}; last read {where}")


async def poll(
    node: Node,
    bus: MmioInitiator,
    address: int,
    size: int,
    done: Callable[[int], bool],
    what: str,
    *,
    attr: int = NONSECURE,
    first: Span = 0,
) -> int:
    """`poll_all` of one register; its last value."""
    return (await poll_all(node, bus, [(address, size)], done, what, attr=attr, first=first))[0]


async def together(node: Node, coroutines: Iterable[Coroutine[Any, Any, Any]], name: str) -> list[Any]:
    """Run coroutines as tasks of the node at the same simulated time (one per PE or ITS); their results in order."""
    tasks = [node.spawn(coroutine, f"{name}/{i}") for i, coroutine in enumerate(coroutines)]
    return [await task for task in tasks]
