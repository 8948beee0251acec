"""The public way to run a topology, from Python: `launch` (async, under asyncio or trio) and `run` (blocking).

async with cosim.launch("topologies/rdn2cfg1.yaml", set={"vcpus": 4}, workers=2) as run:
    async for event in run.events():
        if event.kind == "console":
            print(event.data["text"], end="")
    result = await run.result()
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from cosim.engines.registry import make_engine
from cosim.errors import Interrupted, UsageError
from cosim.run.attached import with_waves, without_limits
from cosim.run.crew import Limits
from cosim.run.hosts import LOCAL, HostLimits, HostsSupervisor, placing_of
from cosim.run.metrics import library, parse_address
from cosim.run.rundir import RunDir, find_run
from cosim.run.supervisor import LINKS, LISTEN, STARTS, Event, Supervisor
from cosim.topo.placement import TRAFFIC_FILE, Traffic

if TYPE_CHECKING:
    from cosim.topo.resolve import Resolved

Result = dict[str, Any]
"""The content of result.json; see docs/commands.md."""


class Run:
    """A run under way, or over."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self._supervisor.directory.path

    @property
    def state(self) -> str:
        """ "starting", "running", or the result's status once it is over."""
        return self._supervisor.state

    @property
    def exit_code(self) -> int:
        """The exit code that the command line would give (0 while it runs)."""
        return self._supervisor.outcome.exit_code() if self._supervisor.done.is_set() else 0

    @property
    def progress(self) -> dict[str, int]:
        """sim_time_ps, events, grants, messages, frames as last heard from the hub (about ten times a second)."""
        return dict(self._supervisor.progress)

    async def events(self) -> AsyncIterator[Event]:
        """What happens, in order, to the end: see `Event`. For one reader; of what came before it the last 10,000 are there."""
        self._supervisor.listened = True
        async for event in self._supervisor.events:
            yield event

    async def counters(self) -> dict[str, int]:
        """Counters so far as ``NODE.COUNTER``; complete once the run is over."""
        if self._supervisor.done.is_set():
            return dict(self._supervisor.counters)
        view = await self._supervisor.view()
        return {f"{node}.{name}": value for node, counts in view.get("counters", []) for name, value in counts.items()}

    async def view(self) -> dict[str, Any]:
        """Who waits for whom, as the hub sees it now."""
        return await self._supervisor.view()

    async def stop(self, signum: int = 15) -> None:
        """End the run; its result says "interrupted"."""
        await self._supervisor.stop(Interrupted(signum=signum))

    async def result(self) -> Result:
        """Wait for the end; the content of result.json."""
        await self._supervisor.done.wait()
        assert self._supervisor.result is not None
        return self._supervisor.result


def check_listen(listen: str) -> str:
    """The link that an address to listen at asks for: "tcp".

    Raises:
        UsageError: it is not ADDRESS:PORT.
    """
    from cosim.link.zmq_link import split_tcp

    try:
        split_tcp(f"tcp://{listen}")
    except ValueError as error:
        raise UsageError(str(error), code="listen", next_step="for instance --listen 127.0.0.1:0") from None
    return "tcp"


