"""The host's drivers on the real models of every block: boot, interrupts by SPI and LPI, SMMU faults, doorbells."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from cosim.api import DECERR, SLVERR, BusFault, ModelError, ms, us
from nodes.hypervisor.host.host import Host
from nodes.hypervisor.host.vfio import VfioDevice
from nodes.smmute.model import Smmute
from tests.machine.host_rig import HostUnderTest, Rig
from tests.machine.kvm_rig import GICR, Machine

NAME = "0000:08:00.1"
GUEST_IPA, GUEST_PA, GUEST_SIZE = 0x8000_0000, 0x80_8000_0000, 0x8000_0000
MSI = 0x0800_0040


class HostMachine(Machine):
    """Real blocks under host software that does what a test says; booted."""

    def __init__(self, pes: int = 2, **options: Any) -> None:
        super().__init__(pes, itss=2, endpoint=True, **options)
        self.bench.run(0)
        self.call(self.host.boot())

    def _hypervisor(self, version: str, params: dict[str, Any]) -> Any:
        its = [0x3004_0000, 0x3008_0000]
        mpidrs = [0x8100_0000 | n << 16 for n in range(self.pes)]
        return self.bench.add("hypervisor", HostUnderTest, {"mpidrs": mpidrs, "its": its, **params})

    @property
    def host(self) -> Host:
        node = self.hypervisor
        assert isinstance(node, HostUnderTest)
        return node.host

    @property
    def smmute(self) -> Smmute:
        node = self.bench._nodes["smmute"]
        assert isinstance(node, Smmute)
        return node

    def call(self, coroutine: Coroutine[Any, Any, Any], node: str = "hypervisor") -> Any:
        assert self.bench.kernel is not None
        return self.bench.call(node, coroutine, self.bench.kernel.now + ms(10))

    def text(self) -> str:
        return "".join(record[4][1] for record in self.hypervisor.side if record[3] == 1)

    def opened(self, vectors: int = 0) -> VfioDevice:
        self.call(self.host.vfio.bind(NAME))
        device: VfioDevice = self.call(self.host.vfio.open_device(NAME, [(GUEST_IPA, GUEST_SIZE, GUEST_PA)]))
        if vectors:
            self.call(device.enable_msix(vectors))
        return device


@pytest.mark.parametrize("version", ["3", "4.0", "4.1"])
def test_boot_makes_no_block_complain(version: str) -> None:
    """On every GIC version bring-up ends with no error counted by any block, and shutdown leaves the GIC quiet."""
    machine = HostMachine(gic_version=version)
    machine.call(machine.host.shutdown())
    quiet = ("commands", "spurious_irqs")
    for name, node in machine.bench._nodes.items():
        assert not {key for key, value in node.count.items() if value and key not in quiet}, name


def test_a_refused_stream_is_reported_through_its_spi() -> None:
    """DMA of a function that nobody attached is terminated (no level-2 stream table); the SPI makes the host print it."""
    machine = HostMachine()
    for n in range(1, 3):
        with pytest.raises(BusFault) as fault:
            machine.call(machine.smmute.dma0.write64(GUEST_IPA, 1), "smmute")
        assert fault.value.status in (SLVERR, DECERR)
        assert machine.text().count("event 0x02 received:") == n
        assert machine.hypervisor.count["smmu_irqs"] == n
    assert machine.host.smmu.events[0][0] >> 32 == 0x3_0800


@pytest.mark.parametrize("stage", [1, 2])
def test_an_attached_stream_translates_and_faults_outside(stage: int) -> None:
    """IOVA = IPA inside guest RAM reaches the guest's physical memory; outside it event 0x10 names address and stage."""
    machine = HostMachine(smmu_stage=stage)
    device = machine.opened()
    machine.call(machine.smmute.dma1.write64(GUEST_IPA + 0x1238, 0x1122_3344), "smmute")
    assert machine.call(machine.host.bus.read64(GUEST_PA + 0x1238)) == 0x1122_3344
    with pytest.raises(BusFault):
        machine.call(machine.smmute.dma1.read64(0x7000_1000), "smmute")
    assert "event 0x10 received:" in machine.text()
    event = machine.host.smmu.events[-1]
    assert event == (
        0x10 | 0x3_0801 << 32,
        1 << 33 | 1 << 35 | 2 << 40 | (stage == 2) << 39,
        0x7000_1000,
        0x7000_1000 if stage == 2 else 0,
    )
    assert [f"\t{word:#018x}" in machine.text() for word in event] == [True] * 4
    machine.call(device.close())
    with pytest.raises(BusFault):
        machine.call(machine.smmute.dma1.read64(GUEST_IPA), "smmute")
    assert machine.host.smmu.events[-1][0] & 0xFF == 0x04
    machine.call(machine.host.shutdown())
    assert [a.owner for a in machine.host.memory.in_use() if a.owner.startswith("iommu")] == []


