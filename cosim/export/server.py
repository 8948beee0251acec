"""The Unix socket of an exported function: one client at a time, a second one is refused, the socket is removed at the end."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Any

from cosim.api import Node, fmt
from cosim.errors import UsageError
from cosim.export import vfio_user as protocol
from cosim.export.session import Session
from cosim.export.vfio_user import Receiver, StreamError

LONGEST_PATH = 107
"""Bytes of a Unix socket's path (unix(7): 108 with the zero byte)."""
MAX_UNSENT = 1 << 22
"""Bytes that a client has not taken yet, above which no more of its requests are read."""
MAX_WAITING = 8
"""Connections that have not said anything yet; the oldest makes room."""
CLIENT_GONE = "client gone"


class _Connection:
    """A socket with bytes to go out and messages to come in."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.receiver = Receiver()
        self.out = bytearray()

    def receive(self) -> tuple[protocol.Message | None, bool]:
        """(the next message if it is whole, whether the peer is still there); raises StreamError."""
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, self.receiver.wanted, 253)
        except BlockingIOError:
            return None, True
        except OSError:
            return None, False
        message = self.receiver.feed(data, fds)
        return message, bool(data)

    def flush(self) -> bool:
        """Send what the socket takes; whether the peer is still there."""
        while self.out:
            try:
                sent = self.sock.send(self.out)
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self.out[:sent]
        return True

    def close(self) -> None:
        """Close the socket, and descriptors that nobody took."""
        for fd in self.receiver.take_fds():
            os.close(fd)
        self.sock.close()


class Server:
    """Serves the model `cls`, called `name`, at `path`. `note(text)` takes what a person should know.

    Raises:
        UsageError: no socket can be made at that path, or the model is no PCI endpoint with MSI-X.
    """

    def __init__(self, name: str, cls: type[Node], path: str, note: Callable[[str], None]) -> None:
        Session(name, cls, lambda data: None, note).close()  # whether it can be exported at all
        self._name, self._cls, self._note = name, cls, note
        self.path = path
        self._stop_read, self._stop_write = os.pipe()
        self._listener: socket.socket | None = None
        self._client: _Connection | None = None
        self._session: Session | None = None
        self._waiting: list[_Connection] = []
        self._served = False
        self._selector = DefaultSelector()
        try:
            self._listener = _listen(path)
            self._identity = _identity(path)
            self._selector.register(self._stop_read, EVENT_READ)
            self._selector.register(self._listener, EVENT_READ)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """End `serve`; may be called from a signal handler or another thread."""
        os.write(self._stop_write, b"x")

    def serve(self, *, once: bool = False) -> bool:
        """Serve until `stop`, or with `once` until the first client has gone; whether it was `stop`. Raises NodeError."""
        while True:
            busy = self._session is not None and self._session.function.busy
            for key, events in self._selector.select(0 if busy else None):
                if key.fd == self._stop_read:
                    return True
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data is self._client:
                    self._serve_client(events)
                elif key.data in self._waiting:  # it may have made room for one that came just now
                    self._first_message(key.data)
            if self._session is not None:
                self._session.function.advance()
                self._flush()
            elif once and self._served:
                return False

    def close(self) -> None:
        """Let the client go, close and remove the socket."""
        self._drop_client("")
        for connection in self._waiting:
            connection.close()
        self._waiting.clear()
        self._selector.close()
        if self._listener is not None:
            self._listener.close()
            if _identity(self.path) == self._identity:
                os.unlink(self.path)
            self._listener = None
        for fd in (self._stop_read, self._stop_write):
            if fd >= 0:
                os.close(fd)
        self._stop_read = self._stop_write = -1

    # -- connections ---------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it has gone already
        connection = _Connection(sock)
        if len(self._waiting) >= MAX_WAITING:
            self._forget(self._waiting[0])
        self._waiting.append(connection)
        self._selector.register(sock, EVENT_READ, connection)

    def _first_message(self, connection: _Connection) -> None:
        """Whoever speaks first is the client; while there is one, others are answered with EBUSY."""
        try:
            message, alive = connection.receive()
        except StreamError as why:
            self._note(f"connection closed: {why}")
            self._forget(connection)
            return
        if message is None:
            if not alive:
                self._forget(connection)
        elif self._client is None:
            self._waiting.remove(connection)
            self._client = connection
            self._session = Session(self._name, self._cls, connection.out.extend, self._note)
            self._handle(message)
        else:
            connection.out += protocol.error(message, errno.EBUSY)
            connection.flush()
            self._note("refused a second client (EBUSY)")
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        self._waiting.remove(connection)
        self._selector.unregister(connection.sock)
        connection.close()

    def _serve_client(self, events: int) -> None:
        assert self._client is not None
        if not events & EVENT_READ:
            return
        try:
            message, alive = self._client.receive()
        except StreamError as why:
            self._drop_client(f"connection closed: {why}")
            return
        if message is not None:
            self._handle(message)
        elif not alive:
            self._drop_client(CLIENT_GONE)

    def _handle(self, message: protocol.Message) -> None:
        assert self._client is not None and self._session is not None
        before = self._session.negotiated
        try:
            self._session.handle(message, self._client.receiver.take_fds())
        except StreamError as why:
            self._client.flush()
            self._drop_client(f"connection closed: {why}")
            return
        if not before and self._session.negotiated:
            self._note("client connected")

    def _flush(self) -> None:
        """Send, and wait for what the client's state asks for."""
        connection = self._client
        if connection is None:
            return
        if not connection.flush():
            self._drop_client(CLIENT_GONE)
            return
        events = (EVENT_READ if len(connection.out) <= MAX_UNSENT else 0) | (EVENT_WRITE if connection.out else 0)
        if self._selector.get_key(connection.sock).events != events:
            self._selector.modify(connection.sock, events, connection)

    def _drop_client(self, why: str) -> None:
        connection, session = self._client, self._session
        self._client = self._session = None
        if connection is None or session is None:
            return
        session.close()
        self._selector.unregister(connection.sock)
        connection.close()
        self._served = self._served or session.negotiated
        if session.negotiated:
            count = session.function.counters()
            done = f"{count['transactions']} transactions, {count['msis']} MSIs, {fmt(session.function.now)} simulated"
            self._note(f"{why or 'client let go'}; {done}")
        elif why:
            self._note(why)


