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
from tests.hosts.services import Dask, Services, Slurm, Sshd

pytestmark = pytest.mark.hosts

LEASE_S = 4.0
LONG = ("--set", "smmute_transactions=1000", "--workers", "3", "--lease")
"""A run that takes longer than its test; the lease comes last."""
NOTICED_S = 20.0
"""From the cut of a host to the end of the run; five seconds, which `tests.hosts.rounds` measures, if nothing else runs."""
MARGIN_S = 20.0
"""After a lease: processes end, on a machine that may be busy."""


@contextmanager
def running(service: Any, engine: str, run_dir: Path, lease_s: float = LEASE_S) -> Iterator[subprocess.Popen[bytes]]:
    """A long run over h1 and h2, under way; killed and gone afterwards, whatever happens."""
    process = runs.up(service, engine, run_dir, "h1,h2", *LONG, f"{lease_s:g}")
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
    """Exit 4, naming the host and its nodes, before the lease could end it; after the lease nothing is alive anywhere."""
    engine, service = placed_by
    with running(service, engine, tmp_path / "run") as process:
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


@pytest.mark.parametrize("engine", ["dask", "slurm"])
def test_a_killed_driver_leaves_nothing_alive(engine: str, dask: Dask, slurm: Slurm, tmp_path: Path) -> None:
    """After SIGKILL to the driver every process on every host is gone within the lease."""
    service = dask if engine == "dask" else slurm
    with running(service, engine, tmp_path / "run") as process:
        assert runs.alive(service.network, ["h1"]) and runs.alive(service.network, ["h2"])
        process.kill()
        runs.until_none(service.network, LEASE_S + MARGIN_S)


def test_ssh_hosts_do_not_wait_for_their_lease(sshd: Sshd, tmp_path: Path) -> None:
    """By ssh a killed driver's hosts end long before a lease of ten minutes does, since their connection ends."""
    with running(sshd, "ssh", tmp_path / "run", lease_s=600) as process:
        process.kill()
        runs.until_none(sshd.network, MARGIN_S)


def test_slurm_files_of_credentials_are_gone_after_the_run(slurm: Slurm, tmp_path: Path) -> None:
    """What Slurm's tasks read their keys from is removed at the end."""
    status, _ = runs.finish(runs.up(slurm, "slurm", tmp_path / "run", "2", "--until", "1us"), tmp_path / "run")
    assert status == 1
    assert not list((tmp_path / "run").rglob("*.credential"))
    assert (tmp_path / "run" / "hosts" / "h0.log").exists()
