"""What implementations of SMMU, PCIe and test engine commonly get wrong (rows of the facts sheet's section 13), and DeviceIDs."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import BusFault
from nodes.hypervisor.experiment import VLPI
from nodes.hypervisor.kvm.irqfd import MsiRoute
from nodes.hypervisor.model import Hypervisor
from nodes.hypervisor.vmm import passthrough
from nodes.smmute.regs import ERROR, HALTED, MEMCPY, SUM64
from nodes.software import psci, smmute_app
from nodes.software.smmute_driver import EIO, SUCCESS, Smmute
from tests.machine.kvm_rig import GuestPe, Machine
from tests.machine.smmute_bench import DATA, IOVA, MSI_IOVA, SIDS, ready
from tests.machine.test_host_machine import GUEST_IPA, GUEST_PA, GUEST_SIZE, MSI, HostMachine

LAST = 2047


# -- 30: masked vectors and aborted MSIs -------------------------------------------------------------------------------


def test_a_masked_vector_goes_to_the_pba_and_is_delivered_at_unmask() -> None:
    """Row 30: nothing is sent for a masked vector, its pending bit reads one, unmasking sends it once and clears the bit."""
    r = ready()
    _, table, pba = r.bars(1)
    r.write(table + 16 * 3 + 12, 1)
    r.program(SUM64, IOVA, IOVA + 7, function=1, msidata=3)
    assert (r.user("cmd", function=1), r.msis, r.read(pba)) == (HALTED, [], 1 << 3)
    r.write(table + 16 * 3 + 12, 0)
    assert ([msi[1:] for msi in r.msis], r.read(pba)) == ([(SIDS[1], 3)], 0)
    r.write(table + 16 * 3 + 12, 1)
    r.write(table + 16 * 3 + 12, 0)
    assert len(r.msis) == 1


def test_the_function_mask_holds_every_vector_back() -> None:
    """Row 30: with Function Mask two vectors pend, though theirs are clear; clearing it sends both."""
    r = ready()
    r.set_config(1, 0x82, 3 << 14, 2)
    for vector in (2, 5):
        r.program(SUM64, IOVA, IOVA + 7, function=1, msidata=vector, frame=vector)
    assert (r.msis, r.read(r.bars(1)[2])) == ([], 1 << 2 | 1 << 5)
    r.set_config(1, 0x82, 1 << 15, 2)
    assert [msi[1:] for msi in r.msis] == [(SIDS[1], 2), (SIDS[1], 5)]


def test_msi_aborted_is_set_when_nothing_can_be_sent_and_not_when_it_pends() -> None:
    """Row 30: with MSI-X disabled uctrl.MSI_ABORTED is one; with a masked vector it is zero."""
    r = ready()
    r.write(r.bars(1)[1] + 12, 1)
    r.program(SUM64, IOVA, IOVA + 7, function=1)
    assert r.user("uctrl", function=1) == 0
    r.set_config(1, 0x82, 0, 2)
    r.program(SUM64, IOVA, IOVA + 7, function=1, frame=1)
    assert r.user("uctrl", function=1, frame=1) == 1
    assert r.msis == []


def test_the_pba_has_a_bit_for_each_of_2048_vectors() -> None:
    """The pending bits take 256 bytes, not the 32 that kvmtool computes: vector 2047 is bit 31 of the word at 252."""
    r = ready()
    r.program(SUM64, IOVA, IOVA + 7, function=1, msidata=LAST)
    pba = r.bars(1)[2]
    assert [r.read(pba + 4 * n) for n in (62, 63)] == [0, 1 << 31]


# -- 31: DeviceIDs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, 8])
def test_the_vmms_device_id_is_the_one_that_the_guest_maps(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 31: the VMM routes MSIs with device << 3, as the guest's MAPD has it; with another DeviceID none arrives, counted."""
    monkeypatch.setattr(passthrough, "MsiRoute", lambda at, data, device: MsiRoute(at, data, device + wrong))
    machine = Machine(2, endpoint=True, tests=[VLPI])
    machine.run(10**13)
    text, count = machine.console(VLPI), machine.hypervisor.count
    if wrong:
        assert text.count("missed MSI") == 10 and count["msis_dropped"] == 10 and count["unresolved_routes"] >= 8
    else:
        assert "missed MSI" not in text and count["msis_dropped"] == count["unresolved_routes"] == 0
        assert [route[:2] for route in machine.marks("msi_route")] == [[0x3_0801, n] for n in range(8)]


def test_a_device_id_cannot_be_forged_by_the_endpoint() -> None:
    """Whatever an engine writes into its registers, data and addresses, its MSIs carry the DeviceID of the wire that they took."""
    r = ready(0)
    frame = r.frame(0)
    r.write(frame + 0x1_0000 + 8, SIDS[1])  # streamid of the privileged frame: ignored under PCI Express
    r.program(SUM64, IOVA, IOVA + 7, function=0, msidata=2)
    r.entry(0, 1, MSI_IOVA + 0x40, SIDS[1] << 16 | 7, 0)
    r.program(SUM64, IOVA, IOVA + 7, function=0, frame=1, msidata=1)
    r.memory.poke(DATA, (5).to_bytes(4, "little"))
    r.program(MEMCPY, IOVA, IOVA + 3, function=0, frame=2, to=MSI_IOVA + 0x40, msiaddress=0)
    with pytest.raises(BusFault):  # nor can it read or write the register by more than 4 bytes
        r.bench.call("smmute", r.smmute.dma0.write64(MSI_IOVA + 0x40, SIDS[1] << 32 | 5))
    assert [msi[1:] for msi in r.msis] == [(SIDS[0], 2), (SIDS[0], SIDS[1] << 16 | 7), (SIDS[0], 5)]


