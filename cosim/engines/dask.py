"""Engine `dask`: one pinned, long-running task per slot on the workers of a Dask scheduler that runs already.

Dask reaches Slurm, LSF, PBS, SGE and HTCondor (dask-jobqueue), Kubernetes and plain hosts, and is used to place commands and
for nothing else: a task starts the command beside its Dask worker and waits for it. A task is never repeated (``retries=0``,
pinned to its worker, a lost worker's task is given up): a second hub of one host would be refused anyway.

A running task can't be cancelled, so `stop` tells the Dask workers themselves. A driver that was killed leaves the commands
to their lease. Credentials go as files of mode 0600 in the run directory, which the hosts must share; or, over ``tls://``,
through Dask.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from cosim.engines.base import Exit, Slot, with_credential_file
from cosim.engines.dask_task import Secret, hold, release
from cosim.engines.files import SlotFiles
from cosim.engines.options import read_options
from cosim.errors import PeerError, UsageError

RESULT_LIMIT_S = 5.0
"""For the result of a task that has finished to be fetched."""
STOP_WAIT_S = 0.5
"""For the Dask workers to be told, and for the commands to end. One that can't be reached has a lease."""
CLOSE_WAIT_S = 0.3
"""For the client to take its leave of the scheduler."""


@dataclass(frozen=True)
class DaskOptions:
    """What ``--engine-option`` may set."""

    scheduler: str = ""
    """Address of the scheduler, tcp://HOST:8786 or tls://HOST:8786; required."""
    resource: str = ""
    """Name of a worker resource of which each slot takes one (dask worker --resources NAME=K)."""
    wait: float = 60.0
    """Seconds for the scheduler to answer and for enough workers to be there."""
    credentials: str = "file"
    """"file" (in the run directory, which the hosts share) or "tls" (through Dask)."""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    """Files for distributed.security.Security."""


class Worker(NamedTuple):
    """A Dask worker: where it can be addressed, its name, its host."""

    address: str
    name: str
    host: str


