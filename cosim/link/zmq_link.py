"""Frames over ZeroMQ: ROUTER at the hub, DEALER at a worker or external node; ipc on one host, CURVE over tcp.

Sockets block and never spin; high-water marks are off, because one outstanding grant per worker bounds what is in flight.
The hub's socket refuses unknown identities (ROUTER_MANDATORY), so a frame to a peer that went away is an error, not silence.

A ``tcp://`` endpoint is always encrypted and authenticated (CURVE, rfc.zeromq.org/spec/26); there is no plaintext form. Who a
peer is follows from its key alone: ZAP (rfc.zeromq.org/spec/27) answers a listed key with its name as User-Id, libzmq puts that
on each message, and the name is what `CurveHubSocket` gives and takes as identity. The routing id that a peer may claim is used
for nothing. docs/security.md says what this protects against, and what not.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import zmq
from zmq.backend import zmq_poll
from zmq.utils import z85

from cosim.core.codec import LIMITS
from cosim.link.base import LINGER_MS, LinkClosed, check_ipc
from cosim.link.keys import Credential, RunKeys
from cosim.link.monitor import Connection, Ended, Monitor, listening_socket
from cosim.link.zmq_peers import Peers

HANDSHAKE_MS = 5000
"""Time from the connection to the end of the handshake; who says nothing is dropped then."""
BACKLOG = 1024
_NOW, _MORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)
REFUSED_MAX = 1000
"""Refusals kept until somebody takes them; of more, the last one says that there were more."""
JOIN_TIMEOUT_S = 60.0
HOLD_MS, HOLD_MAX, HOLD_AFTER = 1, 16, 64
"""How long, and how many, frames for the hub are held back that may be (`send_soon`), and after how many of them in a row: when
the row ends the hub waits for the last of them."""
SEND_TIMEOUT_MS = 10_000
RECONNECT_MS, RECONNECT_MAX_MS = 100, 5000
_CURVE_OVERHEAD = 64  # a frame in its box: command name, nonce, flags, authenticator
_ZAP_DOMAIN = b"cosim"


class HubSocket:
    """The hub's end: receives (identity, frame) from any worker, sends to one.

    Args:
        endpoint: ``ipc://PATH``, or ``tcp://ADDRESS:PORT``; port 0 is any that is free. `endpoint` has the port that it became.
        keys: of the run; a tcp endpoint must have them.

    Attributes: `closed` (identities whose connections ended; tcp only), `twice` (as for the other links, empty here),
    `refused_peers` ((address, reason) of each peer that was turned away, until somebody clears the list; tcp only).

    Raises:
        ValueError: an endpoint that is not one of these, or tcp without keys.
        OSError, zmq.ZMQError: it can't be bound.
    """

    passes = True
    """Workers of this link can send to each other."""

    def __new__(cls, endpoint: str, keys: RunKeys | None = None) -> HubSocket:
        """A tcp endpoint is served by `CurveHubSocket`."""
        return object.__new__(CurveHubSocket if endpoint.startswith("tcp://") else HubSocket)

    def __init__(self, endpoint: str, keys: RunKeys | None = None) -> None:
        self._check(endpoint, keys)
        self.endpoint = endpoint
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LIMITS.max_frame)
        self._socket.setsockopt(zmq.BACKLOG, 4096)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._control: int | None = None
        self.closed: list[bytes] = []  # libzmq does not tell
        self.twice: list[bytes] = []  # nor this: a second DEALER of one name is dropped silently
        self.refused_peers: list[tuple[str, str]] = []
        self._bind(keys)

    @staticmethod
    def _check(endpoint: str, keys: RunKeys | None) -> None:
        if endpoint.startswith("ipc://"):
            check_ipc(endpoint)

    def _bind(self, keys: RunKeys | None) -> None:
        self._socket.bind(self.endpoint)

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
        # Part by part: a third of what recv_multipart costs, which asks for each if there are more.
        receive = self._socket.recv
        try:
            identity = receive(_NOW)
            last = frame = receive(_NOW, False)
            while last.more:
                last = receive(_NOW, False)
        except zmq.Again:
            return None
        return identity, frame.bytes if last is frame else b""

    def joined(self, identity: bytes) -> bool:
        """Whether frames of a worker may still be under way: libzmq does not tell, so they may."""
        return True

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send to one worker; raises LinkClosed when it is unknown or gone."""
        try:
            self._socket.send(identity, _MORE)
            self._socket.send(frame)
        except zmq.ZMQError as error:
            raise LinkClosed(f"{identity.decode(errors='replace')}: {error}") from None

    def close(self) -> None:
        """Close; frames under way are still sent for up to two seconds."""
        self._socket.close()
        self._context.term()


