"""The test engine as Verilog in three simulators: the guests see the device that the Python model is, with one digest; an idle
clock costs nothing."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cosim.core.message import MMIO
from cosim.run.conform import Kit, Stream, examine, stimulus_from
from cosim.run.conform_kit import Setup
from nodes.smmute.engine import Job, RandomFill, Spans
from nodes.smmute.regs import RAND48, SUM64
from tests.external.nodes import EXAMPLES, ROOT, plain_yaml
from tests.support.runs import cosim, environment, result
from tests.support.simulators import MISSING, needs

RTL = EXAMPLES / "rtl_smmute"
RUN = str(RTL / "run.py")
CASES = ("partition: far", "partition: random(1)")
FAULT = ("--workers", "0", "--test", "vlpi.smmute", "--set", "smmute_transactions=3", "--set", "smmute_size=0x1234")
SIMULATORS = ("icarus", "verilator", "bare")
SUFFIX = {"icarus": "fst", "verilator": "vcd", "bare": "vcd"}


each = pytest.mark.parametrize("simulator", [pytest.param(s, marks=needs(s)) for s in SIMULATORS])


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """Builds the design for a simulator, with waveforms or without, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSIM_BUILD_DIR", str(tmp_path_factory.mktemp("rtl-build")))
        patch.delenv("SIM", raising=False)

        @functools.cache
        def build(simulator: str, wave: bool) -> None:
            command = [sys.executable, RUN, "--build", simulator]
            env = environment() | ({"COSIM_WAVE": os.devnull} if wave else {})
            env["MAKEFLAGS"] = " -- OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"  # it runs for a second only
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110)
            assert done.returncode == 0 and "%Warning" not in done.stderr, done.stderr

        yield build


def up(topology: str, folder: Path, *options: str, status: int = 0, simulator: str = "icarus") -> dict[str, Any]:
    """`cosim up` with a simulator, which must end with an exit status; its result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIM", simulator)
        done = cosim("up", topology, "--run-dir", folder, "--quiet", *options)
    assert done.returncode == status, done.stderr
    return result(folder)


def guest(folder: Path) -> str:
    """What the guest printed, without durations."""
    return re.sub(r"duration .*", "", (folder / "console" / "vlpi.smmute.log").read_text())


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory with the Python model."""
    folder = tmp_path_factory.mktemp("rtl") / "python"
    up("rdn2cfg1", folder, "--workers", "0")
    return folder


@pytest.fixture(scope="module")
def waved(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., None]) -> Callable[[str], Path]:
    """Run directory of `cosim up rdn2cfg1_rtl --wave` with a simulator."""

    @functools.cache
    def run(simulator: str) -> Path:
        build(simulator, True)
        folder: Path = tmp_path_factory.mktemp("rtl") / simulator
        up("rdn2cfg1_rtl", folder, "--wave", simulator=simulator)
        return folder

    return run


def test_only_models_differs() -> None:
    """The topologies are the same but for the block `models`."""
    python, rtl = (plain_yaml(ROOT / "topologies" / f"{name}.yaml") for name in ("rdn2cfg1", "rdn2cfg1_rtl"))
    assert list(rtl.pop("models")) == ["smmute"] and "models" not in python
    assert rtl == python


# -- whole runs --------------------------------------------------------------------------------------------------------


@each
def test_both_tests_pass(waved: Callable[[str], Path], python: Path, simulator: str) -> None:
    """Ten transactions of status 0, ten vLPIs injected directly, and the text of the Python endpoint."""
    rtl = waved(simulator)
    got = result(rtl)
    assert [(t["name"], t["status"]) for t in got["tests"]] == [("vsgi.ipi", "passed"), ("vlpi.smmute", "passed")]
    assert len(re.findall("status += 0 Success", guest(rtl))) == 10
    assert guest(rtl) == guest(python)
    for name in ("smmute.transactions", "smmute.msis"):
        assert got["counters"][name] == result(python)["counters"][name] == 10
    assert got["paths"] == result(python)["paths"] and got["tainted"] == []


