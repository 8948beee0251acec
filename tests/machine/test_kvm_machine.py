"""KVM on a whole machine of real models, in one process: the `ipi` guest, blocked vCPUs, doorbells, timer, faults."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import ModelError, ms, us
from nodes.arch.cpu import BOOT_ENTRY, Cpu, vcpu_mpidr
from nodes.hypervisor.experiment import VSGI
from nodes.hypervisor.kvm.vcpu import Mode
from nodes.hypervisor.kvm.vgic_v4 import VmV4
from nodes.software import gicv3, psci
from tests.machine.kvm_rig import Machine, run_guest

PASSES = [f"PASS: gicv3: ipi: {name}: Interrupts received" for name in ("self", "target-list", "broadcast")]


def passed(machine: Machine) -> bool:
    """All three PASS lines, and the session ended normally."""
    lines = machine.console(VSGI).splitlines()
    return all(line in lines for line in PASSES) and lines[-1] == "  # KVM session ended normally."


@pytest.mark.parametrize("wait", ["wfi", "spin"])
def test_vsgis_go_direct_on_gicv41(wait: str) -> None:
    """Eight vCPUs: 3 trapped writes become 12 GITS_SGIR writes, 12 direct acknowledges, no list register, no doorbell."""
    machine = Machine(8, itss=3, guest_wait=wait)
    machine.run()
    count = machine.hypervisor.count
    assert passed(machine) and machine.verdicts()[VSGI] == ("passed", "SUMMARY: 3 tests")
    assert (count["exits_sgi_trap"], count["lr_injections"], count["host_lpis"], count["doorbell_irqs"]) == (3, 0, 0, 0)
    assert machine.its[0].count["sgir_writes"] == 12 == machine.total("redistributor", "vsgi_delivered")
    assert machine.total("redistributor", "doorbells") == 0
    assert sorted(mark[2] for mark in machine.marks("ack")) == ["direct"] * 12


def test_each_target_has_a_cause_with_the_time_of_the_write() -> None:
    """One SGI1R write marks a cause per target, all with the sender's time of the write, before any acknowledge."""
    machine = Machine(8)
    machine.run()
    causes = machine.marks("cause")
    times = sorted({cause[3] for cause in causes})
    assert len(causes) == 12 and [sum(c[3] == t for c in causes) for t in times] == [1, 4, 7]
    assert {(c[0], c[2]) for c in causes} == {("vsgi", 1)}
    assert [c[1] for c in causes if c[3] == times[1]] == [f"guest0.vcpu{n}" for n in (0, 2, 4, 6)]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"nassgireq": False}, "GICv4.1 support enabled"),
        ({"vgic_v4_enable": False}, "GICv4 support disabled"),
        ({"gic_version": "4.0"}, "GICv4 support enabled"),
    ],
)
def test_otherwise_sgis_go_through_list_registers(options: dict[str, Any], name: str) -> None:
    """Without nASSGIreq, without the kernel parameter, or on GICv4.0: same console, no SGIR write, 12 injections."""
    machine = Machine(8, **options)
    machine.run()
    count = machine.hypervisor.count
    assert passed(machine) and f"kvm [1]: {name}" in machine.console("host")
    assert (count["exits_sgi_trap"], count["lr_injections"], machine.its[0].count["sgir_writes"]) == (3, 12, 0)
    assert sorted(mark[2] for mark in machine.marks("ack")) == ["lr"] * 12


def test_gicv3_has_no_gicv4_line_and_works() -> None:
    """On GICv3 KVM says nothing about GICv4, and the SGIs go through list registers."""
    machine = Machine(4, gic_version="3")
    machine.run()
    assert passed(machine) and "GICv4" not in machine.console("host")
    assert machine.hypervisor.count["lr_injections"] == 6


def test_trapped_wfi_blocks_and_doorbells_wake() -> None:
    """With WFI trapped, vCPUs block non-resident; a vSGI rings the doorbell, and is still delivered directly."""
    machine = Machine(4, wfi_trap_policy="trap")
    machine.run()
    assert passed(machine)
    count = machine.hypervisor.count
    assert count["blocks"] > 0 and count["lr_injections"] == 0
    assert 0 < count["doorbell_irqs"] == machine.total("redistributor", "doorbells") <= 5


