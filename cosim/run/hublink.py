"""The supervisor's end of its hub: a process joined by a socket pair, or a thread of this process (``--workers 0``)."""

from __future__ import annotations

import os
import queue
import socket
import struct
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgpack

from cosim.core.plan import Plan
from cosim.errors import UsageError
from cosim.link.base import LinkClosed
from cosim.link.memory_link import Switch
from cosim.node.worker import Worker
from cosim.run.hub import Hub
from cosim.run.hub_main import pack_item
from cosim.run.spawn import Child, start_hub
from cosim.run.standstill import Look, look

_LENGTH = struct.Struct("<I")


class HubEnd:
    """Events in, commands out. `next` gives the next event, None when the hub has closed."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self._socket = ours
        self._buffer = bytearray()
        self._events: deque[list[Any]] = deque()
        self._out = bytearray()
        self._open = True  # whether what is written may go out
        self._writing = False
        self.child: Child | None = None

    async def next(self) -> list[Any] | None:
        """The next event of the hub; None when it is gone."""
        while not self._events:
            await anyio.wait_readable(self._socket)
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                continue
            except ConnectionError:
                return None
            if not data:
                return None
            self._buffer += data
            self._split()
        return self._events.popleft()

    def _split(self) -> None:
        offset = 0
        while len(self._buffer) - offset >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, offset)
            end = offset + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            self._events.append(msgpack.unpackb(bytes(self._buffer[offset + _LENGTH.size : end]), strict_map_key=False))
            offset = end
        del self._buffer[:offset]

    async def command(self, *command: Any) -> None:
        """Send a command; no effect when the hub is gone."""
        await self.item(list(command))

    async def item(self, item: Any) -> None:
        """Send anything that it waits for."""
        self._out += pack_item(item)
        await self._flush()

    async def _flush(self) -> None:
        """Write what waits, whole items in their order: a task that finds another one writing leaves its item to that one."""
        if self._writing or not self._open:
            return
        self._writing = True
        try:
            while self._out:
                try:
                    del self._out[: self._socket.send(self._out)]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
                except OSError:
                    self._out.clear()
        finally:
            self._writing = False

    def abandon(self) -> None:
        """Listen no more: `next` gives what is there already, then None. The socket stays open: a task may wait for it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close; a hub process is killed if it still runs."""
        self._socket.close()
        if self.child is not None:
            self.child.close()


class ProcessHub(HubEnd):
    """A hub process on this host; `module` is its program."""

    def __init__(self, module: str = "cosim.run.hub_main") -> None:
        super().__init__()
        self._module = module
        self._open = False  # the order is the first thing that the hub reads

    async def start(self, order: dict[str, Any], folder: Path) -> None:
        """Start it and hand it its order (endpoint, plan, journal, limits), then the commands that came before."""
        self.child = start_hub(self.theirs.fileno(), folder, self._module)
        self.theirs.close()
        self._out[:0] = pack_item(order)
        self._open = True
        await self._flush()

    async def bound(self, endpoint: str) -> str:
        """The first event: where it listens, with the port that it got.

        Raises:
            UsageError: not at this endpoint.
        """
        event = await self.next()
        if event is not None and event[0] == "bound":
            return str(event[1])
        raise UsageError(
            f"the hub must be able to listen at {endpoint}: {'it ended' if event is None else event[1]}",
            code="listen",
            where="start-up",
            next_step="name an address of this machine and a free port (0: any) with --listen; see workers/hub.stderr",
        )


class ThreadHub(HubEnd):
    """Hub and one worker as threads of this process, joined by a memory link."""

    def __init__(self) -> None:
        super().__init__()
        self._switch = Switch()
        self._commands: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: list[tuple[Worker, threading.Thread]] = []

    def start(self, plan: Plan, journal: Path, stall_s: float) -> None:
        """Start both threads."""
        hub = Hub(plan, self._switch, self._emit, journal=journal, commands=self._pending, stall_s=stall_s)
        for index in range(len(plan.groups)):
            worker = Worker(self._switch.connect(f"w{index}"), f"w{index}")
            self._workers.append((worker, self._spawn(f"worker w{index}", worker.serve, index)))
        self._spawn("hub", hub.run, None)

    def look(self, worker: int) -> Look | None:
        """What a worker's thread does now; None when it is not in an event."""
        return look(*self._workers[worker])

    def _spawn(self, name: str, target: Callable[[], Any], worker: int | None) -> threading.Thread:
        def body() -> None:
            try:
                target()
            except LinkClosed:
                pass
            except BaseException:
                text = traceback.format_exc()
                if worker is None:
                    self._emit(["fault", text])
                else:
                    self._commands.put(["lost", worker, text])
                    self._switch.wake()
            finally:
                if worker is None:
                    self._switch.close()
                    self.theirs.close()

        thread = threading.Thread(target=body, name=f"cosim {name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _emit(self, event: list[Any]) -> None:
        try:
            self.theirs.sendall(pack_item(event))
        except OSError:
            return  # the supervisor has closed: nobody listens any more

    def _pending(self) -> list[list[Any]]:
        commands = []
        while True:
            try:
                commands.append(self._commands.get_nowait())
            except queue.Empty:
                return commands

    async def command(self, *command: Any) -> None:
        """Hand a command to the hub's thread."""
        self._commands.put(list(command))
        self._switch.wake()

    def close(self) -> None:
        """Close and wait a moment for the threads; one that a model holds in an endless loop is left to die with the process."""
        super().close()
        self._switch.close()
        for thread in self._threads:
            thread.join(timeout=1.0)


def hub_order(
    plan: Plan,
    endpoint: str,
    journal: Path,
    join_timeout_s: float,
    stall_s: float,
    tokens: Mapping[str, str] | None = None,
    keys: dict[str, Any] | None = None,
    root: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The order that a hub process reads first; `tokens` are the secrets of foreign nodes by name, `keys` those of a tcp link
    (`cosim.link.keys.RunKeys.for_hub`), `root` the further arguments of the root over hosts (`cosim.run.roothub`)."""
    return {
        "endpoint": endpoint,
        "plan": plan.to_dict(),
        "journal": os.fspath(journal),
        "join_timeout_s": join_timeout_s,
        "stall_s": stall_s,
        "tokens": dict(tokens or {}),
        "keys": keys,
        "root": root,
    }
