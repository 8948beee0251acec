"""Whole runs with a foreign memory, in Python and in C: the guests see no difference, and neither does the digest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.external.nodes import EXAMPLES, ROOT, build
from tests.support.runs import TIMEOUT_S, command, cosim, environment, result

QUICK = ("--set", "smmute_transactions=2", "--set", "smmute_size=64")
PYTHON_MEMORY = ["python", str(EXAMPLES / "python_node" / "memory.py")]


def tiny(folder: Path, **external: Any) -> Path:
    """The topology tiny with another memory: one line more."""
    path = folder / "tiny.yaml"
    text = (ROOT / "topologies" / "tiny.yaml").read_text()
    assert not re.search("^models:", text, re.MULTILINE)
    path.write_text(f"{text}\nmodels: {{memory: {{external: {json.dumps(external)}}}}}\n")
    return path


def up(topology: Path | str, folder: Path, *options: str) -> dict[str, Any]:
    """`cosim up`, which must pass; its result."""
    done = cosim("up", topology, "--run-dir", folder, "--quiet", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return result(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same machine with the Python model of the memory, in one process."""
    return up("tiny", tmp_path_factory.mktemp("tiny") / "run", "--workers", "0", *QUICK)


def assert_same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Everything but wall time, grants, workers and the memory's own counters."""
    for key in ("digest", "sim_time_ps", "events", "messages", "latency_ps", "paths"):
        assert got[key] == wanted[key], key
    assert [t["status"] for t in got["tests"]] == ["passed", "passed"]


@pytest.mark.parametrize("options", [("--workers", "0"), ("--workers", "per-node"), ("--link", "zmq")])
def test_a_memory_in_python(tmp_path: Path, undisturbed: dict[str, Any], options: tuple[str, ...]) -> None:
    """A foreign memory gives the digest of the built-in one, whatever the placement and the link."""
    got = up(tiny(tmp_path, argv=PYTHON_MEMORY), tmp_path / "run", *options, *QUICK)
    assert_same(got, undisturbed)
    assert got["counters"]["memory.reads"] > 0 and got["tainted"] == []
    assert any("memory.writes" in test["counters"] for test in got["tests"])


def test_a_memory_in_c(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """The C example gives it too, and the counters of the Python example."""
    program = build(EXAMPLES / "c_node" / "memory.c", tmp_path / "memory", "-O2")
    got = up(tiny(tmp_path, argv=[str(program)]), tmp_path / "run", *QUICK)
    assert_same(got, undisturbed)
    python = up(tiny(tmp_path, argv=PYTHON_MEMORY), tmp_path / "python", *QUICK)
    memory = {k: v for k, v in got["counters"].items() if k.startswith("memory.")}
    assert memory == {k: v for k, v in python["counters"].items() if k.startswith("memory.")}


def test_the_resolved_topology_runs_again(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """topology.yaml of a run with a foreign node is a topology with the same foreign node."""
    up(tiny(tmp_path, argv=PYTHON_MEMORY, wall_limit="9s", lookahead="0ns"), tmp_path / "run", *QUICK)
    assert_same(up(tmp_path / "run" / "topology.yaml", tmp_path / "again"), undisturbed)


def test_a_best_effort_node_taints_the_run(tmp_path: Path) -> None:
    """result.json and the log say so."""
    topology = tiny(tmp_path, argv=PYTHON_MEMORY, **{"class": "best_effort"})
    assert up(topology, tmp_path / "run", *QUICK)["tainted"] == ["memory"]
    assert "the run is tainted" in (tmp_path / "run" / "log.jsonl").read_text()


def test_a_node_that_somebody_else_starts(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """`connect: true` tells what to source, waits, and goes on when it has come; the token file is private."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command("up", tiny(tmp_path, connect=True), "--run-dir", folder, *QUICK),
        cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    note = folder / "attach" / "memory.env"
    deadline = time.monotonic() + TIMEOUT_S
    while not note.exists() or not note.read_text().endswith("\n"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    told = dict(re.findall(r"export (\w+)=(\S+)", note.read_text()))
    assert os.stat(told["COSIM_TOKEN_FILE"]).st_mode & 0o777 == 0o600
    node = subprocess.Popen([sys.executable, *PYTHON_MEMORY[1:]], env={**environment(), **told})
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert (node.wait(timeout=10), process.returncode) == (0, 0)
    assert "waiting up to 60 s for memory: run its program after `. " in err
    assert_same(result(folder), undisturbed)


_COPY = """\
name: copy
system:
  nodes:
    - {name: driver, kind: driver}
    - {name: engine, kind: engine}
    - {name: memory, kind: memory}
  links:
    - {from: engine.irq, to: driver.irq, latency: 10ns}
  regions:
    registers: {base: 0x10000, size: 0x1000, to: engine.regs}
    ram: {base: 0x80000000, size: 1MiB, to: memory.bus, offset: 0x80000000}
  maps:
    - {from: driver.bus, sees: [{regions: [registers], latency: 25ns}, {regions: [ram], latency: 40ns}]}
    - {from: engine.dma, sees: [{regions: [ram], latency: 35ns}]}
models:
  driver: tests.external.models:Driver
  engine:
    external: {argv: [python, ENGINE], ports: {regs: mmio_target, dma: mmio_initiator, irq: wire, reset: wire}}
"""


def test_an_engine_with_dma_and_an_interrupt(tmp_path: Path) -> None:
    """Registers, DMA and a level line in a closed loop between a driver, a foreign engine and memory: the data are right,
    whatever the placement, and idle time costs no grant."""
    topology = tmp_path / "copy.yaml"
    topology.write_text(_COPY.replace("ENGINE", str(EXAMPLES / "python_node" / "engine.py")))
    results = []
    for workers in ("per-node", "1"):
        options = ("--allow-models", "tests.external", "--workers", workers)
        results.append(up(topology, tmp_path / workers, *options))
    assert [r["counters"]["driver.copies"] for r in results] == [3, 3]
    assert [r["counters"]["engine.blocks"] for r in results] == [15, 15]
    assert results[0]["digest"] == results[1]["digest"]
    assert results[1]["grants"] < results[1]["messages"]
