"""The server: who may connect, what ends a connection, the socket's path, and the command around it."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cosim.errors import NodeError, UsageError
from cosim.export.function import Function
from cosim.export.server import MAX_WAITING, Server
from nodes.memory.model import Memory
from nodes.smmute.model import Smmute
from tests.export.client import INFO, MAP, RESET, SET_IRQS, SUM64, UNMAP, VERSION, Client, Errno, Gone
from tests.export.serving import serving
from tests.support.runs import ROOT, cosim


def test_wrong_versions(tmp_path: Path) -> None:
    """Another major version, bad version data or no VERSION at first: EINVAL and the end of that connection, not the server's;
    a newer minor version is answered with ours."""
    with serving(tmp_path) as running:
        attempts: list[Callable[[Client], object]] = [
            lambda c: c.negotiate(major=1),
            lambda c: c.negotiate(capabilities=[]),
            lambda c: c.negotiate(capabilities={"max_data_xfer_size": 0}),
            lambda c: c.request(VERSION, b"\0"),
            lambda c: c.request(INFO, bytes(16)),
        ]
        for attempt in attempts:
            with Client(running.path) as client:
                with pytest.raises(Errno) as refused:
                    attempt(client)
                assert refused.value.code == errno.EINVAL
                with pytest.raises(Gone):
                    client.receive()
        with Client(running.path) as client:
            assert client.negotiate(minor=9, capabilities={}) == (0, 0, {})
            with pytest.raises(Errno):
                client.negotiate()
            with pytest.raises(Gone):
                client.receive()
    assert any("major version must be 0, not 1" in note for note in running.notes)


def test_once_means_a_client_that_was_served(tmp_path: Path) -> None:
    """With `once`, neither a connection without a word nor a wrong version is the client that is waited for; a real one is."""
    with serving(tmp_path, once=True) as running:
        Client(running.path).sock.close()
        with Client(running.path) as client, pytest.raises(Errno):
            client.negotiate(major=1)
        with Client(running.path) as client:
            assert client.negotiate() and client.config(0) == 0xFF80_13B5
        running.thread.join(20)
        assert not running.thread.is_alive()


def test_a_second_client_is_refused(tmp_path: Path) -> None:
    """While one client is there another gets EBUSY and the end; the first notices nothing, and when it has gone the next one finds
    a device as new."""
    with serving(tmp_path) as running:
        with Client(running.path) as first:
            first.negotiate()
            first.enable()
            for _ in range(3):
                with Client(running.path) as second:
                    with pytest.raises(Errno) as refused:
                        second.negotiate()
                    assert refused.value.code == errno.EBUSY
                    with pytest.raises(Gone):
                        second.receive()
            idle = [socket.socket(socket.AF_UNIX) for _ in range(12)]
            for sock in idle:
                sock.connect(running.path)
            assert first.config(4, 2) == 6
            for sock in idle:
                sock.close()
            assert first.register(0) == 1
        with Client(running.path) as third:
            third.negotiate()
            assert third.config(4, 2) == 0
    assert running.notes.count("client connected") == 2


def test_a_silent_connection_that_speaks_when_it_has_to_make_room(tmp_path: Path) -> None:
    """The oldest of those that have said nothing is closed for a new one, though its first bytes came in the same moment."""
    server = Server("smmute", Smmute, str(tmp_path / "s"), lambda text: None)
    sockets = []
    try:
        for _ in range(MAX_WAITING):
            sockets.append(_connected(server.path))
            server._accept()
        sockets.append(_connected(server.path))
        sockets[0].send(b"x")
        server.stop()
        assert server.serve()
        assert len(server._waiting) == MAX_WAITING
        with pytest.raises(ConnectionResetError):
            sockets[0].recv(1)
    finally:
        server.close()
        for sock in sockets:
            sock.close()


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def test_requests_that_are_wrong_are_refused_and_forgotten(tmp_path: Path) -> None:
    """Unknown commands, short payloads, wrong indices, flags and descriptors get an errno each; the connection goes on."""
    irqs = [
        (32 | 1, 2, 2048, 1), (32 | 1, 9, 0, 1), (32 | 3, 2, 0, 1), (1, 2, 0, 1), (32 | 2, 2, 0, 2), (8 | 1, 4, 0, 1),
        (8 | 1, 3, 0, 1), (16 | 4, 2, 0, 1),
    ]  # fmt: skip
    with serving(tmp_path) as running, Client(running.path) as client:
        client.negotiate()

        def code(command: int, payload: bytes = b"", fds: list[int] | None = None) -> int:
            with pytest.raises(Errno) as refused:
                client.request(command, payload, fds)
            return refused.value.code

        assert {code(n) for n in (0, 6, 11, 12, 14, 15, 16, 17, 18, 999)} == {errno.ENOTSUP}
        assert {code(n) for n in (MAP, UNMAP, INFO, 5, 7, SET_IRQS, 9, 10)} == {errno.EINVAL}
        assert code(INFO, struct.pack("=IIII", 15, 0, 0, 0)) == errno.EINVAL
        assert code(5, struct.pack("=IIIIQQ", 32, 0, 9, 0, 0, 0)) == errno.EINVAL
        assert code(7, struct.pack("=IIII", 16, 0, 5, 0)) == errno.EINVAL
        assert code(9, struct.pack("=QII", 0, 7, (1 << 20) + 1)) == errno.EINVAL
        assert code(10, struct.pack("=QII", 0, 7, 4) + b"abc") == errno.EINVAL
        assert {code(SET_IRQS, struct.pack("=IIIII", 20, *f)) for f in irqs} == {errno.EINVAL, errno.ENOTSUP}
        with open(os.devnull, "rb") as null, open(__file__, "rb") as small:
            fds = [null.fileno(), small.fileno()]
            window = struct.pack("=IIQQQ", 32, 3, 0, 0, 0x10_0000)
            assert code(MAP, window, fds) == errno.EINVAL
            assert code(MAP, window, fds[:1]) == errno.EINVAL
            assert code(MAP, window, fds[1:]) == errno.EINVAL
            assert code(MAP, struct.pack("=IIQQQ", 32, 0, 0, 0, 0x1000)) == errno.EINVAL
            assert code(SET_IRQS, struct.pack("=IIIII", 20, 32 | 4, 2, 0, 1), fds[:1]) == errno.EINVAL
            assert code(SET_IRQS, struct.pack("=IIIII", 20, 32 | 4, 2, 0, 3), fds) == errno.EINVAL
        client.send(999, flags=0x10)
        assert client.config(0) == 0xFF80_13B5, "a command that wants no answer gets none, not even a refusal"


def test_posted_writes_take_no_answer(tmp_path: Path) -> None:
    """REGION_WRITE with No_reply has its effect, and the next answer is the next request's."""
    with serving(tmp_path) as running, Client(running.path) as client:
        client.negotiate()
        client.send(10, struct.pack("=QIIH", 4, 7, 2, 6), flags=0x10)
        assert client.config(4, 2) == 6


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("=HHIII", 1, 9, 4, 0, 0),
        struct.pack("=HHIII", 1, 9, 1 << 30, 0, 0),
        struct.pack("=HHIII", 1, 9, 16, 3, 0),
        struct.pack("=HHIII", 77, 11, 16, 1, 0),
    ],
)
def test_bytes_that_end_a_connection(tmp_path: Path, data: bytes) -> None:
    """A header that can't be, or an answer to nothing, ends the connection with a note; the server goes on."""
    with serving(tmp_path) as running:
        with Client(running.path) as client:
            client.negotiate()
            client.sock.sendall(data)
            with pytest.raises(Gone):
                client.receive()
        with Client(running.path) as client:
            client.negotiate()
    assert any(note.startswith("connection closed: ") for note in running.notes)


