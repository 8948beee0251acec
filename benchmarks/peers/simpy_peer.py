"""SimPy, in one process: the idiomatic forms, processes that talk by `Store`.

python -m benchmarks.peers.simpy_peer mmio 19 20000
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from typing import Any

import simpy

from benchmarks.peers.common import Clocks, arguments, report

PAYLOAD = bytes(range(16))
REGISTERS = 16
Process = Generator[Any, Any, None]


def barrier(env: simpy.Environment, nodes: int, steps: int, clocks: Clocks) -> None:
    """Every process waits for the next unit of time."""

    def ticker(index: int) -> Process:
        for step in range(1, steps + 1):
            yield env.timeout(1)
            if index == nodes - 1:
                clocks.note(step)

    for index in range(nodes):
        env.process(ticker(index))


def pingpong(env: simpy.Environment, nodes: int, trips: int, clocks: Clocks) -> None:
    """Two processes play by stores with a unit of delay; the others wait for an item that never comes."""
    stores = [simpy.Store(env) for _ in range(nodes)]

    def ping() -> Process:
        for trip in range(1, trips + 1):
            yield env.timeout(1)
            yield stores[1].put((trip, PAYLOAD))
            yield stores[0].get()
            clocks.note(trip)

    def pong() -> Process:
        while True:
            ball = yield stores[1].get()
            yield env.timeout(1)
            yield stores[0].put(ball)

    def waiting(index: int) -> Process:
        yield stores[index].get()

    env.process(ping())
    env.process(pong())
    for index in range(2, nodes):
        env.process(waiting(index))


def fanout(env: simpy.Environment, nodes: int, steps: int, clocks: Clocks) -> None:
    """One process puts an item for each of the others, a unit of time later, in each step."""
    stores = [simpy.Store(env) for _ in range(nodes)]

    def source() -> Process:
        for step in range(1, steps + 1):
            yield env.timeout(1)
            for store in stores[1:]:
                yield store.put((step, PAYLOAD))

    def sink(index: int) -> Process:
        while True:
            step, _ = yield stores[index].get()
            if index == nodes - 1:
                clocks.note(step)

    env.process(source())
    for index in range(1, nodes):
        env.process(sink(index))


def mmio(env: simpy.Environment, nodes: int, reads: int, clocks: Clocks) -> None:
    """A process reads registers of a device that is a process: request and answer by stores, a unit of delay each way."""
    request, answer = simpy.Store(env), simpy.Store(env)
    values = {8 * index: index * 0x0101_0101 for index in range(REGISTERS)}

    def device() -> Process:
        while True:
            address = yield request.get()
            yield env.timeout(1)
            yield answer.put(values[address])

    def reader() -> Process:
        total = 0
        for number in range(1, reads + 1):
            yield env.timeout(1)
            yield request.put(8 * (number % REGISTERS))
            total += yield answer.get()
            clocks.note(number)

    env.process(device())
    env.process(reader())


_BODIES = {"barrier": barrier, "pingpong": pingpong, "fanout": fanout, "mmio": mmio}


def main() -> int:
    """Run one workload once."""
    options = arguments(tuple(_BODIES))
    env, clocks = simpy.Environment(), Clocks.of(options.operations)
    _BODIES[options.workload](env, options.nodes, options.operations, clocks)
    gc.collect()
    gc.freeze()
    env.run()
    per_round = options.nodes - 1 if options.workload == "fanout" else 1
    report([clocks.as_list()], options.operations, per_round)
    return 0


if __name__ == "__main__":
    sys.exit(main())
