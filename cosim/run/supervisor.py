"""The supervisor of one run: starts hub and workers, watches them, gathers what they report, ends everything.

Its life is `supervise`, in a task group of `cosim.run.api.launch`. Whatever happens, it ends with every child reaped, the
run directory whole and a result.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.abc

from cosim.core.plan import Plan
from cosim.core.time import fmt
from cosim.errors import CosimError, InternalError, Interrupted, NodeError, PeerError, UsageError
from cosim.node.node import SIDE_CONSOLE, SIDE_LOG, SIDE_MARK, SIDE_TEST
from cosim.run.attached import REFUSALS, Attached, ForeignChild
from cosim.run.control import serve
from cosim.run.crew import SCHEMES, Crew, Limits
from cosim.run.hublink import ProcessHub, ThreadHub, hub_order
from cosim.run.limits import room_for
from cosim.run.logging import RunLog
from cosim.run.metrics import Metrics
from cosim.run.outcome import Outcome
from cosim.run.rundir import DIGESTS_FILE, RunDir, digests_text, registers_text, remove_socket_dir, socket_dir
from cosim.run.standstill import Standstill
from cosim.topo.placement import TRAFFIC_FILE, Traffic

END_TIMEOUT_S = 4.0
EVENTS_KEPT = 10_000
"""Most events that wait for somebody to read them: older ones go while nobody does, and a slow reader gets no more progress."""
REFUSED_TIMEOUT_S = 2.0
"""How long a foreign node that was refused may take to say so and end."""
REFUSALS_SHOWN = 50
"""Refusals of one address that are logged."""
LINKS = (*SCHEMES, "tcp")
LISTEN = "127.0.0.1:0"
STARTS = ("fork", "exec")
PROGRESS = ("sim_time_ps", "events", "grants", "messages", "frames")
_FAULTS: dict[int, type[CosimError]] = {2: UsageError, 3: NodeError, 4: PeerError, 5: InternalError}


class Event(NamedTuple):
    """Something to show: `kind` is "started", "progress", "console", "test", "log", "error" or "end"."""

    kind: str
    data: dict[str, Any]


class Supervisor(Crew):
    """Starts, watches and ends one run; see `cosim.run.api` for its public face."""

    def __init__(
        self,
        plan: Plan,
        directory: RunDir,
        *,
        in_process: bool,
        limits: Limits | None = None,
        link: str = "fast",
        listen: str = LISTEN,
        start: str = "fork",
        metrics: tuple[str, int] | None = None,
    ) -> None:
        super().__init__(plan, directory.path, limits or Limits(), link, start)
        self.directory = directory
        self.in_process = in_process
        self.listen = listen
        self._metrics_address = metrics
        self._metrics: Metrics | None = None
        workers = 1 if in_process else len(plan.groups)
        self.outcome = Outcome(plan, workers)
        self.log = RunLog(directory.path / "log.jsonl", directory.path.name)
        self.progress: dict[str, int] = dict.fromkeys(PROGRESS, 0)
        self.counters: Counter[str] = Counter()
        self.joined = 0
        self.stalls = 0
        self.state = "starting"
        self.result: dict[str, Any] | None = None
        self.started = time.monotonic()
        self.running_after_s: float | None = None
        self.done = anyio.Event()
        self.listened = False  # whether anybody reads the events
        self._send, self.events = anyio.create_memory_object_stream[Event](math.inf)
        self._hub = ThreadHub() if in_process else ProcessHub()
        self._standstill = Standstill(self.limits.stall_s, self.limits.free)
        self._queries: dict[int, anyio.Event] = {}
        self._views: dict[int, dict[str, Any]] = {}

    # -- life ----------------------------------------------------------------------------------------------------------

    async def supervise(self) -> None:
        """Run to the end; afterwards `result` is set and `done` fires."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                await self._start(group)
                await self._serve_hub()
                self._ending = True
                await self._reap()
                group.cancel_scope.cancel()
        except* CosimError as errors:
            self.outcome.errors.extend(e for e in errors.exceptions if isinstance(e, CosimError))
        except* Exception as errors:
            self._own_fault(errors)
        finally:
            with anyio.CancelScope(shield=True):
                await self._release()
                self._finish()

    async def _release(self) -> None:
        """End what is not a child process of this one."""

    async def _open(self, group: anyio.abc.TaskGroup) -> Path:
        """Make what every run has: control socket, run.json, log, metrics; returns the folder for sockets."""
        self._sockets = socket_dir()
        control = self._sockets / "control"
        await group.start(serve, control, self._answer)
        self.directory.write(
            "run.json", {"pid": os.getpid(), "control": str(control), "topology": self.plan.name, "state": "starting"}
        )
        self.log.own("run starts", nodes=len(self.plan.nodes), workers=self.outcome.workers, seed=self.plan.seed)
        if self._metrics_address is not None:
            self._metrics = Metrics(self._metrics_address, self)
        if self.outcome.tainted:
            self.log.own("the run is tainted: it can't be repeated", best_effort=self.outcome.tainted)
        return self._sockets

    async def _start(self, group: anyio.abc.TaskGroup) -> None:
        path, sockets = self.directory.path, await self._open(group)
        if isinstance(self._hub, ThreadHub):
            self._hub.start(self.plan, path / "journal", self.limits.stall_s)
            return
        assert isinstance(self._hub, ProcessHub)
        room_for(len(self.plan.groups))
        tcp = self.link == "tcp"
        endpoint = f"tcp://{self.listen}" if tcp else f"{SCHEMES[self.link]}://{sockets / 'hub'}"
        join = self.limits.join_deadline(len(self.plan.groups))
        self._attached = Attached(self.plan, sockets, path)
        order = hub_order(
            self.plan,
            endpoint,
            path / "journal",
            join,
            self.limits.stall_s,
            tokens=self._attached.tokens,
            keys=self._attached.hand_out_keys(self._local) if tcp else None,
        )
        await self._hub.start(order, path / "workers")
        assert self._hub.child is not None
        self.children.append(self._hub.child)
        if tcp and not self._stop_sent:
            endpoint = await self._hub.bound(endpoint)
        self._attached.publish(endpoint)
        if self._stop_sent:
            return  # ended before it began: no worker is needed
        await self._start_workers(group, endpoint, join)

    async def _serve_hub(self) -> None:
        """Take the hub's events until its end."""
        while (event := await self._hub.next()) is not None:
            name, *args = event
            if name == "side":
                self._side(args[0])
            elif name == "progress":
                self.progress = dict(zip(PROGRESS, args, strict=True))
                self._show("progress", **self.progress)
            elif name in ("joined", "host"):
                self._came(name, args)
            elif name == "running":
                self._running()
            elif name == "refused":
                self._refused(*args)
            elif name == "error":
                self._error(args[0])
            elif name == "unreachable":
                assert self._group is not None
                self._group.start_soon(self._lost, *args)
            elif name == "stall":
                self.stalls += 1
                await self._stall(*args)
            elif name == "reply":
                self._views[args[0]] = args[1]
                self._queries[args[0]].set()
            elif name == "fault":
                self._hub_fault(args[0])
            elif name == "end":
                self.outcome.report = args[0]
                return
        if self.outcome.report is None and not self.outcome.errors and self.outcome.interrupted is None:
            if self._hub.child is not None:
                with anyio.move_on_after(1.0):
                    await self._hub.child.wait()
            self._hub_gone()

    async def _stall(self, worker: int, seconds: float, since: float, sim_time_ps: int) -> None:
        """In one process what counts is whether events are finished; see `Crew._stall` for processes."""
        if not isinstance(self._hub, ThreadHub):
            await super()._stall(worker, seconds, since, sim_time_ps)
        elif error := self._standstill.judge(worker, self._hub.look(worker)):
            await self._hub.command("stalled", worker, since, error)
        else:
            await self._hub.command("release", worker)

    def _came(self, name: str, args: list[Any]) -> None:
        """A worker has joined, or in a run over hosts a host has."""
        self.joined += name == "joined"

    def _running(self) -> None:
        self.state = "running"
        self.running_after_s = time.monotonic() - self.started
        self._write_state()
        self.log.own("all workers are ready", after_s=round(self.running_after_s, 3))
        self._show("started", after_s=self.running_after_s, directory=str(self.directory.path))

    def _refused(self, address: str, reason: str) -> None:
        """Somebody was turned away: count all, name some of each address."""
        count = self.outcome.note_refused(address)
        if count <= REFUSALS_SHOWN:
            more = {"note": "more from there are counted only"} if count == REFUSALS_SHOWN else {}
            self.log.own("peer refused", level="warning", address=address, reason=reason, **more)

    def _hub_gone(self) -> None:
        child = self._hub.child
        how = child.how_it_ended() if child is not None and child.status is not None else "its connection closed"
        self.outcome.errors.append(
            PeerError(
                f"the hub process is gone ({how}); the run had reached {fmt(self.progress['sim_time_ps'])}",
                code="hub-lost",
                where="hub",
                sim_time_ps=self.progress["sim_time_ps"],
                next_step="its last words are in workers/hub.stderr of the run directory; the journals there end where it died",
            )
        )

    def _hub_fault(self, text: str) -> None:
        self.log.own("hub fault", traceback=text)
        self.outcome.errors.append(_fault("hub", f"the hub failed: {text.strip().splitlines()[-1]}"))

    def _own_fault(self, errors: BaseExceptionGroup[BaseException]) -> None:
        text = "".join(traceback.format_exception(errors))
        self._attempt(lambda: self.log.own("supervisor fault", traceback=text))
        self.outcome.errors.append(_fault("supervisor", f"the supervisor failed: {errors.exceptions[0]!r}"))

    async def _reap(self) -> None:
        """Give the children a moment to end by themselves, then end them."""
        with anyio.move_on_after(END_TIMEOUT_S):
            for child in self.children:
                if not self.outcome.errors or (isinstance(child, ForeignChild) and child.wave):
                    await child.wait()  # after an error only for what still closes its waveforms
        refused = {error.node for error in self.outcome.errors if error.code in REFUSALS}
        with anyio.move_on_after(REFUSED_TIMEOUT_S):
            for child in self.children:
                if isinstance(child, ForeignChild) and child.name in refused:
                    await child.wait()  # it prints why
        for child in self.children:
            child.close()

    def _finish(self) -> None:
        """End what is left, make the result, fire `done`: whatever fails on the way is one more error of the run."""
        wall_s, report = time.monotonic() - self.started, self.outcome.report
        for child in self.children:
            self._attempt(child.close)
        self._attempt(self._hub.close)
        if self._sockets is not None:
            remove_socket_dir(self._sockets)
        self._attempt(self.outcome.judge)
        if report is not None and report["registers"]:
            self._attempt(lambda: self.directory.write("registers.json", registers_text(report["registers"])))
        if report is not None and report["complete"]:
            self._attempt(lambda: self.directory.write(TRAFFIC_FILE, self._traffic(report).text()))
            self._attempt(lambda: self.directory.write(DIGESTS_FILE, digests_text(report["nodes"])))
        self._attempt(lambda: self.directory.write("latencies.csv", self.outcome.pairing.csv()))
        self._attempt(self.directory.close)
        for error in list(self.outcome.errors):
            self._attempt(partial(self.log.error, error.as_dict()))
        self.outcome.progress = self.progress
        self.result = self.outcome.finish(wall_s)
        self._attempt(
            lambda: self.log.own("run ends", status=self.outcome.status(), digest=self.result and self.result["digest"])
        )
        self._attempt(self.log.close)
        self._attempt(lambda: self.directory.write("result.json", self.outcome.finish(wall_s)))
        self.result = self.outcome.finish(wall_s)
        self.state = self.result["status"]
        self.counters = Counter(self.result["counters"])
        self._attempt(self._write_state)
        if self._metrics is not None:
            self._attempt(self._metrics.close)
        self._show("end", **self.result)
        self._send.close()
        self.done.set()

    def _attempt(self, step: Callable[[], object]) -> None:
        """Do one step of the end; the same error from several of them is one."""
        try:
            step()
        except CosimError as error:
            if all(known.code != error.code for known in self.outcome.errors):
                self.outcome.errors.append(error)
        except Exception as error:
            self.outcome.errors.append(_fault("supervisor", f"the end of the run failed: {error!r}"))

    def _traffic(self, report: dict[str, Any]) -> Traffic:
        names = [node.name for node in self.plan.nodes]
        links = {}
        for number, count in report["sent"]:
            link = self.plan.links[number]
            links[names[link.src], link.src_port, names[link.dst], link.dst_port] = count
        return Traffic(links, {names[node]: events for node, events in report["work"]})

    def _write_state(self) -> None:
        control = str(self._sockets / "control") if self._sockets else ""
        info = {"pid": os.getpid(), "control": control, "topology": self.plan.name, "state": self.state}
        if self.result is not None:
            info["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.directory.write("run.json", info)

    def _note(self, event: str, **fields: Any) -> None:
        self.log.own(event, **fields)

    def _show(self, kind: str, **data: Any) -> None:
        found = self._send.statistics()
        if not found.open_receive_streams:
            return
        if found.current_buffer_used >= EVENTS_KEPT:
            if not self.listened:
                self.events.receive_nowait()
            elif kind == "progress":
                return
        self._send.send_nowait(Event(kind, data))

    # -- what the hub tells --------------------------------------------------------------------------------------------

    def _side(self, records: list[list[Any]]) -> None:
        for time_ps, node, _number, kind, payload in records:
            if kind == SIDE_MARK:
                self.outcome.pairing.add(time_ps, payload[0], payload[1])
            elif kind == SIDE_CONSOLE:
                self.directory.console(payload[0], payload[1])
                self._show("console", file=payload[0], text=payload[1], sim_time_ps=time_ps)
            elif kind == SIDE_TEST:
                test = self.outcome.note_test(time_ps, payload)
                self._show("test", name=test.name, status=payload[1], detail=payload[2], sim_time_ps=time_ps)
            elif kind == SIDE_LOG:
                name = self.plan.nodes[node].name
                self.log.node(time_ps, name, payload[0], payload[1])
                self._show("log", node=name, event=payload[0], sim_time_ps=time_ps, fields=payload[1])

    def _error(self, fields: dict[str, Any]) -> None:
        exit_code = fields.pop("exit_code")
        text = fields.pop("traceback", "")
        if text:
            self.log.node(
                fields["sim_time_ps"] or 0, fields["node"], "model failed", {"traceback": text, "what": fields["what"]}
            )
        what = fields.pop("what")
        error = _FAULTS[exit_code](what, **fields)
        self.outcome.errors.append(error)
        self._show("error", **error.as_dict())

    # -- control -------------------------------------------------------------------------------------------------------

    async def stop(self, cause: Interrupted) -> None:
        """End the run early; a second call kills what still runs."""
        if self._ending:
            return
        if self.outcome.interrupted is None and not self.outcome.errors:
            self.outcome.interrupted = cause
        if self._stop_sent:
            self._kill()
            return
        self._stop_sent = True
        if self._starting is not None:
            self._starting.cancel()  # no effect once all workers are there
        deadline = anyio.current_time() + END_TIMEOUT_S
        with anyio.move_on_after(END_TIMEOUT_S):
            await self._hub.command("stop", "stop")
        while not self.done.is_set() and anyio.current_time() < deadline:
            await anyio.sleep(0.02)
        if not self.done.is_set():
            self._kill()

    def _kill(self) -> None:
        self._ending = True
        for child in self.children:
            child.kill()
        self._hub.abandon()

    async def view(self, registers: bool = False) -> dict[str, Any]:
        """The hub's view: per worker what it does or waits for; clocks; the waits of tasks; register values if asked for."""
        number = len(self._queries) + 1
        self._queries[number] = anyio.Event()
        await self._hub.command("query", number, int(registers))
        with anyio.move_on_after(4.0 if registers else 2.0):
            await self._queries[number].wait()
        return {**self._views.pop(number, {"workers": [], "clocks": [], "waits": []}), "state": self.state}

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        what = request.get("ask")
        if what in ("view", "registers"):
            return {**await self.view(what == "registers"), "progress": self.progress, "groups": self._groups()}
        if what == "down":
            assert self._group is not None
            self._group.start_soon(self.stop, Interrupted("`cosim down` ended the run", signum=15))
            return {"stopped": True, "pid": os.getpid()}
        return {"error": f"ask must be 'view', 'registers' or 'down', not {what!r}"}

    def _groups(self) -> list[list[str]]:
        return [[self.plan.nodes[n].name for n in group] for group in self.plan.groups]


def _fault(process: str, what: str) -> InternalError:
    """An error of cosim itself: its hub or its supervisor failed."""
    return InternalError(
        what,
        code=f"{process}-fault",
        where=process,
        next_step="this is a fault of cosim: please report it with log.jsonl",
    )
