"""Whole runs over several hosts by each engine: same results as on one machine, and ends that leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import runs
from tests.hosts.network import Network
from tests.hosts.services import Services, Slurm, Sshd

pytestmark = pytest.mark.hosts

LEASE_S = 4.0
LONG = ("--set", "smmute_transactions=1000", "--lease", f"{LEASE_S:g}")
"""A run that takes longer than its test."""
NOTICED_S = 5.0
"""From the cut of a host to the end of the run."""
MARGIN_S = 4.0
"""After a lease: the hub's processes end, on a machine that is busy."""


@contextmanager
def running(service: Any, engine: str, run_dir: Path, hosts: str) -> Iterator[subprocess.Popen[bytes]]:
    """A long run over hosts, under way; killed and gone afterwards, whatever happens."""
    process = runs.up(service, engine, run_dir, hosts, *LONG)
    try:
        runs.wait_simulating(process, run_dir)
        yield process
    finally:
        process.kill()
        process.wait()
        for pid in runs.alive(service.network):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("hosts", ["h1,h2", "h1,h2,h3"])
def test_a_run_over_hosts_is_the_run_on_one_machine(
    placed_by: tuple[str, Services], hosts: str, reference: dict[str, Any], tmp_path: Path
) -> None:
    """Both tests pass and the digest is that of the local run, over two and three hosts, and nothing is left there."""
    engine, service = placed_by
    status, result = runs.finish(runs.up(service, engine, tmp_path / "run", hosts), tmp_path / "run")
    assert (status, result["errors"]) == (0, [])
    assert [test["status"] for test in result["tests"]] == ["passed", "passed"]
    assert result["digest"] == reference["digest"]
    entries = result["over_hosts"]["hosts"]
    assert [entry["address"] for entry in entries] == hosts.split(",")
    assert all(entry["nodes"] for entry in entries)
    runs.until_none(service.network, MARGIN_S)


def test_a_host_that_is_cut_off_ends_the_run_and_itself(placed_by: tuple[str, Services], tmp_path: Path) -> None:
    """Exit 4 within five seconds, naming the host and its nodes; within the lease nothing is alive, there or elsewhere."""
    engine, service = placed_by
    with running(service, engine, tmp_path / "run", "h1,h2") as process:
        network: Network = service.network
        assert runs.alive(network, ["h2"])
        network.cut("h2")
        cut = time.monotonic()
        try:
            status, result = runs.finish(process, tmp_path / "run")
            took = time.monotonic() - cut
            runs.until_none(network, LEASE_S + MARGIN_S - took)
        finally:
            network.heal("h2")
        assert status == 4
        assert took < NOTICED_S
        lost = result["errors"][0]
        nodes = result["over_hosts"]["hosts"][1]["nodes"]
        assert lost["code"] == "host-lost" and "(h2)" in lost["where"]
        assert all(node in lost["what"] for node in nodes), lost


def test_a_killed_driver_leaves_nothing_alive(placed_by: tuple[str, Services], tmp_path: Path) -> None:
    """After SIGKILL to the driver every process on every host is gone within the lease."""
    engine, service = placed_by
    with running(service, engine, tmp_path / "run", "h1,h2") as process:
        assert runs.alive(service.network, ["h1"]) and runs.alive(service.network, ["h2"])
        process.kill()
        runs.until_none(service.network, LEASE_S + MARGIN_S)


def test_ssh_hosts_do_not_wait_for_their_lease(sshd: Sshd, tmp_path: Path) -> None:
    """By ssh a killed driver's hosts end at once, since the connection's stdin does."""
    with running(sshd, "ssh", tmp_path / "run", "h1,h2") as process:
        process.kill()
        assert runs.until_none(sshd.network, LEASE_S) < LEASE_S - 1


def test_slurm_files_of_credentials_are_gone_after_the_run(slurm: Slurm, tmp_path: Path) -> None:
    """What Slurm's tasks read their keys from is removed at the end."""
    status, _ = runs.finish(runs.up(slurm, "slurm", tmp_path / "run", "2", "--until", "1us"), tmp_path / "run")
    assert status == 1
    assert not list((tmp_path / "run").rglob("*.credential"))
    assert (tmp_path / "run" / "hosts" / "h0.log").exists()
