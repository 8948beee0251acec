"""Frames within one process: the hub and its workers in threads, joined by queues.

`Switch` is the hub's end; `Switch.connect` makes a worker's. The interface is that of `cosim.link.zmq_link`.
"""

from __future__ import annotations

import queue

from cosim.link.base import LinkClosed


class Switch:
    """The hub's end of in-process links."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        self._peeked: list[tuple[bytes, bytes] | None] = []
        self._workers: dict[bytes, MemorySocket] = {}
        self.closed: list[bytes] = []
        self.twice: list[bytes] = []
        self.refused_peers: list[tuple[str, str]] = []

    def connect(self, identity: str) -> MemorySocket:
        """A worker's end."""
        socket = MemorySocket(identity.encode(), self._inbox)
        self._workers[identity.encode()] = socket
        return socket

    def wake(self) -> None:
        """Make `wait` return True: the controller has something to say. May be called from any thread."""
        self._inbox.put(None)

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait for frames or `wake`; True for `wake`."""
        if not self._peeked:
            try:
                self._peeked.append(self._inbox.get(timeout=None if timeout_ms is None else timeout_ms / 1000))
            except queue.Empty:
                return False
        if self._peeked[0] is None:
            self._peeked.pop()
            return True
        return False

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next (identity, frame), or None when there is none now."""
        if self._peeked:
            if self._peeked[0] is None:
                return None
            return self._peeked.pop()
        try:
            item = self._inbox.get_nowait()
        except queue.Empty:
            return None
        if item is None:
            self._peeked.append(None)
        return item

    def joined(self, identity: bytes) -> bool:
        """Whether frames of that worker may still be under way: here a frame is there as soon as it is sent."""
        return False

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send to one worker; raises LinkClosed when it is unknown or gone."""
        worker = self._workers.get(identity)
        if worker is None or worker.closed:
            raise LinkClosed(f"{identity.decode(errors='replace')}: no such worker")
        worker.deliver(frame)

    def close(self) -> None:
        """Wake every worker: its next receive fails with LinkClosed."""
        for worker in self._workers.values():
            worker.deliver(None)


class MemorySocket:
    """A worker's end of an in-process link."""

    def __init__(self, identity: bytes, hub: queue.SimpleQueue[tuple[bytes, bytes] | None]) -> None:
        self._identity = identity
        self._hub = hub
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.closed = False

    def deliver(self, frame: bytes | None) -> None:
        """Called by the hub's end; None: the link is closed."""
        self._inbox.put(frame)

    def receive(self, timeout_ms: int | None = None) -> bytes | None:
        """The next frame; None after `timeout_ms`; LinkClosed when the hub has closed."""
        try:
            frame = self._inbox.get(timeout=None if timeout_ms is None else timeout_ms / 1000)
        except queue.Empty:
            return None
        if frame is None:
            raise LinkClosed("the hub has closed")
        return frame

    def send(self, frame: bytes) -> None:
        """Send a frame to the hub."""
        self._hub.put((self._identity, frame))

    def close(self) -> None:
        """No more frames are taken."""
        self.closed = True
