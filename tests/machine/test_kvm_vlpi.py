"""The smmute guest on a whole machine of real models, in one process: each way in which its MSIs can reach it."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import seconds
from nodes.hypervisor.experiment import VLPI
from tests.machine.kvm_rig import Machine

MISSED = "smmute 0000:00:01.0: missed MSI for transaction {} (vector 0)"


def run(pes: int = 2, **options: Any) -> Machine:
    """A machine that has run the vLPI test."""
    machine = Machine(pes, endpoint=True, tests=[VLPI], **options)
    machine.run(seconds(20))
    return machine


def direct(machine: Machine) -> None:
    """Ten MSIs became ten vLPIs that the guest acknowledged without software in between."""
    count = machine.hypervisor.count
    assert machine.verdicts()[VLPI] == ("passed", "10 transactions, status 0 Success")
    assert machine.its[0].count["msi_translated"] == 10 == machine.total("redistributor", "vlpi_delivered")
    assert (count["host_lpis"], count["lr_injections"], count["msis_injected"]) == (0, 0, 0)
    assert [mark[1:] for mark in machine.marks("ack")] == [[8192 + n % 8, "direct"] for n in range(10)]


@pytest.mark.parametrize("options", [{}, {"guest_wait": "spin"}, {"gic_version": "4.0"}])
def test_vlpis_go_direct_without_an_exit(options: dict[str, Any]) -> None:
    """GICv4.1 and GICv4.0, sleeping or spinning: direct, and a lone guest's WFI does not trap, so no doorbell rings."""
    machine = run(**options)
    direct(machine)
    assert machine.hypervisor.count["exits_irq"] == machine.hypervisor.count["exits_wfx"] == 0
    assert machine.total("redistributor", "doorbells") == 0


@pytest.mark.parametrize("version", ["4.1", "4.0"])
def test_a_blocked_vcpu_is_woken_by_one_doorbell_per_wfi(version: str) -> None:
    """With WFI trapped each transaction blocks once, rings one doorbell, and the vLPI is still delivered by hardware."""
    machine = run(gic_version=version, wfi_trap_policy="trap")
    direct(machine)
    count = machine.hypervisor.count
    assert count["blocks"] == count["doorbell_irqs"] == machine.total("redistributor", "doorbells") == 10


@pytest.mark.parametrize(("options", "kicks"), [({}, 0), ({"guest_wait": "spin"}, 10), ({"gic_version": "3"}, 0)])
def test_on_the_gicv3_path_the_host_takes_every_msi(options: dict[str, Any], kicks: int) -> None:
    """Without vgic_v4_enable, or on GICv3: ten host LPIs, ten list-register injections; a spinning guest must exit for each."""
    machine = run(vgic_v4_enable=False, **options)
    count = machine.hypervisor.count
    assert machine.verdicts()[VLPI][0] == "passed"
    assert (count["host_lpis"], count["lr_injections"], count["exits_irq"]) == (10, 10, kicks)
    assert [mark[2] for mark in machine.marks("ack")] == ["lr"] * 10
    assert machine.total("redistributor", "vlpi_delivered") == 0


def test_routes_are_marked_with_the_physical_event_and_the_guests_interrupt() -> None:
    """Each vector's route names DeviceID, event, vCPU and vINTID, so that an MSI is paired with its acknowledge."""
    assert run().marks("msi_route") == [[0x3_0801, n, "guest0.vcpu0", 8192 + n] for n in range(8)]


def test_a_discarded_event_is_noticed_by_the_guest_and_the_verdict() -> None:
    """break=discard: MSIs of transactions 1 and 9 are dropped, the driver's poll says so, eight are translated, the test fails."""
    machine = run(plant="discard")
    text = machine.console(VLPI)
    assert [n for n in range(1, 11) if MISSED.format(n) in text] == [1, 9]
    assert text.count("= 0 Success") == 10
    assert machine.its[0].count["msi_translated"] == 8
    status, detail = machine.verdicts()[VLPI]
    assert status == "failed" and "2 missed MSI-X" in detail
    assert machine.hypervisor.count["lr_injections_other"] == 2


def test_both_tests_run_one_after_the_other_and_leave_nothing_behind() -> None:
    """vSGI and vLPI in one run: guests of their own, per-test verdicts, and a host that finds no memory left at shutdown."""
    machine = Machine(4, itss=3, endpoint=True, tests=["vsgi.ipi", VLPI])
    machine.run(seconds(20))
    assert {name: status for name, (status, _) in machine.verdicts().items()} == {"vsgi.ipi": "passed", VLPI: "passed"}
    assert {mark[0].partition(".")[0] for mark in machine.marks("ack")} == {"guest0", "guest1"}
    assert machine.console("host").endswith("reboot: Power down\n")


def test_the_host_console_shows_binding_and_launch() -> None:
    """The VFIO steps and lspci's line come before the command that Arm's page gives."""
    lines = [line.strip() for line in run().console("host").splitlines()]
    launch = next(
        n for n, line in enumerate(lines) if line.startswith('# screen -md -S "virt0" sudo ./lkvm run -m 2048')
    )
    assert lines.index("Kernel driver in use: vfio-pci") < launch
    assert "--vfio-pci 0000:08:00.1 --disable-mte" in lines[launch]
    assert lines.index("# KVM session ended normally.") > launch
