"""The GICv4 driver: vPEs with the Alloc rules, vLPIs, vSGIs, residency, PendingLast and doorbells."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import ModelError, ms, us
from nodes.arch.its_commands import Command
from nodes.hypervisor.host.gicv4 import Gicv4, Vpe
from nodes.hypervisor.host.its import ItsDevice
from tests.machine.host_rig import ITS_BASES, STREAM, Rig, names

VPENDBASER = 0x2_0078
CONFIG = [(True, 1, 0xA0)] * 16


class Vm:
    """A booted machine with the vPEs of one VM, one for each PE unless told otherwise."""

    def __init__(self, version: str = "4.1", vpes: int | None = None) -> None:
        self.rig = Rig(version=version).boot()
        self.host = self.rig.host
        assert self.host.v4 is not None
        self.v4: Gicv4 = self.host.v4
        n = vpes or len(self.host.cpus)
        self.first = [its.queue.issued for its in self.host.its]
        self.vpes: list[Vpe] = self.rig.call(self.v4.alloc_vpes(n, [i % 3 for i in range(n)]))

    def call(self, coroutine: Any) -> Any:
        return self.rig.call(coroutine)

    def commands(self, index: int = 0) -> list[Command]:
        """What was queued since the last call."""
        commands = self.rig.commands(index, self.first[index])
        self.first[index] = self.host.its[index].queue.issued
        return commands

    def device(self, events: int = 8) -> ItsDevice:
        device = self.host.its[0].device(STREAM, events)
        self.call(device.create())
        self.call(device.map_events(range(events), self.host.cpus[0]))
        self.commands()
        return device


def test_vpes_are_mapped_with_alloc_on_the_first_its_only() -> None:
    """Exactly the first VMAPP of a vPE has Alloc = 1; the other ITSs map it only after that is complete; one VSYNC each."""
    vm = Vm()
    on0, on1 = vm.commands(0), vm.commands(1)
    assert names(on0) == ["VMAPP"] * 3 + ["VINVALL"] * 3 + ["INVDB"] * 3 + ["VSYNC"] * 3
    assert names(on1) == ["VMAPP"] * 3 + ["VINVALL"] * 3 + ["VSYNC"] * 3
    assert [c["alloc"] for c in on0[:3]] == [1, 1, 1] and [c["alloc"] for c in on1[:3]] == [0, 0, 0]
    for vpe, command in zip(vm.vpes, on0, strict=False):
        assert (command["vpeid"], command["vpt"], command["vpt_size"]) == (vpe.vpeid, vpe.vpt, 15)
        assert (command["vconf"], command["default_doorbell"]) == (vpe.vm.vprop, vpe.doorbell_lpi)
        assert command["rdbase"] == vpe.home.index and command["ptz"] == 0
        assert vpe.vpt % 0x1_0000 == 0
    assert len({vpe.vpt for vpe in vm.vpes}) == len({vpe.doorbell_lpi for vpe in vm.vpes}) == 3
    config = vm.rig.memory.peek(vm.host.lpis.prop + vm.vpes[0].doorbell_lpi - 8192, 3)
    assert config == b"\xa3" * 3
    assert [its.count["command_errors"] for its in vm.rig.its] == [0, 0]


def test_others_map_after_the_first_is_done() -> None:
    """While the first ITS has not acknowledged, no VMAPP reaches the others."""
    vm = Vm()
    vm.commands(1)
    vm.rig.rds[0].held = []
    with pytest.raises(TimeoutError):
        vm.rig.call(vm.v4.alloc_vpes(1, [0]), ms(1))
    assert names(vm.commands(0))[-1] == "VSYNC" and vm.commands(1) == []


def test_vpes_are_unmapped_in_the_opposite_order() -> None:
    """At the end Alloc = 1 is on the last unmap, no VSYNC follows, and memory, LPIs and vPEIDs are free again."""
    vm = Vm()
    vm.commands(0), vm.commands(1)
    vm.call(vm.v4.free_vpes(vm.vpes))
    on0, on1 = vm.commands(0), vm.commands(1)
    assert names(on0) == names(on1) == ["VMAPP"] * 3
    assert [(c["valid"], c["alloc"]) for c in on1] == [(0, 0)] * 3
    assert [(c["valid"], c["alloc"]) for c in on0] == [(0, 1)] * 3
    assert not vm.host.memory.in_use("vm") and vm.host.lpis.in_use == 0
    again: list[Vpe] = vm.call(vm.v4.alloc_vpes(3, [0, 1, 2]))
    assert [vpe.vpeid for vpe in again] == [0, 1, 2]
    assert [its.count["command_errors"] for its in vm.rig.its] == [0, 0]


def test_a_vpe_in_use_is_not_freed() -> None:
    """Freeing a resident vPE, or one with vLPIs, is refused."""
    vm = Vm()
    vm.call(vm.v4.make_resident(vm.host.cpus[0], vm.vpes[0], g0en=False, g1en=True))
    with pytest.raises(ModelError, match="non-resident"):
        vm.call(vm.v4.free_vpes(vm.vpes))


def test_residency_writes() -> None:
    """Resident: Valid, PendingLast and VGrp1En as the virtual distributor; blocked: Doorbell; preempted: PendingLast."""
    vm = Vm()
    cpu, vpe, rd = vm.host.cpus[1], vm.vpes[1], vm.rig.rds[1]
    before = len(rd.writes(VPENDBASER))

    async def cycle(g1en: bool, need_db: bool) -> None:
        await vm.v4.make_resident(cpu, vpe, g0en=False, g1en=g1en)
        await vm.v4.commit(cpu)
        assert vpe.resident is cpu
        await vm.v4.make_nonresident(cpu, vpe, need_db=need_db)

    vm.call(cycle(True, True))
    vm.call(cycle(False, False))
    assert rd.writes(VPENDBASER)[before:] == [
        1 << 63 | 1 << 61 | 1 << 58 | 1,
        1 << 62 | 1 << 58 | 1,
        1 << 63 | 1 << 61 | 1,
        1 << 61 | 1,
    ]
    assert vpe.resident is None and vpe.pending_last is True


def test_a_load_waits_for_the_deschedule_before_it() -> None:
    """After a preemption, whose end nobody waited for, Dirty is polled before VPENDBASER is made Valid again."""
    vm = Vm()
    cpu, vpe, rd = vm.host.cpus[0], vm.vpes[0], vm.rig.rds[0]

    async def cycle() -> None:
        await vm.v4.make_resident(cpu, vpe, g0en=False, g1en=True)
        await vm.v4.make_nonresident(cpu, vpe, need_db=False)
        await vm.host.bus.dsb()
        rd.log_.clear()
        await vm.v4.make_resident(cpu, vpe, g0en=False, g1en=True)
        await vm.host.bus.dsb()

    vm.call(cycle())
    assert [entry[:2] for entry in rd.log_] == [("r", VPENDBASER), ("w", VPENDBASER)]


def test_pending_last_is_what_the_register_says_after_dirty() -> None:
    """With a doorbell asked for, Dirty is polled until it clears and PendingLast of that read is the answer."""
    vm = Vm()
    cpu, vpe, rd = vm.host.cpus[0], vm.vpes[0], vm.rig.rds[0]
    answers = [1 << 60, 1 << 60, 1 << 61]

    async def block() -> None:
        await vm.v4.make_resident(cpu, vpe, g0en=False, g1en=True)
        await vm.v4.commit(cpu)
        rd.bank.on_read("GICR_VPENDBASER", lambda i: answers.pop(0))
        await vm.v4.make_nonresident(cpu, vpe, need_db=True)

    vm.call(block())
    assert answers == [] and vpe.pending_last


def test_a_vpe_moves_to_the_cpu_that_loads_it() -> None:
    """A load on another CPU sends VMOVP with the doorbell and VSYNC first, to one ITS, after the old CPU is clean."""
    vm = Vm()
    vpe = vm.vpes[0]
    home, target = vm.host.cpus[0], vm.host.cpus[2]

    async def move() -> None:
        await vm.v4.make_resident(home, vpe, g0en=False, g1en=True)
        await vm.v4.make_nonresident(home, vpe, need_db=False)
        reads = len(vm.rig.rds[0].log_)
        await vm.v4.make_resident(target, vpe, g0en=False, g1en=True)
        assert ("r", VPENDBASER) in [entry[:2] for entry in vm.rig.rds[0].log_[reads:]]

    vm.commands(0), vm.commands(1)
    vm.call(move())
    vmovp, vsync = vm.commands(0)
    assert (vmovp.name, vmovp["vpeid"], vmovp["rdbase"]) == ("VMOVP", vpe.vpeid, 2)
    assert (vmovp["db"], vmovp["default_doorbell"]) == (1, vpe.doorbell_lpi)
    assert vsync.name == "VSYNC" and vm.commands(1) == []
    assert vpe.col_idx == 2 and vm.rig.rds[2].writes(VPENDBASER)[-1] >> 63 == 1


def test_one_vpe_for_a_cpu_and_one_cpu_for_a_vpe() -> None:
    """A second vPE on a CPU, and a second CPU for a vPE, are refused."""
    vm = Vm()
    vm.call(vm.v4.make_resident(vm.host.cpus[0], vm.vpes[0], g0en=False, g1en=True))
    for cpu, vpe in ((0, 1), (1, 0)):
        with pytest.raises(ModelError, match="must be non-resident"):
            vm.call(vm.v4.make_resident(vm.host.cpus[cpu], vm.vpes[vpe], g0en=False, g1en=True))


def test_doorbell_wakes_the_vpe() -> None:
    """The doorbell LPI, taken on any CPU, sets pending_last, calls the vPE's hook and is counted as a doorbell."""
    vm = Vm()
    vpe, woken = vm.vpes[1], []
    vpe.on_doorbell = lambda _cpu: woken.append(vpe.pending_last)
    vm.call(vm.host.handle_irq(vm.host.cpus[1], vpe.doorbell_lpi))
    assert woken == [True] and vm.rig.node.count["doorbell_irqs"] == 1


