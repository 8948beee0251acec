"""Every link passes the same tests, in each combination of its ends that can meet."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.codec import LIMITS
from cosim.link import unix_link, zmq_peers
from cosim.link.base import LinkClosed
from cosim.link.keys import RunKeys, parse_credential
from cosim.link.memory_link import Switch
from cosim.link.unix_link import FastHubSocket, FastWorkerSocket
from cosim.link.zmq_link import HOLD_AFTER, HOLD_MAX, HubSocket, WorkerSocket
from cosim.link.zmtp import GREETING, Connection, ZmtpError, header, properties, ready

PAIRS = ["memory", "zmq-zmq", "fast-fast", "fast-zmq", "zmq-fast", "tcp-tcp"]


class Rig:
    """A hub end and as many workers as a test connects."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/hub"
        self.hub: Any
        self._worker: Callable[[str], Any]
        if kind == "memory":
            self.hub = Switch()
            self._worker = self.hub.connect
        elif kind == "tcp-tcp":
            keys = RunKeys.generate(["w0", "w1"])
            self.hub = HubSocket("tcp://127.0.0.1:0", keys)
            self._worker = lambda name: WorkerSocket(
                self.hub.endpoint, name, parse_credential(keys.credential(name), name)
            )
        else:
            hub, worker = kind.split("-")
            self.hub = {"zmq": HubSocket, "fast": FastHubSocket}[hub](self.endpoint)
            self._worker = (
                (lambda name: WorkerSocket(self.endpoint, name, peers=True))
                if worker == "zmq"
                else (lambda name: FastWorkerSocket(self.endpoint, name, peers=True))
            )
        self.workers: list[Any] = []

    def worker(self, name: str) -> Any:
        """Connect a worker."""
        self.workers.append(self._worker(name))
        return self.workers[-1]

    def get(self, count: int = 1) -> list[tuple[bytes, bytes]]:
        """The next `count` frames at the hub."""
        got: list[tuple[bytes, bytes]] = []
        deadline = time.monotonic() + 20
        while len(got) < count and time.monotonic() < deadline:
            self.hub.wait(20)
            for worker in self.workers:
                if isinstance(worker, FastWorkerSocket):
                    assert worker.receive(1) is None  # let it take part in the handshake
            while len(got) < count and (item := self.hub.receive()) is not None:
                got.append(item)
        return got

    def close(self) -> None:
        """Close both ends."""
        for worker in self.workers:
            worker.close()
        self.hub.close()


@pytest.fixture(params=PAIRS)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Each pair of link ends."""
    made = Rig(request.param, tmp_path_factory.mktemp("k"))
    yield made
    made.close()


def pump(rig: Rig, worker: Any) -> bytes | None:
    """A worker's next frame; the hub's end is served meanwhile, as its loop does."""
    for _ in range(100):
        rig.hub.wait(0)
        frame = worker.receive(100)
        if frame is not None:
            return bytes(frame)
    return None


def test_frames_go_both_ways_with_their_names(rig: Rig) -> None:
    """The hub learns who sent a frame, and its answer reaches that worker alone."""
    a, b = rig.worker("w0"), rig.worker("w1")
    a.send(b"from a")
    b.send(b"from b")
    assert sorted(rig.get(2)) == [(b"w0", b"from a"), (b"w1", b"from b")]
    rig.hub.send(b"w1", b"to b")
    rig.hub.send(b"w0", b"to a")
    assert (pump(rig, a), pump(rig, b)) == (b"to a", b"to b")
    assert a.receive(10) is None


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 3_000_000])
def test_frames_of_every_size_arrive_whole(rig: Rig, size: int) -> None:
    """Empty, short, long and far larger than a socket buffer: each frame arrives whole, in order, both ways."""
    import threading

    worker = rig.worker("w0")
    frames = [bytes([n]) * size for n in range(3)]
    worker.send(b"first")
    rig.get()
    sender = threading.Thread(target=lambda: [worker.send(f) for f in frames])
    sender.start()
    assert [frame for _, frame in rig.get(3)] == frames
    sender.join()
    for frame in frames:
        rig.hub.send(b"w0", frame)
    assert [pump(rig, worker) for _ in frames] == frames


def test_an_unknown_worker_is_an_error(rig: Rig) -> None:
    """A frame for a name that nobody has is LinkClosed, not silence."""
    with pytest.raises(LinkClosed, match="nobody"):
        rig.hub.send(b"nobody", b"x")


@pytest.mark.parametrize("kind", ["fast-fast", "fast-zmq"])
def test_a_worker_that_goes_is_noticed(kind: str, tmp_path: Path) -> None:
    """When a worker's connection ends, the hub lists its name, and sending to it is LinkClosed."""
    rig = Rig(kind, tmp_path)
    worker = rig.worker("w0")
    worker.send(b"hello")
    rig.get()
    worker.close()
    deadline = time.monotonic() + 10
    while not rig.hub.closed and time.monotonic() < deadline:
        rig.hub.wait(50)
    assert rig.hub.closed == [b"w0"]
    with pytest.raises(LinkClosed):
        rig.hub.send(b"w0", b"x")
    rig.workers = []
    rig.close()