def test_stage_1_needs_an_smmu_that_has_it() -> None:
    """The host says which stage is missing, and the SMMU's double has no stage 1."""
    with pytest.raises(ModelError, match="must have stage 1"):
        Rig(params={"smmu_stage": 1}).boot()
    with pytest.raises(ModelError, match="smmu_stage must be 1 or 2"):
        Rig(params={"smmu_stage": 3}).boot()


def test_an_msi_becomes_a_host_lpi() -> None:
    """The endpoint's write to the MSI window goes through SMMU, ITS and redistributor to the vector's eventfd at EL2."""
    machine = HostMachine()
    device = machine.opened(8)
    signals: list[int] = []
    for vector in range(8):
        device.eventfd[vector] = signals.append
    for vector in (3, 0, 3):
        machine.call(machine.smmute.dma1.write32(MSI, vector), "smmute")
    assert signals == [3, 0, 3]
    assert machine.hypervisor.count["host_lpis"] == 3
    assert machine.hypervisor.count["unexpected_irqs"] == 0


def cpus_of_interrupts(machine: HostMachine) -> list[int]:
    """A list that grows by the index of the CPU whenever the host handles an interrupt."""
    taken: list[int] = []
    original = machine.host.handle_irq

    async def spy(cpu: Any, intid: int) -> bool:
        taken.append(cpu.index)
        return await original(cpu, intid)

    machine.host.handle_irq = spy  # type: ignore[method-assign]
    return taken


def test_a_moved_event_interrupts_the_other_cpu() -> None:
    """After MOVI the host LPI is taken on the CPU of the new collection."""
    machine = HostMachine()
    device = machine.opened(2)
    device.eventfd[1] = lambda vector: None
    machine.call(device.its_device.move_event(1, machine.host.cpus[1]))
    assert machine.bench.kernel is not None
    before = machine.pe[0].count.copy()
    taken = cpus_of_interrupts(machine)
    machine.call(machine.smmute.dma1.write32(MSI, 1), "smmute")
    assert taken == [1] and machine.pe[0].count == before


def test_an_ipi_interrupts_its_target_only() -> None:
    """SGI 0 of CPU 0 to CPU 1 is taken there, deactivated, and can be taken again."""
    machine = HostMachine(pes=3)
    taken = cpus_of_interrupts(machine)

    async def kick() -> None:
        async with machine.host.cpus[0] as cpu:
            for _ in range(2):
                await cpu.send_ipi(machine.host.cpus[1])
                await machine.hypervisor.sleep(us(20))

    machine.call(kick())
    assert taken == [1, 1]
    assert machine.call(machine.host.bus.read32(GICR + 0x4_0000 + 0x1_0300)) == 0


def test_a_vlpi_for_a_blocked_vpe_rings_one_doorbell() -> None:
    """Two MSIs for a vPE that is not resident ring its doorbell once; the next deschedule reports them as PendingLast."""
    machine = HostMachine()
    host = machine.host
    assert host.v4 is not None
    v4 = host.v4
    device = machine.opened(2)
    (vpe,) = machine.call(v4.alloc_vpes(1, [0]))
    rung: list[bool] = []
    vpe.on_doorbell = lambda _cpu: rung.append(vpe.pending_last)

    async def sleep_on(cpu: int) -> bool:
        await v4.make_resident(host.cpus[cpu], vpe, g0en=False, g1en=True)
        await v4.commit(host.cpus[cpu])
        await v4.make_nonresident(host.cpus[cpu], vpe, need_db=True)
        return bool(vpe.pending_last)

    machine.call(v4.map_vlpis(device.its_device, [(k, vpe, 8192 + k, 0xA0, True) for k in range(2)]))
    assert machine.call(sleep_on(0)) is False
    for vector in range(2):
        machine.call(machine.smmute.dma1.write32(MSI, vector), "smmute")
    assert rung == [True] and machine.hypervisor.count["doorbell_irqs"] == 1
    assert machine.hypervisor.count["host_lpis"] == 0
    assert machine.call(sleep_on(1)) is True
    machine.call(v4.unmap_vlpi(device.its_device, 0))
    machine.call(v4.unmap_vlpi(device.its_device, 1))
    assert machine.call(sleep_on(1)) is False
    machine.call(device.close())
    machine.call(v4.free_vpes([vpe]))
    machine.call(host.shutdown())
    assert [its.count["command_errors"] for its in machine.its] == [0, 0]
