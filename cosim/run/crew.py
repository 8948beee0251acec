"""The worker processes of one host: started, watched, judged when they are slow. A supervisor has one crew, a host another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.abc

from cosim.core.plan import NodePlan, Plan
from cosim.errors import PeerError
from cosim.run.attached import Attached
from cosim.run.forkserver import UNFIT
from cosim.run.hublink import HubEnd
from cosim.run.spawn import Child, ForkServer, modules_of, start_worker

SCHEMES = {"fast": "ipc", "zmq": "zmq+ipc"}
"""Schemes of the endpoint at which workers of the same host find their hub, by link."""


class Limits(NamedTuple):
    """Wall-clock limits in seconds: for a grant (0 is off), and for all workers to be ready (0: by their number). Workers that host
    a node in `free` may take as long as they like for a grant."""

    stall_s: float = 30.0
    join_s: float = 0.0
    free: tuple[str, ...] = ()

    def join_deadline(self, workers: int) -> float:
        """The join deadline; it grows with the number of workers."""
        return self.join_s or 30.0 + 1.0 * workers


class Crew(ABC):
    """The workers of one host, and their hub.

    Args:
        plan: the plan, or the host's part of it.
        path: directory with a folder ``workers`` for what they write.
        limits: wall-clock limits.
        link: of the workers to their hub: "fast", "zmq" or "tcp".
        start: "fork" or "exec".
        served: numbers in the plan of the workers here, ascending; all unless given. The hub and this class count them from 0.
    """

    in_process = False

    def __init__(
        self, plan: Plan, path: Path, limits: Limits, link: str, start: str, served: Sequence[int] | None = None
    ) -> None:
        self.plan = plan
        self.path = path
        self.limits = limits
        self.link = link
        self.start = start
        self.served = range(len(plan.groups)) if served is None else served
        self.children: list[Child] = []
        self.workers: list[Child] = []
        self._foreign: dict[int, Child] = {}
        self._attached: Attached | None = None
        # Groups of foreign nodes come last.
        self._local = sum(plan.nodes[plan.groups[number][0]].external is None for number in self.served)
        self._hub: HubEnd
        self._sockets: Path | None = None
        self._ending = False
        self._starting: anyio.CancelScope | None = None
        self._stop_sent = False
        self._cpu: dict[int, tuple[int, float]] = {}
        self._group: anyio.abc.TaskGroup | None = None

    @abstractmethod
    def _note(self, event: str, **fields: Any) -> None:
        """Write to the log."""

    @abstractmethod
    def _show(self, kind: str, **data: Any) -> None:
        """Show to who looks at the run."""

    def _credentials(self) -> Path | None:
        """The folder with the workers' credentials, if they need any."""
        return self._sockets if self.link == "tcp" else None

    async def _start_workers(self, group: anyio.abc.TaskGroup, endpoint: str, join: float) -> None:
        """Start all workers of this host and its foreign nodes; `join` seconds are the limit.

        Raises:
            PeerError: not all could be started in time.
        """
        assert self._attached is not None
        folder = self.path / "workers"
        with anyio.move_on_after(join) as self._starting:
            if self.start == "fork":
                await self._fork(group, endpoint)
            for number in self.served[len(self.workers) : self._local]:
                self._took(group, start_worker(endpoint, number, folder, self._credentials()))
        if self._starting.cancelled_caught and not self._stop_sent:
            raise PeerError(
                f"all {len(self.served)} workers must be started within {join:.0f} s, not {len(self.workers)} of them",
                code="join-timeout",
                where="start-up",
                next_step="a slow machine needs a longer --join-limit; see workers/forkserver.stderr in the run directory",
            )
        for worker, node in {} if self._stop_sent else self._attached.nodes.items():
            self._attach(group, worker, node)

    def _attach(self, group: anyio.abc.TaskGroup, worker: int, node: NodePlan) -> None:
        """Start a foreign node, or say how it is awaited."""
        assert self._attached is not None and node.external is not None
        if node.external["connect"]:
            self._note("waiting for a foreign node", node_name=node.name)
            self._show("waiting", node=node.name, text=self._attached.invitation(node))
            return
        child = self._attached.start(node)
        self.children.append(child)
        self._foreign[worker] = child
        group.start_soon(self._watch, worker, child)

    def _took(self, group: anyio.abc.TaskGroup, child: Child) -> None:
        """Account for a new worker; they come in the order of their numbers."""
        self.children.append(child)
        group.start_soon(self._watch, len(self.workers), child)
        self.workers.append(child)

    async def _fork(self, group: anyio.abc.TaskGroup, endpoint: str) -> None:
        """Have the workers forked. Returns with fewer when the fork server says that it can't: the others start by exec."""
        count = self._local
        own = [self.plan.nodes[node] for number in self.served for node in self.plan.groups[number]]
        modules = modules_of(own) + (["cosim.link.zmq_link"] if self.link != "fast" else [])
        server = ForkServer(self.path / "workers")
        self.children.append(server.child)
        try:
            async for child in server.workers(endpoint, modules, self.served[:count], self._credentials()):
                self._took(group, child)
            if len(self.workers) < count:
                await server.child.wait()
        finally:
            self.children.remove(server.child)
            server.close()
        if len(self.workers) < count:
            how = server.child.how_it_ended()
            if server.child.status != UNFIT:
                raise PeerError(
                    f"the fork server must start {count} workers, and ended after {len(self.workers)} ({how})",
                    code="forkserver-lost",
                    where="fork server",
                    sim_time_ps=0,
                    next_step="its last words are in workers/forkserver.stderr of the run directory; --start exec does without it",
                )
            self._note("workers are started by exec", reason=how)

    async def _watch(self, worker: int, child: Child) -> None:
        await child.wait()
        if not self._ending:
            await anyio.sleep(0.05)  # what it said last is on its way through the hub
            await self._hub.command("lost", worker, child.how_it_ended())

    def _child(self, worker: int) -> Child | None:
        """The process of a worker; None for a foreign one that was started by somebody else."""
        return self.workers[worker] if worker < self._local else self._foreign.get(worker)

    async def _lost(self, worker: int, text: str) -> None:
        """The hub could not reach a worker: say how its process ended, if it did."""
        how = text
        if not self.in_process:
            child = self._child(worker)
            with anyio.move_on_after(1.0):
                if child is not None:
                    await child.wait()
                    how = child.how_it_ended()
        await self._hub.command("lost", worker, how)

    async def _stall(self, worker: int, seconds: float, since: float, sim_time_ps: int) -> None:
        """A grant has taken long: it is a stall if the process sleeps or has used that much CPU itself; else the machine is."""
        hosted = [self.plan.nodes[n].name for n in self.plan.groups[self.served[worker]]]
        if not set(hosted).isdisjoint(self.limits.free):
            await self._hub.command("release", worker)
            return
        child = self._child(worker)
        cpu, state = (0.0, "unknown") if child is None else child.cpu_and_state()
        if self._cpu.get(worker, (-1, 0.0))[0] != sim_time_ps:
            self._cpu[worker] = (sim_time_ps, cpu)  # the first look at this grant
        before = self._cpu[worker][1]
        first = self.plan.nodes[self.plan.groups[self.served[worker]][0]]
        own = None if first.external is None else first.external["wall_limit_ms"]
        limit = self.limits.stall_s if own is None else own / 1000
        if child is not None and state != "S" and cpu - before < limit:
            await self._hub.command("release", worker)
            return
        nodes = ", ".join(hosted[:4])
        error = {
            "what": f"{nodes} must answer a grant within {limit:.0f} s, and has not for {seconds:.0f} s "
            f"(process state {state}, {cpu - before:.1f} s of CPU since)",
            "node": first.name,
            "sim_time_ps": sim_time_ps,
            "where": f"worker w{self.served[worker]}, pid {child.pid if child is not None else 'unknown'}",
            "next_step": "look at that process (py-spy dump, gdb) or replay it (cosim replay); a longer limit is --stall-limit (or "
            f"wall_limit of an external node), 0 switches it off; --no-limit {first.name} does so for it alone",
        }
        await self._hub.command("stalled", worker, since, error)  # no effect when the answer has come meanwhile