def test_arbitrary_messages_never_end_the_server(tmp_path: Path, seed: int) -> None:
    """Thousands of random payloads under all commands, some with descriptors: each gets an answer or the connection's end."""
    draw = random.Random(seed)
    with serving(tmp_path) as running:
        client = Client(running.path)
        client.negotiate()
        descriptor = os.memfd_create("random")
        words = [0, 1, 2, 4, 7, 16, 32, 33, 36, 4096, 1 << 20, 0xFFFF_FFFF]
        for _ in range(1500):
            command = draw.choice([*range(1, 19), 8, 9, 10, 2, 3])
            payload = b"".join(draw.choice(words).to_bytes(4, "little") for _ in range(draw.randrange(12)))
            try:
                client.request(command, payload, [descriptor] if draw.random() < 0.1 else None)
            except Errno:
                pass
            except (Gone, BrokenPipeError):
                client.sock.close()
                client = Client(running.path)
                client.negotiate()
        os.close(descriptor)
        assert client.config(0) == 0xFF80_13B5
        client.sock.close()


def test_a_client_that_vanishes_in_flight(tmp_path: Path) -> None:
    """A client that goes while the engine waits for its memory leaves nothing: not a descriptor, and the next client is served."""
    before = len(os.listdir("/proc/self/fd"))
    with serving(tmp_path) as running:
        for _ in range(2):
            with Client(running.path) as client:
                client.negotiate()
                client.enable()
                client.map(0, 0x1000, shared=False)
                client.map(0x1000, 0x1000).close()
                client.event(0)
                client.deaf = True
                client.start(SUM64, 0, 0xFFF)
                while not client.heard:
                    client.register(0)
                client.sock.sendall(b"half a header")
    assert len(os.listdir("/proc/self/fd")) == before
    assert sum("; 1 transactions, 0 MSIs" in note for note in running.notes) == 2


def test_a_reset_of_a_device_with_much_to_do(tmp_path: Path) -> None:
    """A long fill is not waited for: a reset ends it, and the memory behind is untouched."""
    with serving(tmp_path) as running, Client(running.path) as client:
        client.negotiate()
        client.enable()
        memory = client.map(0, 1 << 24)
        client.start(3, 0, (1 << 24) - 1)
        while not any(memory[:0x1000]):
            assert client.register(0) == 3
        client.request(RESET)
        assert not any(memory[-0x1000:])
        memory.close()


