"""A run over TCP while strangers knock: each is refused and logged with its address, and the run does not notice."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zmq

from cosim.link.keys import Credential, RunKeys, load_credential, parse_credential, write_credential
from cosim.link.zmq_link import HubSocket
from tests.external.nodes import EXAMPLES, build
from tests.support.engines import STOLEN_VARIABLE
from tests.support.held_models import GO_VARIABLE
from tests.support.runs import ROOT, TIMEOUT_S, children, command, environment, result, ring, up, wait_running

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
RAW = {
    "plaintext": (_GREETING.replace(b"CURVE", b"NULL\0"), "another security mechanism than CURVE"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "does not speak ZMTP 3"),
    "2 GiB frame": (_GREETING + b"\x06" + struct.pack(">Q", 1 << 31), "first frame is too long"),
    "port scanner": (b"", "did not finish the handshake in time"),
}


class Held(NamedTuple):
    """A run over TCP that waits for `go`: its directory, process, endpoint, and where its key files are."""

    directory: Path
    process: subprocess.Popen[str]
    endpoint: str
    keys: Path
    go: Path

    def log(self) -> list[dict[str, Any]]:
        """Its structured log."""
        return [json.loads(line) for line in (self.directory / "log.jsonl").read_text().splitlines()]

    def refusals(self) -> list[dict[str, Any]]:
        """What its log says of refused peers."""
        return [entry for entry in self.log() if entry["event"] == "peer refused"]

    def wait_refused(self, count: int) -> None:
        """Wait until that many refusals are in the log."""
        deadline = time.monotonic() + 30
        while len(self.refusals()) < count:
            assert self.process.poll() is None and time.monotonic() < deadline, self.refusals()
            time.sleep(0.05)


def held_ring(folder: Path) -> Path:
    """A ring whose node 1 waits for the test."""
    path = ring(folder, "Held")
    path.write_text(path.read_text().replace("tests.support.models:Held", "tests.support.held_models:Held"))
    return path


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    """A run in which all workers are connected and none has the last word yet."""
    go, directory = tmp_path / "go", tmp_path / "run"
    process = subprocess.Popen(
        command("up", held_ring(tmp_path), "--allow-models", "tests.support", "--run-dir", directory, "--listen", "127.0.0.1:0"),
        cwd=ROOT, env={**environment(), GO_VARIABLE: str(go)}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_running(directory, process)
        line = next(line for line in children(process.pid).values() if "cosim.node.worker" in line)
        keys = Path(json.loads((directory / "run.json").read_text())["control"]).parent
        yield Held(directory, process, line.split()[3], keys, go)
    finally:
        go.touch()
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def client(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, key: Credential | None, name: bytes = b""
) -> zmq.Socket[bytes]:
    """A libzmq client that sends a frame as soon as it may."""
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.RECONNECT_IVL, -1)
    if key is not None:
        made.setsockopt(zmq.CURVE_SERVERKEY, key.server_key.encode())
        made.setsockopt(zmq.CURVE_PUBLICKEY, key.public_key.encode())
        made.setsockopt(zmq.CURVE_SECRETKEY, key.secret_key.encode())
    if name:
        made.setsockopt(zmq.IDENTITY, name)
    made.connect(endpoint)
    made.send(b"a frame that must not arrive")
    return made


def first_flight(endpoint: str, key: Credential, context: zmq.Context[zmq.Socket[bytes]]) -> bytes:
    """Greeting and HELLO of a CURVE client, recorded between it and the hub."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as relay:
        recording = client(context, f"tcp://127.0.0.1:{relay.getsockname()[1]}", key)
        inside, _ = relay.accept()
    recorded = b""
    with inside, socket.create_connection((host, int(port))) as hub:
        inside.settimeout(10)
        hub.settimeout(10)
        while b"HELLO" not in recorded or len(recorded) < 64 + 202:
            data = inside.recv(4096)
            recorded += data
            hub.sendall(data)
            if len(recorded) < 64 + 202:
                inside.sendall(hub.recv(4096))
    recording.close(linger=0)
    return recorded


