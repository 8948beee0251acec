"""Small machines of test models, and the command line as a test uses it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120

_RING = """\
name: ring
doc: a token goes round a ring; node 1 may be of another class
parameters:
  nodes: {type: int, default: 4, min: 2, doc: how many}
  rounds: {type: int, default: 40, doc: how often the token is passed}
  work_us: {type: int, default: 0, doc: wall-clock work per token}
  latency: {type: span, default: 10ns, doc: of each link}
system:
  nodes:
    - {name: "n${i}", kind: "${'second' if i == 1 else 'ring'}", count: "${nodes}",
       params: {index: "${i}", rounds: "${rounds}", work_us: "${work_us}"}}
  links:
    - {from: "n${k}.out", to: "n${(k + 1) % nodes}.into", for: {k: "${nodes}"}, latency: "${latency}"}
models:
  ring: tests.support.models:Ring
  second: tests.support.models:SECOND
"""

_PAIR = """\
name: pair
doc: two nodes of one class, each linked to the other
system:
  nodes:
    - {name: "n${i}", kind: node, count: 2}
  links:
    - {from: n0.out, to: n1.into, latency: 10ns}
    - {from: n1.out, to: n0.into, latency: 10ns}
models:
  node: tests.support.models:SECOND
"""


def ring(folder: Path, second: str = "Ring") -> Path:
    """A topology file of a ring whose node 1 is of class `second` (tests/support/models.py)."""
    path = folder / "ring.yaml"
    path.write_text(_RING.replace("SECOND", second))
    return path


def pair(folder: Path, model: str) -> Path:
    """A topology file of two nodes of class `model`."""
    path = folder / "pair.yaml"
    path.write_text(_PAIR.replace("SECOND", model))
    return path


def command(*arguments: str | Path) -> list[str]:
    """The argv of a cosim command."""
    return [sys.executable, "-m", "cosim", *map(str, arguments)]


def cosim(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a cosim command to its end."""
    return subprocess.run(
        command(*arguments), cwd=cwd or ROOT, env=environment(), text=True, capture_output=True, timeout=TIMEOUT_S
    )


def environment() -> dict[str, str]:
    """The environment of a command: the tree can be imported wherever it runs."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def up(topology: Path | str, run_dir: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """`cosim up` of a small machine into `run_dir`."""
    return cosim("up", topology, "--allow-models", "tests.support", "--run-dir", run_dir, *options)


def start(topology: Path | str, run_dir: Path, *options: str) -> subprocess.Popen[str]:
    """`cosim up` in the background; wait for it with `wait_running`."""
    return subprocess.Popen(
        command("up", topology, "--allow-models", "tests.support", "--run-dir", run_dir, *options),
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_running(
    run_dir: Path,
    process: subprocess.Popen[str] | subprocess.Popen[bytes],
    limit_s: float = TIMEOUT_S,
    output: Path | None = None,
) -> None:
    """Wait until the run in `run_dir` says that it is running.

    Args:
        run_dir: its directory, which need not be there yet.
        process: the command; one that ends meanwhile fails the test.
        limit_s: wall-clock seconds.
        output: file that the command writes to; None: to its pipes.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if json.loads((run_dir / "run.json").read_text())["state"] == "running":
                return
        except (OSError, ValueError):
            pass
        if process.poll() is not None:
            text = output.read_text(errors="replace") if output else process.communicate()
            raise AssertionError(f"the run ended early: {text}")
        assert time.monotonic() < deadline, "the run did not start in time"
        time.sleep(0.02)


def result(run_dir: Path) -> dict[str, Any]:
    """The run's result.json."""
    content: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return content


def total(got: dict[str, Any], counter: str) -> int:
    """A counter summed over the redistributors."""
    return sum(v for k, v in got["counters"].items() if re.fullmatch(rf"redistributor\d+\.{counter}", k))


def children(pid: int) -> dict[int, str]:
    """pid and command line of every child of a process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found[int(entry.name)] = line
    return found