@each
def test_an_idle_clock_costs_no_grants(waved: Callable[[str], Path], simulator: str) -> None:
    """600 ms simulated are 600 million cycles; no grant was given to an idle design, and few to a busy one."""
    found = re.search(
        r"after (\d+) grants, (\d+) of them idle", (waved(simulator) / "workers" / "smmute.log").read_text()
    )
    assert found is not None
    grants, idle = int(found[1]), int(found[2])
    assert idle == 0
    assert 10 < grants < 300
    assert result(waved(simulator))["sim_time_ps"] > 600 * 10**9


@needs("icarus")
def test_one_digest(waved: Callable[[str], Path], tmp_path: Path) -> None:
    """Icarus, Verilator under cocotb, Verilator alone, other grants (the Python models in one process), with waveforms and
    without: one digest."""
    digests = {s: result(waved(s))["digest"] for s in SIMULATORS if not MISSING[s]}
    digests["without waveforms"] = up("rdn2cfg1_rtl", tmp_path / "run", "--workers", "0")["digest"]
    assert len(set(digests.values())) == 1 and len(digests) >= 2, digests


@needs("bare")
@pytest.mark.parametrize("fault", ["read", "write"])
def test_a_refused_access_is_an_error(tmp_path: Path, build: Callable[..., None], fault: str) -> None:
    """A copy of several windows, whose pieces are not aligned, fails at the address at which the Python model's does."""
    build("bare", True)
    rtl, python = tmp_path / "rtl", tmp_path / "python"
    options = (*FAULT, "--set", "smmute_fault_at=2", "--set", f"smmute_fault={fault}")
    for topology, folder in (("rdn2cfg1_rtl", rtl), ("rdn2cfg1", python)):
        up(topology, folder, *options, status=1, simulator="bare")
    assert guest(rtl) == guest(python)
    assert result(rtl)["counters"]["smmute.errors"] == result(python)["counters"]["smmute.errors"] == 1


# -- waveforms ---------------------------------------------------------------------------------------------------------


def vcd_changes(path: Path, names: tuple[str, ...]) -> list[tuple[int, str, int]]:
    """(time, signal, value) of the top level's signals, each change once; all begin at 0."""
    codes: dict[str, str] = {}
    found, now = [], 0
    value = dict.fromkeys(names, 0)
    for line in path.read_text().splitlines():
        words = line.split()
        if line.lstrip().startswith("$var") and words[4] in names and words[4] not in codes.values():
            codes[words[3]] = words[4]
        elif line.startswith("#"):
            now = int(line[1:])
        elif line and line[0] in "01b":
            bits, code = (words[0][1:], words[1]) if line[0] == "b" else (line[0], line[1:])
            name = codes.get(code)
            if name and value[name] != int(bits, 2):
                value[name] = int(bits, 2)
                found.append((now, name, value[name]))
    return found


@needs("verilator")
@needs("bare")
def test_the_same_waveforms(waved: Callable[[str], Path]) -> None:
    """Clock, requests, responses and interrupts change at the same picoseconds under cocotb and without it."""
    names = ("clk", "reg_valid", "reg_addr", "rsp_valid", "rsp_rdata", "dma_valid", "dma_addr", "cpl_valid", "ev_msi")
    first, second = (vcd_changes(waved(s) / "waves" / "smmute.vcd", names) for s in ("verilator", "bare"))
    assert first == second
    assert sum(change[1:] == ("ev_msi", 1) for change in first) == 10


@needs("icarus")
def test_icarus_writes_fst(waved: Callable[[str], Path]) -> None:
    """The file is a finished FST (a header block first, of 329 bytes) that ends when the design came to rest."""
    data = (waved("icarus") / "waves" / "smmute.fst").read_bytes()
    kind, length, begin, end = data[0], *(int.from_bytes(data[n : n + 8], "big") for n in (1, 9, 17))
    assert (kind, length, begin) == (0, 329, 0)
    assert 600 * 10**9 < end < result(waved("icarus"))["sim_time_ps"]


