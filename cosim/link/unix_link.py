"""Frames over ZMTP on plain Unix sockets of the main thread: the fast path on one host.

The wire is libzmq's (`cosim.link.zmtp`): a libzmq DEALER may connect to `FastHubSocket`, and `FastWorkerSocket` to a libzmq
ROUTER. There is no I/O thread: a receive is one system call, a send another. The interface is that of `cosim.link.zmq_link`.
What workers pass to each other, past the hub, are bare datagrams.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from contextlib import suppress

from cosim.core.codec import LIMITS
from cosim.link.base import LINGER_MS, LinkClosed, check_ipc, close_ways
from cosim.link.zmtp import GREETING, Connection, ZmtpError, header, ready

_CHUNK = 1 << 16
_EVENTS = 256
"""Connections looked at in one wait."""
# Plain ints: to join two members of an enum takes a microsecond.
_NOW = int(socket.MSG_DONTWAIT)
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_IN, _OUT, _GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
_CONNECT_TIMEOUT_S = 60.0
PEERS_MAX = 512
"""Other workers that one of them has sockets to, half the usual limit of open files; those beyond it reaches by way of the hub."""


class _Peer:
    """One accepted connection."""

    __slots__ = ("codec", "fd", "name", "out", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.fd = connection.fileno()
        self.codec = Connection()
        self.out: deque[memoryview] = deque()
        self.name = b""


class FastHubSocket:
    """The hub's end: listens on ``ipc://PATH``; receives (identity, frame) from any worker, sends to one."""

    passes = True
    """Workers of this link can send to each other."""

    def __init__(self, endpoint: str) -> None:
        path = check_ipc(endpoint)
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(path)
        self._listener.listen(4096)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, _IN)
        self._peers: dict[int, _Peer] = {}
        self._by_name: dict[bytes, _Peer] = {}
        self._inbox: deque[tuple[bytes, bytes]] = deque()
        self._control = -1
        self._control_ready = False
        self.closed: list[bytes] = []
        self.twice: list[bytes] = []
        self.refused_peers: list[tuple[str, str]] = []  # the directory's mode keeps strangers out
        self.refused = 0

    def watch(self, fd: int) -> None:
        """Also wake `wait` when the file descriptor is readable."""
        self._control = fd
        self._epoll.register(fd, _IN)

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait for frames or the watched descriptor; True when the descriptor is readable."""
        if not self._inbox:
            self._poll(-1 if timeout_ms is None else timeout_ms / 1000)
        found, self._control_ready = self._control_ready, False
        return found

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next (identity, frame) that `wait` found; None when it must be called again."""
        return self._inbox.popleft() if self._inbox else None

    def joined(self, identity: bytes) -> bool:
        """Whether a worker is connected: frames of it may still be under way."""
        return identity in self._by_name

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send to one worker; raises LinkClosed when it is unknown or gone."""
        peer = self._by_name.get(identity)
        if peer is None:
            raise LinkClosed(f"{identity.decode(errors='replace')}: not connected")
        if peer.out:
            peer.out.extend((memoryview(header(len(frame))), memoryview(frame)))
            return
        data = header(len(frame)) + frame
        try:
            sent = peer.socket.send(data, _SEND)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._drop(peer)
            raise LinkClosed(f"{identity.decode(errors='replace')}: {error.strerror}") from None
        if sent < len(data):
            peer.out.append(memoryview(data)[sent:])
            self._epoll.modify(peer.fd, _IN | _OUT)

    def close(self) -> None:
        """Send what is under way for up to two seconds, then close."""
        deadline = time.monotonic() + LINGER_MS / 1000
        while any(peer.out for peer in self._peers.values()) and time.monotonic() < deadline:
            self._poll(0.05)
        for peer in list(self._peers.values()):
            self._drop(peer)
        self._epoll.close()
        self._listener.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _poll(self, timeout: float) -> None:
        peers, inbox = self._peers, self._inbox
        for fd, events in self._epoll.poll(timeout, _EVENTS):
            peer = peers.get(fd)
            if peer is not None:
                if events == _IN and peer.codec.whole:
                    # One message in one piece: the common case of an answer to a grant.
                    try:
                        data = peer.socket.recv(_CHUNK, _NOW)
                    except BlockingIOError:
                        continue
                    except OSError:
                        data = b""
                    if len(data) > 2 and data[0] == 0 and data[1] == len(data) - 2:
                        inbox.append((peer.name, data[2:]))
                    else:
                        self._feed(peer, data)
                    continue
                if events & _OUT:
                    self._flush(peer)
                if events & (_IN | _GONE):
                    self._read(peer)
            elif fd == self._control:
                self._control_ready = True
            else:
                self._accept()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(True)  # sends and receives name MSG_DONTWAIT themselves
            peer = _Peer(connection)
            self._peers[peer.fd] = peer
            peer.out.append(memoryview(GREETING + ready("ROUTER", b"")))
            self._epoll.register(peer.fd, _IN | _OUT)

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(_CHUNK, _NOW)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._feed(peer, data)

    def _feed(self, peer: _Peer, data: bytes) -> None:
        if not data:
            self._drop(peer)
            return
        try:
            messages = peer.codec.feed(data)
        except ZmtpError:
            self.refused += 1
            self._drop(peer)
            return
        if not peer.name and peer.codec.ready and not self._admit(peer):
            return
        if peer.codec.reply:
            peer.out.append(memoryview(peer.codec.reply))
            peer.codec.reply = b""
            self._epoll.modify(peer.fd, _IN | _OUT)
        name, inbox = peer.name, self._inbox
        for message in messages:
            inbox.append((name, message))

    def _admit(self, peer: _Peer) -> bool:
        """The handshake is done: the name must be new."""
        name = peer.codec.identity
        if not name or name in self._by_name or peer.codec.socket_type != b"DEALER":
            self.refused += 1
            if name in self._by_name:
                self.twice.append(name)
            self._drop(peer)
            return False
        peer.name = name
        self._by_name[name] = peer
        return True

    def _flush(self, peer: _Peer) -> None:
        while peer.out:
            try:
                sent = peer.socket.send(peer.out[0], _SEND)
            except BlockingIOError:
                return
            except OSError:
                self._drop(peer)
                return
            if sent < len(peer.out[0]):
                peer.out[0] = peer.out[0][sent:]
            else:
                peer.out.popleft()
        self._epoll.modify(peer.fd, _IN)

    def _drop(self, peer: _Peer) -> None:
        if self._peers.pop(peer.fd, None) is None:
            return
        self._epoll.unregister(peer.fd)
        peer.socket.close()
        peer.out.clear()
        if peer.name and self._by_name.get(peer.name) is peer:
            del self._by_name[peer.name]
            self.closed.append(peer.name)


class FastWorkerSocket:
    """A worker's end: one blocking connection to the hub.

    Frames sent before the handshake is done are kept until then: libzmq loses what comes in one piece with it.

    Args:
        endpoint: ``ipc://PATH`` of the hub.
        identity: this worker's name.
        peers: whether other workers may send to it (`pass_on`): it has a datagram socket at ``PATH.IDENTITY`` for that.
    """

    def __init__(self, endpoint: str, identity: str, *, peers: bool = False) -> None:
        self._path = endpoint.removeprefix("ipc://")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connect(self._path)
        self._peers: dict[str, socket.socket | None] = {}
        self._identity = identity.encode()
        self._socket.sendall(GREETING)
        self._codec = Connection()
        self._said_ready = False
        self._early: list[bytes] | None = []
        self._inbox: deque[bytes] = deque()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._hub = self._socket.fileno()
        self._own = self._open_own(f"{self._path}.{identity}") if peers else None

    def _open_own(self, path: str) -> socket.socket | None:
        """Where other workers send to; None where a path of that length can't be bound."""
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            own.bind(path)
        except OSError:
            own.close()
            return None
        self._poll.register(own, select.POLLIN)
        return own

    def _connect(self, path: str) -> None:
        deadline = time.monotonic() + _CONNECT_TIMEOUT_S
        while True:
            try:
                self._socket.connect(path)
                return
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)  # the hub has not bound yet

    def receive(self, timeout_ms: int | None = None) -> bytes | None:
        """The next frame; None after `timeout_ms`; LinkClosed when the hub is gone. Blocks without spinning."""
        while not self._inbox:
            ready = self._poll.poll(timeout_ms)
            if not ready:
                return None
            for fd, _events in ready:
                if fd == self._hub:
                    if (frame := self._read()) is not None:
                        self._inbox.append(frame)
                elif self._own is not None:
                    with suppress(BlockingIOError):
                        self._inbox.append(self._own.recv(_CHUNK))
        return self._inbox.popleft()

    def _read(self) -> bytes | None:
        """Read from the hub: one frame in one piece, the usual case, is returned, others go into the inbox."""
        try:
            data = self._socket.recv(_CHUNK)
        except OSError as error:
            raise LinkClosed(f"the hub is gone: {error.strerror}") from None
        if not data:
            raise LinkClosed("the hub has closed the connection")
        if self._codec.whole and len(data) > 2 and data[0] == 0 and data[1] == len(data) - 2:
            return data[2:]
        try:
            self._inbox.extend(self._codec.feed(data))
        except ZmtpError as error:
            raise LinkClosed(f"the hub does not speak ZMTP: {error}") from None
        if self._early is not None or self._codec.reply:
            self._advance()
        return None

    def pass_on(self, identity: str, frame: bytes) -> bool:
        """Send a frame to another worker of this link; False when that can't be done now, or ever."""
        peer = self._peers.get(identity)
        if peer is None and (identity in self._peers or (peer := self._connect_peer(identity)) is None):
            return False
        try:
            peer.send(frame, _SEND)
        except OSError:
            return False
        return True

    def _connect_peer(self, identity: str) -> socket.socket | None:
        peer: socket.socket | None = None
        try:
            if self._own is not None and len(self._peers) < PEERS_MAX:
                peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                peer.connect(f"{self._path}.{identity}")
        except OSError:
            if peer is not None:
                peer.close()
            peer = None
        self._peers[identity] = peer
        return peer

    def _advance(self) -> None:
        """Go on with the handshake, then send what waited for it; answer a PING."""
        if self._codec.greeted and not self._said_ready:
            self._said_ready = True
            self._write(ready("DEALER", self._identity))
        if self._codec.ready and self._early is not None:
            early, self._early = self._early, None
            for frame in early:
                self.send(frame)
        if self._codec.reply:
            reply, self._codec.reply = self._codec.reply, b""
            self._write(reply)

    def send(self, frame: bytes) -> None:
        """Send a frame to the hub; LinkClosed when it is gone."""
        if len(frame) > LIMITS.max_frame:
            raise ValueError(f"frame must have at most {LIMITS.max_frame} bytes, not {len(frame)}")
        if self._early is not None:
            self._early.append(frame)
            return
        self._write(header(len(frame)) + frame)

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise LinkClosed(f"the hub is gone: {error.strerror}") from None

    def fileno(self) -> int:
        """A descriptor that is readable when `receive` may find something."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        close_ways(self._peers.values(), self._own, f"{self._path}.{self._identity.decode()}")