def test_strangers_are_refused_and_the_run_is_unharmed(held: Held, tmp_path: Path) -> None:
    """No key, a wrong key, a key of another run, another worker's key, a replayed HELLO, plaintext, a silent port scanner, a frame
    of 2 GiB: each is in the log with its address and reason and in the count; digest and exit code are as without them."""
    host, _, port = held.endpoint.removeprefix("tcp://").rpartition(":")
    own = load_credential(held.keys / "w1.credential")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    other = RunKeys.generate(["w1"])
    context = zmq.Context()
    raw = {name: socket.create_connection((host, int(port))) for name in RAW}
    for name, (data, _reason) in RAW.items():
        raw[name].sendall(data)
    held.wait_refused(len(RAW) - 1)  # the scanner takes its time
    hello = first_flight(held.endpoint, own, context)
    raw["replay"] = socket.create_connection((host, int(port)))
    raw["replay"].sendall(hello)
    clients = [
        client(context, held.endpoint, None),
        client(context, held.endpoint, own._replace(public_key=public, secret_key=secret)),
        client(context, held.endpoint, own._replace(server_key=other.public.decode())),
        client(context, held.endpoint, own),
        client(context, held.endpoint, own, b"w0"),
    ]
    held.wait_refused(len(RAW) + 7)  # with the connection that recorded the HELLO
    addresses = {entry["address"]: entry["reason"] for entry in held.refusals()}
    for name, (_data, reason) in RAW.items():
        assert reason in addresses[f"127.0.0.1:{raw[name].getsockname()[1]}"], name
    assert "in time" in addresses[f"127.0.0.1:{raw['replay'].getsockname()[1]}"]
    reasons = sorted(addresses.values())
    assert sum("not one of this run's" in reason for reason in reasons) == 1
    assert sum("does not fit the hub's key" in reason for reason in reasons) == 1
    assert sum("with the key of w1, which is connected already" in reason for reason in reasons) == 2
    for made in raw.values():
        made.settimeout(10)
        try:
            while made.recv(4096):
                pass  # what the hub's greeting says
        except ConnectionResetError:
            pass
        made.close()
    for made_by_libzmq in clients:
        made_by_libzmq.close(linger=0)
    context.term()
    held.go.touch()
    _, err = held.process.communicate(timeout=TIMEOUT_S)
    assert held.process.returncode == 0, err
    got = result(held.directory)
    assert got["refused_peers"] == len(held.refusals()) == len(RAW) + 7
    assert up(held_ring(tmp_path), tmp_path / "alone", "--workers", "0").returncode == 0
    alone = result(tmp_path / "alone")
    assert (got["digest"], got["counters"]) == (alone["digest"], alone["counters"])
    assert alone["refused_peers"] == 0