class CurveHubSocket(HubSocket):
    """The hub's end over tcp: the same interface; identities are the names of the keys.

    The ZAP questions of libzmq are answered by the thread that calls `wait`, so no handshake ends outside of it.
    """

    passes = False

    @staticmethod
    def _check(endpoint: str, keys: RunKeys | None) -> None:
        split_tcp(endpoint)
        if keys is None:
            raise ValueError(f"{endpoint} must have the run's keys: a tcp link is never without CURVE")

    def _bind(self, keys: RunKeys | None) -> None:
        assert keys is not None, "checked"
        host, port = split_tcp(self.endpoint)
        self._allowed = {z85.decode(key): name.encode() for key, name in keys.allowed.items()}
        self._routes: dict[bytes, bytes] = {}  # routing id by name
        self._connections: dict[int, bytes] = {}  # name by descriptor
        self._read: deque[tuple[bytes, bytes]] = deque()  # frames read before somebody asked for them
        self._denied: dict[str, list[str]] = {}  # reasons by address, until the connection's end is told
        self._zap = self._context.socket(zmq.ROUTER)
        self._zap.bind("inproc://zeromq.zap.01")
        for option, value in (
            (zmq.CURVE_SERVER, 1),
            (zmq.CURVE_SECRETKEY, keys.secret),
            (zmq.ZAP_DOMAIN, _ZAP_DOMAIN),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
            (zmq.MAXMSGSIZE, LIMITS.max_frame + _CURVE_OVERHEAD),
        ):
            self._socket.setsockopt(option, value)
        self._monitor = Monitor(self._socket)
        try:
            listener = listening_socket(host, port, BACKLOG)
        except OSError as error:
            self.close()
            raise OSError(error.errno, f"{self.endpoint} can't be bound: {error.strerror}") from None
        shown = f"[{host}]" if ":" in host else host
        self.endpoint = f"tcp://{shown}:{listener.getsockname()[1]}"
        self._socket.setsockopt(zmq.IPV6, int(":" in host))
        self._socket.setsockopt(zmq.USE_FD, listener.fileno())
        self._socket.bind(self.endpoint)
        listener.detach()  # libzmq closes it
        for extra in (self._zap, self._monitor.socket):
            self._poller.register(extra, zmq.POLLIN)

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait for frames or the watched descriptor, and see to who comes and goes; True when the descriptor is readable."""
        events = dict(self._poller.poll(0 if self._read else timeout_ms))
        if self._zap in events:
            self._answer_zap()
        if self._monitor.socket in events:
            self._watch_connections()
        return self._control is not None and self._control in events

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next (name, frame) of an admitted peer, or None when there is none now."""
        if not self._read and (item := self._next()) is not None:
            self._read.append(item)  # behind what was read on the way to it
        return self._read.popleft() if self._read else None

    def _next(self) -> tuple[bytes, bytes] | None:
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            route, last = parts[0].bytes, parts[-1]
            name = str(last.get("User-Id")).encode()
            if self._routes.get(name) == route or self._enter(name, route, int(last.get(zmq.SRCFD))):
                return name, last.bytes if len(parts) == 2 else b""

    def joined(self, identity: bytes) -> bool:
        """Whether a worker is connected: frames of it may still be under way."""
        self._watch_connections()
        return identity in self._routes

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send to one worker; raises LinkClosed when it is unknown or gone."""
        route = self._routes.get(identity)
        if route is None:
            raise LinkClosed(f"{identity.decode(errors='replace')}: not connected")
        try:
            self._socket.send(route, _MORE)
            self._socket.send(frame)
        except zmq.ZMQError as error:
            raise LinkClosed(f"{identity.decode(errors='replace')}: {error}") from None

    def close(self) -> None:
        """Close; frames under way are still sent for up to two seconds."""
        self._monitor.close()
        self._zap.close(linger=0)
        super().close()

    # -- who comes and goes --------------------------------------------------------------------------------------------

    def _answer_zap(self) -> None:
        while True:
            try:
                request = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            sender, _empty, version, number, _domain, address, _identity, mechanism, *credentials = request
            name = self._allowed.get(credentials[0]) if mechanism == b"CURVE" and len(credentials) == 1 else None
            if name is None:
                reason = "its key is not one of this run's"
            elif name in self._routes:
                reason = f"it came with the key of {name.decode()}, which is connected already"
            else:
                self._zap.send_multipart((sender, b"", version, number, b"200", b"OK", name, b""))
                continue
            self._denied.setdefault(address.decode(errors="replace"), []).append(reason)
            self._zap.send_multipart((sender, b"", version, number, b"400", b"refused", b"", b""))

    def _enter(self, name: bytes, route: bytes, fd: int) -> bool:
        """The first frame of a connection. False: its key's name has another one, or it claims a name that is not its own."""
        known = self._routes.get(name)
        # A routing id that libzmq made begins with a zero byte; one that is longer or shorter was claimed.
        claimed = route if route[:1] != b"\0" or len(route) != 5 else name
        if known is None and claimed == name:
            self._routes[name] = route
            self._connections[fd] = name
            return True
        if claimed != name:
            reason = (
                f"it came with the key of {name.decode()} under the name {claimed.decode(errors='backslashreplace')}"
            )
        else:
            reason = f"it came with the key of {name.decode()}, which is connected already"
        if self._connections.get(fd) != b"":
            self._watch_connections()
            self._refuse(self._monitor.addresses.get(fd, "unknown"), reason)
            self._connections[fd] = b""  # refused already
            self._monitor.hang_up(fd)
        return False

    def _watch_connections(self) -> None:
        ends = self._monitor.take()
        if any(end.fd not in self._connections for end in ends):
            while (item := self._next()) is not None:  # what it has said is there by now: it may have been somebody
                self._read.append(item)
        for end in ends:
            name = self._connections.pop(end.fd, None)
            if name is None:
                self._refuse(end.address, self._reason(end))
            elif name:
                del self._routes[name]
                self.closed.append(name)

    def _reason(self, end: Ended) -> str:
        """Why a peer without a name was turned away. libzmq does not say which connection a ZAP question was about: of several
        from one host that it ends at the same time without a reason, each is given one of the reasons."""
        host = end.address.rpartition(":")[0].strip("[]")
        reasons = self._denied.get(host, [])
        reason = end.why or (
            reasons.pop(0) if reasons else "it does not speak ZMTP 3 with CURVE, or its first frame is too long"
        )
        others = (a for fd, a in self._monitor.addresses.items() if fd not in self._connections)
        if not any(address.rpartition(":")[0].strip("[]") == host for address in others):
            self._denied.pop(host, None)
        return reason

    def _refuse(self, address: str, reason: str) -> None:
        if len(self.refused_peers) < REFUSED_MAX:
            self.refused_peers.append((address, reason))
        else:
            self.refused_peers[-1] = (address, f"{reason}; and others before it, too many to keep")


