"""HELICS: a federate per process with a core of its own, the broker in a process of its own, global endpoints.

Period 1 and output delay 1 (a message sent at t arrives at t + 1, which gives the lookahead). Variants are core types.
    python -m benchmarks.peers.helics_peer barrier 19 500 --variant tcp
"""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import sys
import time
from typing import Any

import helics as h

from benchmarks.peers.common import Clocks, Sampler, arguments, report

PAYLOAD = bytes(range(16))
FAR = 1e9
QUIET = "--loglevel=no_print"


def broker(core: str, nodes: int, port: int) -> None:
    """The broker's process."""
    made = h.helicsCreateBroker(core, "broker", f"-f {nodes} --brokerport={port} --port={port} {QUIET}")
    while h.helicsBrokerIsConnected(made):
        time.sleep(0.05)
    h.helicsCloseLibrary()


def federate(index: int, workload: str, operations: int, nodes: int, core: str, port: int, results: Any) -> None:
    """One federate's process."""
    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreTypeFromString(info, core)
    h.helicsFederateInfoSetCoreInitString(info, f"-f 1 --brokerport={port} {QUIET}")
    h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_PERIOD, 1.0)
    h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_OUTPUT_DELAY, 1.0)
    made = h.helicsCreateMessageFederate(f"f{index}", info)
    endpoint = h.helicsFederateRegisterGlobalEndpoint(made, f"e{index}", "")
    h.helicsFederateEnterExecutingMode(made)
    clocks = Clocks.of(operations)
    _BODIES[workload](index, made, endpoint, operations, nodes, clocks)
    if clocks.ended:
        results.put(clocks.as_list())
    h.helicsFederateDisconnect(made)
    h.helicsFederateFree(made)
    h.helicsCloseLibrary()


def barrier(index: int, made: Any, endpoint: Any, operations: int, nodes: int, clocks: Clocks) -> None:
    """Every federate asks for the next unit of time."""
    for step in range(1, operations + 1):
        h.helicsFederateRequestTime(made, step)
        clocks.note(step)


def pingpong(index: int, made: Any, endpoint: Any, operations: int, nodes: int, clocks: Clocks) -> None:
    """Federates 0 and 1 play; the others ask for a time far away."""
    if index > 1:
        h.helicsFederateRequestTime(made, FAR)
        return
    other = f"e{1 - index}"
    done = 0
    if index == 0:
        h.helicsEndpointSendBytesTo(endpoint, PAYLOAD, other)
    while done < operations:
        h.helicsFederateRequestTime(made, FAR)
        while h.helicsEndpointHasMessage(endpoint):
            h.helicsEndpointGetMessage(endpoint)
            done += 1
            clocks.note(done)
            if index == 1 or done < operations:
                h.helicsEndpointSendBytesTo(endpoint, PAYLOAD, other)


def fanout(index: int, made: Any, endpoint: Any, operations: int, nodes: int, clocks: Clocks) -> None:
    """Federate 0 sends each of the others a message in each step."""
    if index == 0:
        for step in range(1, operations + 1):
            for other in range(1, nodes):
                h.helicsEndpointSendBytesTo(endpoint, PAYLOAD, f"e{other}")
            clocks.note(step)
            h.helicsFederateRequestTime(made, step)
        return
    done = 0
    while done < operations:
        h.helicsFederateRequestTime(made, FAR)
        while h.helicsEndpointHasMessage(endpoint):
            h.helicsEndpointGetMessage(endpoint)
            done += 1
            clocks.note(done)


_BODIES = {"barrier": barrier, "pingpong": pingpong, "fanout": fanout}


def free_port() -> int:
    """The first of ten ports that are free now."""
    chooser = random.SystemRandom()
    while True:
        port = chooser.randrange(20_000, 30_000, 10)
        try:
            for offset in range(10):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port


def main() -> int:
    """Run one workload once; gives up when no result comes for a minute."""
    options = arguments(tuple(_BODIES), ("tcp", "zmq", "zmq_ss"))
    context = multiprocessing.get_context("fork")
    results, port = context.Queue(), free_port()
    centre = context.Process(target=broker, args=(options.variant, options.nodes, port))
    centre.start()
    time.sleep(0.3)
    rest = (options.workload, options.operations, options.nodes, options.variant, port, results)
    federates = [context.Process(target=federate, args=(index, *rest)) for index in range(options.nodes)]
    for process in federates:
        process.start()
    takes_part = 2 if options.workload == "pingpong" else options.nodes
    assert centre.pid is not None
    try:
        with Sampler([centre.pid]) as sampler:
            clocks = [results.get(timeout=60) for _ in range(takes_part)]
    except Exception as error:
        print(f"HELICS {options.variant} gave no result: {error!r}", file=sys.stderr)
        return 1
    finally:
        for process in (*federates, centre):
            process.join(2 if sys.exc_info()[0] is None else 0.1)
            process.kill()
    per_round = options.nodes - 1 if options.workload == "fanout" else 1
    report(clocks, options.operations, per_round, sampler)
    sys.stdout.flush()
    os._exit(0)  # the library's threads may hold up the end


if __name__ == "__main__":
    sys.exit(main())