@each
def test_waveforms_are_where_they_belong(waved: Callable[[str], Path], simulator: str) -> None:
    """waves/ holds one file, named after the node."""
    assert [path.name for path in (waved(simulator) / "waves").iterdir()] == [f"smmute.{SUFFIX[simulator]}"]


# -- the kit -----------------------------------------------------------------------------------------------------------


def kit_of(simulator: str) -> Kit:
    """The conformance kit with the example's stimulus."""
    stimulus, setup = stimulus_from(plain_yaml(RTL / "smmute.yaml"), Setup(["python", RUN, simulator]))
    return Kit(setup, stimulus)


@needs("icarus")
@needs("bare")
def test_the_design_is_fit(build: Callable[..., None]) -> None:
    """The whole kit passes Verilator alone; under cocotb and Icarus the cases that tell a clocked node's usual mistakes do,
    with the same messages."""
    build("bare", True)
    build("icarus", False)
    bare, icarus = kit_of("bare"), kit_of("icarus")
    verdicts = list(examine(bare))
    assert [(v.case, v.rule, v.text) for v in verdicts if v.rule] == [] and len(verdicts) > 20
    few = list(examine(icarus, CASES.__contains__))
    assert [(v.case, v.rule, v.text) for v in few if v.rule] == [] and [v.case for v in few] == list(CASES)
    assert len({v.messages for v in verdicts + few if v.case.startswith("partition: ")}) == 1
    assert bare.reference is not None and icarus.reference is not None
    assert bare.reference.records == icarus.reference.records


def job(command: int, begin: int, end: int, stride: int, seed: int) -> Job:
    """A fill or sum of the stimulus."""
    return Job(command, begin, end, stride, seed, 0, 0x42FF42FF, 0, 0, 0xFFFF_FFFF, 0)


def writes(stream: Stream, low: int, high: int) -> list[tuple[int, bytes]]:
    """DMA writes to addresses [low, high), in order."""
    found = []
    for record in stream.records:
        if record.kind == MMIO.Write.code and low <= record.fields[1] < high:
            _tag, address, size, data, _attr = record.fields
            found.append((address, data.to_bytes(size, "little") if isinstance(data, int) else data))
    return found


def reads_at(stream: Stream, time: int) -> list[Any]:
    """What register reads that arrived at a time were answered, in order."""
    answers = [r for r in stream.records if r.kind == MMIO.Completion.code and time < r.arrival < time + 10**6]
    return [r.fields[2] for r in answers]


@needs("bare")
def test_fills_and_sums_are_the_python_engine_s(build: Callable[..., None]) -> None:
    """RAND48 writes the bytes of the Python engine in its order, over a page boundary and in strides; SUM64 adds as it does,
    and refuses a range that is no words."""
    build("bare", True)
    stream = kit_of("bare").run("far")
    fill, strided = (
        job(RAND48, 0x8000_5FE3, 0x8000_601E, 1, 0x1234),
        job(RAND48, 0x8000_7008, 0x8000_706F, 24, 0xFFFF_FFFF),
    )
    for wanted, page in ((fill, 0x8000_5000), (strided, 0x8000_7000)):
        spans, source = Spans(wanted), RandomFill(wanted.begin, wanted.seed)
        parts = [(spans[n].address, source.bytes(spans[n].address, spans[n].size)) for n in spans.order()]
        assert writes(stream, page, page + 0x2000 - 0x800) == parts
    words = [bytes((a * 7 + 3) & 0xFF for a in range(at, at + 8)) for at in range(0x8000_8000, 0x8000_8100, 8)]
    spans, source = Spans(strided), RandomFill(strided.begin, strided.seed)
    filled = [source.bytes(spans[n].address, 8) for n in range(spans.number)]
    sums = [sum(int.from_bytes(word, "little") for word in data) & (1 << 64) - 1 for data in (words, filled)]
    answers = reads_at(stream, 15 * 10**6)
    assert [value for value in answers if isinstance(value, int)] == sums
    commands = [int.from_bytes(value[:4], "little") for value in answers if isinstance(value, bytes)]
    assert commands == [1, 1, 1, 1, 0xFFFF_FFFE]
    assert SUM64 == 4