def test_a_hub_that_goes_is_noticed(tmp_path: Path) -> None:
    """A worker whose hub closes gets LinkClosed from receive and send."""
    rig = Rig("fast-fast", tmp_path)
    worker = rig.worker("w0")
    worker.send(b"x")
    rig.get()
    rig.hub.close()
    with pytest.raises(LinkClosed):
        worker.receive(5000)
    with pytest.raises(LinkClosed):
        for _ in range(10):
            worker.send(b"x" * 100_000)
    worker.close()


def test_a_second_worker_of_a_name_is_refused(tmp_path: Path) -> None:
    """The first keeps its place; the second's connection is closed and counted."""
    rig = Rig("fast-fast", tmp_path)
    first = rig.worker("w0")
    first.send(b"one")
    assert rig.get() == [(b"w0", b"one")]
    second = rig.worker("w0")
    with pytest.raises(LinkClosed):
        for _ in range(100):
            rig.hub.wait(0)
            second.receive(50)
    assert rig.hub.refused == 1
    rig.hub.send(b"w0", b"still")
    assert pump(rig, first) == b"still"
    rig.close()


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", GREETING.replace(b"NULL", b"EVIL"), GREETING + b"\x00\x01x"]
)
def test_a_stranger_on_the_socket_is_refused(noise: bytes, tmp_path: Path) -> None:
    """Bytes that are not ZMTP with NULL, or a message before READY, close that connection and harm nobody else."""
    rig = Rig("fast-fast", tmp_path)
    worker = rig.worker("w0")
    worker.send(b"here")
    rig.get()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / "hub"))
        stranger.sendall(noise)
        deadline = time.monotonic() + 10
        while not rig.hub.refused and time.monotonic() < deadline:
            rig.hub.wait(50)
    assert rig.hub.refused == 1
    worker.send(b"fine")
    assert rig.get() == [(b"w0", b"fine")]
    rig.close()


class Dry:
    """A socket whose first receive finds nothing."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.dry = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)

    def recv(self, *args: Any) -> Any:
        """As the socket's, from the second on."""
        if self.dry:
            self.dry = False
            raise BlockingIOError
        return self.socket.recv(*args)


def test_a_wake_for_nothing_ends_no_connection(tmp_path: Path) -> None:
    """When there is nothing to read after all, the hub waits again: only the end of a stream is the end of a worker."""
    rig = Rig("fast-fast", tmp_path)
    worker = rig.worker("w0")
    worker.send(b"here")
    assert rig.get() == [(b"w0", b"here")]
    peer = rig.hub._by_name[b"w0"]
    peer.socket = Dry(peer.socket)
    worker.send(b"x")
    assert rig.get() == [(b"w0", b"x")]
    assert rig.hub.closed == [] and not peer.socket.dry
    rig.close()