# -- the path ----------------------------------------------------------------------------------------------------------


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    """Too long, no directory, a file of another kind, a socket with a server: each says so; exit code 2."""
    with serving(tmp_path) as running:
        assert stat.S_IMODE(os.stat(running.path).st_mode) == 0o600
        (tmp_path / "file").touch()
        for path, why in (
            (str(tmp_path / ("x" * 120)), "must have 1 to 107 bytes"),
            (str(tmp_path / "none" / "s"), "No such file or directory"),
            (str(tmp_path / "file" / "s"), "Not a directory"),
            (str(tmp_path / "file"), "is a file of another kind"),
            (running.path, "a server listens there"),
        ):
            with pytest.raises(UsageError, match=why) as refused:
                Server("smmute", Smmute, path, print)
            assert refused.value.exit_code == 2 and refused.value.next_step
        with Client(running.path) as client:
            assert client.negotiate()[0] == 0


def test_a_directory_of_somebody_else() -> None:
    """A directory that may be searched and not written says so; root, who may write everywhere, tries it as somebody else."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="cosim-export-") as folder:  # that of pytest is closed to anybody else
        os.chmod(folder, 0o555)
        if root:
            os.seteuid(65_534)
        try:
            assert os.access(folder, os.X_OK, effective_ids=True) and not os.access(folder, os.W_OK, effective_ids=True)
            with pytest.raises(UsageError, match="Permission denied"):
                Server("smmute", Smmute, f"{folder}/s", print)
        finally:
            if root:
                os.seteuid(0)


def test_a_socket_that_was_left_is_replaced(tmp_path: Path) -> None:
    """A socket whose server has died is no obstacle; one that took the path since is not removed at the end."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    server = Server("smmute", Smmute, path, print)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        server.close()
        assert os.path.exists(path)


def test_a_model_that_is_no_endpoint(tmp_path: Path) -> None:
    """A model without the ports of an endpoint is refused before any socket is made."""
    with pytest.raises(UsageError, match="has no ecam, mmio, dma0"):
        Server("memory", Memory, str(tmp_path / "s"), print)
    assert not os.listdir(tmp_path)


class _Faulty(Smmute):
    """A test engine whose BARs raise."""

    def _claim(self, request: object) -> tuple[object, int, int]:  # type: ignore[override]
        raise RuntimeError("a fault of the model")


def test_a_fault_of_the_model() -> None:
    """What a model raises is a NodeError with its name and time."""

    class Nothing:
        def read(self, address: int, size: int) -> bytes:
            return bytes(size)

        def write(self, address: int, data: bytes) -> None:
            return None

    function = Function("smmute", _Faulty, Nothing(), lambda vector: True)
    function.write_config(4, b"\6\0")
    with pytest.raises(NodeError, match="RuntimeError: a fault of the model") as raised:
        function.read_bar(0, 0, 4)
    assert raised.value.node == "smmute" and raised.value.sim_time_ps


# -- the command -------------------------------------------------------------------------------------------------------


def start(path: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """The command, once it listens, and what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cosim", "export", "smmute", "--vfio-user", str(path), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, "".join(process.stdout.readline() for _ in range(3))


def test_once(tmp_path: Path) -> None:
    """With --once the command ends with code 0 when the client has gone, not because somebody looked whether it listens; it has
    printed QEMU's options, and the socket is removed."""
    path = tmp_path / "s"
    process, out = start(path, "--once")
    second = cosim("export", "smmute", "--vfio-user", str(path))
    assert second.returncode == 2 and "a server listens there" in second.stderr
    with Client(str(path)) as client:
        client.negotiate()
        client.enable()
        client.map(0, 0x1000)
        event = client.event(1)
        client.start(SUM64, 0, 0xFFF, vector=1)
        client.wait(event)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    device = f'{{"driver":"vfio-user-pci","socket":{{"path":"{path}","type":"unix"}}}}'
    assert f"-device '{device}'" in out and "share=on" in out and "best_effort" in out
    assert "client gone; 1 transactions, 1 MSIs" in err
    assert not path.exists()


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tmp_path: Path, signum: int, code: int) -> None:
    """Ctrl-C and SIGTERM end it at once, also with a client; the socket is removed."""
    path = tmp_path / "s"
    process, _ = start(path)
    with Client(str(path)) as client:
        client.negotiate()
        process.send_signal(signum)
        with pytest.raises(Gone):
            client.receive()
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in err and not path.exists()


def test_a_kind_that_does_not_exist(tmp_path: Path) -> None:
    """An unknown model is refused with the names of those that are installed."""
    result = cosim("export", "nvme", "--vfio-user", str(tmp_path / "s"))
    assert result.returncode == 2 and "smmute" in result.stderr and "'nvme'" in result.stderr
