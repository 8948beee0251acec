"""Hosts for a whole test session: their network and daemons are made once, by the first test that needs them.

What is missing is named: the test is skipped, or fails where ``CI`` is set, since there it was to be installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.hosts import network as net
from tests.hosts.runs import SlowRun
from tests.hosts.services import PROGRAMS, Dask, DaskTls, Slurm, Sshd, find
from tests.support.runs import result, up

Service = TypeVar("Service", Sshd, Slurm, Dask, DaskTls)
HOSTS = 4
"""h0 for the driver, h1 to h3 for host hubs."""


def require(lacking: list[str]) -> None:
    """Skip, or under CI fail, if anything is lacking."""
    if lacking:
        text = f"tests on several hosts need {', '.join(sorted(set(lacking)))}"
        if os.environ.get("CI"):
            pytest.fail(text, pytrace=False)
        pytest.skip(text)


def require_programs(engine: str) -> None:
    """`require` the programs of an engine."""
    packages = PROGRAMS[engine]
    require([f"{name} (Debian package {package})" for name, package in packages.items() if find(name) is None])


def require_distributed() -> None:
    """`require` the package of engine dask."""
    if importlib.util.find_spec("distributed") is None:
        require(["distributed (extra dask)"])


@contextmanager
def serving(kind: Callable[[net.Network, Path], Service], network: net.Network, folder: Path) -> Iterator[Service]:
    """An engine's daemons on the hosts, with a new folder of their own."""
    folder.mkdir()
    service = kind(network, folder)
    try:
        yield service
    finally:
        service.close()


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder with a short name (munge's socket is in it), gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="cosim-hosts-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def reference(folder: Path) -> dict[str, Any]:
    """The result of rdn2cfg1 in one process."""
    run = up("rdn2cfg1", folder / "reference", "--workers", "0", "--quiet")
    assert run.returncode == 0, run.stderr
    return result(folder / "reference")


@pytest.fixture(scope="session")
def slow_run(folder: Path) -> Iterator[SlowRun]:
    """rdn2cfg1 over two hosts of a slow network, by ssh; under way. It waits for the network nearly all of its time."""
    require(net.missing())
    require_programs("ssh")
    network = net.Network("s", 3, delay_ms=20, loss=0.02)
    with serving(Sshd, network, folder / "slow") as service:
        run = SlowRun(service, folder / "slow" / "run")
        yield run
        run.close()
    network.close()


@pytest.fixture(scope="session")
def network(request: pytest.FixtureRequest) -> Iterator[net.Network]:
    """Four hosts on a fast network."""
    require(net.missing())
    if any("slow_run" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("slow_run")  # goes on beside the tests before it
    made = net.Network("n", HOSTS)
    yield made
    made.close()


@pytest.fixture(scope="session")
def sshd(network: net.Network, folder: Path) -> Iterator[Sshd]:
    """sshd on the hosts."""
    require_programs("ssh")
    with serving(Sshd, network, folder / "ssh") as service:
        yield service


@pytest.fixture(scope="session")
def slurm(network: net.Network, folder: Path) -> Iterator[Slurm]:
    """Slurm over the hosts, all nodes idle."""
    require_programs("slurm")
    with serving(Slurm, network, folder / "slurm") as service:
        service.wait()
        yield service


@pytest.fixture(scope="session")
def dask(network: net.Network, folder: Path) -> Iterator[Dask]:
    """Dask over the hosts; its workers may still be starting."""
    require_distributed()
    with serving(Dask, network, folder / "dask") as service:
        yield service


@pytest.fixture(scope="session")
def dask_tls(network: net.Network, folder: Path) -> Iterator[DaskTls]:
    """A small Dask that speaks TLS."""
    require_distributed()
    require_programs("tls")
    with serving(DaskTls, network, folder / "tls") as service:
        yield service


@pytest.fixture(scope="session", params=["ssh", "dask", "slurm"])
def placed_by(request: pytest.FixtureRequest) -> tuple[str, Sshd | Dask | Slurm]:
    """Each engine that has daemons, with them."""
    engine: str = request.param
    service: Sshd | Dask | Slurm = request.getfixturevalue("sshd" if engine == "ssh" else engine)
    return engine, service
