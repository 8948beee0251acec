"""What libzmq's monitor tells of a socket's connections, and who they are: for the hub's log and a worker's clear end.

libzmq names the local end of an accepted connection only, and has often closed it before this thread hears of it. So the hub
makes the listening socket itself and puts a *gate* on it: a packet filter (socket(7), SO_ATTACH_FILTER), which accepted
connections inherit and which lets no data, FIN or RST through. `Monitor` asks a new connection for its peer's address and opens
the gate by removing the filter. What came meanwhile is sent again by the peer's TCP, at the cost of 0.2 s once per
connection.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import NamedTuple

import zmq

UNKNOWN = "unknown (it was gone when it could be asked)"
"""Address of a peer whose connection ended in front of the gate."""

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h
_GATE = (
    # linux/filter.h; the packet begins at the TCP header (RFC 9293, 3.1)
    (0x30, 0, 0, 13),  # A = flags
    (0x45, 6, 0, 0x05),  # FIN or RST: drop
    (0x30, 0, 0, 12),  # A = data offset, in the upper four bits
    (0x74, 0, 0, 4),
    (0x64, 0, 0, 2),
    (0x07, 0, 0, 0),  # X = bytes of the header
    (0x80, 0, 0, 0),  # A = bytes of the segment
    (0x1D, 1, 0, 0),  # equal: no data
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFF),  # let through
)

_EVENT = struct.Struct("=HI")
_FAILED = {
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
}
_PROTOCOL = {
    0x10000000: "its handshake is broken, or a recorded one",
    0x11000001: "its CURVE handshake does not fit the hub's key",
    0x11000002: "it offers another security mechanism than CURVE",
}
_LISTENER_EVENTS = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED
_CONNECTION_EVENTS = zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.HANDSHAKE_FAILED_AUTH
for _event in _FAILED:
    _LISTENER_EVENTS |= _event
    _CONNECTION_EVENTS |= _event


class Ended(NamedTuple):
    """A connection's end: file descriptor, the peer's ``address:port``, and why its handshake failed ("" if libzmq did not say, as
    when ZAP refused its key)."""

    fd: int
    address: str
    why: str


def listening_socket(host: str, port: int, backlog: int) -> socket.socket:
    """A TCP socket that listens at exactly this address, behind a gate; port 0: any that is free.

    Raises:
        OSError: the address is not one of this machine's, or is taken.
    """
    family, _kind, _protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _GATE))
        made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_GATE), ctypes.addressof(program)))
        made.bind(address)
        made.listen(backlog)
    except BaseException:
        made.close()
        raise
    return made


def address_text(address: tuple[str | int, ...]) -> str:
    """``address:port`` of a socket's name."""
    host = str(address[0])
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def _next_event(monitor: zmq.Socket[bytes]) -> tuple[int, int]:
    """Number and value of the next event (zmq_socket_monitor(3)); zmq.Again when there is none. pyzmq's own function would load
    asyncio."""
    event, _endpoint = monitor.recv_multipart(zmq.NOBLOCK)
    kind, value = _EVENT.unpack(event)
    return kind, value


class Monitor:
    """The connections of a listening ROUTER; `take` goes on with what libzmq has told."""

    def __init__(self, watched: zmq.Socket[bytes]) -> None:
        self._watched = watched
        self.socket = watched.get_monitor_socket(_LISTENER_EVENTS)
        self.addresses: dict[int, str] = {}
        self._failed: tuple[int, int] | None = None

    def take(self) -> list[Ended]:
        """Open the gate of new connections; returns those that have ended since the last call."""
        ended: list[Ended] = []
        while True:
            try:
                kind, value = _next_event(self.socket)
            except zmq.Again:
                return ended
            if kind == zmq.Event.ACCEPTED:
                self.addresses[value] = _admit(value)
            elif kind in _FAILED:
                self._failed = (kind, value)  # the I/O thread tells of the end next
            elif kind == zmq.Event.DISCONNECTED:
                failed, self._failed = self._failed, None
                ended.append(Ended(value, self.addresses.pop(value, UNKNOWN), _why(failed)))

    def hang_up(self, fd: int) -> None:
        """End a connection; no effect when it is another one's descriptor by now."""
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                if address_text(connection.getpeername()) == self.addresses.get(fd):
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself

    def close(self) -> None:
        """Stop listening to libzmq."""
        self._watched.disable_monitor()
        self.socket.close(linger=0)


def _admit(fd: int) -> str:
    """The peer's address; its data may come from now on."""
    try:
        with socket.socket(fileno=os.dup(fd)) as connection:
            address = address_text(connection.getpeername())
            connection.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            return address
    except OSError:
        return UNKNOWN


def _why(failed: tuple[int, int] | None) -> str:
    if failed is None:
        return ""
    kind, value = failed
    if kind == zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
        return _PROTOCOL.get(value, f"it does not speak ZMTP 3 with CURVE (libzmq protocol error {value:#x})")
    if value == errno.EAGAIN:
        return "it did not finish the handshake in time"
    return f"it ended the connection before the handshake was done ({os.strerror(value)})"


class Connection:
    """What became of the one connection of a DEALER: `fault` is why it can't go on ("" while it can)."""

    TRIES = 5
    """Failed handshakes without a word from the hub before this is taken to be no accident."""

    def __init__(self, watched: zmq.Socket[bytes]) -> None:
        self._watched = watched
        self.socket = watched.get_monitor_socket(_CONNECTION_EVENTS)
        self.joined = False
        self.fault = ""
        self._tries = 0

    def take(self) -> None:
        """Go on with what libzmq has told."""
        while True:
            try:
                kind, _value = _next_event(self.socket)
            except zmq.Again:
                return
            self._take(kind)

    def _take(self, kind: int) -> None:
        if kind == zmq.Event.HANDSHAKE_SUCCEEDED:
            self.joined = True
        elif kind == zmq.Event.HANDSHAKE_FAILED_AUTH:
            self.fault = "the hub refuses the key of this credential: it is of another run, or in use by somebody else"
        elif kind == zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
            self.fault = "the hub does not speak CURVE as this credential needs it"
        elif kind == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL:
            self._tries += 1
            if self._tries >= self.TRIES:
                self.fault = (
                    f"the handshake failed {self._tries} times: the server_key of this credential must be that of the hub at "
                    "this address"
                )
        elif kind == zmq.Event.DISCONNECTED and self.joined:
            self.fault = "the hub has closed the connection"

    def close(self) -> None:
        """Stop listening to libzmq."""
        self._watched.disable_monitor()
        self.socket.close(linger=0)
