"""Who may speak over tcp: the key alone says who a peer is, and everybody else is refused with address and reason."""

from __future__ import annotations

import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from cosim.core.codec import LIMITS
from cosim.link.base import LinkClosed
from cosim.link.keys import Credential, RunKeys, parse_credential
from cosim.link.zmq_link import REFUSED_MAX, CurveHubSocket, HubSocket, WorkerSocket, split_tcp

NAMES = ["w0", "w1"]
WAIT_S = 20.0


class Rig:
    """A hub, its keys, and peers of any kind; everything is closed at the end."""

    def __init__(self) -> None:
        self.keys = RunKeys.generate(NAMES)
        made = HubSocket("tcp://127.0.0.1:0", self.keys)
        assert isinstance(made, CurveHubSocket)
        self.hub = made
        self.address = ("127.0.0.1", split_tcp(self.hub.endpoint)[1])
        self.context = zmq.Context()
        self.got: list[tuple[bytes, bytes]] = []
        self._open: list[Any] = []

    def credential(self, name: str) -> Credential:
        """Of a peer of this run."""
        return parse_credential(self.keys.credential(name), "test")

    def worker(self, name: str, credential: Credential | None = None) -> WorkerSocket:
        """A worker's end that has said its name."""
        made = WorkerSocket(self.hub.endpoint, name, credential or self.credential(name))
        self._open.append(made)
        made.send(name.encode())
        return made

    def dealer(self, credential: Credential | None, claims: bytes = b"") -> zmq.Socket[bytes]:
        """A libzmq client as anybody can make it, which has sent a frame."""
        made = self.context.socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.RECONNECT_IVL, -1)
        if credential is not None:
            made.setsockopt(zmq.CURVE_SERVERKEY, credential.server_key.encode())
            made.setsockopt(zmq.CURVE_PUBLICKEY, credential.public_key.encode())
            made.setsockopt(zmq.CURVE_SECRETKEY, credential.secret_key.encode())
        if claims:
            made.setsockopt(zmq.IDENTITY, claims)
        made.connect(self.hub.endpoint)
        made.send(b"evil")
        return made

    def raw(self) -> socket.socket:
        """A plain connection."""
        made = socket.create_connection(self.address)
        self._open.append(made)
        return made

    def serve(self, until: Callable[[], Any]) -> None:
        """Be the hub's loop until something holds."""
        deadline = time.monotonic() + WAIT_S
        while not until():
            assert time.monotonic() < deadline, (self.got, self.hub.refused_peers)
            self.hub.wait(20)
            while (item := self.hub.receive()) is not None:
                self.got.append(item)

    def refusal(self) -> tuple[str, str]:
        """The next refused peer."""
        self.serve(lambda: self.hub.refused_peers)
        return self.hub.refused_peers.pop(0)

    def close(self) -> None:
        """Close all."""
        for made in self._open:
            made.close()
        self.context.destroy(linger=0)
        self.hub.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A hub with two workers' keys, and w0 connected."""
    made = Rig()
    made.worker("w0")
    made.serve(lambda: made.got)
    yield made
    assert made.got[0] == (b"w0", b"w0")
    assert all(frame != b"evil" for _, frame in made.got), "a frame of a refused peer came through"
    made.hub.send(b"w0", b"unharmed")
    made.close()


def strange(credential: Credential) -> Credential:
    """The same hub and name with a key that nobody has listed."""
    public, secret = zmq.curve_keypair()
    return credential._replace(public_key=public.decode(), secret_key=secret.decode())


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (lambda rig: rig.dealer(None), "before the handshake was done|another security mechanism"),
        (lambda rig: rig.dealer(strange(rig.credential("w1"))), "its key is not one of this run's"),
        (lambda rig: rig.dealer(Rig.credential(OTHER, "w1")), "does not fit the hub's key"),
        (lambda rig: rig.dealer(rig.credential("w0")), "with the key of w0, which is connected already"),
        (lambda rig: rig.dealer(rig.credential("w0"), b"w1"), "with the key of w0, which is connected already"),
        (lambda rig: rig.dealer(rig.credential("w1"), b"w0"), "with the key of w1 under the name w0"),
        (lambda rig: rig.dealer(rig.credential("w1"), b"\\0abc"), "with the key of w1 under the name"),
    ],
    ids=[
        "plaintext",
        "unlisted key",
        "key of another run",
        "key in use",
        "key in use and a name",
        "another's name",
        "id",
    ],
)
def test_a_libzmq_client_is_refused(rig: Rig, who: Callable[[Rig], Any], reason: str) -> None:
    """Without the right key, or with somebody else's name, nothing comes through, and the refusal has address and reason."""
    client = who(rig)
    address, why = rig.refusal()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    assert re.search(reason, why), why
    assert [name for name, _ in rig.got] == [b"w0"]
    client.close()


