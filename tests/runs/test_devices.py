"""RD-N2-Cfg1's devices in whole runs: DMA faults, the SMMU's stages, VFIO's refusal, the PCIe hierarchy, the address map."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import cosim, result

TOPOLOGY = "topologies/rdn2cfg1.yaml"
UNMAPPED = 0xF_0000_0000
STREAM = 0x3_0801
HIERARCHY = """\
00:00.0 Host bridge: ARM Device 00ba (rev 01)
00:01.0 PCI bridge: ARM Device 0def
00:02.0 PCI bridge: ARM Device 0def
00:03.0 PCI bridge: ARM Device 0def
00:04.0 PCI bridge: ARM Device 0def
00:0f.0 Unassigned class [ff00]: ARM Device ed01
00:1e.0 SATA controller: Device 0abc:aced (rev 01)
00:1f.0 Unassigned class [ff00]: ARM Device ed01
01:00.0 SATA controller: Device 0abc:aced (rev 01)
02:00.0 Unassigned class [ff00]: ARM Device ed01
02:00.1 Unassigned class [ff00]: ARM Device ed01
03:00.0 PCI bridge: ARM Device 0def
04:00.0 PCI bridge: ARM Device 0def
04:01.0 PCI bridge: ARM Device 0def
04:02.0 PCI bridge: ARM Device 0def
05:00.0 SATA controller: Device 0abc:aced (rev 01)
06:00.0 Unassigned class [ff00]: ARM Device ed01
06:00.7 Unassigned class [ff00]: ARM Device ed01
07:00.0 Unassigned class [ff00]: ARM Device ff80 (rev 0f)
07:00.7 Unassigned class [ff00]: ARM Device ff80 (rev 0f)
08:00.0 Unassigned class [ff00]: ARM Device ff80 (rev 0f)
08:00.1 Unassigned class [ff00]: ARM Device ff80 (rev 0f)
"""


def run(folder: Path, *options: str, test: str = "vlpi.smmute") -> tuple[int, dict[str, Any], dict[str, str]]:
    """Run one test of the topology; exit code, result, consoles by name."""
    if "--workers" not in options:
        options = (*options, "--workers", "0")
    done = cosim("up", TOPOLOGY, "--run-dir", folder / "run", "--test", test, *options)
    consoles = {path.stem: path.read_text() for path in (folder / "run" / "console").glob("*.log")}
    return done.returncode, result(folder / "run"), consoles


def events(text: str) -> list[list[int]]:
    """Event records in the host's log: four words each, as Linux prints them."""
    found = []
    lines = text.splitlines()
    for n, line in enumerate(lines):
        if re.search(r"arm-smmu-v3 .*: event 0x[0-9a-f]{2} received:$", line):
            found.append([int(lines[n + k].split("\t")[1], 16) for k in range(1, 5)])
    return found


@pytest.mark.parametrize(("fault", "at", "stage"), [("read", 4, 2), ("write", 1, 2), ("read", 10, 1)])
def test_dma_to_an_unmapped_address(tmp_path: Path, fault: str, at: int, stage: int) -> None:
    """k - 1 blocks of status 0, one of status 5 with the address as value, and no more; exit 1; the host prints event 0x10."""
    options = {"smmute_fault": fault, "smmute_fault_at": at, "smmu_stage": stage}
    code, got, consoles = run(tmp_path, *(f"--set={key}={value}" for key, value in options.items()))
    text = consoles["vlpi.smmute"]
    assert code == 1 and got["tests"][0]["status"] == "failed" and got["errors"] == []
    assert f"./smmute -s 0x100 -n 10 -f {fault}\n" in text
    assert [int(n) for n in re.findall(r"- transaction\s+= (\d+)", text)] == list(range(1, at + 1))
    statuses = re.findall(r"- status\s+= (.*)", text)
    assert statuses == ["0 Success"] * (at - 1) + ["5 Input/output error"]
    assert re.findall(r"- value\s+= (.*)", text)[-1] == f"{UNMAPPED:#x}"
    second = stage == 2
    word1 = (fault == "read") << 35 | second << 39 | 2 << 40
    assert events(consoles["host"]) == [[0x10 | STREAM << 32, word1, UNMAPPED, UNMAPPED if second else 0]]
    counters = got["counters"]
    assert (counters["smmu0.faults"], counters["smmute.msis"], counters["hypervisor.smmu_irqs"]) == (1, at, 1)
    assert "# KVM session ended normally." in text


