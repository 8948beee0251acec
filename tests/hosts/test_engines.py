"""Engines on real daemons of several hosts, with a stand-in for the host hub: placing, credentials, exits, ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.network import Network
from tests.hosts.services import ROOT, SPARE, Dask, DaskTls, Services, Slurm, Sshd
from tests.support.processes import is_running

pytestmark = pytest.mark.hosts

LIMIT_S = 60.0


class Drive:
    """A driver process on h0 that uses an engine."""

    def __init__(self, service: Any, engine: str, folder: Path, hosts: list[str], **more: Any) -> None:
        """Start it with one stand-in per host.

        Args:
            service: the engine's daemons.
            engine: its name.
            folder: where stand-ins and engine write.
            hosts: destinations as the engine names them; "" for any.
            more: "exits" {slot: status}, "options" {name: text}, "prefix": words before the driver's.
        """
        self.network: Network = service.network
        self.folder = folder
        self.names = [f"s{i}" for i in range(len(hosts))]
        exits: dict[str, int] = more.get("exits", {})
        slots = [
            [name, host, [sys.executable, str(ROOT / "tests/hosts/standin.py"), name, str(folder), "--credential", "-"]
             + (["--exit", str(exits[name])] if name in exits else []), secret(name)]
            for name, host in zip(self.names, hosts, strict=True)
        ]  # fmt: skip
        options = {**service.options, **more.get("options", {})}
        order = {"engine": engine, "folder": str(folder / "engine"), "options": options, "slots": slots}
        order["backend"] = "trio" if engine == "slurm" else "asyncio"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **getattr(service, "variables", {})}
        driver = [*more.get("prefix", ()), sys.executable, "-m", "tests.hosts.driver", json.dumps(order)]
        self.process = subprocess.Popen(
            self.network.inside("h0", *driver),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=folder,
        )

    def next(self, *kinds: str) -> dict[str, Any]:
        """The next thing that happens, which must be of one of these kinds."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the driver must go on, and has ended"
        event: dict[str, Any] = json.loads(line)
        assert event["kind"] in kinds, event
        return event

    def alive(self) -> dict[str, dict[str, Any]]:
        """What each stand-in says of itself, once all do."""
        wait(lambda: all((self.folder / f"{name}.alive").exists() for name in self.names), "all stand-ins alive")
        return {name: json.loads((self.folder / f"{name}.alive").read_text()) for name in self.names}

    def pids(self) -> list[int]:
        """The stand-ins' process ids."""
        return [facts["pid"] for facts in self.alive().values()]

    def end(self) -> None:
        """Tell the driver to stop."""
        assert self.process.stdin is not None
        self.process.stdin.close()


def secret(name: str) -> str:
    """A slot's credential."""
    return f"TOPSECRET-of-{name}\nsecond line"


