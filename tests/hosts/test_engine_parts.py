"""The engines' own parts, without daemons: options, command lines, the launcher, placing on Dask workers."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.engines.base import Slot, program, with_credential_file, write_private
from cosim.engines.dask import Worker, place
from cosim.engines.registry import ENGINES, make_engine
from cosim.engines.slot import LIMIT, choose, order, read_order
from cosim.engines.ssh import SshEngine
from cosim.errors import UsageError
from cosim.run.host_main import HostOrder
from tests.support.processes import is_running
from tests.support.runs import ROOT

COMMAND = ("cosim", "host", "tcp://10.0.0.1:5000", "h0", "--credential", "-", "--lease", "10")


def test_a_command_of_cosim_is_run_by_the_hosts_interpreter() -> None:
    """The word cosim becomes the interpreter's module run; any other program is left as it is."""
    assert program(COMMAND, "/opt/py")[:4] == ["/opt/py", "-m", "cosim", "host"]
    assert program(["other", "cosim"], "/opt/py") == ["other", "cosim"]


def test_a_credential_file_takes_the_place_of_stdin() -> None:
    """Only the word after --credential changes, and only when it says stdin."""
    assert with_credential_file(COMMAND, "/f")[4:6] == ("--credential", "/f")
    assert (
        with_credential_file(COMMAND, "/f")[:4] + with_credential_file(COMMAND, "/f")[6:] == COMMAND[:4] + COMMAND[6:]
    )
    assert with_credential_file(("a", "-"), "/f") == ("a", "-")
    assert with_credential_file(("a", "--credential"), "/f") == ("a", "--credential")


def test_no_text_form_shows_a_credential() -> None:
    """A slot, and what a host is told, do not show the key when a traceback or a log shows them."""
    shown = f"{Slot('h0', 'box1', COMMAND, b'secret-key')} {HostOrder('tcp://10.0.0.1:5000', 'h0', b'secret-key')}"
    assert "h0" in shown and "box1" in shown and "secret-key" not in shown


def test_a_private_file_is_never_open_to_others(tmp_path: Path) -> None:
    """The file has mode 0600 whatever the umask, and a link in its place is refused."""
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        write_private(tmp_path / "link", b"data")