def test_strangers_at_the_root_of_hosts(tmp_path: Path) -> None:
    """The root hub of a run over hosts refuses the same strangers, names each, and digest and exit code are as without them."""
    go, directory = tmp_path / "go", tmp_path / "run"
    words = ("--allow-models", "tests.support", "--run-dir", directory, "--hosts", "2", "--listen", "127.0.0.1:0")
    process = subprocess.Popen(
        command("up", held_ring(tmp_path), *words),
        cwd=ROOT, env={**environment(), GO_VARIABLE: str(go)}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    context = zmq.Context()
    try:
        wait_running(directory, process)
        line = next(line for line in children(process.pid).values() if "cosim host" in line)
        held = Held(directory, process, next(w for w in line.split() if w.startswith("tcp://")), directory, go)
        host, _, port = held.endpoint.removeprefix("tcp://").rpartition(":")
        raw = {name: socket.create_connection((host, int(port))) for name in RAW}
        for name, (data, _reason) in RAW.items():
            raw[name].sendall(data)
        other = RunKeys.generate(["h0"])
        stranger = parse_credential(other.credential("h0"), "test")
        clients = [client(context, held.endpoint, None), client(context, held.endpoint, stranger, b"h0")]
        held.wait_refused(len(RAW) + 2)
        addresses = {entry["address"]: entry["reason"] for entry in held.refusals()}
        for name, (_data, reason) in RAW.items():
            assert reason in addresses[f"127.0.0.1:{raw[name].getsockname()[1]}"], name
            raw[name].close()
        assert sum("does not fit the hub's key" in reason for reason in addresses.values()) == 1
        for made in clients:
            made.close(linger=0)
    finally:
        go.touch()
        context.destroy(linger=0)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    assert up(held_ring(tmp_path), tmp_path / "alone", "--workers", "0").returncode == 0
    assert result(directory)["digest"] == result(tmp_path / "alone")["digest"]
    assert result(directory)["refused_peers"] == len(RAW) + 2


_WITH_STOLEN_KEYS = """\
from cosim.engines.registry import ENGINES
ENGINES["local"] = "tests.support.engines:StolenKeys"
from cosim.cli.main import main
main()
"""


@pytest.fixture
def stolen(tmp_path: Path) -> Iterator[Held]:
    """A run over two hosts whose credentials the test has, `keys` is their folder: no host has started yet."""
    go, directory, keys = tmp_path / "go", tmp_path / "run", tmp_path / "keys"
    keys.mkdir()
    words = ("--allow-models", "tests.support", "--run-dir", directory, "--hosts", "2", "--listen", "127.0.0.1:0")
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_STOLEN_KEYS, "up", str(held_ring(tmp_path)), *map(str, words)], cwd=ROOT,
        env={**environment(), GO_VARIABLE: str(go), STOLEN_VARIABLE: str(keys)},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not (keys / "endpoint").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        yield Held(directory, process, (keys / "endpoint").read_text(), keys, go)
    finally:
        (keys / "hosts").touch()
        go.touch()
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def test_stolen_keys_of_hosts_at_the_root(stolen: Held, tmp_path: Path) -> None:
    """The root hub refuses a peer with h1's key that claims to be h0, before the hosts are there and after, a second peer with
    h0's key, and a replayed HELLO of h0: each is named with its address, and digest and exit code are as without them."""
    host, _, port = stolen.endpoint.removeprefix("tcp://").rpartition(":")
    h0, h1 = (load_credential(stolen.keys / f"{name}.credential") for name in ("h0", "h1"))
    context = zmq.Context()
    clients = [client(context, stolen.endpoint, h1, b"h0")]
    stolen.wait_refused(1)
    assert stolen.refusals()[0]["reason"] == "it came with the key of h1 under the name h0"
    (stolen.keys / "hosts").touch()
    wait_running(stolen.directory, stolen.process)
    hello = first_flight(stolen.endpoint, h0, context)
    replay = socket.create_connection((host, int(port)))
    replay.sendall(hello)
    clients += [client(context, stolen.endpoint, h0, b"h0"), client(context, stolen.endpoint, h1, b"h0")]
    stolen.wait_refused(5)  # with the connection that recorded the HELLO
    found = [(entry["address"], entry["reason"]) for entry in stolen.refusals()[1:]]
    assert len(set(found)) == 4 and all(re.fullmatch(r"127\.0\.0\.1:\d+", address) for address, _reason in found)
    assert "in time" in dict(found)[f"127.0.0.1:{replay.getsockname()[1]}"]
    for name in ("h0", "h1"):
        assert sum(f"with the key of {name}, which is connected already" in reason for _address, reason in found) == 1
    replay.close()
    context.destroy(linger=0)
    stolen.go.touch()
    _, err = stolen.process.communicate(timeout=TIMEOUT_S)
    assert stolen.process.returncode == 0, err
    got = result(stolen.directory)
    assert got["refused_peers"] == len(stolen.refusals()) == 5
    assert up(held_ring(tmp_path), tmp_path / "alone", "--workers", "0").returncode == 0
    alone = result(tmp_path / "alone")
    assert (got["digest"], got["counters"]) == (alone["digest"], alone["counters"])


def test_secrets_are_in_their_files_alone(held: Held) -> None:
    """No secret key is in a command line, an environment, or a file of the run directory; the key files are private, in a private
    directory, and go with the run; the port is open at the address asked for, and no other."""
    secrets = [load_credential(file).secret_key for file in held.keys.glob("*.credential")]
    assert len(secrets) == 4
    assert held.keys.stat().st_mode & 0o777 == 0o700
    pids = [held.process.pid, *children(held.process.pid)]
    seen = b"".join(Path(f"/proc/{pid}/{file}").read_bytes() for pid in pids for file in ("cmdline", "environ"))
    seen += b"".join(path.read_bytes() for path in held.directory.rglob("*") if path.is_file())
    assert b"cosim.node.worker" in seen
    assert not any(secret.encode() in seen for secret in secrets)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(held.endpoint.rpartition(":")[2])))
    held.go.touch()
    held.process.communicate(timeout=TIMEOUT_S)
    assert not held.keys.exists()


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_tcp_changes_nothing(tmp_path: Path, start: str) -> None:
    """Digest and counters over TCP are those of one process, however workers start."""
    over = up(ring(tmp_path), tmp_path / "tcp", "--listen", "127.0.0.1:0", "--start", start)
    assert over.returncode == 0, over.stderr
    assert up(ring(tmp_path), tmp_path / "alone", "--workers", "0").returncode == 0
    got, alone = result(tmp_path / "tcp"), result(tmp_path / "alone")
    assert (got["digest"], got["counters"]) == (alone["digest"], alone["counters"])