PASSING = ["fast-fast", "zmq-zmq"]
"""Links whose workers reach each other."""
HUBS = {"fast", "zmq"}


@pytest.fixture(params=PASSING)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Any, Any]]:
    """A rig with two workers that the hub has heard of."""
    made = Rig(request.param, tmp_path_factory.mktemp("k"))
    assert made.hub.passes
    workers = []
    for name in ("w0", "w1"):
        workers.append(made.worker(name))
        workers[-1].send(b"here")
        assert made.get() == [(name.encode(), b"here")]
    yield made, *workers
    made.close()


def pass_on(worker: Any, name: str, frame: bytes) -> bool:
    """Pass a frame on; a connection may have to be made first."""
    deadline = time.monotonic() + 20
    while not worker.pass_on(name, frame):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def test_a_frame_that_is_passed_on_reaches_that_worker_alone(pair: tuple[Rig, Any, Any]) -> None:
    """Each way, in order, whole; the hub and others see nothing of it."""
    rig, a, b = pair
    frames = [b"", b"x", bytes(range(256)) * 64]
    for source, name, destination in ((a, "w1", b), (b, "w0", a), (a, "w1", b)):
        assert [pass_on(source, name, frame) for frame in frames] == [True] * 3
        assert [destination.receive(5000) for _ in frames] == frames
        assert source.receive(10) is None
    rig.hub.wait(10)
    assert rig.hub.receive() is None


def test_nothing_is_passed_on_to_a_stranger_or_to_one_who_went(pair: tuple[Rig, Any, Any]) -> None:
    """False, at once and for ever, for a name that no worker has, and for a worker that has closed."""
    rig, a, b = pair
    assert not a.pass_on("w7", b"x")
    assert not a.pass_on("w7", b"x")
    assert pass_on(a, "w1", b"x")
    assert b.receive(5000) == b"x"
    b.close()
    rig.workers.remove(b)
    deadline = time.monotonic() + 20
    while a.pass_on("w1", b"y"):
        assert time.monotonic() < deadline, "what is passed on to one who went must not be lost again and again"
        time.sleep(0.01)


def test_nothing_is_passed_on_to_what_a_killed_worker_left(pair: tuple[Rig, Any, Any]) -> None:
    """A file of a socket on which nobody listens takes nothing, now or later: False, and the hub tells of the dead."""
    rig, a, _b = pair
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as left:
            left.bind(f"{rig.endpoint.removeprefix('ipc://')}.w7{int(kind)}")
        for _ in range(5):
            assert not a.pass_on(f"w7{int(kind)}", b"x")
            time.sleep(0.02)


def test_of_a_hubs_frame_and_one_that_was_passed_on_the_hubs_is_first(pair: tuple[Rig, Any, Any]) -> None:
    """Both are there when the worker looks: BYE and QUERY need not wait for a baton that goes round and round."""
    rig, a, b = pair
    for _ in range(3):
        assert pass_on(a, "w1", b"passed")
        rig.hub.send(b"w1", b"from the hub")
        for end in (b._socket, b._own):
            if isinstance(end, zmq.Socket):
                assert end.poll(20_000)
            else:
                assert select.select([end], [], [], 20)[0]
        assert [b.receive(5000), b.receive(5000)] == [b"from the hub", b"passed"]


def test_the_way_between_workers_is_removed(pair: tuple[Rig, Any, Any]) -> None:
    """A worker's own socket is in the hub's folder under its name, and goes with it."""
    rig, a, b = pair
    folder = Path(rig.endpoint.removeprefix("ipc://")).parent
    assert sorted(file.name for file in folder.iterdir()) == ["hub", "hub.w0", "hub.w1"]
    assert pass_on(a, "w1", b"x")
    for worker in (a, b):
        worker.close()
    rig.workers = []
    assert [file.name for file in folder.iterdir()] == ["hub"]