@pytest.mark.parametrize(
    ("engine", "options", "what"),
    [
        ("slum", {}, "must be one of local, ssh, dask, slurm, k8s, not 'slum'"),
        ("ssh", {"prot": "22"}, "must be one of user, port, .* not 'prot'"),
        ("ssh", {"port": "ssh"}, "port of engine ssh must be a whole number, not 'ssh'"),
        ("slurm", {"wait": "soon"}, "must be a number, not 'soon'"),
        ("slurm", {"exclusive": "perhaps"}, "must be yes or no, not 'perhaps'"),
        ("dask", {}, "must have the address of a running scheduler"),
        ("dask", {"scheduler": "tcp://h:1", "credentials": "tls"}, "tls:// scheduler only, not to tcp://h:1"),
        ("dask", {"scheduler": "tcp://h:1", "credentials": "argv"}, "must be file or tls, not 'argv'"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(
    engine: str, options: dict[str, str], what: str, tmp_path: Path
) -> None:
    """An engine or option that does not exist, or a text of another type, says what was expected and found."""
    with pytest.raises(UsageError, match=what):
        make_engine(engine, tmp_path / "engine", options)
    assert not (tmp_path / "engine").exists()


def test_an_option_that_is_nearly_right_is_suggested(tmp_path: Path) -> None:
    """A misspelt option gets a suggestion."""
    with pytest.raises(UsageError) as caught:
        make_engine("ssh", tmp_path, {"prot": "22"})
    assert caught.value.next_step == "did you mean port?"


def test_every_engine_of_the_table_is_there() -> None:
    """Each entry names a class that exists."""
    for place_of in ENGINES.values():
        module, _, name = place_of.partition(":")
        assert isinstance(getattr(__import__(module, fromlist=[name]), name), type)


def test_the_ssh_command_line_holds_no_secret_and_survives_a_shell(tmp_path: Path) -> None:
    """argv has every option, no credential, and words that the remote shell must not interpret stay one word."""
    engine = SshEngine(tmp_path, {"user": "me", "port": "2200", "directory": "/a b", "python": "/opt/my py"})
    argv = engine.argv(Slot("h0", "box", ("cosim", "host", "$(reboot)"), b"SECRET"))
    assert argv[0] == "ssh" and argv[argv.index("-l") + 1] == "me" and argv[argv.index("-p") + 1] == "2200"
    assert argv[-3:-1] == ["--", "box"]
    assert "SECRET" not in " ".join(argv)
    shown = subprocess.run(
        ["sh", "-c", argv[-1].replace("cd '/a b' && exec", "printf '%s|'")], capture_output=True, text=True
    )
    assert shown.stdout.split("|")[:-1] == [
        "/opt/my py", "-m", "cosim.engines.slot", "--", "/opt/my py", "-m", "cosim", "host", "$(reboot)",
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["", "-oProxyCommand=reboot"])
def test_ssh_refuses_a_destination_that_is_none(host: str, tmp_path: Path) -> None:
    """No host, or a word that ssh would take for an option, is refused with the slot's name."""
    engine = SshEngine(tmp_path, {})
    with pytest.raises(UsageError, match="destination for h0"):
        anyio.run(engine.start, [Slot("h0", host, COMMAND, b"")])


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    """An ssh client that is not installed is a usage error, not a traceback."""
    engine = SshEngine(tmp_path, {"ssh": "/nowhere/ssh"})
    with pytest.raises(UsageError, match="'/nowhere/ssh' must be there to start h0"):
        anyio.run(engine.start, [Slot("h0", "box", COMMAND, b"")])


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_an_order_is_read_to_its_end_and_not_further(credential: bytes, rest: bytes) -> None:
    """Any credential arrives unchanged, and what follows stays in the pipe."""
    read, write = os.pipe()
    try:
        os.write(write, order(credential) + rest)
        os.close(write)
        assert read_order(read) == credential
        assert os.read(read, 100) == rest
    finally:
        os.close(read)


@pytest.mark.parametrize("data", [b"", b"12", b"x\n", b"-1\nabc", b"5\nabc", b"99999\n", b"123456789012345\n"])
def test_an_order_that_is_none_is_refused(data: bytes) -> None:
    """A stream that does not begin with a size, a size beyond the limit and a short credential are errors."""
    read, write = os.pipe()
    try:
        os.write(write, data)
        os.close(write)
        with pytest.raises(ValueError, match="must"):
            read_order(read)
    finally:
        os.close(read)


def test_a_credential_beyond_the_limit_is_refused() -> None:
    """What a pipe might not take at once is not written to one."""
    with pytest.raises(ValueError, match=f"at most {LIMIT} bytes"):
        order(b"x" * (LIMIT + 1))


def launch(code: str, credential: bytes = b"") -> subprocess.Popen[bytes]:
    """The launcher with a Python program as its command."""
    words = [sys.executable, "-m", "cosim.engines.slot", "--", sys.executable, "-c", code]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    process.stdin.write(order(credential))
    process.stdin.flush()
    return process


def test_the_launcher_gives_the_credential_and_returns_the_status() -> None:
    """The command's stdin is the credential and then its end; its exit status is the launcher's, whose stdin stays open."""
    with launch("import sys; print(sys.stdin.read()[::-1]); sys.exit(7)", b"abc") as process:
        assert process.wait(30) == 7
        assert process.stdout is not None and process.stdout.read() == b"cba\n"


def test_a_signal_that_killed_the_command_shows_in_the_status() -> None:
    """A command killed by SIGKILL gives 128 + 9, as shells say it."""
    with launch("import os; os.kill(os.getpid(), 9)") as process:
        assert process.wait(30) == 137


SLEEPER = (
    "import os, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN if STUBBORN else signal.SIG_DFL)\n"
    "child = subprocess.Popen(['sleep', '600'])\n"
    "print(os.getpid(), child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


@pytest.mark.parametrize(("how", "stubborn"), [("close", False), ("close", True), ("term", False), ("kill", False)])
def test_a_command_nobody_wants_ends_with_its_whole_group(how: str, stubborn: bool) -> None:
    """When stdin ends or a signal comes, command and children end, at the latest by SIGKILL; the launcher's death ends it."""
    with launch(SLEEPER.replace("STUBBORN", str(stubborn))) as process:
        assert process.stdin is not None and process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        start = time.monotonic()
        if how == "close":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM if how == "term" else signal.SIGKILL)
        process.wait(30)
        wanted = pids[:1] if how == "kill" else pids  # SIGKILL leaves nobody who could see to the group
        while any(map(is_running, wanted)):
            assert time.monotonic() < start + 30, f"of {pids} none may be left"
            time.sleep(0.01)
        if how == "kill":
            os.kill(pids[1], signal.SIGKILL)


def test_what_a_command_leaves_in_its_group_ends_with_it() -> None:
    """A command that ends by itself and leaves a child behind leaves none on the host."""
    with launch("import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=2).pid, flush=True)") as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert process.wait(30) == 0
        deadline = time.monotonic() + 10
        while is_running(child):
            assert time.monotonic() < deadline, "the child must be gone"
            time.sleep(0.01)


def test_the_launcher_says_what_it_expected() -> None:
    """A wrong command line ends with status 2 and the two right forms."""
    words = [sys.executable, "-m", "cosim.engines.slot", "nonsense"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "'-- COMMAND...' or '--from FILE', not 'nonsense'" in done.stderr


def entries(*hosts: str) -> list[dict[str, str]]:
    """Entries of the Slurm engine's file."""
    return [{"name": f"h{i}", "host": host} for i, host in enumerate(hosts)]


def test_a_slurm_task_finds_its_slot() -> None:
    """Named nodes are found by node whatever the task's number; without names the number decides."""
    named, unnamed = entries("b", "a"), entries("", "")
    assert choose(named, {"SLURMD_NODENAME": "a", "SLURM_LOCALID": "0", "SLURM_PROCID": "0"})["name"] == "h1"
    assert choose(unnamed, {"SLURMD_NODENAME": "a", "SLURM_PROCID": "0"})["name"] == "h0"
    for environment in ({}, {"SLURM_PROCID": "2"}, {"SLURMD_NODENAME": "c"}):
        with pytest.raises(LookupError, match="no slot for task"):
            choose(named if "SLURMD_NODENAME" in environment else unnamed, environment)


WORKERS = st.lists(
    st.builds(Worker, st.uuids().map(str), st.sampled_from("abcdef"), st.sampled_from(["m1", "m2", "m3"])),
    max_size=8,
    unique_by=lambda worker: worker.address,
)
HOSTS = st.lists(st.sampled_from(["", "", "m1", "m2", "a", "b"]), max_size=6)


@given(WORKERS, HOSTS)
def test_dask_slots_get_workers_of_their_own_where_they_asked(workers: list[Worker], hosts: list[str]) -> None:
    """A placement uses each worker once and keeps to named hosts; slots without one spread over the hosts there are."""
    slots = [Slot(f"h{i}", host, COMMAND, b"") for i, host in enumerate(hosts)]
    try:
        placed = place(slots, workers)
    except LookupError:
        named = [host for host in hosts if host]
        assert named or len(workers) < len(slots)  # without wishes only their number can be too small
        return
    assert len({worker.address for worker in placed.values()}) == len(placed) == len(slots)
    for slot in slots:
        assert slot.host in ("", placed[slot.name].host, placed[slot.name].name)
    if not any(hosts) and slots:
        used = {worker.host for worker in placed.values()}
        assert len(used) == min(len(slots), len({worker.host for worker in workers}))