def test_a_dead_worker_over_tcp_is_named(tmp_path: Path) -> None:
    """A worker that ends without a word ends the run with 4 and its exit status, as over the local links."""
    done = up(ring(tmp_path, "Dies"), tmp_path / "run", "--listen", "127.0.0.1:0")
    assert done.returncode == 4
    assert "n1" in done.stderr and "exit status 7" in done.stderr


@pytest.mark.parametrize(
    ("listen", "text"),
    [("203.0.113.7:0", "tcp://203.0.113.7:0 can't be bound"), ("*:0", "with an address to bind or reach")],
)
def test_an_address_that_is_none_of_ours(tmp_path: Path, listen: str, text: str) -> None:
    """Exit 2 with the address and what to do."""
    done = up(ring(tmp_path), tmp_path / "run", "--listen", listen)
    assert done.returncode == 2
    assert text in done.stderr and "--listen" in done.stderr


@pytest.mark.parametrize("language", ["python", "c"])
def test_a_foreign_node_needs_its_key(tmp_path: Path, language: str) -> None:
    """A foreign program over tcp is told of COSIM_CREDENTIAL: without one, with one open to others, and with a key that the hub
    does not know, it ends within seconds with an error that says so."""
    argv = [sys.executable, str(EXAMPLES / "python_node" / "memory.py")]
    if language == "c":
        argv = [str(build(EXAMPLES / "c_node" / "memory.c", tmp_path / "memory"))]
    keys, other = RunKeys.generate(["memory"]), RunKeys.generate(["memory"])
    hub = HubSocket("tcp://127.0.0.1:0", keys)
    (tmp_path / "token").write_text("secret\n")
    unlisted = json.loads(other.credential("memory")) | {"server_key": keys.public.decode()}
    write_credential(tmp_path / "unlisted", json.dumps(unlisted).encode())
    write_credential(tmp_path / "open", keys.credential("memory"))
    (tmp_path / "open").chmod(0o644)
    base = {
        **environment(),
        "COSIM_ENDPOINT": hub.endpoint,
        "COSIM_NAME": "memory",
        "COSIM_TOKEN_FILE": str(tmp_path / "token"),
    }
    for file, text in (
        (None, "credential: .*tcp.*COSIM_CREDENTIAL"),
        ("open", "credential: .*0600"),
        ("unlisted", "hub-gone: .*the key of this credential"),
    ):
        env = base if file is None else {**base, "COSIM_CREDENTIAL": str(tmp_path / file)}
        node = subprocess.Popen(argv, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while node.poll() is None:
            assert time.monotonic() < deadline, f"{file}: it hangs"
            hub.wait(20)
            assert hub.receive() is None
        out, err = node.communicate()
        assert node.returncode != 0
        assert re.search(text, out + err, re.DOTALL), (file, out, err)
    assert [reason for _, reason in hub.refused_peers] == ["its key is not one of this run's"]
    hub.close()


def test_a_worker_with_a_credential_of_another_run(tmp_path: Path) -> None:
    """The worker process ends with 4 and says why, on stderr."""
    keys, other = RunKeys.generate(["w0"]), RunKeys.generate(["w0"])
    hub = HubSocket("tcp://127.0.0.1:0", keys)
    write_credential(tmp_path / "w0", other.credential("w0"))
    worker = subprocess.Popen(
        [sys.executable, "-m", "cosim.node.worker", hub.endpoint, "w0", str(os.getpid()), str(tmp_path / "w0")],
        env=environment(), text=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while worker.poll() is None:
        assert time.monotonic() < deadline, "it hangs"
        hub.wait(20)
        assert hub.receive() is None
    assert worker.returncode == 4
    assert worker.stderr is not None
    with worker.stderr:
        assert "w0: tcp://127.0.0.1" in (said := worker.stderr.read()) and "server_key" in said
    hub.close()