def test_a_broken_vsgi_fails_the_test_as_documented() -> None:
    """With VSGI E = 0 for vCPU 2 the guest misses one acknowledge twice, and the verdict is a failure."""
    machine = Machine(8, plant="vsgi")
    machine.run()
    text = machine.console(VSGI)
    for name in ("target-list", "broadcast"):
        assert f"INFO: gicv3: ipi: {name}: ACKS: missing=1 extra=0 unexpected=0" in text
        assert f"FAIL: gicv3: ipi: {name}: Interrupts received" in text
    assert "SUMMARY: 3 tests, 2 unexpected failures" in text
    status, detail = machine.verdicts()[VSGI]
    assert status == "failed" and "STATUS=3" in detail


def test_the_host_console_shows_the_session() -> None:
    """The command as typed, kvmtool's line, its end, and the power-off, in this order; nothing of the guest's own text."""
    machine = Machine(2)
    machine.run()
    lines = machine.console("host").splitlines()
    wanted = [
        '# ./lkvm run -m 2048 -f arm/gic.flat --irqchip gicv3-its -p "ipi"',
        "  # lkvm run --firmware arm/gic.flat -m 2048 -c 2 --name guest-0",
        "  # KVM session ended normally.",
        "# poweroff",
    ]
    assert [line for line in lines if line in wanted] == wanted
    assert not any(line.startswith("PASS") for line in lines)


def test_the_digest_is_that_of_the_same_run() -> None:
    """Two runs have one digest; another parameter that changes a message has another."""
    digests = []
    for time in (us(1), us(1), us(2)):
        machine = Machine(2, t_exit_kernel=time)
        machine.run()
        digests.append(machine.bench.digest())
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "params", [{"tests": ["vsgi.ipj"]}, {"plant": "all"}, {"guest_wait": "sleep"}, {"wfi_trap_policy": "maybe"}]
)
def test_a_wrong_parameter_is_refused_at_set_up(params: dict[str, Any]) -> None:
    """A parameter that is not allowed raises before anything runs, and names what is allowed."""
    with pytest.raises(ModelError, match="must be"):
        Machine(2, **params).run(1)


@pytest.mark.parametrize("vcpus", [0, 513])
def test_a_vm_has_as_many_vcpus_as_kvm_allows(vcpus: int) -> None:
    """More vCPUs than PEs are fine, more than KVM_MAX_VCPUS or none are not."""
    with pytest.raises(ModelError, match=r"vcpus must be in 1\.\.512"):
        Machine(2, vcpus=vcpus).run()


# -- guests of their own -------------------------------------------------------------------------------------------------


async def set_up(cpu: Cpu, log: list[str], name: str, *, nassgireq: bool = True) -> None:
    """GIC of one vCPU, and a handler that notes INTIDs."""
    await gicv3.enable_defaults(cpu, 2, nassgireq)

    async def handler() -> None:
        intid = await cpu.mrs("ICC_IAR1_EL1")
        log.append(f"{name} took {intid}")
        if intid == 27:
            await cpu.delay(us(2))
            await cpu.msr("CNTV_CTL_EL0", 0)
        await cpu.msr("ICC_EOIR1_EL1", intid)

    cpu.set_irq_handler(handler)
    cpu.irq_enable()


