"""SystemC models over cosim_bridge.h: same digests as the Python models, fit, and checked from inside."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cosim.attach.systemc import BuildError, build
from cosim.run.conform import Kit, Verdict, examine, stimulus_from
from cosim.run.conform_kit import Setup
from tests.external import test_codecs, test_runs
from tests.external.nodes import ENGINE_STIMULUS, EXAMPLES, HEADER, HERE, ROOT, plain_yaml
from tests.support.components import lacking
from tests.support.runs import cosim, result

MEMORY = EXAMPLES / "systemc_memory" / "memory.cpp"
EVS = EXAMPLES / "evs_stand_in" / "fvp_node.cpp"
PROBE = HERE / "systemc_probe.cpp"
AMBA_PROBE = HERE / "systemc_amba_probe.cpp"
SYSTEMC_PAGE = (ROOT / "docs" / "attach-systemc.md").read_text()
FLAGS = "-O0"

_MISSING = lacking("g++", "/usr/include/systemc", "/usr/include/zmq.h")
needs_systemc = pytest.mark.skipif(bool(_MISSING), reason=_MISSING)

Build = Callable[[Path], Path]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Compiles a source once for all tests, and for the runs that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSIM_BUILD_DIR", str(tmp_path_factory.mktemp("systemc-build")))
        patch.setenv("CXXFLAGS", FLAGS)
        for name in ("CXX", "SYSTEMC_HOME"):
            patch.delenv(name, raising=False)
        yield cache(lambda source: build([source]))


def up(topology: Path | str, folder: Path, *options: str, status: int = 0) -> dict[str, Any]:
    """`cosim up`, which must end with an exit status; its result."""
    done = cosim("up", topology, "--run-dir", folder, "--quiet", *options)
    assert done.returncode == status, done.stderr
    return result(folder)


def fit(command: list[str], stimulus: Any = None, wanted: Callable[[str], bool] = lambda _case: True) -> list[Verdict]:
    """The verdicts of the kit, all of which must be good; every partition gives as many messages."""
    made, setup = (None, Setup(command)) if stimulus is None else stimulus_from(stimulus, Setup(command))
    verdicts = list(examine(Kit(setup, made, size=0x10) if made is None else Kit(setup, made), wanted))
    assert [(v.case, v.rule, v.text) for v in verdicts if v.rule] == []
    assert len({v.messages for v in verdicts if v.case.startswith("partition: ")}) == 1
    return verdicts


# -- the memory --------------------------------------------------------------------------------------------------------


def test_only_models_differs() -> None:
    """The topologies are the same but for the block `models`."""
    python, systemc = (plain_yaml(ROOT / "topologies" / f"{name}.yaml") for name in ("rdn2cfg1", "rdn2cfg1_systemc"))
    assert list(systemc.pop("models")) == ["memory"] and "models" not in python
    assert systemc == python


@needs_systemc
def test_a_machine_with_the_systemc_memory(tmp_path: Path, program: Build) -> None:
    """Both tests pass; guest text, digest and simulated time are those of the Python memory, in two placements."""
    program(MEMORY)
    python = up("rdn2cfg1", tmp_path / "python", "--workers", "0")
    for workers in ("0", "2"):
        folder = tmp_path / workers
        got = up("rdn2cfg1_systemc", folder, "--workers", workers)
        for key in ("digest", "sim_time_ps", "messages", "latency_ps", "paths"):
            assert got[key] == python[key], key
        assert [test["status"] for test in got["tests"]] == ["passed", "passed"]
        for guest in ("vsgi.ipi", "vlpi.smmute"):
            log = Path("console", f"{guest}.log")
            assert (folder / log).read_text() == (tmp_path / "python" / log).read_text()
        assert got["counters"]["memory.reads"] > 0 and got["tainted"] == []


@needs_systemc
def test_the_memory_is_fit(program: Build) -> None:
    """All cases of the kit."""
    assert len(fit([str(program(MEMORY))])) > 15


# -- the EVS stand-in --------------------------------------------------------------------------------------------------


@needs_systemc
def test_the_evs_stand_in_is_fit(program: Build) -> None:
    """All cases, with resets and error completions in mid-transfer, although the core runs ahead by a quantum."""
    cases = {v.case for v in fit([str(program(EVS))], plain_yaml(ENGINE_STIMULUS))}
    assert {"reset (reset) in mid-transfer", "completions with DECERR"} <= cases


@needs_systemc
def test_the_evs_stand_in_is_the_engine(tmp_path: Path, program: Build) -> None:
    """In a closed loop of driver, engine and memory, the recipe for an FVP gives the digest of the engine in Python."""
    engines = {"evs": [str(program(EVS))], "python": ["python", str(EXAMPLES / "python_node" / "engine.py")]}
    results = {}
    for name, argv in engines.items():
        topology = tmp_path / f"{name}.yaml"
        topology.write_text(test_runs._COPY.replace("[python, ENGINE]", json.dumps(argv)))
        results[name] = up(topology, tmp_path / name, "--allow-models", "tests.external", "--workers", "1")
    assert results["evs"]["counters"]["driver.copies"] == 3
    for key in ("digest", "sim_time_ps", "messages"):
        assert results["evs"][key] == results["python"][key], key


def test_the_recipe_is_the_program() -> None:
    """docs/attach-fvp.md shows what is compiled."""
    assert f"```cpp\n{EVS.read_text()}```" in (ROOT / "docs" / "attach-fvp.md").read_text()


# -- the bridge --------------------------------------------------------------------------------------------------------

_PROBE = """\
name: probe
system:
  nodes: [{name: probe, kind: probe}, {name: sink, kind: sink}]
  regions: {sink: {base: 0, size: 0x10000, to: sink.bus}}
  maps:
    - {from: probe.dma0, sees: [{regions: [sink], latency: 35ns, attributes: {stream_id: 16}}]}
    - {from: probe.dma1, sees: [{regions: [sink], latency: 50ns, attributes: {stream_id: 17}}]}
