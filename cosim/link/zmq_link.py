"""Frames over ZeroMQ: ROUTER at the hub, DEALER at a worker or external node; ipc on one host.

Sockets block and never spin; high-water marks are off, because one outstanding grant per worker bounds what is in flight.
The hub's socket refuses unknown identities (ROUTER_MANDATORY), so a frame to a peer that went away is an error, not silence.
"""

from __future__ import annotations

import zmq

from cosim.core.codec import LIMITS
from cosim.link.base import LINGER_MS, LinkClosed, check_ipc


class HubSocket:
    """The hub's end: receives (identity, frame) from any worker, sends to one."""

    def __init__(self, endpoint: str) -> None:
        if endpoint.startswith("ipc://"):
            check_ipc(endpoint)
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LIMITS.max_frame)
        self._socket.setsockopt(zmq.BACKLOG, 4096)
        self._socket.bind(endpoint)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._control: int | None = None
        self.closed: list[bytes] = []  # libzmq does not tell
        self.twice: list[bytes] = []  # nor this: a second DEALER of one name is dropped silently

    def watch(self, fd: int) -> None:
        """Also wake `wait` when the file descriptor is readable."""
        self._control = fd
        self._poller.register(fd, zmq.POLLIN)

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait for frames or the watched descriptor; True when the descriptor is readable."""
        events = dict(self._poller.poll(timeout_ms))
        return self._control is not None and self._control in events

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next (identity, frame), or None when there is none now."""
        try:
            parts = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return parts[0], parts[-1] if len(parts) == 2 else b""

    def joined(self, identity: bytes) -> bool:
        """Whether frames of a worker may still be under way: libzmq does not tell, so they may."""
        return True

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send to one worker; raises LinkClosed when it is unknown or gone."""
        try:
            self._socket.send_multipart((identity, frame))
        except zmq.ZMQError as error:
            raise LinkClosed(f"{identity.decode(errors='replace')}: {error}") from None

    def close(self) -> None:
        """Close; frames under way are still sent for up to two seconds."""
        self._socket.close()
        self._context.term()


class WorkerSocket:
    """A worker's end: one peer, the hub."""

    def __init__(self, endpoint: str, identity: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, identity.encode())
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LIMITS.max_frame)
        self._socket.connect(endpoint)

    def receive(self, timeout_ms: int | None = None) -> bytes | None:
        """The next frame; None after `timeout_ms`. Blocks without spinning."""
        if timeout_ms is not None and not self._socket.poll(timeout_ms):
            return None
        return self._socket.recv()

    def send(self, frame: bytes) -> None:
        """Send a frame to the hub."""
        self._socket.send(frame)

    def close(self) -> None:
        """Close; frames under way are still sent for up to two seconds."""
        self._socket.close()
        self._context.term()