def wait(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> float:
    """Wait until a condition holds; seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + limit_s, f"{what} within {limit_s} s"
        time.sleep(0.02)
    return time.monotonic() - start


@contextmanager
def driving(service: Services, engine: str, folder: Path, hosts: list[str], **more: Any) -> Iterator[Drive]:
    """A driver that is gone afterwards, with all its stand-ins."""
    drive = Drive(service, engine, folder, hosts, **more)
    try:
        yield drive
    finally:
        drive.process.kill()
        drive.process.wait()
        for pipe in (drive.process.stdin, drive.process.stdout):
            assert pipe is not None
            pipe.close()
        for file in folder.glob("*.alive"):
            pid = json.loads(file.read_text())["pid"]
            if is_running(pid) and "standin" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


def everything_that_shows() -> bytes:
    """All command lines and environments of the machine, but the arguments of drivers: these hold a test's order, with its
    secrets, and the driver of the test before may not have gone yet."""
    parts = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                shown = (process / name).read_bytes()
            except OSError:
                continue
            if name == "environ" or b"tests.hosts.driver\0" not in shown:
                parts.append(shown)
    return b"\n".join(parts)


def test_slots_run_where_they_should_with_their_own_credential(placed_by: tuple[str, Services], tmp_path: Path) -> None:
    """Each slot runs on the host that it names, reads its own credential, which nothing shows, and ends with `stop`."""
    engine, service = placed_by
    with driving(service, engine, tmp_path, ["h2", "h1"]) as drive:
        drive.next("started")
        alive = drive.alive()
        assert [alive[name]["address"] for name in drive.names] == ["10.77.0.12", "10.77.0.11"]
        for name in drive.names:
            assert alive[name]["credential"] == hashlib.sha256(secret(name).encode()).hexdigest()
        assert b"TOPSECRET" not in everything_that_shows()
        for file in (tmp_path / "engine").iterdir():
            assert b"TOPSECRET" not in file.read_bytes() or (
                file.suffix == ".credential" and file.stat().st_mode & 0o77 == 0
            )
        drive.end()
        stopped = drive.next("stopped")
        wait(lambda: not any(map(is_running, drive.pids())), "no stand-in alive", 20)
        assert all(f"{name} lives" in stopped["logs"][name] for name in drive.names)
        assert list((tmp_path / "engine").glob("*.credential")) == []


def test_an_exit_is_reported_with_status_and_last_words(placed_by: tuple[str, Services], tmp_path: Path) -> None:
    """The slot that ends is named with its status and what it wrote, wherever the engine put it."""
    engine, service = placed_by
    hosts = ["h1", "h3"] if engine == "ssh" else ["", ""]
    with driving(service, engine, tmp_path, hosts, exits={"s1": 7}) as drive:
        drive.next("started")
        event = drive.next("exit")
        if event["name"] != "s1":  # Slurm ends the whole step, and its order is open
            event = drive.next("exit")
        assert (event["name"], event["status"]) == ("s1", 7)
        assert "s1 lives" in event["text"]


def test_the_death_of_an_ssh_driver_ends_its_slots(sshd: Sshd, tmp_path: Path) -> None:
    """With the driver killed by SIGKILL the remote commands end, without any lease, because their stdin does."""
    with driving(sshd, "ssh", tmp_path, ["h1", "h2"]) as drive:
        drive.next("started")
        pids = drive.pids()
        drive.process.kill()
        wait(lambda: not any(map(is_running, pids)), "no stand-in alive", 20)


def test_ssh_tells_a_host_that_is_cut_off(sshd: Sshd, tmp_path: Path) -> None:
    """The client gives up on a host that does not answer its questions, and the engine says that it was the connection."""
    options = {"alive_interval": "1", "alive_count": "1"}
    with driving(sshd, "ssh", tmp_path, ["h1", "h2"], options=options) as drive:
        drive.next("started")
        drive.alive()
        sshd.network.cut("h2")
        try:
            event = drive.next("exit")
        finally:
            sshd.network.heal("h2")
        assert (event["name"], event["status"]) == ("s1", 255)
        assert "connection" in event["text"] and "not responding" in event["text"]


def test_dask_tells_a_worker_that_is_gone(dask: Dask, tmp_path: Path) -> None:
    """A slot whose Dask worker was killed is reported, not pending for ever, and its command has ended with the worker."""
    with driving(dask, "dask", tmp_path, ["h1", SPARE]) as drive:
        drive.next("started")
        alive = drive.alive()
        dask.workers[SPARE].kill()
        event = drive.next("exit")
        assert event["name"] == "s1" and "worker spare" in event["text"]
        wait(lambda: not is_running(alive["s1"]["pid"]), "the lost worker's stand-in gone", 20)
        assert is_running(alive["s0"]["pid"])


def test_credentials_go_through_dask_over_tls(dask_tls: DaskTls, tmp_path: Path) -> None:
    """With TLS the credential reaches the hub's stdin, no file holds it, and the last words come back."""
    with driving(dask_tls, "dask", tmp_path, ["h1"], exits={"s0": 3}) as drive:
        drive.next("started")
        event = drive.next("exit")
        assert (event["name"], event["status"]) == ("s0", 3) and "s0 lives" in event["text"]
        assert drive.alive()["s0"]["credential"] == hashlib.sha256(secret("s0").encode()).hexdigest()
        files = [*(tmp_path / "engine").rglob("*"), *dask_tls.folder.rglob("*")]
        assert [file for file in files if file.is_file() and b"TOPSECRET" in file.read_bytes()] == []


def test_dask_says_which_host_has_no_worker(dask: Dask, tmp_path: Path) -> None:
    """A host without a Dask worker is an error that names it and the workers there are, after a bounded wait."""
    with driving(dask, "dask", tmp_path, ["h9"], options={"wait": "1.5"}) as drive:
        event = drive.next("error")
        assert (event["code"], event["exit_code"]) == ("engine-workers", 4)
        assert "'h9'" in event["what"] and "h1 on 10.77.0.11" in event["what"]


def test_a_slurm_job_that_can_never_start_is_refused(slurm: Slurm, tmp_path: Path) -> None:
    """A job that Slurm would keep pending for ever is cancelled at once, with Slurm's reason."""
    with driving(slurm, "slurm", tmp_path, ["", ""], options={"extra": "--hold"}) as drive:
        event = drive.next("error")
        assert (event["code"], event["exit_code"]) == ("engine-pending", 2)
        assert "JobHeldUser" in event["what"]


def test_a_slurm_job_waits_for_its_nodes_for_a_bounded_time(slurm: Slurm, tmp_path: Path) -> None:
    """A job whose nodes are taken is given up after the wait, and cancelled."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    exclusive = {"exclusive": "yes"}
    with driving(slurm, "slurm", tmp_path / "one", ["h1"], options=exclusive) as first:
        first.next("started")
        with driving(slurm, "slurm", tmp_path / "two", ["h1"], options={**exclusive, "wait": "1"}) as second:
            event = second.next("error")
            assert (event["code"], event["exit_code"]) == ("engine-pending", 4)
            assert "Resources" in event["what"] or "Priority" in event["what"]
        first.end()
        first.next("stopped")


def test_inside_an_allocation_slurm_hosts_end_with_the_driver(slurm: Slurm, tmp_path: Path) -> None:
    """A driver that runs under salloc uses its nodes, and its death by SIGKILL ends the step."""
    prefix = ["salloc", "--quiet", "--nodes=2", "--ntasks=2"]
    with driving(slurm, "slurm", tmp_path, ["", ""], prefix=prefix) as drive:
        pid = drive.next("started")["pid"]
        alive = drive.alive()
        assert len({facts["address"] for facts in alive.values()}) == 2
        os.kill(pid, signal.SIGKILL)
        wait(lambda: not any(map(is_running, drive.pids())), "no stand-in alive", 20)
        drive.process.wait(30)
