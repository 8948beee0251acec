"""The supervisor of a run over several hosts: a root hub here, and an engine that starts ``cosim host`` on each host.

Who is there and who is gone is decided by the hubs: a host must be heard from. What the engine knows of how a command ended is only
put into the error's text. Keys: on a Unix socket none, the run's directory guards it; over tcp one CURVE key per host, which the
engine hands over on stdin.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import anyio.abc

from cosim.core.plan import Plan
from cosim.engines.base import Engine, Exit, Slot
from cosim.engines.registry import ENGINES
from cosim.errors import InternalError, PeerError, UsageError
from cosim.run.hublink import ProcessHub, hub_order
from cosim.run.rundir import RunDir
from cosim.run.supervisor import END_TIMEOUT_S, Supervisor

if TYPE_CHECKING:
    from cosim.link.keys import RunKeys
    from cosim.topo.schema import DeploySpec

LOCAL = "local"
POLL_S = 0.1
WORDS_GRACE_S, REPORT_GRACE_S = 0.05, 20.0
"""How long what a host has said last may be on its way when its command has ended: badly, well."""
LOST_GRACE_S = 1.0
"""How long a host's end is waited for when its connection has ended: its exit status says more."""


class HostLimits(NamedTuple):
    """Wall-clock limits in seconds: a host ends when the root is silent for `lease_s`, the run when a host is for `silence_s`."""

    lease_s: float = 10.0
    silence_s: float = 3.0


class Placing(NamedTuple):
    """How hosts are started: the engine's name and options, and where the root listens for them (None: on a Unix socket)."""

    engine: str
    options: Mapping[str, str]
    listen: str | None


def placing_of(
    plan: Plan, deploy: DeploySpec, engine: str | None, options: Mapping[str, str], listen: str | None
) -> Placing | None:
    """What was asked for on the command line, else in the topology; None for a plan without hosts.

    Raises:
        UsageError: an unknown engine; one without hosts; one for other machines without an address to listen at.
    """
    name = engine or (deploy.engine if plan.hosts else None) or LOCAL
    if name not in ENGINES:
        raise UsageError(
            f"engine must be one of {', '.join(ENGINES)}, not {name!r}", code="engine", next_step="leave --engine out"
        )
    if not plan.hosts:
        if name == LOCAL and not options:
            return None
        raise UsageError(
            f"engine {name} must have hosts to start, and the run has none",
            code="engine",
            where="--engine",
            next_step="name them: --hosts ADDRESS,ADDRESS or --hosts 2, or `deploy: hosts:` in the topology",
        )
    where = listen or deploy.listen
    if where is None and name != LOCAL:
        raise UsageError(
            f"with engine {name} the address must be named at which the hosts reach this machine",
            code="listen",
            where="--listen",
            next_step="for instance --listen 10.0.0.1:0 (port 0: any that is free), or `deploy: listen:` in the topology",
        )
    return Placing(name, {**deploy.engine_options, **options} if engine is None else options, where)