class _Other:
    """Keys of another run."""

    keys = RunKeys.generate(NAMES)


OTHER: Any = _Other

_CURVE_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
_NULL_GREETING = _CURVE_GREETING.replace(b"CURVE", b"NULL\0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_NULL_GREETING, "another security mechanism than CURVE"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "does not speak ZMTP 3"),
        (_CURVE_GREETING + b"\x06" + struct.pack(">Q", 1 << 31), "its first frame is too long"),
        (_CURVE_GREETING + b"\x04\xc8\x05HELLO\x01\x00" + bytes(192), "does not fit the hub's key"),
    ],
    ids=["plaintext", "HTTP", "2 GiB frame", "HELLO of zeros"],
)
def test_bytes_of_a_stranger_are_refused(rig: Rig, data: bytes, reason: str) -> None:
    """Who sends all at once is told by its address too, although libzmq hangs up within microseconds."""
    stranger = rig.raw()
    stranger.sendall(data)
    assert rig.refusal()[0] == f"127.0.0.1:{stranger.getsockname()[1]}"
    stranger.settimeout(WAIT_S)
    again = rig.raw()
    again.sendall(data)
    address, why = rig.refusal()
    assert reason in why and address.endswith(str(again.getsockname()[1]))


@pytest.mark.parametrize("linger", [(0, 0), (1, 0)], ids=["close", "reset"])
def test_a_scanner_is_named_however_it_leaves(rig: Rig, linger: tuple[int, int]) -> None:
    """Who connects and closes or resets at once is told by its address."""
    for _ in range(2):
        scanner = rig.raw()
        address = f"127.0.0.1:{scanner.getsockname()[1]}"
        scanner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", *linger))
        scanner.close()
        assert rig.refusal()[0] == address


def test_a_key_holder_that_lies_is_hung_up_on(rig: Rig) -> None:
    """A connection under another's name is ended, and the owner of the key and the one of the name are served after it."""
    liar = rig.dealer(rig.credential("w1"), b"w0")
    monitor = liar.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    rig.refusal()
    assert monitor.poll(int(WAIT_S * 1000))
    liar.disable_monitor()
    monitor.close()
    liar.close()
    rig.worker("w1")
    rig.serve(lambda: (b"w1", b"w1") in rig.got)
    rig.hub.send(b"w1", b"hello")


def test_a_recorded_session_is_worth_nothing(rig: Rig) -> None:
    """All bytes that a worker sent, handshake and frames, sent again later: refused, and no frame comes twice."""
    recorded = bytearray()
    relay = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        inside, _ = relay.accept()
        outside = socket.create_connection(rig.address)
        with inside, outside:
            while ready := select.select((inside, outside), (), ())[0]:
                for end in ready:
                    data = end.recv(4096)
                    if not data:
                        return
                    if end is inside:
                        recorded.extend(data)
                    (outside if end is inside else inside).sendall(data)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    worker = WorkerSocket(f"tcp://127.0.0.1:{relay.getsockname()[1]}", "w1", rig.credential("w1"))
    worker.send(b"order")
    rig.serve(lambda: (b"w1", b"order") in rig.got)
    worker.close()
    rig.serve(lambda: rig.hub.closed)
    thread.join(WAIT_S)
    relay.close()
    assert b"HELLO" in recorded and b"INITIATE" in recorded and b"MESSAGE" in recorded
    assert b"order" not in recorded
    replay = rig.raw()
    replay.sendall(bytes(recorded))
    assert rig.refusal() == (
        f"127.0.0.1:{replay.getsockname()[1]}",
        "its handshake is broken, or a recorded one",
    )
    assert rig.got.count((b"w1", b"order")) == 1


def test_a_frame_beyond_the_limit_ends_that_connection(rig: Rig) -> None:
    """Even a listed peer can't make the hub take more than a frame may have; its end is told."""
    big = rig.dealer(rig.credential("w1"))
    rig.got.clear()
    rig.serve(lambda: rig.got)
    assert rig.got == [(b"w1", b"evil")]
    rig.got[:] = [(b"w0", b"w0")]
    assert rig.hub.joined(b"w1")
    big.send(bytes(LIMITS.max_frame + 64))
    rig.serve(lambda: rig.hub.closed)
    assert rig.hub.closed == [b"w1"] and not rig.hub.joined(b"w1")
    with pytest.raises(LinkClosed, match="w1: not connected"):
        rig.hub.send(b"w1", b"x")
    big.close()