models:
  probe: {external: {argv: [PROBE, MODE], ports: {dma0: mmio_initiator, dma1: mmio_initiator}}}
  sink: {external: {argv: [PROBE, sink], ports: {bus: mmio_target}}}
"""


def probe(program: Path, folder: Path, mode: str, status: int = 0) -> dict[str, Any]:
    """The result of a run of the probe in a mode."""
    topology = folder / f"{mode}.yaml"
    topology.write_text(_PROBE.replace("PROBE", str(program)).replace("MODE", mode))
    return up(topology, folder / mode, "--workers", "0", status=status)


@needs_systemc
def test_the_bridge_from_inside(tmp_path: Path, program: Build) -> None:
    """Data, responses both ways, times, identities, posted writes, parts of bursts, DMI: 31 checks in the model itself, with
    a time resolution of 1 ps and of 10 fs. What was counted and logged before the run is there."""
    ps, fs = (probe(program(PROBE), tmp_path, mode) for mode in ("checks", "fine"))
    counters = {"probe.checks": 31, "probe.constructed": 1, "probe.decode_errors": 1, "probe.refused_identities": 1}
    assert ps["counters"] == fs["counters"] == counters
    assert ps["digest"] == fs["digest"]
    assert '"constructed"' in (tmp_path / "checks" / "log.jsonl").read_text()


@needs_systemc
def test_amba_pv_attributes_from_inside(tmp_path: Path, program: Build) -> None:
    """AxPROT goes both ways between AMBA-PV's control and the bus, the master's ID chooses the port, responses come back."""
    counters = probe(program(AMBA_PROBE), tmp_path, "checks")["counters"]
    assert counters == {"probe.checks": 19, "probe.refused_identities": 1}


@needs_systemc
@pytest.mark.parametrize(
    ("mode", "text", "time_ps"),
    [
        ("method", "an SC_THREAD must call it, not an SC_METHOD", 10_000),
        ("stop", "the model called sc_stop(): only the run may end itself", 10_000),
        ("coarse", "the time resolution must be 1 ps or finer", 0),
        ("early", "the model's file is missing", 0),
    ],
)
def test_a_model_that_breaks_a_rule(tmp_path: Path, program: Build, mode: str, text: str, time_ps: int) -> None:
    """The run ends with exit code 4 and says what is wrong, in which node and when."""
    error = probe(program(PROBE), tmp_path, mode, status=4)["errors"][0]
    assert text in error["what"]
    assert (error["node"], error["sim_time_ps"]) == ("probe", time_ps)


@needs_systemc
def test_a_free_running_clock(program: Build) -> None:
    """A model that promises silence while idle is fit, and its 20,000 idle edges cost no grants when nobody else does anything."""
    stimulus = {
        "latency": "20ns",
        "inputs": [
            {"at": "100ns", "port": "regs", "write": 0, "size": 8, "data": 20},
            {"at": "100500ps", "port": "regs", "read": 0, "size": 8},
            {"at": "3us", "port": "regs", "post": 0, "size": 8, "data": 1},
        ],
        "horizon": "20us",
    }
    cases = ("partition: far", "equal seeds", "partition: 200 clocks", "partition: random(1)", "partition: 7 clocks")
    verdicts = fit([str(program(PROBE)), "clock"], stimulus, cases.__contains__)
    assert {v.case: v.grants for v in verdicts}["partition: far"] < 10


@needs_systemc
def test_the_kernel_stops_where_an_answer_may_come(program: Build) -> None:
    """A thread that sends at times of its own stops the kernel early: data that depend on another process's progress are the
    same in every partition, the unlimited one among them."""
    verdicts = fit([str(program(PROBE)), "pulse"], {"inputs": [], "horizon": "5us"}, lambda case: "partition" in case)
    assert {v.messages for v in verdicts} == {20}


@needs_systemc
def test_waveforms(tmp_path: Path, program: Build) -> None:
    """`cosim up --wave` has a model that asks for its trace file write it, whole."""
    topology = tmp_path / "clock.yaml"
    external = {"argv": [str(program(PROBE)), "clock"], "ports": {"regs": "mmio_target", "irq": "wire"}}
    topology.write_text(
        f"name: clock\nsystem: {{nodes: [{{name: dut, kind: dut}}]}}\nmodels: {{dut: {{external: {json.dumps(external)}}}}}\n"
    )
    done = cosim("up", topology, "--run-dir", tmp_path / "run", "--quiet", "--wave", "--until", "50ns")
    assert done.returncode in (0, 1), done.stderr
    assert "$enddefinitions" in (tmp_path / "run" / "waves" / "dut.vcd").read_text()


@needs_systemc
def test_the_codec_passes_the_vectors(tmp_path: Path) -> None:
    """Compiled as C++ through the bridge, csa.h accepts, refuses, writes and plays what the vectors say."""
    source, driver = tmp_path / "driver.cpp", tmp_path / "driver"
    driver_in_c = HERE / "csa_driver.c"  # it has a main() of its own, and asks for csa.h's implementation
    source.write_text(
        f'#include "cosim_bridge.h"\n#include "{driver_in_c}"\nint sc_main(int, char**) {{ return 1; }}\n'
    )
    command = ["g++", "-std=c++17", FLAGS, "-Wall", "-Wextra", "-Werror", f"-I{HEADER}", str(source), "-o", str(driver)]
    command += ["-lsystemc", "-lzmq"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    test_codecs.test_c_accepts_and_refuses_as_python(driver)
    test_codecs.test_c_writes_the_same_hello(driver)
    test_codecs.test_c_plays_the_session(driver)


@needs_systemc
@pytest.mark.skipif(bool(lacking("clang++")), reason=lacking("clang++"))
@pytest.mark.parametrize("source", [EVS, PROBE], ids=lambda source: source.stem)
def test_clang_has_no_warning(source: Path) -> None:
    """The headers, the recipe and the probe compile without a warning under clang too."""
    command = ["clang++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{HEADER}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")


# -- the tutorial, and the command that compiles -----------------------------------------------------------------------


@needs_systemc
def test_the_model_of_the_page_is_fit(tmp_path: Path, program: Build) -> None:
    """A newcomer's model, typed from docs/attach-systemc.md, compiles without a warning and passes the kit."""
    found = re.search(r"```cpp\n(.*?)```", SYSTEMC_PAGE, re.DOTALL)
    assert found is not None
    source = tmp_path / "doorbell.cpp"
    source.write_text(found[1])
    program(source)
    command = ["python", "-m", "cosim.attach.systemc", str(source)]
    made, setup = stimulus_from(
        {"inputs": [{"at": "100ns", "port": "regs", "write": 0, "size": 8, "data": 500}], "horizon": "2us"},
        Setup(command),
    )
    kit = Kit(setup, made)
    assert not [v for v in examine(kit, lambda case: "partition" in case) if v.rule]
    assert kit.reference is not None
    assert any("sent at 601000 ps by irq: wire.Level line=0, level=1" in text for text in kit.reference.shown)


