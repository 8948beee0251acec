"""What implementations commonly get wrong, for the hypervisor: one named test per row of the facts sheet's section 13 (the GIC's
rows are in test_commonly_wrong_gic.py and test_commonly_wrong_its.py, those of the CPU interface in test_commonly_wrong_cpu.py)."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import seconds, us
from nodes.arch.cpu import BOOT_ENTRY, Cpu, vcpu_mpidr
from nodes.hypervisor.experiment import COMMANDS, TWO_GUESTS, VLPI, VSGI
from nodes.hypervisor.host.its import ItsDriver
from nodes.hypervisor.kvm import sgi
from nodes.hypervisor.kvm.irqfd import MsiRoute
from nodes.software import gicv3, psci, smmute_driver
from nodes.software.smmute_driver import Smmute
from tests.machine.cpu_interface_bench import booted
from tests.machine.kvm_doubles import GICD, Guest
from tests.machine.kvm_rig import GuestPe, Machine, run_guest

GENERATIONS = ("3", "4.0", "4.1")

# -- hypervisor --------------------------------------------------------------------------------------------------------


async def set_up(cpu: Cpu, log: list[str], *, vcpus: int = 2, eoimode: int = 0) -> None:
    """GIC of one vCPU, with nASSGIreq, and a handler that notes INTIDs and ends them."""
    await gicv3.enable_defaults(cpu, vcpus, True)
    if eoimode:
        await cpu.msr("ICC_CTLR_EL1", 1 << 1)

    async def handler() -> None:
        intid = await cpu.mrs("ICC_IAR1_EL1")
        log.append(f"took {intid}")
        await cpu.msr("ICC_EOIR1_EL1", intid)

    cpu.set_irq_handler(handler)
    cpu.irq_enable()


@pytest.mark.parametrize("version", ["4.0", "4.1"])
def test_row_16_a_blocked_vcpu_costs_at_most_one_doorbell_per_descheduling(version: str) -> None:
    """With WFI trapped, each of ten MSIs finds the vPE descheduled and rings once; what comes while it is resident does not."""
    machine = Machine(2, endpoint=True, tests=[VLPI], gic_version=version, wfi_trap_policy="trap")
    machine.run(seconds(20))
    count = machine.hypervisor.count
    assert count["doorbell_irqs"] == machine.total("redistributor", "doorbells") == 10 <= count["blocks"]


def test_row_17_pending_last_suppresses_the_doorbell_and_kvm_wakes_the_vcpu_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A vSGI that the guest masks by its PMR is pending when WFI blocks the vCPU: PendingLast reads 1, no doorbell rings, and
    the vCPU runs on at once; nobody waits for a doorbell that never comes."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await set_up(cpu, log)
        await cpu.msr("ICC_PMR_EL1", 0)
        await cpu.msr("ICC_SGI1R_EL1", 1 << 24 | 1)
        await cpu.delay(us(20))
        await cpu.msr("CNTV_CVAL_EL0", await cpu.mrs("CNTVCT_EL0") + 100_000)
        frame = gicv3.layout(params["vcpus"]).gicr + gicv3.SGI_FRAME
        await cpu.store(frame + gicv3.GICR_ISENABLER0, 1 << 27, 4)
        await cpu.store(frame + gicv3.GICR_IPRIORITYR + 24, 0, 4)
        await cpu.msr("ICC_PMR_EL1", 0x10)
        await cpu.msr("CNTV_CTL_EL0", 1)
        cpu.irq_disable()
        while await cpu.mrs("ICC_HPPIR1_EL1") != 27:
            await cpu.wfi()
        log.append(f"awake, {await cpu.mrs('ICC_HPPIR1_EL1')} is pending")
        await psci.system_off(cpu)

    machine = run_guest(monkeypatch, program, wfi_trap_policy="trap")
    assert log == ["awake, 27 is pending"]
    assert machine.hypervisor.count["doorbell_irqs"] == machine.total("redistributor", "doorbells") == 0
    assert machine.hypervisor.count["blocks"] > 1 and not machine.hypervisor.count["wakeups"]


def test_row_19_a_vsgi_sent_while_the_distributor_is_off_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGrp1En follows the virtual GICD_CTLR: an SGI for a running vCPU waits while it is off, and is taken once it is on."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        if params["entry"] != BOOT_ENTRY:
            await set_up(cpu, log)
            while True:
                await cpu.delay(us(100))
        await gicv3.enable_defaults(cpu, 2, True)
        await psci.cpu_on(cpu, vcpu_mpidr(1), 1)
        await cpu.delay(us(500))
        await cpu.store(gicv3.GICD, 0x100, 4)
        await cpu.delay(us(50))
        await cpu.msr("ICC_SGI1R_EL1", 1 << 24 | 1 << 1)
        await cpu.delay(us(200))
        log.append("on")
        await cpu.store(gicv3.GICD, 0x113, 4)
        await cpu.delay(us(200))
        await psci.system_off(cpu)

    machine = run_guest(monkeypatch, program)
    assert log == ["on", "took 1"]
    assert machine.total("redistributor", "vsgi_delivered") == 1 and machine.hypervisor.count["lr_injections"] == 0


@pytest.mark.parametrize(("v4", "early"), [(True, 2), (False, 1)])
def test_row_20_only_a_vsgi_is_delivered_twice_before_dir(
    monkeypatch: pytest.MonkeyPatch, v4: bool, early: int
) -> None:
    """EOImode 1: the second SGI 3 is taken before DIR of the first if it is a vSGI, else it waits for the deactivation."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await set_up(cpu, log, eoimode=1)
        for _ in range(2):
            await cpu.msr("ICC_SGI1R_EL1", 3 << 24 | 1)
            await cpu.delay(us(50))
        before = len(log)
        await cpu.msr("ICC_DIR_EL1", 3)
        await cpu.delay(us(50))
        log.append(f"{before} before DIR")
        await psci.system_off(cpu)

    run_guest(monkeypatch, program, vgic_v4_enable=v4)
    assert log == ["took 3", "took 3", f"{early} before DIR"]


