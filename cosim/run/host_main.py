"""One host of a run: ``cosim host ENDPOINT NAME``, started by an engine. Its hub joins the root, then it starts the workers.

What is started here dies with this process (PR_SET_PDEATHSIG). It ends by itself when the root says so, and by its lease when
nothing was heard from the root for so long: then with `LEASE_OVER`, after it has killed its workers.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.abc

from cosim.core.plan import Plan
from cosim.errors import CosimError, PeerError
from cosim.run.attached import Attached
from cosim.run.crew import SCHEMES, Crew, Limits
from cosim.run.hublink import ProcessHub
from cosim.run.rundir import remove_socket_dir, socket_dir

LEASE_OVER = 75
"""Exit status (EX_TEMPFAIL of sysexits(3)): the root was not heard from, or its connection ended."""
REFUSED = 4
END_TIMEOUT_S = 4.0


class HostOrder(NamedTuple):
    """What a host is told on its command line and stdin: where the root listens, its own name and key (JSON text, None on a Unix
    socket), seconds of its lease, its incarnation, the folder for journals and logs (None: a temporary one, kept when the run
    fails)."""

    endpoint: str
    name: str
    credential: bytes | None = None
    lease_s: float = 10.0
    incarnation: int = 0
    folder: Path | None = None

    def __repr__(self) -> str:
        return f"HostOrder({self.endpoint!r}, {self.name!r}, ...)"  # a traceback may show it


def run_host(order: HostOrder) -> int:
    """Serve to the end of the run; returns the exit status: 0, `LEASE_OVER`, `REFUSED`, or 128 and the signal's number."""
    folder = order.folder or Path(tempfile.mkdtemp(prefix=f"cosim-{order.name}-"))
    for name in ("journal", "workers"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    status = anyio.run(_serve, order, folder)
    if status == 0 and order.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return status


async def _serve(order: HostOrder, folder: Path) -> int:
    sockets = socket_dir()
    hub = ProcessHub("cosim.run.hosthub_main")
    crew: HostCrew | None = None
    status = REFUSED
    try:
        async with anyio.create_task_group() as group:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:

                async def until_told() -> None:
                    nonlocal status
                    async for number in signals:
                        status = 128 + number
                        group.cancel_scope.cancel()

                group.start_soon(until_told)
                welcome = await _join(hub, order, folder)
                if welcome is not None:
                    crew = HostCrew(order, folder, sockets, hub, welcome)
                    status = await crew.serve(group)
                group.cancel_scope.cancel()
    finally:
        for child in crew.children if crew is not None else ():
            child.close()
        hub.close()
        remove_socket_dir(sockets)
    return status


async def _join(hub: ProcessHub, order: HostOrder, folder: Path) -> dict[str, Any] | None:
    """What the root has welcomed this host with; None when it has not: the reason is on stderr."""
    ask = {
        "endpoint": order.endpoint,
        "name": order.name,
        "credential": order.credential,
        "incarnation": order.incarnation,
        "folder": os.fspath(folder.absolute()),
        "lease_s": order.lease_s,
    }
    await hub.start(ask, folder / "workers")
    event = await hub.next()
    if event is not None and event[0] == "welcome":
        welcome: dict[str, Any] = event[1]
        return welcome
    assert hub.child is not None
    await hub.child.wait()
    sys.stderr.write(f"{order.name}: {event[1] if event is not None else hub.child.how_it_ended()}\n")
    return None


class HostCrew(Crew):
    """The workers of this host."""

    def __init__(self, order: HostOrder, folder: Path, sockets: Path, hub: ProcessHub, welcome: dict[str, Any]) -> None:
        plan = Plan.from_dict(welcome["plan"])
        limits = Limits(welcome["stall_s"], welcome["join_timeout_s"], tuple(welcome["free"]))
        served = plan.hosts[welcome["host"]].workers
        super().__init__(plan, folder, limits, welcome["link"], welcome["start"], served)
        self._hub = hub
        self._sockets = sockets
        self._order = order

    def _note(self, event: str, **fields: Any) -> None:
        shown = "".join(f" {name}={value}" for name, value in fields.items())
        sys.stderr.write(f"{self._order.name}: {event}{shown}\n")

    def _show(self, kind: str, **data: Any) -> None:
        if "text" in data:
            self._note(data["text"])

    async def serve(self, group: anyio.abc.TaskGroup) -> int:
        """Start the workers, serve the hub to its end; returns the exit status."""
        assert self._sockets is not None and isinstance(self._hub, ProcessHub)
        self._group = group
        endpoint = f"{SCHEMES[self.link]}://{self._sockets / 'hub'}"
        self._attached = Attached(self.plan, self._sockets, self.path, self.served)
        self._attached.publish(endpoint)
        assert self._hub.child is not None
        self.children.append(self._hub.child)
        journal = os.fspath((self.path / "journal").absolute())
        await self._hub.item({"endpoint": endpoint, "journal": journal, "tokens": self._attached.tokens})
        group.start_soon(self._begin, group, endpoint)
        status = await self._serve_hub()
        self._ending = True
        with anyio.move_on_after(END_TIMEOUT_S if status == 0 else 0):
            for child in self.children:
                await child.wait()
        return status

    async def _begin(self, group: anyio.abc.TaskGroup, endpoint: str) -> None:
        """Start the workers; the root is told when they can't be."""
        try:
            await self._start_workers(group, endpoint, self.limits.join_s)
        except CosimError as error:
            fields = {name: getattr(error, name) for name in ("code", "what", "where", "next_step", "exit_code")}
            await self._hub.command("failed", {**fields, "node": error.node, "sim_time_ps": 0})
        except OSError as error:
            failed = PeerError(f"workers could not be started: {error}", code="start", where="start-up")
            fields = {name: getattr(failed, name) for name in ("code", "what", "where", "next_step", "exit_code")}
            await self._hub.command("failed", {**fields, "node": None, "sim_time_ps": 0})

    async def _serve_hub(self) -> int:
        """Take the hub's events until its end."""
        while (event := await self._hub.next()) is not None:
            name, *args = event
            if name == "unreachable":
                assert self._group is not None
                self._group.start_soon(self._lost, *args)
            elif name == "stall":
                await self._stall(*args)
            elif name == "orphaned":
                self._note("gives up", reason=args[0])
                return LEASE_OVER
            elif name == "end":
                return 0
        if self._hub.child is not None:
            self._note("hub is gone", how=self._hub.child.how_it_ended())
        return REFUSED