@asynccontextmanager
async def launch(
    topology: str | os.PathLike[str],
    *,
    set: Mapping[str, Any] | None = None,
    workers: str | int | None = None,
    engine: str | None = None,
    engine_options: Mapping[str, str] | None = None,
    until: str | None = None,
    seed: int | None = None,
    tests: Sequence[str] = (),
    run_dir: str | os.PathLike[str] | None = None,
    allow_models: Sequence[str] = (),
    stall_limit_s: float = 30.0,
    join_limit_s: float = 0.0,
    link: str = "fast",
    listen: str | None = None,
    hosts: str | int | Sequence[str] | None = None,
    lease_s: float = 10.0,
    host_limit_s: float = 3.0,
    profile: str | os.PathLike[str] | None = None,
    start: str = "fork",
    wave: bool | Sequence[str] = (),
    no_limit: Sequence[str] = (),
    metrics: str | None = None,
) -> AsyncIterator[Run]:
    """Start a run; on leaving the context it is ended if it still runs.

    Args:
        topology: a topology file, or the name of one that comes with cosim.
        set: parameters, as ``--set NAME=VALUE``.
        workers: "per-node", "auto", or a number of processes; 0 is everything in this process. None is what the topology
            says, which is "per-node" unless its `deploy` block says otherwise.
        engine: what starts the host hubs: "local", "ssh", "dask" or "slurm"; None is what the topology says, else "local". See
            docs/engines.md.
        engine_options: options of the engine by name, as text.
        until: end of the run in simulated time, e.g. "5ms".
        seed: of every node's random numbers.
        tests: only these; all without.
        run_dir: a new or empty directory instead of runs/NAME/TIMESTAMP.
        allow_models: package prefixes that a topology may load models from.
        stall_limit_s: wall-clock limit of one grant; 0 is off.
        join_limit_s: wall-clock limit for all workers to be ready; 0 is by their number.
        profile: a run (its directory, or a topology's name) whose measured traffic decides which nodes share a worker.
        start: "fork" (workers are forked by a process that has imported their code) or "exec" (each starts from nothing).
        wave: external nodes that write waveforms into waves/ of the run directory; True: all. A node that can't ends the run.
        no_limit: nodes for which `stall_limit_s` does not hold, nor for others of their worker: one in a debugger.
        metrics: "ADDRESS:PORT" at which Prometheus may scrape the run's figures; None is nowhere. See docs/deploy.md.
        link: "fast" (ZMTP by the main thread), "zmq" (libzmq) or "tcp" (libzmq with CURVE) between workers and hub; never
            changes results.
        hosts: a number of hosts, or their addresses: each has a hub of its own, started by `engine`; 0 is none, None what the
            topology's `deploy` says. See docs/hosts.md.
        lease_s: how long a host bears that the root hub is silent.
        host_limit_s: how long the run bears that a host is silent.
        listen: ADDRESS:PORT where the hub listens by tcp, which `link` becomes by it; port 0 is any. 127.0.0.1:0 without.

    Raises:
        TopologyError, UsageError: before any process was started.
    """
    if start not in STARTS:
        raise UsageError(
            f"start must be one of {', '.join(STARTS)}, not {start!r}", code="start", next_step="leave it out"
        )
    from cosim.topo.find import find_topology
    from cosim.topo.load import load
    from cosim.topo.resolve import resolve

    if link not in LINKS:
        raise UsageError(f"link must be one of {', '.join(LINKS)}, not {link!r}", code="link", next_step="leave it out")
    if listen is not None:
        link = check_listen(listen)
    traffic = None if profile is None else _traffic(os.fspath(profile))
    resolved = resolve(
        load(find_topology(os.fspath(topology))),
        sets={name: _as_text(value) for name, value in (set or {}).items()},
        tests=tests,
        seed=seed,
        workers=None if workers is None else str(workers),
        until=until,
        allow_models=allow_models,
        traffic=traffic,
        hosts=_hosts_text(hosts),
    )
    if profile is not None and traffic is not None:
        _check_profile(os.fspath(profile), traffic, resolved)
    address = None if metrics is None else parse_address(metrics)
    if address is not None:
        library()
    plan = without_limits(with_waves(resolved.plan, wave), no_limit)
    placing = placing_of(plan, resolved.deploy, engine, engine_options or {}, listen)
    directory = RunDir.create(plan.name, Path(run_dir) if run_dir is not None else None)
    directory.write("plan.json", plan.to_dict())
    directory.write("topology.yaml", resolved.topology_yaml)
    limits = Limits(stall_limit_s, join_limit_s, tuple(no_limit))
    supervisor: Supervisor
    if placing is not None:
        supervisor = HostsSupervisor(
            plan,
            directory,
            engine=make_engine(placing.engine, directory.path / "hosts", placing.options),
            host_limits=HostLimits(lease_s, host_limit_s),
            listen=placing.listen,
            here=placing.engine == LOCAL,
            limits=limits,
            link=link,
            start=start,
            metrics=address,
        )
    else:
        supervisor = Supervisor(
            plan,
            directory,
            in_process=resolved.workers == "0",
            limits=limits,
            link=link,
            listen=listen or LISTEN,
            start=start,
            metrics=address,
        )
    raised: BaseException | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(supervisor.supervise)
        try:
            yield Run(supervisor)
        except BaseException as error:
            raised = error
        finally:
            with anyio.CancelScope(shield=True):
                if not supervisor.done.is_set():
                    await supervisor.stop(Interrupted("the caller left the run's context", signum=15))
                await supervisor.done.wait()
                supervisor.events.close()
    if raised is not None:
        raise raised


def run(topology: str | os.PathLike[str], **options: Any) -> Result:
    """Run to the end and return the result: `launch` for scripts and notebooks; the same arguments."""

    async def body() -> Result:
        async with launch(topology, **options) as running:
            return await running.result()

    return anyio.run(body)


def _traffic(profile: str) -> Traffic:
    try:
        return Traffic.read(find_run(profile))
    except UsageError as error:
        raise UsageError(error.what, code="profile", where="--profile", next_step=error.next_step) from None
    except ValueError as error:
        raise UsageError(
            str(error), code="profile", where="--profile", next_step="name a run that has finished"
        ) from None


def _check_profile(profile: str, traffic: Traffic, resolved: Resolved) -> None:
    """A profile must decide something.

    Raises:
        UsageError: each node has a worker of its own, or all have one; no node of this machine is in it.
    """
    if resolved.workers in ("per-node", "0", "1") and not resolved.plan.hosts:
        raise UsageError(
            f"--profile must come with workers that hold some nodes each, not with --workers {resolved.workers}",
            code="profile",
            next_step="add --workers auto, or a number of at least 2",
        )
    if traffic.work.keys().isdisjoint(node.name for node in resolved.plan.nodes):
        others = ", ".join([*sorted(traffic.work)[:3], *["…"] * (len(traffic.work) > 3)])
        raise UsageError(
            f"{find_run(profile) / TRAFFIC_FILE} must know nodes of this machine, not only others ({others})",
            code="profile",
            where="--profile",
            next_step="name a run of this topology, `ls runs` shows those of this folder",
        )


def _hosts_text(hosts: str | int | Sequence[str] | None) -> str | None:
    """As ``--hosts``; 0 and an empty list are "", none whatever the topology says."""
    if hosts is None:
        return None
    text = str(hosts) if isinstance(hosts, (str, int)) else ",".join(hosts)
    return "" if text == "0" else text


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