def test_row_25_nassgireq_changes_only_with_the_distributor_off() -> None:
    """Writes of GICD_CTLR that leave Group 1 on keep nASSGIreq; off and on again it is taken, and the SGIs are reconfigured."""
    guest = Guest()
    assert guest.v4 is not None

    def write(value: int) -> bool:
        guest.write(GICD, value)
        return guest.vgic.nassgireq

    assert [write(v) for v in (0x13, 0x113, 0x100, 0x113, 0x13, 0)] == [False, False, True, True, True, False]
    assert [call for call in guest.v4.calls if call[0] == "switch"] == [("switch", True), ("switch", False)]


def test_row_26_irm_excludes_the_sender_a_list_may_name_it_and_rs_counts_by_sixteen() -> None:
    """Targets of SGI1R: broadcast without the sender, self by a list, and vCPUs with another Aff1 not by accident."""
    mpidrs = [vcpu_mpidr(n) for n in range(20)]
    assert sgi.decode("ICC_SGI1R_EL1", 1 << 40 | 2 << 24, mpidrs, 3).targets == tuple(n for n in range(20) if n != 3)
    assert sgi.decode("ICC_SGI1R_EL1", 2 << 24 | 1 << 3, mpidrs, 3).targets == (3,)
    assert sgi.decode("ICC_SGI1R_EL1", 2 << 24 | 1 << 16 | 1 << 3, mpidrs, 3).targets == (19,)
    wide = [0x8000_0000 | n for n in range(20)]
    assert sgi.decode("ICC_SGI1R_EL1", 2 << 24 | 1 << 44 | 0b1001, wide, 0).targets == (16, 19)