# -- the path ----------------------------------------------------------------------------------------------------------


def _identity(path: str) -> tuple[int, int] | None:
    """Which file the path names."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refusal(what: str, next_step: str) -> UsageError:
    return UsageError(what, code="socket", where="--vfio-user", next_step=next_step)


def _listen(path: str) -> socket.socket:
    """A listening socket for this user only; one that nobody listens at any more is replaced."""
    length = len(os.fsencode(path))
    if not 0 < length <= LONGEST_PATH:
        raise _refusal(
            f"the socket's path must have 1 to {LONGEST_PATH} bytes, not {length}", "choose a shorter directory"
        )
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(4)
    except OSError as error:
        sock.close()
        raise _cannot(path, error) from None
    finally:
        os.umask(mask)
    return sock


def _clear(path: str) -> None:
    """Remove a socket that an earlier server left; raises UsageError when the path is somebody's."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot(path, error) from None
    if not stat.S_ISSOCK(mode):
        raise _refusal(f"{path} must be free for a socket, and is a file of another kind", "choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass  # nobody listens
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise _cannot(path, error) from None
            raise _in_use(path) from None
        else:
            raise _in_use(path)
    try:
        os.unlink(path)
    except OSError as error:
        raise _cannot(path, error) from None


def _in_use(path: str) -> UsageError:
    return _refusal(
        f"{path} must be free for a socket, and a server listens there", "end that server, or choose another path"
    )


def _cannot(path: str, error: OSError) -> UsageError:
    why = error.strerror or str(error)
    return _refusal(f"no socket can be made at {path}: {why}", "the directory must exist, and be yours to write in")


def qemu_device(path: str, **more: Any) -> str:
    """The text of QEMU's -device for the socket."""
    import json

    return json.dumps(
        {"driver": "vfio-user-pci", "socket": {"path": path, "type": "unix"}, **more}, separators=(",", ":")
    )