def test_vlpi_mapping() -> None:
    """8 vectors become vLPIs in one run: property bytes first, then DISCARD, VMAPTI, INV of each, SYNC and one VSYNC."""
    vm = Vm()
    device, vpe = vm.device(), vm.vpes[0]
    vm.call(vm.v4.map_vlpis(device, [(k, vpe, 8192 + k, 0xA0, k != 3) for k in range(8)]))
    commands = vm.commands()
    assert names(commands) == ["DISCARD"] * 8 + ["VMAPTI"] * 8 + ["INV"] * 8 + ["SYNC", "VSYNC"]
    assert [(c["event_id"], c["vpeid"], c["vintid"], c["doorbell"]) for c in commands[8:16]] == [
        (k, vpe.vpeid, 8192 + k, 1023) for k in range(8)
    ]
    assert vm.rig.memory.peek(vpe.vm.vprop, 8) == b"\xa3" * 3 + b"\xa2" + b"\xa3" * 4
    assert vpe.vlpi_count == 8
    assert vm.rig.its[0].count["command_errors"] == vm.rig.its[0].count["events_remapped"] == 0
    vm.call(device.trigger(5))
    assert vm.rig.rds[0].net_log[-1] == ("SetVlpi", (vpe.vpeid, 8197, 1023))