def test_row_26_rs_is_res0_without_rss() -> None:
    """A CPU interface without RSS drops RS: the SGI goes to Aff0 0 to 15."""
    bench = booted()
    bench.host("ICC_SGI1R_EL1", 1 << 44 | 3 << 24 | 1)
    (packet,) = bench.up()
    assert not any(isinstance(field, int) and field >> 44 & 0xF for field in packet[1:])


@pytest.mark.parametrize("eoimode", [0, 1])
def test_row_28_icactiver_ends_an_sgi_that_was_never_eoid(monkeypatch: pytest.MonkeyPatch, eoimode: int) -> None:
    """The running priority is not dropped by that, so an SGI of the same priority waits; one of higher priority comes."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await gicv3.enable_defaults(cpu, 2, False)
        await cpu.msr("ICC_CTLR_EL1", eoimode << 1)
        frame = gicv3.layout(params["vcpus"]).gicr + gicv3.SGI_FRAME
        await cpu.store(frame + gicv3.GICR_IPRIORITYR, 0xA0_80_A0_A0, 4)

        async def handler() -> None:
            intid = await cpu.mrs("ICC_IAR1_EL1")
            log.append(f"took {intid}")
            active = await cpu.load(frame + 0x300, 4)
            await cpu.store(frame + 0x380, 1 << intid, 4)
            log.append(f"active {active:#x} then {await cpu.load(frame + 0x300, 4):#x}")

        cpu.set_irq_handler(handler)
        cpu.irq_enable()
        for number in (1, 3, 2):
            await cpu.msr("ICC_SGI1R_EL1", number << 24 | 1)
            await cpu.delay(us(20))
        log.append(f"running {await cpu.mrs('ICC_RPR_EL1'):#x}")
        await psci.system_off(cpu)

    run_guest(monkeypatch, program)
    assert log == ["took 1", "active 0x2 then 0x0", "took 2", "active 0x4 then 0x0", "running 0x80"]


def test_row_28_the_active_state_of_another_vcpus_sgi_is_seen_in_its_list_register(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ISACTIVER0 of a vCPU that is in the guest: it is taken out first, so that its list registers tell."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        frame = gicv3.layout(params["vcpus"]).gicr + gicv3.GICR_STRIDE + gicv3.SGI_FRAME
        await gicv3.enable_defaults(cpu, 2, False)
        if params["entry"] != BOOT_ENTRY:

            async def handler() -> None:
                intid = await cpu.mrs("ICC_IAR1_EL1")
                await cpu.delay(us(400))
                await cpu.msr("ICC_EOIR1_EL1", intid)

            cpu.set_irq_handler(handler)
            cpu.irq_enable()
            while True:
                await cpu.delay(us(1000))
        await psci.cpu_on(cpu, vcpu_mpidr(1), 1)
        await cpu.delay(us(500))
        await cpu.msr("ICC_SGI1R_EL1", 4 << 24 | 1 << 1)
        await cpu.delay(us(100))
        log.append(f"{await cpu.load(frame + 0x300, 4):#x}")
        await cpu.delay(us(400))
        log.append(f"{await cpu.load(frame + 0x300, 4):#x}")
        await psci.system_off(cpu)

    run_guest(monkeypatch, program)
    assert log == ["0x10", "0x0"]


@pytest.mark.parametrize("version", GENERATIONS)
def test_row_29_int_of_a_disabled_lpi_waits_and_duplicates_collapse(version: str) -> None:
    """The its-trigger checks among all others of the its-commands guest, with eight LPIs and four list registers."""
    machine = Machine(2, endpoint=True, tests=[COMMANDS], gic_version=version)
    machine.run(seconds(20))
    assert machine.verdicts()[COMMANDS] == ("passed", "SUMMARY: 16 tests")
    for line in ("a disabled LPI is not taken", "nor after INVALL", "enabled, it is taken once"):
        assert f"PASS: its: int: {line}" in machine.console(COMMANDS)


class _Masker(Smmute):
    """Masks vector 0 in the MSI-X table, lets the device send it, and looks."""

    async def run(self, log: list[str]) -> None:
        await self.set_up()
        cpu, function = self.cpu, self.function
        assert function is not None
        pba = function.bar(4)
        await cpu.store(function.table + 12, 1, 4)
        frame = function.bar(0)
        await self._program(frame, 0, 0x8100_0000, 0x9100_0000, 64)
        await cpu.store(frame + smmute_driver.CMD, smmute_driver.MEMCPY, 4)
        await cpu.delay(us(100))
        log.append(f"masked: taken {sorted(self._fired)}, pending bits {await cpu.load(pba, 8):#x}")
        await cpu.store(function.table + 12, 0, 4)
        await cpu.delay(us(100))
        log.append(f"unmasked: taken {sorted(self._fired)}, pending bits {await cpu.load(pba, 8):#x}")
        await psci.system_off(cpu)


@pytest.mark.parametrize("version", GENERATIONS)
def test_row_30_an_msi_of_a_masked_entry_pends_and_its_unmask_delivers(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """In all three generations the guest sees the pending bit while its entry is masked, and one interrupt afterwards."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await _Masker(cpu, params).run(log)

    monkeypatch.setitem(GuestPe.programs, "smmute", program)
    machine = Machine(2, endpoint=True, tests=[VLPI], gic_version=version)
    machine.run(seconds(20))
    assert log == ["masked: taken [], pending bits 0x1", "unmasked: taken [0], pending bits 0x0"]
    assert len(machine.marks("ack")) == 1