FakeCompiler = Callable[[str], Mapping[str, str]]


@pytest.fixture
def compiler(tmp_path: Path) -> FakeCompiler:
    """Makes an environment in which the compiler is a shell script that notes its calls."""

    def make(body: str) -> Mapping[str, str]:
        script = tmp_path / "cxx"
        script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\necho call >> {tmp_path}/calls\n{body}\n')
        script.chmod(0o755)
        return {"CXX": str(script), "COSIM_BUILD_DIR": str(tmp_path / "build")}

    return make


WRITE_OUTPUT = 'while [ "$1" != -o ]; do shift; done; echo program > "$2"'


def test_a_program_is_compiled_when_something_has_changed(tmp_path: Path, compiler: FakeCompiler) -> None:
    """Once for the same sources; again for another source text, another header beside it, other flags."""
    env = compiler(WRITE_OUTPUT)
    source = tmp_path / "model.cpp"
    source.write_text("1")
    first = build([source], environment=env)
    assert build([source], environment=env) == first
    made = {first}
    (tmp_path / "model.h").write_text("1")
    made.add(build([source], environment=env))
    source.write_text("2")
    made.add(build([source], environment=env))
    made.add(build([source], environment={**env, "CXXFLAGS": "-g"}))
    assert len(made) == 4
    assert (tmp_path / "calls").read_text() == "call\n" * 4


def test_what_is_missing_is_named(tmp_path: Path, compiler: FakeCompiler) -> None:
    """A source, a compiler, SystemC: the text says which, and what to do; nothing half-made is kept."""
    source = tmp_path / "model.cpp"
    env = compiler("echo 'fatal error: systemc: No such file or directory' >&2; exit 1")
    with pytest.raises(BuildError, match=r"model\.cpp must be a C\+\+ source; there is no such file"):
        build([source], environment=env)
    source.write_text("")
    with pytest.raises(BuildError, match=r"No such file(.|\n)*next: apt-get install libsystemc-dev"):
        build([source], environment=env)
    with pytest.raises(BuildError, match="nothing-like-it"):
        build([source], cxx="nothing-like-it", environment=env)
    assert [path.suffix for path in (tmp_path / "build").iterdir()] == [".lock"]