def test_vlpi_goes_back_to_the_host() -> None:
    """Unmapping gives DISCARD, MAPTI of the host LPI and INV; the event then raises the host LPI again."""
    vm = Vm()
    device, vpe = vm.device(), vm.vpes[0]
    vm.call(vm.v4.map_vlpi(device, 2, vpe, 8300, 0xA0, True))
    vm.commands()
    assert vm.call(vm.v4.unmap_vlpi(device, 2)) is False
    commands = vm.commands()
    assert names(commands) == ["DISCARD", "MAPTI", "INV", "SYNC", "VSYNC"]
    assert commands[1]["pintid"] == device.lpi(2) and vpe.vlpi_count == 0
    vm.call(device.trigger(2))
    assert vm.rig.rds[0].net_log[-1] == ("SetLpi", (device.lpi(2),))


def test_property_change_uses_invlpir_of_the_home() -> None:
    """On GICv4.1 a new property is written to the VM's table and GICR_INVLPIR names vPE and vLPI; no ITS command."""
    vm = Vm()
    device, vpe = vm.device(), vm.vpes[1]
    vm.call(vm.v4.map_vlpi(device, 0, vpe, 8192, 0xA0, True))
    vm.commands()
    vm.call(vm.v4.set_property(device, 0, 0x80, False))
    assert vm.rig.memory.peek(vpe.vm.vprop, 1) == b"\x82"
    assert vm.rig.rds[1].writes(0xA0) == [1 << 63 | vpe.vpeid << 32 | 8192]
    assert vm.rig.rds[1].log_[-1][:2] == ("r", 0xC0)
    assert vm.commands() == []


def test_a_property_change_waits_for_a_move() -> None:
    """While VMOVP is not acknowledged, INVLPIR goes to neither home; then it goes to the new one."""
    vm = Vm()
    device, vpe = vm.device(), vm.vpes[0]
    vm.call(vm.v4.map_vlpi(device, 0, vpe, 8192, 0xA0, True))
    vm.rig.rds[0].held = []

    async def race() -> None:
        vm.rig.node.spawn(vm.v4.make_resident(vm.host.cpus[1], vpe, g0en=False, g1en=True), "load")
        await vm.rig.node.sleep(us(1))
        vm.rig.node.spawn(vm.v4.set_property(device, 0, 0x80, True), "property")
        await vm.rig.node.sleep(us(50))

    vm.rig.call(race(), ms(1))
    assert vm.rig.rds[0].writes(0xA0) == vm.rig.rds[1].writes(0xA0) == []
    vm.rig.bench.call("redistributor0", vm.rig.rds[0].release(), vm.rig.soon(ms(1)))
    assert len(vm.rig.rds[1].writes(0xA0)) == 1 and vm.rig.rds[0].writes(0xA0) == []


