"""A whole machine in one process: every block is its real model, as in topologies/rdn2cfg1.yaml but of any size."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import ns, seconds, us
from cosim.node.node import SIDE_CONSOLE, SIDE_LOG, SIDE_MARK, SIDE_TEST
from cosim.testing import Bench
from nodes.arch.cpu import Program
from nodes.distributor.model import Distributor
from nodes.hypervisor.model import Hypervisor
from nodes.its.model import Its
from nodes.memory.model import Memory
from nodes.pe.model import Pe
from nodes.redistributor.model import Redistributor
from nodes.smmu.model import Smmu
from nodes.smmute.model import Smmute
from nodes.software import ipi, its_commands, smmute_app
from tests.machine import host_rig

GICD, GICR, GITS, SMMU = 0x3000_0000, 0x3010_0000, 0x3004_0000, 0x4000_0000
ECAM, PCI_MMIO = 0x10_1000_0000, 0x40_0000_0000
RID_TO_STREAM = 0x3_0000
DRAM = [(0x8000_0000, 0x7EF0_0000), (0x80_8000_0000, 0x1_8000_0000)]
GUEST_RAM = [0x80_8000_0000, 0x8000_0000]
LIMIT = seconds(60)


Region = tuple[int, int, str] | tuple[int, int, str, int]


class GuestPe(Pe):
    """A PE that knows the guest programs without their entry points."""

    programs = {"ipi": ipi.program, "smmute": smmute_app.program, "its-commands": its_commands.program}


class Machine:
    """`pes` PEs with their redistributors, `itss` ITSs, and SMMU and smmute (without `endpoint` doubles that only answer)."""

    def __init__(
        self,
        pes: int = 2,
        *,
        itss: int = 1,
        endpoint: bool = False,
        gic_version: str = "4.1",
        seed: int = 1,
        plant: str = "",
        **params: Any,
    ) -> None:
        self.bench = Bench(seed)
        self.pes, self.itss, self.endpoint = pes, itss, endpoint
        self.version = gic_version
        self._gic(gic_version)
        self.bench.add("memory", Memory)
        self._endpoint()
        self.hypervisor = self._hypervisor(gic_version, {"break": plant, **params})
        self._links()

    def _gic(self, version: str) -> None:
        bench = self.bench
        affinities = [n << 16 for n in range(self.pes)]
        self.distributor = bench.add("distributor", Distributor, {"affinities": affinities, "gic_version": version})
        self.its = [
            bench.add(f"its{i}", Its, {"index": i, "gic_version": version, "affinities": affinities})
            for i in range(self.itss)
        ]
        self.pe = [
            bench.add(f"pe{n}", GuestPe, {"index": n, "mpidr": 0x8100_0000 | n << 16, "gic_version": version})
            for n in range(self.pes)
        ]
        self.redistributor = [
            bench.add(
                f"redistributor{n}",
                Redistributor,
                {"index": n, "affinity": n << 16, "last": n == self.pes - 1, "gic_version": version},
            )
            for n in range(self.pes)
        ]

    def _endpoint(self) -> None:
        if not self.endpoint:
            self.bench.add("smmu0", host_rig.Smmu)
            self.bench.add("smmute", host_rig.Endpoint)
            return
        self.bench.add("smmu0", Smmu, {})
        self.bench.add("smmute", Smmute, {"bus": 8, "device": 0, "functions": 2})

    def _hypervisor(self, version: str, params: dict[str, Any]) -> Hypervisor:
        defaults: dict[str, Any] = {
            "pes": self.pes,
            "mpidrs": [0x8100_0000 | n << 16 for n in range(self.pes)],
            "gicd": GICD,
            "gicr": GICR,
            "its": [GITS + 0x4_0000 * i for i in range(self.itss)],
            "smmu": SMMU,
            "ecam": ECAM,
            "pci_mmio64": [PCI_MMIO, PCI_MMIO],
            "dram": [list(pair) for pair in DRAM],
            "guest_ram": GUEST_RAM,
            "rid_to_stream": RID_TO_STREAM,
            "tests": ["vsgi.ipi"],
            "gic_version": version,
        }
        return self.bench.add("hypervisor", Hypervisor, defaults | params)

    def _links(self) -> None:
        bench = self.bench
        stride = 0x2_0000 if self.version == "3" else 0x4_0000
        its_stride = 0x4_0000
        dram = [(base, size, "memory.bus", base) for base, size in DRAM]
        frames = [(GICD, 0x1_0000, "distributor.regs")]
        frames += [(GICR + stride * n, stride, f"redistributor{n}.regs") for n in range(self.pes)]
        frames += [(GITS + its_stride * i, its_stride, f"its{i}.regs") for i in range(self.itss)]
        bench.map("hypervisor.bus", frames, latency=ns(40))
        bench.map("hypervisor.bus", dram, latency=ns(60))
        for n in range(self.pes):
            bench.map(f"pe{n}.bus", dram, latency=ns(60))
            bench.map(f"redistributor{n}.bus", dram, latency=ns(60))
            bench.link(f"pe{n}.gic", f"redistributor{n}.cpu", ns(5), both=True)
            bench.link(f"pe{n}.ppi", f"redistributor{n}.ppi", ns(5))
            bench.link(f"pe{n}.trap", "hypervisor.trap", ns(300), both=True)
            bench.link(f"redistributor{n}.net", "distributor.net", ns(20), both=True)
            for i in range(self.itss):
                bench.link(f"its{i}.net", f"redistributor{n}.net", ns(20), both=True)
        for i in range(self.itss):
            bench.map(f"its{i}.bus", dram, latency=ns(60))
        self._link_endpoint(dram)

    def _link_endpoint(self, dram: list[tuple[int, int, str, int]]) -> None:
        bench = self.bench
        bench.map("hypervisor.bus", [(SMMU, 0x2_0000, "smmu0.regs")], latency=ns(40))
        pci: list[Region] = [(ECAM, 0x1000_0000, "smmute.ecam"), (PCI_MMIO, PCI_MMIO, "smmute.mmio", PCI_MMIO)]
        bench.map("hypervisor.bus", pci, latency=ns(250))
        for n in range(self.pes):
            bench.map(f"pe{n}.bus", [pci[1]], latency=ns(250))
        if not self.endpoint:
            return
        bench.map("smmu0.bus", dram, latency=ns(60))
        for function in range(2):
            stream = RID_TO_STREAM | 8 << 8 | function
            region = [(0, 1 << 48, "smmu0.upstream", 0)]
            bench.map(f"smmute.dma{function}", region, latency=ns(250), stream_id=stream)
        for i in range(self.itss):
            ids = [[RID_TO_STREAM, RID_TO_STREAM + 0x8FF], [0x8_0000, 0x8_0000]]
            bench.link("smmu0.msi", f"its{i}.msi", ns(40), translater=GITS + 0x4_0000 * i + 0x1_0040, device_ids=ids)
        bench.link("smmu0.irq", "distributor.spi", ns(20))

    # -- running and looking ---------------------------------------------------------------------------------------

    def run(self, until: int = LIMIT) -> None:
        """Until everything is quiet, or `until` ps."""
        self.bench.run(until)

    def _side(self, kind: int) -> list[list[Any]]:
        records = [record for node in self.bench._nodes.values() for record in node.side if record[3] == kind]
        return [record[4] for record in sorted(records, key=lambda r: (r[0], r[1], r[2]))]

    def console(self, file: str) -> str:
        """Text of a console."""
        return "".join(text for name, text in self._side(SIDE_CONSOLE) if name == file)

    def marks(self, name: str) -> list[list[Any]]:
        """Identities of marks."""
        return [identity for mark, identity in self._side(SIDE_MARK) if mark == name]

    def logs(self) -> list[list[Any]]:
        """Log events."""
        return self._side(SIDE_LOG)

    def verdicts(self) -> dict[str, tuple[str, str]]:
        """Last (status, detail) of each test."""
        return {payload[0]: (payload[1], payload[2]) for payload in self._side(SIDE_TEST)}

    def total(self, kind: str, counter: str) -> int:
        """Sum of a counter over the nodes of a kind."""
        return sum(n.count[counter] for n in self.bench._nodes.values() if n.kind == kind)


__all__ = ["LIMIT", "Machine", "us"]


def run_guest(monkeypatch: pytest.MonkeyPatch, program: Program, pes: int = 2, **options: Any) -> Machine:
    """Run `program` in place of the ipi test."""
    monkeypatch.setitem(GuestPe.programs, "ipi", program)
    machine = Machine(pes, **options)
    machine.run(seconds(20))
    return machine