def test_a_peer_that_says_one_thing_and_ends_is_no_stranger(rig: Rig) -> None:
    """When a connection's end is told before its first frame is read, the frame counts, and the end is its name's."""
    hasty = rig.worker("w1")
    deadline = time.monotonic() + WAIT_S
    while not rig.hub._socket.poll(0):
        assert time.monotonic() < deadline
        rig.hub.wait(5)
    rig._open.remove(hasty)
    hasty.close()
    assert rig.hub._monitor.socket.poll(int(WAIT_S * 1000))
    rig.serve(lambda: rig.hub.closed or rig.hub.refused_peers)
    assert (rig.hub.closed, rig.hub.refused_peers) == ([b"w1"], [])
    assert rig.got[1:] == [(b"w1", b"w1")] and not rig.hub.joined(b"w1")
    rig.worker("w1")  # a name is free again once its connection has ended
    rig.got.pop()
    rig.serve(lambda: len(rig.got) > 1)


def test_refusals_are_kept_within_bounds(rig: Rig) -> None:
    """When nobody takes them, the list of refusals stops growing and says so."""
    for number in range(REFUSED_MAX + 5):
        rig.hub._refuse(f"10.0.0.1:{number}", "it does not matter")
    assert len(rig.hub.refused_peers) == REFUSED_MAX
    assert rig.hub.refused_peers[-1] == (
        f"10.0.0.1:{REFUSED_MAX + 4}",
        "it does not matter; and others before it, too many to keep",
    )


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda rig: strange(rig.credential("w1")), "the hub refuses the key of this credential"),
        (
            lambda rig: rig.credential("w1")._replace(server_key=OTHER.keys.public.decode()),
            "server_key of this credential",
        ),
    ],
    ids=["unlisted key", "another hub"],
)
def test_a_worker_with_a_wrong_key_does_not_hang(rig: Rig, make: Callable[[Rig], Credential], text: str) -> None:
    """Its receive ends with LinkClosed that says which key is wrong, within seconds, and so does a send after it."""
    worker = rig.worker("w1", make(rig))
    caught: list[str] = []

    def receive() -> None:
        try:
            worker.receive()
        except LinkClosed as closed:
            caught.append(str(closed))

    thread = threading.Thread(target=receive)
    thread.start()
    rig.serve(lambda: caught)
    thread.join()
    assert text in caught[0]
    assert rig.hub.endpoint in caught[0]


def test_a_worker_learns_that_the_hub_has_gone(rig: Rig) -> None:
    """What was on its way arrives, then LinkClosed; libzmq would wait for another hub for ever."""
    worker = rig.worker("w1")
    rig.serve(lambda: len(rig.got) == 2)
    gone = RunKeys.generate(["w"])
    hub = HubSocket("tcp://127.0.0.1:0", gone)
    other = WorkerSocket(hub.endpoint, "w", parse_credential(gone.credential("w"), "test"))
    other.send(b"x")
    while hub.receive() is None:
        hub.wait(20)
    hub.send(b"w", b"last")
    hub.close()
    assert other.receive(5000) == b"last"
    with pytest.raises(LinkClosed, match="the hub has closed the connection"):
        other.receive(5000)
    other.close()
    assert worker.receive(10) is None


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:0", "tcp://:5", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "tcp://1.2.3.4:70000", "tcp://::1:5"]
)
def test_an_endpoint_names_one_address(rig: Rig, endpoint: str) -> None:
    """Nothing binds to every address by accident, and a form that is none is told."""
    with pytest.raises(ValueError, match="endpoint must be tcp://ADDRESS:PORT"):
        HubSocket(endpoint, rig.keys)


def test_a_hub_binds_where_it_was_told(rig: Rig) -> None:
    """Its port is open at that address alone; an IPv6 address works as well; a taken port is an error that names it."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", rig.address[1]))
    with pytest.raises(OSError, match=f"{rig.hub.endpoint} can't be bound: Address already in use"):
        HubSocket(rig.hub.endpoint, rig.keys)
    if socket.has_ipv6:
        keys = RunKeys.generate(["w0"])
        hub = HubSocket("tcp://[::1]:0", keys)
        worker = WorkerSocket(hub.endpoint, "w0", parse_credential(keys.credential("w0"), "test"))
        worker.send(b"six")
        while (item := hub.receive()) is None:
            hub.wait(20)
        assert item == (b"w0", b"six") and hub.endpoint.startswith("tcp://[::1]:")
        worker.close()
        hub.close()


def test_tcp_is_never_plain(rig: Rig) -> None:
    """Neither end takes a tcp endpoint without a key, and a worker none of another name."""
    with pytest.raises(ValueError, match="must have the run's keys"):
        HubSocket("tcp://127.0.0.1:0")
    with pytest.raises(ValueError, match="must have a credential"):
        WorkerSocket(rig.hub.endpoint, "w0")
    with pytest.raises(ValueError, match="must be that of w0, not of w1"):
        WorkerSocket(rig.hub.endpoint, "w0", rig.credential("w1"))