def test_a_worker_without_a_way_of_its_own_works(tmp_path: Path) -> None:
    """Where the path of its own socket is too long for an address, or somebody has that name, the hub does it all."""
    long = tmp_path / ("x" * (100 - len(str(tmp_path))))
    long.mkdir()
    for kind in PASSING:
        rig = Rig(kind, long)
        a, b = rig.worker("w0"), rig.worker("a-worker-with-a-long-name")
        for worker in (a, b):
            worker.send(b"here")
        assert len(rig.get(2)) == 2
        assert not a.pass_on("a-worker-with-a-long-name", b"x")
        rig.hub.send(b"a-worker-with-a-long-name", b"from the hub")
        assert pump(rig, b) == b"from the hub"
        rig.close()


def test_a_worker_that_does_not_read_is_not_waited_for(pair: tuple[Rig, Any, Any]) -> None:
    """When the other's queue is full, False: nothing blocks, nothing is lost, and it goes on when there is room."""
    _rig, a, b = pair
    assert pass_on(a, "w1", b"first") and b.receive(5000) == b"first"
    frames: list[bytes] = []
    while len(frames) < 100_000 and a.pass_on("w1", frame := len(frames).to_bytes(1000, "big")):
        frames.append(frame)
    assert 0 < len(frames) < 100_000
    assert [b.receive(5000) for _ in frames] == frames
    assert pass_on(a, "w1", b"again") and b.receive(5000) == b"again"


def test_frames_that_may_wait_come_in_order_and_soon(tmp_path: Path) -> None:
    """After many in a row they are held back: until the next frame that may not wait, a moment without one, or the end."""
    rig = Rig("zmq-zmq", tmp_path)
    worker = rig.worker("w0")

    def say(first: int, count: int) -> list[tuple[bytes, bytes]]:
        for n in range(first, first + count):
            worker.send_soon(b"%d" % n)
        return [(b"w0", b"%d" % n) for n in range(first, first + count)]

    row = say(0, HOLD_AFTER - 1)
    assert rig.get(len(row)) == row, "none is held back at first"
    held = say(100, 5)
    rig.hub.wait(100)
    assert rig.hub.receive() is None
    assert worker.receive(1) is None
    assert rig.get(5) == held
    row = say(200, HOLD_AFTER + 3)
    worker.send(b"now")
    assert rig.get(len(row) + 1) == [*row, (b"w0", b"now")]
    row = say(300, HOLD_AFTER + 3)
    worker.close()
    rig.workers = []
    assert rig.get(len(row)) == row
    rig.close()


def test_no_more_than_some_frames_are_held_back(tmp_path: Path) -> None:
    """While others keep a worker busy without a pause its frames reach the hub all the same, some at a time."""
    rig = Rig("zmq-zmq", tmp_path)
    a, b = rig.worker("w0"), rig.worker("w1")
    count = HOLD_AFTER + 5 * HOLD_MAX
    for n in range(count):
        assert pass_on(a, "w1", b"go on")
        assert b.receive(5000) == b"go on"
        b.send_soon(b"%d" % n)
    rest = count - HOLD_MAX
    assert rig.get(rest) == [(b"w1", b"%d" % n) for n in range(rest)]
    rig.close()


@pytest.mark.parametrize(("kind", "module"), [("fast-fast", unix_link), ("zmq-zmq", zmq_peers)])
def test_a_worker_has_connections_to_so_many_others_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: Any
) -> None:
    """Beyond a number of them, the hub does it: a process must not run out of open files."""
    monkeypatch.setattr(module, "PEERS_MAX", 1)
    rig = Rig(kind, tmp_path)
    a, _b, _c = (rig.worker(f"w{n}") for n in range(3))
    assert pass_on(a, "w1", b"x")
    assert not a.pass_on("w2", b"x")
    assert not a.pass_on("w2", b"x")
    assert pass_on(a, "w1", b"y")
    rig.close()


