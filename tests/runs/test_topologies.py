"""The other machines that come with cosim: RD-N2 and one of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosim.topo.find import find_topology
from cosim.topo.load import load
from cosim.topo.resolve import Resolved, resolve
from tests.support.runs import cosim


def machine(name: str, **sets: str) -> Resolved:
    """A shipped topology, resolved."""
    return resolve(load(find_topology(name)), sets=sets)


def run(tmp_path: Path, name: str, *options: str) -> dict[str, Any]:
    """The result of a run that must pass."""
    done = cosim("up", name, "--workers", "0", "--run-dir", tmp_path / "run", "--json", *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", ["rdn2", "scale"])
def test_every_machine_gives_models_the_same_parameters(name: str) -> None:
    """Nodes of one kind get parameters of the same names as in rdn2cfg1, but for the hierarchy of PCIe: none was forgotten."""

    def names(found: Resolved) -> dict[str, frozenset[str]]:
        return {node.kind: frozenset(node.params) for node in found.plan.nodes if node.kind != "pcie"}

    assert names(machine(name)) == names(machine("rdn2cfg1"))


def test_rdn2_has_its_map() -> None:
    """Cfg0: 16 PEs, ITSs from 0x30040000 to 0x30180000, redistributors from 0x301C0000."""
    plan = machine("rdn2").plan
    (host,) = [node for node in plan.nodes if node.kind == "hypervisor"]
    regions = {region.name: region.base for region in host.maps["bus"]}
    assert [regions[f"its{k}"] for k in range(6)] == [0x30040000 + k * 0x40000 for k in range(6)]
    assert regions["its5"] == 0x30180000
    assert (regions["gicr0"], regions["gicr15"]) == (0x301C0000, 0x301C0000 + 15 * 0x40000)
    assert host.params["its"] == [regions[f"its{k}"] for k in range(6)]


def test_rdn2_runs_both_tests(tmp_path: Path) -> None:
    """16 vCPUs: 1 self, 8 target-list and 15 broadcast SGIs go directly, and ten LPIs."""
    got = run(tmp_path, "rdn2")
    assert got["paths"]["vsgi"]["direct"] == 24
    assert got["paths"]["vlpi"]["direct"] == 10
    assert got["counters"]["its0.sgir_writes"] == 24


def test_scale_runs_with_many_of_everything(tmp_path: Path) -> None:
    """32 PEs, two ITSs, three endpoints, the last one passed through: both tests pass, its DeviceID is the one used."""
    got = run(tmp_path, "scale", "--set", "pes=32", "--set", "itss=2", "--set", "endpoints=3", "--set", "endpoint=2")
    assert got["nodes"] == 32 * 2 + 1 + 2 + 1 + 1 + 3 + 2
    assert got["counters"]["smmute2.msis"] == 10
    assert got["counters"]["smmute0.msis"] == got["counters"]["smmute1.msis"] == 0
    assert got["paths"]["vlpi"]["direct"] == 10
    assert "0000:03:00.1" in (tmp_path / "run" / "console" / "host.log").read_text()


@pytest.mark.parametrize(("pes", "mpidr"), [("1", 0x8100_0000), ("257", 0x1_8100_0000), ("512", 0x1_81FF_0000)])
def test_scale_goes_from_one_to_512(pes: str, mpidr: int) -> None:
    """Affinities go on in Aff3 where Aff2 is full; redistributors' affinities are those of their PEs."""
    plan = machine("scale", pes=pes).plan
    last = int(pes) - 1
    nodes = {node.name: node.params for node in plan.nodes}
    assert nodes[f"pe{last}"]["mpidr"] == mpidr
    assert nodes[f"redistributor{last}"]["affinity"] == mpidr >> 32 << 24 | mpidr & 0xFF_FFFF
    assert nodes["distributor"]["affinities"][last] == nodes[f"redistributor{last}"]["affinity"]