class WorkerSocket:
    """A worker's end: one peer, the hub.

    Args:
        endpoint: ``ipc://PATH`` or ``tcp://ADDRESS:PORT`` of the hub.
        identity: this worker's name.
        credential: its key; a tcp endpoint must have it.
        peers: whether other workers of an ipc endpoint may send to it (`pass_on`): at ``ipc://PATH.IDENTITY``, where it binds a
            PULL. They have a PUSH for each that they send to.

    Raises:
        ValueError: tcp without a credential, or with one of another name.
        LinkClosed: from `receive` and `send` over tcp, when the hub refused the key, can't be reached or is gone.
    """

    def __init__(
        self, endpoint: str, identity: str, credential: Credential | None = None, *, peers: bool = False
    ) -> None:
        tcp = endpoint.startswith("tcp://")
        if tcp and credential is None:
            raise ValueError(f"{endpoint} must have a credential: a tcp link is never without CURVE (COSIM_CREDENTIAL)")
        if credential is not None and credential.name != identity:
            raise ValueError(f"the credential must be that of {identity}, not of {credential.name}")
        if tcp:
            split_tcp(endpoint)
        self._endpoint = endpoint
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LIMITS.max_frame)
        self._connection: Connection | None = None
        if tcp and credential is not None:
            self._guard(endpoint, credential)
        else:
            self._socket.setsockopt(zmq.IDENTITY, identity.encode())
        self._socket.connect(endpoint)
        self._peers = Peers(self._context, endpoint, identity) if peers and not tcp else None
        self._own = None if self._peers is None else self._peers.own
        self._held: list[bytes] = []  # for the hub, in order
        self._row = 0  # frames that could be held back, since the last one that could not
        self._both: list[tuple[Any, int]] = [(self._socket, int(zmq.POLLIN)), (self._own, int(zmq.POLLIN))]

    def _guard(self, endpoint: str, credential: Credential) -> None:
        host, _port = split_tcp(endpoint)
        for option, value in (
            (zmq.CURVE_SERVERKEY, credential.server_key.encode()),
            (zmq.CURVE_PUBLICKEY, credential.public_key.encode()),
            (zmq.CURVE_SECRETKEY, credential.secret_key.encode()),
            (zmq.MAXMSGSIZE, LIMITS.max_frame + _CURVE_OVERHEAD),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
            (zmq.SNDTIMEO, SEND_TIMEOUT_MS),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS),
            (zmq.IPV6, int(":" in host)),
            (zmq.TCP_KEEPALIVE, 1),  # the hub's machine may end without a word: 30 s
            (zmq.TCP_KEEPALIVE_IDLE, 10),
            (zmq.TCP_KEEPALIVE_INTVL, 5),
            (zmq.TCP_KEEPALIVE_CNT, 4),
            (zmq.TCP_MAXRT, 30_000),
        ):
            self._socket.setsockopt(option, value)
        self._connection = Connection(self._socket)
        self._deadline = time.monotonic() + JOIN_TIMEOUT_S
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._connection.socket, zmq.POLLIN)

    def receive(self, timeout_ms: int | None = None) -> bytes | None:
        """The next frame; None after `timeout_ms`. Blocks without spinning."""
        if self._own is not None:
            ready = self._wait(timeout_ms)  # the hub's end is the first of them
            return ready[0][0].recv() if ready else None
        if self._connection is not None:
            return self._receive(self._connection, timeout_ms)
        if timeout_ms is not None and not self._socket.poll(timeout_ms):
            return None
        return self._socket.recv()

    def _wait(self, timeout_ms: int | None) -> list[tuple[Any, int]]:
        """Which of both ends have something; what is held back goes out when nothing comes for a moment."""
        if self._held:
            if len(self._held) >= HOLD_MAX:
                self._flush()
            elif ready := zmq_poll(self._both, HOLD_MS):
                return ready
            else:
                self._flush()
                self._row = 0
        return zmq_poll(self._both, -1 if timeout_ms is None else timeout_ms)

    def _receive(self, connection: Connection, timeout_ms: int | None) -> bytes | None:
        until = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        while True:
            left = until if connection.joined else min(self._deadline, until or self._deadline)
            wait = None if left is None else max(0, int((left - time.monotonic()) * 1000))
            events = dict(self._poller.poll(wait))
            if self._socket in events:
                return self._socket.recv()
            connection.take()
            if connection.fault:
                raise LinkClosed(f"{self._endpoint}: {connection.fault}")
            now = time.monotonic()
            if not connection.joined and now >= self._deadline:
                raise LinkClosed(f"{self._endpoint}: no hub has answered within {JOIN_TIMEOUT_S:.0f} s")
            if until is not None and now >= until:
                return None

    def send_soon(self, frame: bytes) -> None:
        """Send a frame to the hub; after many in a row together with others: at the latest with the next that is sent, or when
        nothing comes for `HOLD_MS`. A hub that keeps books of what others do costs less when it is woken once for many."""
        self._row += 1
        if self._row < HOLD_AFTER or self._own is None:
            self._socket.send(frame)
        else:
            self._held.append(frame)

    def _flush(self) -> None:
        for frame in self._held:
            self._socket.send(frame)
        self._held.clear()

    def send(self, frame: bytes) -> None:
        """Send a frame to the hub."""
        if self._row:
            self._flush()
            self._row = 0
        try:
            self._socket.send(frame)
        except zmq.Again:  # over tcp only: libzmq has given the connection up
            if self._connection is not None:
                self._connection.take()
            why = self._connection.fault if self._connection is not None else ""
            raise LinkClosed(f"{self._endpoint}: {why or 'the hub takes no frames'}") from None

    def pass_on(self, identity: str, frame: bytes) -> bool:
        """Send a frame to another worker of this link; False when that can't be done now, or ever."""
        return self._peers is not None and self._peers.pass_on(identity, frame)

    def fileno(self) -> int:
        """A descriptor that becomes readable once when there is something: `receive` until there is nothing, then wait for it."""
        return int(self._socket.getsockopt(zmq.FD))

    def close(self) -> None:
        """Close; frames under way are still sent for up to two seconds."""
        if self._connection is not None:
            self._connection.close()
        self._flush()
        if self._peers is not None:
            self._peers.close()
        self._socket.close()
        self._context.term()


def split_tcp(endpoint: str) -> tuple[str, int]:
    """Address and port of ``tcp://ADDRESS:PORT``; an IPv6 address is in brackets.

    Raises:
        ValueError: another form; ``*`` is none, since nothing may bind beyond the address that somebody asked for.
    """
    host, colon, port = endpoint.removeprefix("tcp://").rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    plain = endpoint.startswith("tcp://") and colon and bare and not set(bare) & set("*/[]; ")
    if not plain or (":" in bare and bare == host) or not port.isdecimal() or int(port) > 65535:
        raise ValueError(
            f"endpoint must be tcp://ADDRESS:PORT with an address to bind or reach (not *) and a port up to 65535, not {endpoint}"
        )
    return bare, int(port)