def test_row_31_a_wrong_device_id_in_the_route_makes_msis_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the VMM names another DeviceID than the guest's MAPD, KVM drops every MSI, counted, and the guest finds its
    transactions done without an interrupt."""

    def wrong(address: int, data: int, device_id: int) -> MsiRoute:
        return MsiRoute(address, data, device_id + 8)

    monkeypatch.setattr("nodes.hypervisor.vmm.passthrough.MsiRoute", wrong)
    machine = Machine(2, endpoint=True, tests=[VLPI], smmute_transactions=2)
    machine.run(seconds(20))
    count = machine.hypervisor.count
    assert machine.verdicts()[VLPI][0] == "failed"
    assert (count["unresolved_routes"], count["msis_dropped"], count["host_lpis"]) == (8, 2, 2)
    assert machine.console(VLPI).count("missed MSI for transaction") == 2


@pytest.mark.parametrize(("version", "stride"), [("3", 0x2_0000), ("4.0", 0x4_0000), ("4.1", 0x4_0000)])
def test_row_32_the_stride_of_redistributors_depends_on_vlpis(version: str, stride: int) -> None:
    """The host walks frames of 128 KiB on GICv3 and of 256 KiB otherwise; a guest's are always of 128 KiB."""
    machine = Machine(3, gic_version=version)
    machine.run()
    host = machine.hypervisor.experiment.host
    assert host.gic.stride == stride
    assert [cpu.rd_base - host.cpus[0].rd_base for cpu in host.cpus] == [0, stride, 2 * stride]
    assert machine.verdicts()[VSGI][0] == "passed"