def test_vsgi_configuration_is_one_run() -> None:
    """16 VSGI commands and one VSYNC for a change; none when nothing changed; several vPEs share a run."""
    vm = Vm()
    vm.commands()
    vm.call(vm.v4.config_vsgis(vm.vpes[0], CONFIG))
    commands = vm.commands()
    assert names(commands) == ["VSGI"] * 16 + ["VSYNC"]
    assert [(c["sgi"], c["enable"], c["group"], c["priority"], c["clear"]) for c in commands[:16]] == [
        (k, 1, 1, 0xA0, 0) for k in range(16)
    ]
    vm.call(vm.v4.config_vsgis(vm.vpes[0], CONFIG))
    assert vm.commands() == []
    vm.call(vm.v4.config_vsgis_of([(vpe, CONFIG) for vpe in vm.vpes]))
    assert names(vm.commands()) == ["VSGI"] * 32 + ["VSYNC"] * 2


def test_vsgi_send_clear_and_query() -> None:
    """GITS_SGIR goes to the lowest ITS with vPEID and INTID; C = 1 clears; the pending mask is read at the home RD."""
    vm = Vm()
    vpe = vm.vpes[2]

    async def send() -> None:
        vm.v4.send_vsgi(vpe, 5)
        await vm.host.bus.dsb()

    vm.call(send())
    assert vm.rig.its[0].count["sgir_writes"] == 1 and vm.rig.its[1].count["sgir_writes"] == 0
    assert vm.rig.rds[2].net_log[-1] == ("SetVsgi", (vpe.vpeid, 5))
    assert vm.v4.first.base == min(ITS_BASES)
    vm.commands()
    vm.call(vm.v4.clear_vsgi(vpe, 5))
    vsgi, vsync = vm.commands()
    assert (vsgi["sgi"], vsgi["clear"], vsgi["enable"]) == (5, 1, 0) and vsync["vpeid"] == vpe.vpeid
    answers = [1 << 31, 0x20]
    vm.rig.rds[2].bank.on_read("GICR_VSGIPENDR", lambda i: answers.pop(0))
    assert vm.call(vm.v4.vsgi_pending(vpe)) == 0x20
    assert vm.rig.rds[2].writes(0x2_0080) == [vpe.vpeid]


def test_planted_faults_reach_the_hardware_only() -> None:
    """break_vsgi disables the 16 vSGIs and discard_behind unmaps the event, while the driver's own view stays as it was."""
    vm = Vm()
    device, vpe = vm.device(), vm.vpes[0]
    vm.call(vm.v4.config_vsgis(vpe, CONFIG))
    vm.call(vm.v4.map_vlpi(device, 0, vpe, 8192, 0xA0, True))
    vm.commands()
    vm.call(vm.v4.break_vsgi(vpe))
    assert {(c["enable"], c["group"], c["priority"]) for c in vm.commands()[:16]} == {(0, 1, 0xA0)}
    assert vpe.vsgis == CONFIG
    vm.call(vm.v4.discard_behind(device, 0))
    assert names(vm.commands()) == ["DISCARD", "VSYNC"] and vpe.vlpi_count == 1
    errors = vm.rig.its[0].count["command_errors"]
    vm.call(vm.host.its[0].run([("INT", {"device_id": STREAM, "event_id": 0})]))
    assert vm.rig.its[0].count["command_errors"] == errors + 1


def test_gicv40_uses_its_own_layouts() -> None:
    """On GICv4.0 VMAPP has no Alloc, residency names the pending and property tables, doorbells are masked while resident."""
    vm = Vm("4.0")
    on0 = vm.commands(0)
    assert names(on0) == ["VMAPP"] * 3 + ["VINVALL"] * 3 + ["VSYNC"] * 3
    assert {(c["alloc"], c["vconf"], c["default_doorbell"]) for c in on0[:3]} == {(0, 0, 0)}
    cpu, vpe, rd = vm.host.cpus[0], vm.vpes[0], vm.rig.rds[0]
    byte = vm.host.lpis.prop + vpe.doorbell_lpi - 8192

    async def cycle() -> list[bytes]:
        await vm.v4.make_resident(cpu, vpe, g0en=False, g1en=True)
        resident = vm.rig.memory.peek(byte, 1)
        await vm.v4.make_nonresident(cpu, vpe, need_db=True)
        return [resident, vm.rig.memory.peek(byte, 1)]

    assert vm.call(cycle()) == [b"\xa2", b"\xa3"]
    assert rd.writes(0x2_0070)[-1] & ((1 << 52) - 1) & ~0xFFF == vpe.vm.vprop
    written = rd.writes(VPENDBASER)[-2:]
    assert written[0] >> 63 == 1 and written[1] >> 63 == 0
    assert all(value & 0xF_FFFF_FFFF_0000 == vpe.vpt for value in written)
    assert rd.writes(0xA0) == [vpe.doorbell_lpi] * 2
    vm.call(vm.v4.free_vpes(vm.vpes))
    assert [its.count["command_errors"] for its in vm.rig.its] == [0, 0]
