"""Ways between the workers of a libzmq link on one host, past the hub: a PULL of each worker, a PUSH for each it sends to."""

from __future__ import annotations

import os

import zmq

from cosim.core.codec import LIMITS
from cosim.link.base import LINGER_MS, close_ways

PEERS_MAX = 64
"""Other workers that one of them has connections to; those beyond it reaches by way of the hub."""
_NOW = int(zmq.NOBLOCK)


class Peers:
    """The ways from and to one worker.

    Args:
        context: of the worker.
        endpoint: ``ipc://PATH`` of the hub; others send to ``ipc://PATH.IDENTITY``.
        identity: this worker's name.

    Attributes: `own` is the PULL; None where a path of that length can't be bound.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, identity: str) -> None:
        self._context = context
        self._path = endpoint.removeprefix("ipc://")
        self._identity = identity
        self._peers: dict[str, zmq.Socket[bytes] | None] = {}
        self.own: zmq.Socket[bytes] | None = context.socket(zmq.PULL)
        self.own.setsockopt(zmq.MAXMSGSIZE, LIMITS.max_frame)
        try:
            self.own.bind(f"{endpoint}.{identity}")
        except zmq.ZMQError:
            self.own.close()
            self.own = None

    def pass_on(self, identity: str, frame: bytes) -> bool:
        """Send a frame to another worker; False when that can't be done now (the first time the connection is only begun), or
        ever."""
        peer = self._peers.get(identity)
        if peer is None and (identity in self._peers or (peer := self._connect(identity)) is None):
            return False
        try:
            peer.send(frame, _NOW)
        except zmq.Again:
            return False
        return True

    def _connect(self, identity: str) -> zmq.Socket[bytes] | None:
        """A PUSH that takes a frame only while the other is connected, and that does not try again; None where nobody listens."""
        peer = None
        path = f"{self._path}.{identity}"
        if self.own is not None and len(self._peers) < PEERS_MAX and os.path.exists(path):
            peer = self._context.socket(zmq.PUSH)
            for option, value in ((zmq.IMMEDIATE, 1), (zmq.RECONNECT_IVL, -1), (zmq.LINGER, LINGER_MS)):
                peer.setsockopt(option, value)
            peer.connect(f"ipc://{path}")
        self._peers[identity] = peer
        return peer

    def close(self) -> None:
        """Close; frames under way are still sent for up to two seconds."""
        close_ways(self._peers.values(), self.own, f"{self._path}.{self._identity}")