class HostsSupervisor(Supervisor):
    """As `Supervisor`, for a plan with `hosts`.

    Args:
        engine: what starts the hosts.
        host_limits: how long silence is borne.
        listen: ``ADDRESS:PORT`` of the root, over tcp with keys; None: a Unix socket, for hosts on this machine.
        here: the hosts are processes of this machine, and may write into the run directory.
        others: as of `Supervisor`.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDir,
        *,
        engine: Engine,
        host_limits: HostLimits,
        listen: str | None = None,
        here: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(plan, directory, in_process=False, **others)
        self._engine = engine
        self._made: RunKeys | None = getattr(engine, "keys", None)
        """Of hosts that have had their keys before, and are seen by nobody but the hubs: see `cosim.engines.base`."""
        self._host_limits = host_limits
        self._address = listen
        self._here = here
        self._number = {host.name: number for number, host in enumerate(plan.hosts)}
        self._exits: dict[str, Exit] = {}
        self._joined_hosts: dict[str, dict[str, str]] = {}
        self._local = 0  # no worker is a child of this process

    async def _start(self, group: anyio.abc.TaskGroup) -> None:
        path, sockets = self.directory.path, await self._open(group)
        assert isinstance(self._hub, ProcessHub)
        names = list(self._number)
        made = self._made
        incarnations = {name: 0 if made else 1 + secrets.randbelow(1 << 52) for name in names}
        endpoint = f"tcp://{self._address}" if self._address else f"ipc://{sockets / 'root'}"
        keys, credentials = _keys(names, made) if self._address else (None, dict.fromkeys(names, b""))
        join = self.limits.join_deadline(len(self.plan.groups))
        orders = {
            "stall_s": self.limits.stall_s,
            "free": list(self.limits.free),
            "join_timeout_s": join,
            "link": "fast" if self.link == "tcp" else self.link,
            "start": self.start,
        }
        placing = join + getattr(self._engine, "wait_s", 0.0)
        root = {
            "orders": orders,
            "silence_s": self._host_limits.silence_s,
            "incarnations": incarnations,
            "placing_s": placing,
        }
        order = hub_order(self.plan, endpoint, path / "journal", join, self.limits.stall_s, keys=keys, root=root)
        await self._hub.start(order, path / "workers")
        assert self._hub.child is not None
        self.children.append(self._hub.child)
        endpoint = await self._hub.bound(endpoint)
        if self._stop_sent:
            return
        with anyio.move_on_after(placing) as self._starting:
            await self._engine.start([self._slot(n, endpoint, incarnations[n], credentials[n]) for n in names])
        if self._starting.cancelled_caught and not self._stop_sent:
            raise PeerError(
                f"the engine must have taken all hosts within {placing:.0f} s, and has not",
                code="join-timeout",
                where="start-up",
                next_step="look at the engine; a slow one needs a longer --join-limit",
            )
        await self._hub.command("placed")
        group.start_soon(self._poll)

    def _slot(self, name: str, endpoint: str, incarnation: int, credential: bytes) -> Slot:
        host = self.plan.hosts[self._number[name]]
        words = ["cosim", "host", endpoint, name, "--credential", "-", "--lease", f"{self._host_limits.lease_s:g}"]
        words += ["--incarnation", str(incarnation)]
        if self._here:
            words += ["--run-dir", os.fspath(self._folder(name))]
        return Slot(name, host.address, tuple(words), credential)

    def _folder(self, name: str) -> Path:
        return self.directory.path / "hosts" / name

    async def _poll(self) -> None:
        """Hear from the engine which commands have ended."""
        while True:
            for end in await self._engine.poll():
                self._exits[end.name] = end
                assert self._group is not None
                self._group.start_soon(self._tell, end)
            await anyio.sleep(POLL_S)

    async def _tell(self, end: Exit) -> None:
        """Tell the root's hub of a command that has ended. One that ended well has said BYE; its report may be long."""
        await anyio.sleep(REPORT_GRACE_S if end.status == 0 else WORDS_GRACE_S)
        if not self._ending:
            await self._hub.command("lost", self._number[end.name], _how(end))

    async def _lost(self, worker: int, text: str) -> None:
        """The root's connection to a host has ended: say how its command did, if it did."""
        name = self.plan.hosts[worker].name
        with anyio.move_on_after(LOST_GRACE_S):
            while name not in self._exits and self._made is None:
                await anyio.sleep(0.02)
        end = self._exits.get(name)
        await self._hub.command("lost", worker, text if end is None else _how(end))

    async def _stall(self, worker: int, seconds: float, since: float, sim_time_ps: int) -> None:
        """A worker that stalls is its host's to see."""

    def _came(self, name: str, args: list[Any]) -> None:
        super()._came(name, args)
        if name == "host":
            host, told = args
            self._joined_hosts[host] = told
            self.log.own("host joined", host=host, **told)

    async def _reap(self) -> None:
        with anyio.move_on_after(0 if self.outcome.errors else END_TIMEOUT_S):
            while len(self._exits) < len(self._number) and self._made is None:
                await anyio.sleep(0.02)
        await super()._reap()

    async def _release(self) -> None:
        try:
            await self._engine.stop()
        except Exception as error:  # an engine's own; the hosts' leases end what it leaves
            self.outcome.errors.append(
                InternalError(f"the engine could not stop its slots: {error!r}", code="engine-stop", where="engine")
            )
        for end in [e for e in self._exits.values() if e.status]:
            self.log.own("host ended", host=end.name, status=end.status, text=end.text)
        for name in self._number:
            self._collect(name)
        self.outcome.hosts = self._hosts_entry()

    def _collect(self, name: str) -> None:
        """Put a host's journals and workers' last words where those of a run on one machine are, or say where they are."""
        folder = self._folder(name)
        told = self._joined_hosts.get(name)
        if not folder.is_dir():
            if told is not None:
                self.log.own("journals are on the host", host=name, machine=told["machine"], folder=told["folder"])
            return
        for kind in ("journal", "workers"):
            for file in sorted((folder / kind).glob("w*")):
                with suppress(OSError):
                    file.replace(self.directory.path / kind / file.name)

    def _hosts_entry(self) -> dict[str, Any]:
        """The key `hosts` of result.json."""
        rounds: Mapping[str, Any] = (self.outcome.report or {}).get("hosts", {})
        return {
            **rounds,
            "hosts": [
                {
                    "name": host.name,
                    "address": host.address,
                    "machine": self._joined_hosts.get(host.name, {}).get("machine"),
                    "workers": len(host.workers),
                    "nodes": sorted(self.plan.nodes[n].name for w in host.workers for n in self.plan.groups[w]),
                }
                for host in self.plan.hosts
            ],
        }


def _keys(names: list[str], made: RunKeys | None) -> tuple[dict[str, object], dict[str, bytes]]:
    """What the root's hub needs, and each host's credential: none when the hosts have them from elsewhere."""
    from cosim.link.keys import RunKeys

    if made is not None:
        return made.for_hub(), dict.fromkeys(names, b"")
    keys = RunKeys.generate(names)
    return keys.for_hub(), {name: keys.credential(name) for name in names}


def _how(end: Exit) -> str:
    return f"its command has ended ({end.text or f'exit status {end.status}'})"
