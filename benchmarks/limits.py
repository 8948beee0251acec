"""Where the time of a hop goes: a star without Python between its system calls, and the Python without the sockets.

A round trip between two nodes in processes of their own is four hops: node, hub, node, hub, node. `benchmarks.bare.star` makes
them with bare Unix sockets and nothing else. `handling` runs hub and both workers in one thread with lists for sockets: what
Python itself costs per grant, its caches warm. What is left of a real round trip is what Python loses when other processes use
the core between two hops.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from benchmarks.bare import FRAME, TRIPS, star
from cosim.bench.floor import Floor
from cosim.bench.plans import first_measured, pingpong, place
from cosim.core.codec import FrameType, decode, encode
from cosim.core.digest import NodeDigest
from cosim.core.plan import Plan, WorkerPlan
from cosim.core.time import NEVER
from cosim.node.worker import Worker
from cosim.run.hub import Hub


class Lists:
    """The hub's link, and the sockets of its workers, as lists."""

    def __init__(self) -> None:
        self.closed: list[bytes] = []
        self.twice: list[bytes] = []
        self.refused_peers: list[tuple[str, str]] = []
        self.inbox: deque[tuple[bytes, bytes]] = deque()
        self.ends: dict[bytes, _End] = {}

    def wait(self, timeout_ms: int | None) -> bool:
        return False

    def receive(self) -> tuple[bytes, bytes] | None:
        return self.inbox.popleft() if self.inbox else None

    def joined(self, identity: bytes) -> bool:
        return False

    def send(self, identity: bytes, frame: bytes) -> None:
        self.ends[identity].inbox.append(frame)


class _Empty(Exception):
    """A worker waits."""


class _End:
    def __init__(self, link: Lists, name: str) -> None:
        self._link, self._name = link, name.encode()
        self.inbox: deque[bytes] = deque()
        link.ends[self._name] = self

    def receive(self, timeout_ms: int | None = None) -> bytes:
        if not self.inbox:
            raise _Empty
        return self.inbox.popleft()

    def send(self, frame: bytes) -> None:
        self._link.inbox.append((self._name, frame))

    def close(self) -> None:
        """Nothing to close."""


def crew(plan: Plan, link: Lists, folder: Path) -> tuple[Hub, list[Worker]]:
    """Hub and workers of a plan in this thread, ready for the first grant."""
    hub = Hub(plan, link, lambda _event: None, journal=folder)
    names = [f"w{number}" for number in range(len(plan.groups))]
    workers = [Worker(_End(link, name), name) for name in names]
    for number, worker in enumerate(workers):
        worker.socket.send(encode(FrameType.HELLO, (1, 0), worker.name, "python", number + 1, {}))
    hub._step()
    for worker in workers:
        frame = worker.socket.receive()
        worker._build(WorkerPlan.from_msgpack(decode(frame or b"").body[1]))
        worker.socket.send(encode(FrameType.READY, *worker.kernel.initial()))
    return hub, workers


def handling(trips: int = TRIPS) -> tuple[float, float]:
    """CPU microseconds per grant of hub and of worker, in one thread, without sockets."""
    link = Lists()
    with tempfile.TemporaryDirectory(prefix="cosim-bench-") as folder:
        hub, workers = crew(place(pingpong(2, trips), "per-node"), link, Path(folder))
        spent = [0, 0]
        while hub.grants < first_measured(trips):  # warm
            turn(hub, workers)
        began = hub.grants
        while not hub._finished():
            hub_ns, worker_ns = turn(hub, workers)
            spent[0] += hub_ns
            spent[1] += worker_ns
        hub.journal.close()
        grants = hub.grants - began
    return spent[0] / grants / 1e3, spent[1] / grants / 1e3


def turn(hub: Hub, workers: list[Worker]) -> tuple[int, int]:
    """The hub takes what is there, then each worker; nanoseconds of both."""
    start = time.thread_time_ns()
    hub._step()
    middle = time.thread_time_ns()
    for worker in workers:
        try:
            worker._loop()
        except _Empty:
            continue
    return middle - start, time.thread_time_ns() - middle


def message(trips: int = TRIPS) -> tuple[float, float]:
    """CPU microseconds of a message between two nodes of one process: all of it, and the digest's part."""
    plan = place(pingpong(2, trips), "0")
    worker = Worker(_End(Lists(), "w0"), "w0")
    worker._build(plan.worker_plan(0, {}))
    start = time.thread_time_ns()
    report = worker.kernel.grant(NEVER, max_events=4 * trips)
    whole = (time.thread_time_ns() - start) / report.events / 1e3
    digest = NodeDigest()
    start = time.thread_time_ns()
    for number in range(report.events):
        digest.add(number, 50, 1, number, 1, (number, FRAME))
    return whole, (time.thread_time_ns() - start) / report.events / 1e3


def hypervisor_share(vcpus: int) -> float:
    """Share of the hypervisor node in all events of the ipi test on 256 PEs: what no placement can spread over workers."""
    with tempfile.TemporaryDirectory(prefix="cosim-bench-") as name:
        folder = Path(name) / "run"
        words = ["up", "scale", "--set", "pes=256", "--set", f"vcpus={vcpus}", "--test", "vsgi.ipi"]
        command = [sys.executable, "-m", "cosim", *words, "--workers", "0", "--quiet", "--run-dir", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        work = json.loads((folder / "traffic.json").read_text())["work"]
    return float(work["hypervisor"] / sum(work.values()))


def measure(repeat: int) -> dict[str, Any]:
    """{star_rate, star_ratio, hub_us, worker_us, floor, message_us, digest_us, hypervisor_share by vCPUs}: medians."""
    stars, hubs, workers, floors, messages = [], [], [], [], []
    with Floor() as floor:
        for _ in range(repeat):
            floors.append(floor.rate())
            stars.append(star())
            hub, worker = handling()
            hubs.append(hub)
            workers.append(worker)
            messages.append(message())
    rate, middle = statistics.median(stars), statistics.median(floors)
    return {
        "star_rate": rate,
        "star_ratio": rate / middle,
        "hub_us": statistics.median(hubs),
        "worker_us": statistics.median(workers),
        "floor": middle,
        "message_us": statistics.median(whole for whole, _ in messages),
        "digest_us": statistics.median(part for _, part in messages),
        "hypervisor_share": {str(vcpus): hypervisor_share(vcpus) for vcpus in (8, 256)},
    }