@pytest.mark.parametrize(("hub_of", "worker_of"), [(HubSocket, WorkerSocket), (FastHubSocket, FastWorkerSocket)])
def test_who_did_not_ask_for_it_has_no_way_for_others(hub_of: Any, worker_of: Any, tmp_path: Path) -> None:
    """A foreign node, or a hub, is reached by its hub alone: it may have the name of a worker, and must not get what is for that
    one; nor is anything that it sends held back."""
    hub, worker = hub_of(f"ipc://{tmp_path}/hub"), worker_of(f"ipc://{tmp_path}/hub", "w0")
    assert [file.name for file in tmp_path.iterdir()] == ["hub"]
    assert not worker.pass_on("w0", b"x")
    if worker_of is WorkerSocket:
        worker.send_soon(b"at once")
        hub.wait(5000)
        assert hub.receive() == (b"w0", b"at once")
    worker.close()
    hub.close()


def test_only_links_of_one_host_say_that_workers_reach_each_other(tmp_path: Path) -> None:
    """Within a process there is no such thing, and over tcp no way past the hub."""
    for kind in PAIRS:
        (tmp_path / kind).mkdir()
        rig = Rig(kind, tmp_path / kind)
        assert bool(getattr(rig.hub, "passes", False)) == (kind.partition("-")[0] in HUBS)
        worker = rig.worker("w0")
        if kind in ("memory", "tcp-tcp"):
            assert getattr(worker, "pass_on", None) is None or not worker.pass_on("w0", b"x")
        rig.close()


def test_a_long_socket_path_is_refused_with_advice() -> None:
    """A path that does not fit a socket address says so and what to do."""
    for make in (HubSocket, FastHubSocket):
        with pytest.raises(ValueError, match="set XDG_RUNTIME_DIR or TMPDIR"):
            make("ipc:///" + "x" * 200)


@given(st.lists(st.binary(max_size=600), min_size=1, max_size=5), st.data())
def test_zmtp_takes_bytes_in_any_pieces(messages: list[bytes], data: st.DataObject) -> None:
    """However a stream is cut, the connection gives the same messages and the identity."""
    stream = GREETING + ready("DEALER", b"w7") + b"".join(header(len(m)) + m for m in messages)
    connection, got, offset = Connection(), [], 0
    while offset < len(stream):
        size = data.draw(st.integers(1, len(stream) - offset))
        got += connection.feed(stream[offset : offset + size])
        offset += size
    assert (got, connection.identity, connection.socket_type) == (messages, b"w7", b"DEALER")


@given(st.binary(max_size=200), st.booleans())
def test_zmtp_decoding_is_total(noise: bytes, greeted: bool) -> None:
    """Any bytes give messages or ZmtpError, and never more than the limit is kept."""
    connection = Connection()
    try:
        connection.feed((GREETING + ready("DEALER", b"x") if greeted else b"") + noise)
    except ZmtpError:
        pass


def test_zmtp_limits_and_commands() -> None:
    """Too long a frame, too many parts and a cut READY are refused; PING is answered; multipart gives an empty frame."""
    with pytest.raises(ZmtpError, match="at most"):
        connection = Connection()
        connection.feed(GREETING + ready("DEALER", b"x") + header(LIMITS.max_frame + 1))
    with pytest.raises(ZmtpError, match="parts"):
        connection = Connection()
        connection.feed(GREETING + ready("DEALER", b"x") + b"\x01\x01a" * 9)
    for cut in (b"\x05READY\x04Iden", b"\x05READY\x01I\0\0\0\x09x"):
        with pytest.raises(ZmtpError, match="cut short"):
            properties(cut)
    with pytest.raises(ZmtpError, match="READY command"):
        properties(b"\x05ERROR")
    connection = Connection()
    assert connection.feed(GREETING + ready("DEALER", b"x") + b"\x01\x01a\x00\x01b" + b"\x04\x09\x04PING\0\x10ab") == [
        b""
    ]
    assert connection.reply == b"\x04\x07\x04PONGab"