def test_one_functions_msi_never_becomes_anothers_interrupt() -> None:
    """Function 0 writes the EventIDs of function 1's vectors to GITS_TRANSLATER: its own DeviceID has none of them."""
    machine = HostMachine()
    device = machine.opened(4)
    signals: list[int] = []
    for vector in range(4):
        device.eventfd[vector] = signals.append
    machine.call(machine.host.vfio.bind("0000:08:00.0"))
    other = machine.call(machine.host.vfio.open_device("0000:08:00.0", [(GUEST_IPA, GUEST_SIZE, GUEST_PA)]))
    for vector in range(4):
        machine.call(machine.smmute.dma0.write32(MSI, vector), "smmute")
    assert signals == [] and machine.its[0].count["msi_translated"] == 0
    machine.call(machine.smmute.dma1.write32(MSI, 2), "smmute")
    assert signals == [2] and other.device_id == 0x3_0800


def test_an_its_takes_the_device_ids_of_its_own_block_only() -> None:
    """The translater page of another ITS, mapped by mistake, gives no interrupt: that ITS does not have the DeviceID."""
    machine = HostMachine()
    device = machine.opened(2)
    signals: list[int] = []
    device.eventfd[1] = signals.append
    assert device._domain is not None
    device._domain.tables.map(0x0900_0000, 4096, machine.host.its[1].translater & ~0xFFF, device=True)
    machine.call(machine.host.smmu.flush(device._domain))
    machine.call(machine.smmute.dma1.write32(0x0900_0040, 1), "smmute")
    assert signals == [] and machine.its[1].count["msi_translated"] == 0
    machine.call(machine.smmute.dma1.write32(MSI, 1), "smmute")
    assert signals == [1]


# -- faults in the middle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["read", "write"])
def test_ten_transactions_of_a_driver_with_one_fault(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that goes on after the fault of its fifth transaction finds the other nine fine, and one event is recorded."""
    outcomes: list[tuple[int, int, int]] = []
    copied: list[bool] = []

    async def program(cpu: Any, args: str, params: dict[str, Any]) -> None:
        device = Smmute(cpu, params)
        await device.set_up()
        for number in range(1, 11):
            data = smmute_app.pattern(0x100, number)
            await cpu.post_block(smmute_app.INPUT, data)
            await cpu.post_block(smmute_app.OUTPUT, bytes(0x100))
            await cpu.dsb()
            bad = fault if number == 5 else ""
            source = smmute_app.UNMAPPED if bad == "read" else smmute_app.INPUT
            target = smmute_app.UNMAPPED if bad == "write" else smmute_app.OUTPUT
            outcome = await device.memcpy(source, target, 0x100)
            outcomes.append((outcome.transaction, outcome.status, outcome.value))
            copied.append(await cpu.load_block(smmute_app.OUTPUT, 0x100) == data)
        await psci.system_off(cpu)

    monkeypatch.setitem(GuestPe.programs, "smmute", program)
    machine = Machine(2, endpoint=True, tests=[VLPI])
    machine.run(10**13)
    hypervisor = machine.hypervisor
    assert isinstance(hypervisor, Hypervisor)
    assert outcomes == [(n, EIO, smmute_app.UNMAPPED) if n == 5 else (n, SUCCESS, 0) for n in range(1, 11)]
    assert copied == [n != 5 for n in range(1, 11)]
    assert machine.bench._nodes["smmu0"].count["faults"] == 1 == machine.hypervisor.count["smmu_events"]
    assert machine.its[0].count["msi_translated"] == 10  # the fault's completion has its interrupt, too
    assert machine.console("host").count("event 0x10 received:") == 1
    record = hypervisor.experiment.host.smmu.events[0]
    direction = (fault == "read") << 35
    assert record == (0x10 | 0x3_0801 << 32, direction | 1 << 39 | 2 << 40, smmute_app.UNMAPPED, smmute_app.UNMAPPED)


def test_frames_beside_a_faulting_one_are_not_disturbed() -> None:
    """Several frames in flight: the one whose range has a hole ends with ERROR and the hole's address, the others with HALTED."""
    r = ready()
    r.memory.poke(DATA, bytes(range(256)))
    for frame in range(8):
        where = IOVA + 0x10_0000 if frame == 3 else IOVA
        r.post(MEMCPY, where, where + 0xFF, function=1, frame=frame, to=IOVA + 0x1000 * (frame + 1), msidata=frame)
    r.bench.run()
    assert [r.user("cmd", function=1, frame=n) for n in range(8)] == [ERROR if n == 3 else HALTED for n in range(8)]
    assert r.user("udata2", function=1, frame=3) == IOVA + 0x10_0000
    for frame in range(8):
        assert (r.memory.peek(DATA + 0x1000 * (frame + 1), 256) == bytes(range(256))) == (frame != 3)
    assert sorted(msi[2] for msi in r.msis) == list(range(8))