class DaskEngine:
    """Places slots on Dask workers; `Slot.host` is a worker's host or name, or "" for any, on different hosts if possible."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self._options = read_options("dask", DaskOptions, options)
        self.wait_s = 2 * self._options.wait  # for the scheduler, then for workers
        self._files = SlotFiles(folder.resolve())
        self._run = secrets.token_hex(8)
        self._client: Any = None
        self._tasks: dict[str, tuple[Worker, Any]] = {}
        self._placed: dict[str, Worker] = {}
        self._removed: set[str] = set()
        self._check()

    def _check(self) -> None:
        given = self._options
        if not given.scheduler:
            raise UsageError(
                "engine dask must have the address of a running scheduler, and got none",
                code="engine-option",
                where="--engine dask",
                next_step="--engine-option scheduler=tcp://HOST:8786; docs/engines.md shows how to start one",
            )
        if given.credentials not in ("file", "tls"):
            raise UsageError(
                f"option credentials of engine dask must be file or tls, not {given.credentials!r}",
                code="engine-option",
                where="--engine-option credentials",
                next_step="leave it out",
            )
        if given.credentials == "tls" and not given.scheduler.startswith("tls://"):
            raise UsageError(
                f"credentials may go through Dask to a tls:// scheduler only, not to {given.scheduler}: others could read them",
                code="engine-option",
                where="--engine-option credentials=tls",
                next_step="start Dask with TLS, or leave the option out and share the run directory among the hosts",
            )

    # -- start ---------------------------------------------------------------------------------------------------------

    async def start(self, slots: Sequence[Slot]) -> None:
        """Connect, wait for enough workers, submit; see `Engine.start`."""
        self._files.make()
        await anyio.to_thread.run_sync(self._connect)
        deadline = anyio.current_time() + self._options.wait
        while True:
            workers = await anyio.to_thread.run_sync(self._workers)
            try:
                self._placed = place(slots, workers)
                break
            except LookupError as error:
                if anyio.current_time() > deadline:
                    await self.stop()
                    raise PeerError(
                        f"{error}; waited for {self._options.wait:.0f} s",
                        code="engine-workers",
                        where=self._options.scheduler,
                        next_step="start a dask worker on each host; longer: --engine-option wait=SECONDS",
                    ) from None
            await anyio.sleep(0.2)
        await anyio.to_thread.run_sync(self._submit, slots)

    def _connect(self) -> None:
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise UsageError(
                "engine dask must have the packages of the extra 'dask', and they are not installed",
                code="engine-package",
                where="--engine dask",
                next_step="pip install 'cosim[dask]'",
            ) from None
        # It would write tracebacks to stderr when the scheduler goes away; what matters of that the hubs tell.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        given = self._options
        security = None
        if given.tls_ca or given.tls_cert:
            security = distributed.Security(
                tls_ca_file=given.tls_ca or None,
                tls_client_cert=given.tls_cert or None,
                tls_client_key=given.tls_key or None,
                require_encryption=True,
            )
        try:
            self._client = distributed.Client(
                given.scheduler, timeout=given.wait, set_as_default=False, security=security, name="cosim"
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise PeerError(
                f"the Dask scheduler must answer at {given.scheduler} within {given.wait:.0f} s: {error}",
                code="engine-refused",
                where=given.scheduler,
                next_step="start one: dask scheduler; see docs/engines.md",
            ) from None
        self._client.subscribe_topic("all", self._event)

    def _event(self, event: tuple[float, Any]) -> None:
        """An event of the scheduler, in the client's thread."""
        what = event[1]
        if isinstance(what, dict) and what.get("action") == "remove-worker":
            self._removed.add(str(what.get("worker")))

    def _workers(self) -> list[Worker]:
        known = self._client.scheduler_info(n_workers=-1)["workers"]
        wanted = self._options.resource
        return sorted(
            Worker(address, str(info["name"]), str(info["host"]))
            for address, info in known.items()
            if not wanted or info["resources"].get(wanted, 0) >= 1
        )

    def _submit(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            worker = self._placed[slot.name]
            command, secret, log = slot.command, slot.credential, ""
            if self._options.credentials == "file":
                path = self._files.put_credential(slot)
                command, secret, log = with_credential_file(command, str(path)), b"", str(self._files.log(slot.name))
            future = self._client.submit(
                hold,
                self._run,
                slot.name,
                command,
                Secret(secret),
                log,
                key=f"cosim-{self._run}-{slot.name}",
                workers=[worker.address],
                allow_other_workers=False,
                pure=False,
                retries=0,
                resources={self._options.resource: 1} if self._options.resource else None,
            )
            self._tasks[slot.name] = worker, future

    # -- watching ------------------------------------------------------------------------------------------------------

    async def poll(self) -> list[Exit]:
        """See `Engine.poll`. A scheduler that is gone is not told of: its workers end half a minute later, and the hubs see it."""
        ended = []
        for name, (worker, future) in list(self._tasks.items()):
            if future.status in ("finished", "error"):
                del self._tasks[name]
                ended.append(await anyio.to_thread.run_sync(self._result, name, future))
            elif worker.address in self._removed:
                del self._tasks[name]
                _aside(future.cancel)  # or it would wait for ever
                ended.append(Exit(name, None, f"the Dask scheduler has lost worker {worker.name} at {worker.address}"))
        return ended

    def _result(self, name: str, future: Any) -> Exit:
        try:
            status, text = future.result(timeout=RESULT_LIMIT_S)
        except Exception as error:  # of Dask: the task itself raises nothing
            return Exit(name, None, f"the Dask task failed: {error!r}")
        status = 128 - status if status > 128 else status
        what = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        return Exit(name, status, f"{what}; it wrote: {text}" if text else what)

    # -- end -----------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Tell the Dask workers to end the commands, wait for these a little, close the client, remove credentials."""
        if self._client is not None:
            client, self._client = self._client, None
            for address in {worker.address for worker, _ in self._tasks.values()} - self._removed:
                _aside(partial(client.run, release, self._run, workers=[address], on_error="ignore"))
            with anyio.move_on_after(STOP_WAIT_S):
                while self._tasks:
                    await self.poll()
                    await anyio.sleep(0.05)
            self._tasks.clear()
            closing = _aside(partial(client.close, timeout=CLOSE_WAIT_S))
            with anyio.move_on_after(CLOSE_WAIT_S):
                while closing.is_alive():
                    await anyio.sleep(0.02)
        self._files.remove_credentials()

    def logs(self, name: str) -> str | None:
        """What a slot has written; None with ``credentials=tls``, whose output stays on the host until the end."""
        return self._files.written(name)


def _aside(step: Callable[[], object]) -> threading.Thread:
    """Do a step of the end in a thread that nobody must wait for, not even the interpreter: its other end may be cut off.

    What Dask can't do any more is left to the lease.
    """

    def attempt() -> None:
        with contextlib.suppress(Exception):
            step()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    return thread


def place(slots: Sequence[Slot], workers: Sequence[Worker]) -> dict[str, Worker]:
    """A worker for each slot by name: each worker once; those without a host on as many hosts as possible.

    Raises:
        LookupError: there are too few workers, or none of a host.
    """
    free = list(workers)
    used: Counter[str] = Counter()
    placed: dict[str, Worker] = {}
    for slot in sorted(slots, key=lambda slot: not slot.host):  # those that name a host choose first
        fitting = [worker for worker in free if slot.host in ("", worker.host, worker.name)]
        if not fitting:
            where = f"on host {slot.host!r} " if slot.host else ""
            known = ", ".join(f"{worker.name} on {worker.host}" for worker in workers) or "none at all"
            raise LookupError(
                f"Dask must have a worker {where}for {slot.name} ({len(slots)} slots, one worker each), not: {known}"
            )
        best = min(fitting, key=lambda worker: (used[worker.host], worker.address))
        free.remove(best)
        used[best.host] += 1
        placed[slot.name] = best
    return placed
