"""mosaik: simulators in processes of their own (variant remote) or in mosaik's own (inproc).

W1 is time-based, hub and leaves connected both ways (mosaik synchronises connected simulators only); W2 event-based, an output
for t + 1 one way and a time-shifted connection back; W3 a time-based source with event-based sinks.
    python -m benchmarks.peers.mosaik_peer pingpong 2 300 --variant remote
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import mosaik
import mosaik_api_v3

from benchmarks.peers.common import Clocks, Sampler, arguments, report

PAYLOAD = "0123456789abcdef"


class Sim(mosaik_api_v3.Simulator):  # type: ignore[misc]
    """One node: its part is said by the parameters of `init`."""

    def __init__(self) -> None:
        super().__init__({"api_version": "3.0", "models": {"Node": {"public": True, "params": [], "attrs": ["ball"]}}})

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> Any:
        """Take the part: "step" (time-based), "ping", "pong" or "sink" (event-based)."""
        self.part, self.operations, self.folder = params["part"], params["operations"], params["folder"]
        self.sid = sid
        self.clocks = Clocks.of(self.operations)
        self.done = 0
        self.meta["type"] = "time-based" if self.part == "step" else "event-based"
        return self.meta

    def create(self, num: int, model: str, **params: Any) -> Any:
        """One entity."""
        return [{"eid": "node", "type": model}]

    def step(self, time: int, inputs: Any, max_advance: int) -> int | None:
        """One operation."""
        self.time = time
        self.done += 1
        self.clocks.note(self.done)
        return time + 1 if self.part == "step" else None

    def get_data(self, outputs: Any) -> Any:
        """The ball, for the next unit of time when sent by ping."""
        if self.part == "ping" and self.done > self.operations:
            return {}
        data: dict[str, Any] = {"node": {"ball": PAYLOAD}}
        if self.part == "ping":
            data["time"] = self.time + 1
        return data

    def finalize(self) -> None:
        """Leave the clocks for the one who asked."""
        (Path(self.folder) / f"{self.sid}.json").write_text(json.dumps(self.clocks.as_list()))


def build(world: Any, workload: str, nodes: int, operations: int, folder: str) -> None:
    """The scenario."""
    parts = {"barrier": ("step", "step"), "pingpong": ("ping", "pong"), "fanout": ("step", "sink")}[workload]

    def start(part: str) -> Any:
        return world.start("Sim", part=part, operations=operations, folder=folder)

    simulators = [start(parts[min(index, 1)]) for index in range(nodes)]
    entities = [simulator.Node() for simulator in simulators]
    for leaf in entities[1:]:
        world.connect(entities[0], leaf, "ball")
        if workload == "barrier":
            world.connect(leaf, entities[0], "ball", time_shifted=True, initial_data={"ball": PAYLOAD})
        elif workload == "pingpong":
            world.connect(leaf, entities[0], "ball", time_shifted=1, weak=False)
    if workload == "pingpong":
        world.set_initial_event(entities[0].sid, time=0)


def main() -> int:
    """Run one workload once; as a simulator's process when mosaik started it."""
    if "--sim" in sys.argv:
        sys.argv.remove("--sim")
        return int(mosaik_api_v3.start_simulation(Sim()) or 0)
    options = arguments(("barrier", "pingpong", "fanout"), ("remote", "inproc"))
    remote = options.variant == "remote"
    logging.disable(logging.WARNING)
    command = f"{sys.executable} -m benchmarks.peers.mosaik_peer --sim %(addr)s"
    config: Any = {"Sim": {"cmd": command} if remote else {"python": "benchmarks.peers.mosaik_peer:Sim"}}
    with tempfile.TemporaryDirectory() as folder, Sampler([], own=True) as sampler:
        until = 2 * options.operations + 2 if options.workload == "pingpong" else options.operations
        with mosaik.World(config, configure_logging=False) as world:
            build(world, options.workload, options.nodes, options.operations, folder)
            world.run(until=until, print_progress=False)
        files = sorted(Path(folder).glob("*.json"))
        clocks = [c for c in (json.loads(file.read_text()) for file in files) if c[1]]
    if options.workload == "pingpong":
        clocks = clocks[:2]
    per_round = options.nodes - 1 if options.workload == "fanout" else 1
    if not remote:  # one process: its CPU time counts once
        began, ended = min(clocks), max(clocks, key=lambda c: c[1])
        clocks = [[began[0], ended[1], began[2], ended[3]]]
    report(clocks, options.operations, per_round, sampler if remote else 0.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