# -- beyond the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eoimode", [0, 1])
def test_active_interrupts_beyond_the_list_registers_are_ended_by_eoicount_or_by_a_trapped_dir(
    monkeypatch: pytest.MonkeyPatch, eoimode: int
) -> None:
    """Six nested SGIs are active at once with four list registers; their ends, in reverse order, leave none active, and each
    can come again: by EOIcount and LRENP with EOImode 0, by the trap of DIR (TDIR) with EOImode 1."""
    log: list[str] = []
    nested = range(6)

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await gicv3.enable_defaults(cpu, 2, False)
        await cpu.msr("ICC_CTLR_EL1", eoimode << 1)
        frame = gicv3.layout(params["vcpus"]).gicr + gicv3.SGI_FRAME
        for n in nested:
            await cpu.store(frame + gicv3.GICR_IPRIORITYR + n, 0xA0 - 8 * n, 1)

        async def handler() -> None:
            intid = await cpu.mrs("ICC_IAR1_EL1")
            log.append(f"+{intid}")
            if intid + 1 in nested:
                await cpu.msr("ICC_SGI1R_EL1", intid + 1 << 24 | 1)
                cpu.irq_enable()
                await cpu.delay(us(50))
                cpu.irq_disable()
            else:
                log.append(f"active {await cpu.load(frame + 0x300, 4):#x}")
            await cpu.msr("ICC_EOIR1_EL1", intid)
            if eoimode:
                await cpu.msr("ICC_DIR_EL1", intid)
            log.append(f"-{intid}")

        cpu.set_irq_handler(handler)
        cpu.irq_enable()
        for _ in range(2):
            await cpu.msr("ICC_SGI1R_EL1", 1)
            await cpu.delay(us(500))
            log.append(f"active {await cpu.load(frame + 0x300, 4):#x}")
        await psci.system_off(cpu)

    machine = run_guest(monkeypatch, program)
    once = [*(f"+{n}" for n in nested), "active 0x3f", *(f"-{n}" for n in reversed(nested)), "active 0x0"]
    assert log == once * 2
    assert bool(machine.hypervisor.count["exits_dir_trap"]) == bool(eoimode)
    assert machine.hypervisor.count["lr_injections"] == 12


def live(runs: list[tuple[int, str, dict[str, int]]]) -> dict[str, set[tuple[int, ...]]]:
    """What the commands given so far leave mapped: (ITS, device), (ITS, device, event), (ITS, vPE)."""
    devices: set[tuple[int, ...]] = set()
    events: set[tuple[int, ...]] = set()
    vpes: set[tuple[int, ...]] = set()
    for its, name, fields in runs:
        if name == "MAPD":
            (devices.add if fields["valid"] else devices.discard)((its, fields["device_id"]))
        elif name in ("MAPTI", "VMAPTI"):
            events.add((its, fields["device_id"], fields["event_id"]))
        elif name == "DISCARD":
            events.discard((its, fields["device_id"], fields["event_id"]))
        elif name == "VMAPP":
            (vpes.add if fields["valid"] else vpes.discard)((its, fields["vpeid"]))
    return {"devices": devices, "events": events, "vpes": vpes}


@pytest.mark.parametrize(
    "options",
    [
        {"gic_version": "3"},
        {"gic_version": "4.0"},
        {"gic_version": "4.1"},
        {"gic_version": "4.1", "t_migrate": us(500)},
        {"gic_version": "4.0", "vcpus": 5},
        {"gic_version": "4.1", "tests": [TWO_GUESTS, COMMANDS, TWO_GUESTS]},
    ],
)
def test_the_end_gives_all_memory_and_mappings_back(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    """After the last guest no device, event or vPE is mapped on any ITS, no command has failed, no guest memory, doorbell or
    host LPI is allocated, and no vPE is resident."""
    runs: list[tuple[int, str, dict[str, int]]] = []
    real = ItsDriver.run

    async def spy(self: ItsDriver, commands: Any, **targets: Any) -> Any:
        commands = list(commands)
        runs.extend((self.index, name, dict(fields)) for name, fields in commands)
        return await real(self, commands, **targets)

    monkeypatch.setattr(ItsDriver, "run", spy)
    machine = Machine(3, itss=2, endpoint=True, **{"tests": [VSGI, VLPI], **options})
    machine.run(seconds(20))
    assert {status for status, _ in machine.verdicts().values()} == {"passed"}
    assert any(name == "MAPD" for _, name, _ in runs)
    assert live(runs) == {"devices": set(), "events": set(), "vpes": set()}
    host = machine.hypervisor.experiment.host
    assert [a for a in host.memory.in_use() if a.owner == "vm" or a.owner.startswith(("itt", "iommu"))] == []
    assert host.lpis.in_use == 0 and machine.total("its", "command_errors") == 0
    assert host.v4 is None or not host.v4._resident
    assert machine.hypervisor.experiment.kvm.vms == 0 and host.vfio.open == {}
