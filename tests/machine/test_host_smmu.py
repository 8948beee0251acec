"""The SMMUv3 driver: STE and table contents, command order and errors, event queue."""

from __future__ import annotations

import pytest

from cosim.api import ModelError
from nodes.hypervisor.host.smmu import cmd_sync, cmd_tlbi_vmid, ste_stage2
from tests.machine.host_rig import STREAM, Rig


def queued(rig: Rig, first: int) -> list[tuple[int, int]]:
    """Commands (DW0, DW1) from number `first` on."""
    smmu = rig.host.smmu
    out = []
    for n in range(first, smmu._prod):
        data = rig.memory.peek(smmu._cmdq + 16 * n, 16)
        out.append((int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")))
    return out


def test_stage2_ste() -> None:
    """The STE of a stage-2 domain: Config 6, VMID, 48 bits from level 0, 4 KiB granule, table, faults recorded."""
    words = ste_stage2(3, 0x8123_4000, 5)
    assert words[0] & 0xF == 1 | 6 << 1
    assert words[2] & 0xFFFF == 3
    assert words[2] >> 32 & 0x3F == 16 and words[2] >> 38 & 3 == 2 and words[2] >> 46 & 3 == 0
    assert words[2] >> 48 & 7 == 5 and words[2] >> 51 & 1 == 1 and words[2] >> 58 & 1 == 1
    assert words[3] == 0x8123_4000 and words[4:] == [0] * 4


def test_attach_and_detach() -> None:
    """Attach writes tables and STE, then CFGI_STE, TLBI by VMID and SYNC; detach makes the STE invalid and frees all."""
    rig = Rig().boot()
    smmu = rig.host.smmu
    used = len(rig.host.memory.in_use())
    domain = smmu.domain()
    domain.tables.map(0x8000_0000, 1 << 31, 0x80_8000_0000)
    first = smmu._prod
    rig.call(smmu.attach(domain, STREAM))
    assert queued(rig, first) == [(0x03 | STREAM << 32, 1), (0x28 | domain.vmid << 32, 0), (0x46, 0)]
    ste = rig.memory.peek(smmu._strtab + 64 * STREAM, 64)
    assert [int.from_bytes(ste[n : n + 8], "little") for n in range(0, 64, 8)] == ste_stage2(
        domain.vmid, domain.tables.root, 5
    )
    assert int.from_bytes(rig.memory.peek(domain.tables.root, 8), "little") & 3 == 3
    with pytest.raises(ModelError, match="no streams"):
        smmu.free(domain)
    rig.call(smmu.detach(domain, STREAM))
    assert rig.memory.peek(smmu._strtab + 64 * STREAM, 8) == bytes(8)
    smmu.free(domain)
    assert len(rig.host.memory.in_use()) == used

    async def beyond() -> None:
        again = smmu.domain()
        assert again.vmid == domain.vmid
        await smmu.attach(again, 1 << 18)

    with pytest.raises(ModelError, match="18 bits"):
        rig.call(beyond())


def test_the_command_queue_wraps() -> None:
    """PROD carries a wrap bit above the 256 slots, and runs that cross the end are whole."""
    rig = Rig().boot()
    smmu = rig.host.smmu

    async def many() -> None:
        for n in range(50):
            await smmu.run([cmd_tlbi_vmid(n)] * 10)

    start = smmu._prod
    rig.call(many())
    assert smmu._prod == (start + 550) % 512
    assert rig.smmu.writes(0x98)[-1] == smmu._prod
    ring = b"".join(cmd_tlbi_vmid(n) * 10 + cmd_sync() for n in range(50))[-16 * 256 :]
    slot = smmu._prod % 256
    assert rig.memory.peek(smmu._cmdq, 4096) == ring[-16 * slot :] + ring[: -16 * slot]
    with pytest.raises(ModelError, match="fewer than 256"):
        rig.call(smmu.run([bytes(16)] * 256))


def test_command_errors_are_named() -> None:
    """CMDQ_CONS.ERR ends the operation with the error's name and the command's address."""
    rig = Rig().boot()
    rig.smmu.error = 1
    with pytest.raises(ModelError, match="Illegal command; the command is at 0x"):
        rig.call(rig.host.smmu.run([bytes(16)]))


def test_events_are_printed_as_linux_does() -> None:
    """Records between CONS and PROD are printed as four words each, over the queue's wrap, and CONS follows PROD."""
    rig = Rig().boot()
    smmu = rig.host.smmu
    record = [0x10 | STREAM << 32, 1 << 35 | 1 << 39 | 2 << 40, 0x1234_5000, 0]
    data = b"".join(word.to_bytes(8, "little") for word in record)
    for slot in (126, 127, 0):
        rig.memory.poke(smmu._eventq + 32 * slot, data)
    smmu._event_cons = 126
    rig.smmu.bank["SMMU_EVENTQ_PROD"] = 129
    rig.call(rig.host.handle_irq(rig.host.cpus[0], 260))
    assert smmu.events == [tuple(record)] * 3
    assert rig.smmu.writes(0x1_00AC)[-1] == 129 and rig.node.count["smmu_events"] == 3
    text = rig.console()
    assert text.count("event 0x10 received:") == 3
    assert f"\t{record[0]:#018x}" in text and f"\t{record[2]:#018x}" in text


def test_an_overflow_is_said_once() -> None:
    """A change of OVFLG is reported and acknowledged in OVACKFLG; a later drain with the same flag says nothing."""
    rig = Rig().boot()
    rig.smmu.bank["SMMU_EVENTQ_PROD"] = 1 << 31 | 1
    rig.call(rig.host.smmu.drain_events())
    rig.smmu.bank["SMMU_EVENTQ_PROD"] = 1 << 31 | 2
    rig.call(rig.host.smmu.drain_events())
    assert rig.smmu.writes(0x1_00AC)[1:] == [1 << 31 | 1, 1 << 31 | 2]
    assert rig.console().count("EVTQ overflow") == 1


def test_global_errors_are_acknowledged() -> None:
    """An active bit of GERROR is reported and acknowledged in GERRORN; without one nothing is written."""
    rig = Rig().boot()
    rig.smmu.bank["SMMU_GERROR"] = 1
    rig.call(rig.host.handle_irq(rig.host.cpus[0], 262))
    assert rig.smmu.bank["SMMU_GERRORN"] == 1 and "unexpected global error" in rig.console()
    rig.call(rig.host.handle_irq(rig.host.cpus[0], 262))
    assert rig.smmu.writes(0x64) == [1]


def test_interrupts_are_edges_at_the_distributor() -> None:
    """Event and error SPIs are edge-triggered and enabled before IRQ_CTRL lets the SMMU raise them."""
    rig = Rig().boot()
    bank = rig.gicd.bank
    for spi in (260, 262):
        assert bank.at("GICD_ICFGR", spi // 16) >> 2 * (spi % 16) & 3 == 2
        assert bank.at("GICD_ISENABLER", spi // 32) >> spi % 32 & 1
    assert rig.smmu.writes(0x50) == [5]
