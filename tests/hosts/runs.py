"""A run of `cosim up` on host h0 over other hosts of a `Network`, and what of it is alive where."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.hosts.network import Network
from tests.hosts.services import ROOT
from tests.support.processes import is_running
from tests.support.runs import result, wait_running

LIMIT_S = 110.0
"""Wall-clock limit of a whole run."""
START_S = 60.0
"""Of its start."""
OURS = re.compile(rb"cosim\.(engines|run|node)|-m\0cosim\0")
"""What the command line of a process of cosim has in it; the test's daemons have none of it."""


def up(
    service: Any, engine: str, run_dir: Path, hosts: str, *more: str, topology: str = "rdn2cfg1"
) -> subprocess.Popen[bytes]:
    """`cosim up` on h0, not yet at its end.

    Args:
        service: the engine's daemons.
        engine: its name.
        run_dir: a new directory.
        hosts: as of ``--hosts``.
        more: options.
        topology: a name.
    """
    network: Network = service.network
    words = ["up", topology, "--hosts", hosts, "--engine", engine, "--listen", f"{network.address('h0')}:0"]
    for name, value in service.options.items():
        words += ["--engine-option", f"{name}={value}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **getattr(service, "variables", {})}
    argv = network.inside("h0", sys.executable, "-m", "cosim", *words, "--run-dir", str(run_dir), "--quiet", *more)
    with said(run_dir).open("wb") as errors:
        return subprocess.Popen(argv, stdout=errors, stderr=errors, env=environment, cwd=ROOT)


def said(run_dir: Path) -> Path:
    """The file, beside the run directory, with what the command of a run wrote."""
    return run_dir.with_name(f"{run_dir.name}.said")


def finish(process: subprocess.Popen[bytes], run_dir: Path, limit_s: float = LIMIT_S) -> tuple[int, dict[str, Any]]:
    """Wait for a run's end; exit status and result."""
    try:
        process.wait(timeout=limit_s)
    finally:
        process.kill()
        process.wait()
    assert (run_dir / "result.json").exists(), said(run_dir).read_text(errors="replace")
    return process.returncode, result(run_dir)


def wait_simulating(process: subprocess.Popen[bytes], run_dir: Path) -> None:
    """Wait until a run of `up` is past its start."""
    wait_running(run_dir, process, START_S, said(run_dir))


def alive(network: Network, hosts: list[str] | None = None) -> dict[int, str]:
    """Processes of cosim inside hosts (all without), with their command lines."""
    places = {
        os.stat(f"/run/netns/{network.namespace(host)}").st_ino: host
        for host in network.hosts
        if hosts is None or host in hosts
    }
    found = {}
    for entry in os.listdir("/proc"):
        try:
            if not entry.isdigit() or os.stat(f"/proc/{entry}/ns/net").st_ino not in places:
                continue
            line = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if OURS.search(line) and is_running(int(entry)):
            found[int(entry)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def until_none(network: Network, limit_s: float) -> float:
    """Wait until nothing of cosim is alive on any host; the seconds that took."""
    start = time.monotonic()
    while left := alive(network):
        assert time.monotonic() < start + limit_s, f"after {limit_s:.0f} s none may be alive, not {left}"
        time.sleep(0.05)
    return time.monotonic() - start


class SlowRun:
    """rdn2cfg1 over two hosts by ssh, all of whose processes are there."""

    def __init__(self, service: Any, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._process = up(service, "ssh", run_dir, "h1,h2")
        wait_simulating(self._process, run_dir)  # what started later would be taken for a leak of the test beside it

    def finish(self) -> tuple[int, dict[str, Any]]:
        """Wait for the end; exit status and result."""
        return finish(self._process, self._run_dir)

    def close(self) -> None:
        """End it if it still runs."""
        self._process.kill()
        self._process.wait()