def test_stage_1_and_stage_2_give_guests_the_same(tmp_path: Path) -> None:
    """smmu_stage changes the SMMU's tables and nothing that a guest prints or the interrupt path counts."""
    seen = []
    for stage in (1, 2):
        code, got, consoles = run(tmp_path / str(stage), f"--set=smmu_stage={stage}")
        counters = {key: value for key, value in got["counters"].items() if not key.startswith(("smmu0", "memory"))}
        assert (code, counters["its0.msi_translated"], got["counters"]["smmu0.faults"]) == (0, 10, 0)
        seen.append((re.sub(r"= \d+ us", "", consoles["vlpi.smmute"]), counters["hypervisor.exits"], got["paths"]))
    assert seen[0] == seen[1]


def test_vfio_refuses_one_function_of_a_group_in_use(tmp_path: Path) -> None:
    """With the engine's driver in the host kernel function 0 keeps it: kvmtool says that the group is not viable, exit 1, and
    unbind gives function 1 back to the driver."""
    code, got, consoles = run(tmp_path, "--set=host_smmute_driver=true")
    host = consoles["host"]
    assert code == 1 and got["errors"] == []
    group = re.search(r"vfio-pci 0000:08:00\.1: bound, IOMMU group (\d+)", host)
    assert group is not None
    assert f"  Error: IOMMU group {group[1]} is not viable\n" in host
    assert f"IOMMU group {group[1]} is not viable" in got["tests"][0]["detail"]
    assert host.index("/sys/bus/pci/devices/0000:08:00.1/driver/unbind") < host.index("driver_override")
    assert f"smmute 0000:08:00.1: bound, IOMMU group {group[1]}\n" in host and host.endswith("reboot: Power down\n")
    records = json.loads(cosim("lspci", tmp_path / "run", "--json", "-s", "08:00").stdout)
    assert [(r["driver"], r["iommu_group"]) for r in records] == [("smmute", int(group[1]))] * 2
    assert got["counters"]["smmute.transactions"] == 0


def test_the_hierarchy_as_lspci_shows_it(tmp_path: Path) -> None:
    """Every function of the FVP's hierarchy, numbered depth first; the engine below RP3 in a group of its two functions."""
    code, got, consoles = run(tmp_path)
    assert code == 0
    assert cosim("lspci", tmp_path / "run").stdout == HIERARCHY
    verbose = cosim("lspci", tmp_path / "run", "-vv", "-s", "00:04.0").stdout
    for line in (
        "primary=00, secondary=08, subordinate=08",
        "Root Port",
        "Access Control Services",
        "in use: pcieport",
    ):
        assert line in verbose
    records = json.loads(cosim("lspci", tmp_path / "run", "--json").stdout)
    groups = {record["bdf"]: record["iommu_group"] for record in records}
    together = [[a for a in groups if groups[a] == group] for group in sorted(set(groups.values()))]
    assert [names for names in together if len(names) > 1] == [
        [f"0000:{bus}:00.{function}" for function in functions]
        for bus, functions in (("02", (0, 1)), ("06", (0, 7)), ("07", (0, 7)), ("08", (0, 1)))
    ]
    assert "pci 0000:00:03.0: PCI bridge to [bus 03-07]\n" in consoles["host"]
    bars = [tuple(bar) for record in records for bar in record["bars"]]
    for a, size in bars:
        assert a % size == 0
        assert not [b for b, other in bars if (b, other) != (a, size) and b < a + size and a < b + other]
    assert got["counters"]["pcie.memory_requests"] > 100


@pytest.mark.parametrize(
    "options", [("--set=smmute_fault=write", "--set=smmute_fault_at=2"), ("--set=host_smmute_driver=true",)]
)
def test_the_digest_does_not_depend_on_the_placement(tmp_path: Path, options: tuple[str, ...]) -> None:
    """One process, one for each node, and four give the same digest."""
    digests = set()
    for workers in ("0", "per-node", "4"):
        code, got, _ = run(tmp_path / workers, "--workers", workers, *options)
        assert code == 1
        digests.add(got["digest"])
    assert len(digests) == 1


def test_each_its_has_an_address_of_its_own(tmp_path: Path) -> None:
    """Row 33 (a duplicated ITS base): ITSs, their TRANSLATERs in the SMMU's links and the host's list agree, all different."""
    run(tmp_path, "--until", "1us")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    names = {node["id"]: node["name"] for node in plan["nodes"]}
    hypervisor = next(node for node in plan["nodes"] if node["name"] == "hypervisor")
    bases = {name: base for base, _, _, _, name in hypervisor["maps"]["bus"]}
    its = hypervisor["params"]["its"]
    assert len(set(its)) == len(its) == 3
    assert [bases[f"its{n}"] for n in range(3)] == its
    translaters = {
        names[dst]: attributes["translater"]
        for _, src, port, dst, _, _, attributes in plan["links"]
        if names[src] == "smmu0" and port == "msi"
    }
    assert translaters == {f"its{n}": base + 0x1_0040 for n, base in enumerate(its)}
