"""The test engine as Verilog under Icarus: the guests see the device that the Python model is, and an idle clock costs nothing."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cosim.run.conform import Kit, examine, stimulus_from
from cosim.run.conform_kit import Setup
from tests.external.nodes import EXAMPLES, ROOT, plain_yaml
from tests.support.runs import cosim, result

RTL = EXAMPLES / "rtl_smmute"
CASES = ("partition: far", "partition: random(1)")
FAULT = (
    "--workers",
    "0",
    "--test",
    "vlpi.smmute",
    "--set",
    "smmute_transactions=3",
    "--set",
    "smmute_size=0x1234",
    "--set",
    "smmute_fault_at=2",
    "--set",
)

needs_simulator = pytest.mark.skipif(
    shutil.which("iverilog") is None or importlib.util.find_spec("cocotb") is None,
    reason="needs iverilog (Debian package iverilog) and cocotb (extra `rtl`)",
)


def up(topology: str, folder: Path, *options: str, status: int = 0) -> dict[str, Any]:
    """`cosim up`, which must end with an exit status; its result."""
    done = cosim("up", topology, "--run-dir", folder, "--quiet", *options)
    assert done.returncode == status, done.stderr
    return result(folder)


def guest(folder: Path) -> str:
    """What the guest printed, without durations."""
    return re.sub(r"duration .*", "", (folder / "console" / "vlpi.smmute.log").read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Run directories: with the Verilog endpoint, and with the Python model."""
    base = tmp_path_factory.mktemp("rtl")
    up("rdn2cfg1_rtl", base / "rtl")
    up("rdn2cfg1", base / "python", "--workers", "0")
    return base / "rtl", base / "python"


def test_only_models_differs() -> None:
    """The topologies are the same but for the block `models`."""
    python, rtl = (plain_yaml(ROOT / "topologies" / f"{name}.yaml") for name in ("rdn2cfg1", "rdn2cfg1_rtl"))
    assert list(rtl.pop("models")) == ["smmute"] and "models" not in python
    assert rtl == python


@needs_simulator
def test_both_tests_pass(folders: tuple[Path, Path]) -> None:
    """Ten transactions of status 0, ten vLPIs injected directly, and the text of the Python endpoint."""
    rtl, python = folders
    got = result(rtl)
    assert [(t["name"], t["status"]) for t in got["tests"]] == [("vsgi.ipi", "passed"), ("vlpi.smmute", "passed")]
    assert len(re.findall("status += 0 Success", guest(rtl))) == 10
    assert guest(rtl) == guest(python)
    for name in ("smmute.transactions", "smmute.msis"):
        assert got["counters"][name] == result(python)["counters"][name] == 10
    assert got["paths"] == result(python)["paths"] and got["tainted"] == []


@needs_simulator
def test_an_idle_clock_costs_no_grants(folders: tuple[Path, Path]) -> None:
    """600 ms simulated are 600 million cycles; no grant was given to an idle design, and few to a busy one."""
    found = re.search(r"after (\d+) grants, (\d+) of them idle", (folders[0] / "workers" / "smmute.log").read_text())
    assert found is not None
    grants, idle = int(found[1]), int(found[2])
    assert idle == 0
    assert 10 < grants < 300
    assert result(folders[0])["sim_time_ps"] > 600 * 10**9


@needs_simulator
def test_placement_does_not_matter(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The Python models in one process: other grants, the same digest."""
    assert up("rdn2cfg1_rtl", tmp_path / "run", "--workers", "0")["digest"] == result(folders[0])["digest"]


@needs_simulator
@pytest.mark.parametrize("fault", ["read", "write"])
def test_a_refused_access_is_an_error(tmp_path: Path, fault: str) -> None:
    """A copy of several windows, whose pieces are not aligned, fails at the address at which the Python model's does."""
    rtl, python = tmp_path / "rtl", tmp_path / "python"
    for topology, folder in (("rdn2cfg1_rtl", rtl), ("rdn2cfg1", python)):
        up(topology, folder, *FAULT, f"smmute_fault={fault}", status=1)
    assert guest(rtl) == guest(python)
    assert result(rtl)["counters"]["smmute.errors"] == result(python)["counters"]["smmute.errors"] == 1


@needs_simulator
def test_the_design_is_fit() -> None:
    """Cases of the kit that tell a clocked node's usual mistakes; `cosim conform` has all of them."""
    setup = Setup(["python", str(RTL / "run.py")])
    stimulus, setup = stimulus_from(plain_yaml(RTL / "smmute.yaml"), setup)
    verdicts = list(examine(Kit(setup, stimulus), CASES.__contains__))
    assert [(v.case, v.rule, v.text) for v in verdicts if v.rule] == []
    assert [v.case for v in verdicts] == list(CASES)
    assert len({v.messages for v in verdicts if v.case.startswith("partition: ")}) == 1