@pytest.mark.parametrize("options", [{"wfi_trap_policy": "trap"}, {"pes": 1}])
def test_lost_wake_up_of_a_vcpu_that_blocked_while_the_distributor_was_off(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Lost wake-up: an SGI that becomes pending for a vPE that was put with VGrp1En = 0 rings no doorbell; switching the
    Distributor on reloads the blocked vPE, PendingLast shows the SGI, and the vCPU runs. Also with both vCPUs on one PE."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        if params["entry"] == BOOT_ENTRY:
            await set_up(cpu, log, "vcpu0")
            await psci.cpu_on(cpu, vcpu_mpidr(1), 1)
            await cpu.delay(ms(1))
            await cpu.store(gicv3.GICD, 0x100, 4)
            await cpu.delay(ms(1))
            await cpu.msr("ICC_SGI1R_EL1", 1 << 24 | 1 << 1)
            await cpu.delay(ms(1))
            log.append("on again")
            await cpu.store(gicv3.GICD, 0x113, 4)
            await cpu.delay(ms(1))
            await psci.system_off(cpu)
        await set_up(cpu, log, "vcpu1")
        while True:
            await cpu.wfi()

    machine = run_guest(monkeypatch, program, vcpus=2, **options)
    assert log == ["on again", "vcpu1 took 1"]
    assert machine.hypervisor.count["doorbell_irqs"] == 0 and machine.hypervisor.count["lr_injections"] == 0


@pytest.mark.parametrize(("policy", "blocks"), [("", 0), ("trap", 1)])
def test_the_virtual_timer_wakes_a_sleeping_vcpu(monkeypatch: pytest.MonkeyPatch, policy: str, blocks: int) -> None:
    """PPI 27 reaches the guest once per rise by a hardware-mapped list register, both from an untrapped WFI (physical PPI,
    exit) and from a block (background timer); the physical interrupt is inactive afterwards, so a second one comes too."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await set_up(cpu, log, "vcpu0")
        frame = gicv3.layout(params["vcpus"]).gicr + gicv3.SGI_FRAME
        await cpu.store(frame + gicv3.GICR_ISENABLER0, 1 << 27, 4)
        for n in range(2):
            start = await cpu.mrs("CNTVCT_EL0")
            await cpu.msr("CNTV_CVAL_EL0", start + 5_000_000)
            await cpu.msr("CNTV_CTL_EL0", 1)
            taken = len(log)
            while len(log) == taken:
                await cpu.wfi()
            late = await cpu.mrs("CNTVCT_EL0") - start - 5_000_000
            log.append(f"{n}: {'in time' if 0 <= late < 30_000 else late}")
        await psci.system_off(cpu)

    machine = run_guest(monkeypatch, program, wfi_trap_policy=policy)
    assert log == ["vcpu0 took 27", "0: in time", "vcpu0 took 27", "1: in time"]
    count = machine.hypervisor.count
    assert count["lr_injections_other"] == 2 and count["lr_injections"] == 0
    assert bool(count["blocks"]) == bool(blocks)
    # One exit for each physical interrupt: it stays active until the guest's EOI, and a blocked vCPU needs none.
    assert count["exits_irq"] == (0 if blocks else 2)


def test_a_timer_interrupt_that_the_guest_does_not_take_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """With PPI 27 disabled at the virtual GIC, an expired timer neither ends a WFI nor storms the host; disarmed before the
    PPI is enabled, it never reaches the guest."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        if params["entry"] != BOOT_ENTRY:
            await set_up(cpu, log, "vcpu1")
            await cpu.delay(ms(1))
            await cpu.msr("ICC_SGI1R_EL1", 1 << 24 | 1)
            while True:
                await cpu.wfi()
        await set_up(cpu, log, "vcpu0")
        await psci.cpu_on(cpu, vcpu_mpidr(1), 1)
        await cpu.msr("CNTV_CTL_EL0", 1)
        while not log:
            await cpu.wfi()
        await cpu.delay(us(50))
        await cpu.msr("CNTV_CTL_EL0", 0)
        frame = gicv3.layout(params["vcpus"]).gicr + gicv3.SGI_FRAME
        await cpu.store(frame + gicv3.GICR_ISENABLER0, 1 << 27, 4)
        await cpu.delay(us(50))
        await psci.system_off(cpu)

    machine = run_guest(monkeypatch, program, wfi_trap_policy="trap")
    count = machine.hypervisor.count
    assert log == ["vcpu0 took 1"]
    assert count["stray_timer_irqs"] == 0 and count["lr_injections_other"] == 0 and count["exits"] < 100


def test_a_vsgi_that_the_guest_disabled_waits_for_its_enable(monkeypatch: pytest.MonkeyPatch) -> None:
    """ICENABLER0 and ISENABLER0 of a guest reach the vSGI's configuration in the GIC."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await set_up(cpu, log, "vcpu0")
        frame = gicv3.layout(params["vcpus"]).gicr + gicv3.SGI_FRAME
        await cpu.store(frame + 0x180, 1 << 3, 4)
        await cpu.msr("ICC_SGI1R_EL1", 3 << 24 | 1)
        await cpu.delay(us(100))
        log.append(f"pending {await cpu.load(frame + 0x200, 4):#x}")
        await cpu.store(frame + gicv3.GICR_ISENABLER0, 1 << 3, 4)
        await cpu.delay(us(100))
        await psci.system_off(cpu)

    machine = run_guest(monkeypatch, program)
    assert log == ["pending 0x8", "vcpu0 took 3"] and machine.hypervisor.count["lr_injections"] == 0


def test_vcpus_stand_still_while_their_sgis_move_and_pending_ones_move_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """nASSGIreq on and off again with another vCPU running: nobody is in the guest meanwhile, and an SGI that is pending at
    a switch is taken once, by hardware or from a list register."""
    log: list[str] = []
    inside: list[bool] = []

    def watch(name: str) -> None:
        switch = getattr(VmV4, name)

        async def watched(self: VmV4) -> None:
            inside.append(any(vcpu.mode is Mode.IN_GUEST for vcpu in self.vm.vcpus))
            await switch(self)
            await self.vm.node.sleep(us(50))
            inside.append(any(vcpu.mode is Mode.IN_GUEST for vcpu in self.vm.vcpus))

        monkeypatch.setattr(VmV4, name, watched)

    watch("_sgis_to_hardware")
    watch("_sgis_to_software")

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        if params["entry"] != BOOT_ENTRY:
            await set_up(cpu, log, "vcpu1", nassgireq=False)
            while True:
                if log:
                    cpu.irq_enable()
                else:
                    cpu.irq_disable()
                await cpu.delay(us(3))
        await set_up(cpu, log, "vcpu0", nassgireq=False)
        await psci.cpu_on(cpu, vcpu_mpidr(1), 1)
        await cpu.delay(us(300))
        for first, second in ((0x100, 0x113), (0, 0x13)):
            log.clear()
            await cpu.delay(us(20))
            await cpu.msr("ICC_SGI1R_EL1", 5 << 24 | 2)
            await cpu.store(gicv3.GICD, first, 4)
            await cpu.store(gicv3.GICD, second, 4)
            log.append(f"{second:#x}")
            await cpu.delay(us(300))
            results.append(list(log))
        await psci.system_off(cpu)

    results: list[list[str]] = []
    run_guest(monkeypatch, program)
    assert inside == [False] * 4
    assert results == [["0x113", "vcpu1 took 5"], ["0x13", "vcpu1 took 5"]]


def test_a_group_0_request_does_not_reach_a_group_1_sgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """ICC_ASGI1R_EL1 and ICC_SGI0R_EL1 trap and are counted, but a Group 1 SGI is not made pending by them."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        await set_up(cpu, log, "vcpu0")
        for register in ("ICC_ASGI1R_EL1", "ICC_SGI0R_EL1"):
            await cpu.msr(register, 3 << 24 | 1)
        await cpu.delay(us(100))
        await psci.system_off(cpu)

    machine = run_guest(monkeypatch, program)
    assert log == [] and machine.marks("cause") == [] and machine.hypervisor.count["exits_sgi_trap"] == 2


def test_a_guest_that_crashes_ends_its_session_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a guest program stops the VM; the host goes on, frees everything and powers off."""

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        if params["entry"] == BOOT_ENTRY:
            await psci.cpu_on(cpu, vcpu_mpidr(1), 1)
            while True:
                await cpu.wfi()
        raise ValueError("no such luck")

    machine = run_guest(monkeypatch, program)
    status, detail = machine.verdicts()[VSGI]
    assert status == "failed" and "guest0.vcpu1" in detail and "no such luck" in detail
    assert "reboot: Power down" in machine.console("host")


def test_a_vcpu_that_is_switched_off_can_be_switched_on_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU_OFF ends a vCPU's stay, AFFINITY_INFO shows it, and CPU_ON starts it anew at another entry."""
    log: list[str] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        if params["entry"] == BOOT_ENTRY:
            for entry in (1, 2):
                await psci.cpu_on(cpu, vcpu_mpidr(1), entry, 7 * entry)
                while (await cpu.hvc(0xC400_0004, 1))[0] == 0:
                    await cpu.delay(us(10))
            await psci.system_off(cpu)
        log.append(f"entry {params['entry']}, x0 {params['x0']}")
        await cpu.hvc(0x8400_0002)

    run_guest(monkeypatch, program)
    assert log == ["entry 1, x0 7", "entry 2, x0 14"]


def test_an_access_to_nothing_is_counted_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest's load from an address without a device reads 0, with a counted, logged warning, as kvmtool does."""
    seen: list[int] = []

    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        seen.append(await cpu.load(0x0200_0000, 4))
        seen.append(await cpu.load(0x4000_8000, 4))
        await cpu.store(0x0200_0000, 1, 4)
        await psci.system_off(cpu)

    machine = run_guest(monkeypatch, program)
    assert seen == [0, 0xFFFF_FFFF] and machine.hypervisor.count["vmm_unknown_accesses"] == 2
    assert sum(event == "MMIO to no device of the VMM" for event, _ in machine.logs()) == 2
