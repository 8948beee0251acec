"""What each ITS command sends to redistributors, and how its tables lie in memory."""

from __future__ import annotations

import pytest

from nodes.arch.its_commands import encode
from tests.machine.its_bench import (
    COLLECTIONS,
    CTLR,
    DEV,
    DEV2,
    DEVICES,
    INDIRECT,
    ITT,
    LEVEL2,
    LPI,
    LPI2,
    NONE,
    PAGES_64K,
    VCONF,
    VLPI,
    VLPI2,
    VPES,
    VPT,
    ItsBench,
    Sent,
    mapc,
    mapd,
    mappings,
    mapti,
    standard,
    sync,
    vmapp,
    vmapti,
)

EVENT1, EVENT2 = {"device_id": DEV, "event_id": 1}, {"device_id": DEV, "event_id": 2}

EFFECTS = [
    ("INT", EVENT1, [(1, "SetLpi", (LPI,))]),
    ("INT", EVENT2, [(3, "SetVlpi", (7, VLPI, NONE))]),
    ("CLEAR", EVENT1, [(1, "ClearLpi", (LPI,))]),
    ("CLEAR", EVENT2, [(3, "ClearVlpi", (7, VLPI))]),
    ("INV", EVENT1, [(1, "InvLpi", (LPI,))]),
    ("INV", EVENT2, [(3, "InvVlpi", (7, VLPI))]),
    ("INVALL", {"icid": 1}, [(2, "InvAll", ())]),
    ("MOVALL", {"rdbase1": 1, "rdbase2": 3}, [(1, "MoveAll", (3,))]),
    ("MOVALL", {"rdbase1": 1, "rdbase2": 1}, []),
    ("VINVALL", {"vpeid": 7}, [(3, "VInvAll", (7,))]),
    ("INVDB", {"vpeid": 7}, [(3, "InvDb", (7,))]),
    (
        "VSGI",
        {"vpeid": 7, "sgi": 5, "enable": 1, "group": 1, "priority": 0xA0},
        [(3, "CfgVsgi", (7, 5, 1, 1, 0xA0))],
    ),
    ("VSGI", {"vpeid": 7, "sgi": 5, "clear": 1, "enable": 1}, [(3, "ClearVsgi", (7, 5))]),
]


@pytest.mark.parametrize(("name", "fields", "sent"), EFFECTS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(EFFECTS)])
def test_messages(name: str, fields: dict[str, int], sent: list[Sent]) -> None:
    """The command sends exactly this, and all mappings stay."""
    bench = standard()
    before = mappings(bench)
    assert bench.do(name, **fields) == sent
    assert mappings(bench) == before
    assert bench.count["command_errors"] == 0


@pytest.mark.parametrize(
    ("event", "message"), [(1, (1, "ClearLpi", (LPI,))), (2, (3, "ClearVlpi", (7, VLPI)))], ids=["physical", "virtual"]
)
def test_discard(event: int, message: Sent) -> None:
    """DISCARD clears the interrupt at its redistributor and unmaps the event: later MSIs are dropped and counted."""
    bench = standard()
    assert bench.do("DISCARD", device_id=DEV, event_id=event) == [message]
    assert bench.msi(DEV, event) == []
    assert bench.count["msi_dropped"] == 1 and bench.take_log("MSI dropped")[0]["why"] == "UNMAPPED_INTERRUPT"


def test_mapd_unmaps_and_remaps() -> None:
    """MAPD V=0 makes all events untranslatable; V=1 with another (or zeroed) table starts with no events, in the new size."""
    bench = standard()
    bench.run(mapd(valid=0))
    assert bench.msi(DEV, 1) == []
    bench.run(mapd(size=0, itt=ITT + 0x1000))
    assert bench.msi(DEV, 1) == [] and bench.error("MAPTI", device_id=DEV, event_id=2, pintid=LPI) == "0x010a05"
    bench.run(mapti(1, LPI, 0))
    assert bench.msi(DEV, 1) == [(1, "SetLpi", (LPI,))]
    bench.memory.poke(ITT + 0x1000, bytes(16))
    bench.run(mapd(size=0, itt=ITT + 0x1000))
    assert bench.msi(DEV, 1) == []


def test_mapc_moves_and_unmaps() -> None:
    """MAPC changes the redistributor of a collection's interrupts; V=0 drops them; events mapped before MAPC V=1 come alive."""
    bench = standard()
    bench.run(mapc(0, 3))
    assert bench.msi(DEV, 1) == [(3, "SetLpi", (LPI,))]
    bench.run(mapc(0, 0, 0))
    assert bench.msi(DEV, 1) == []
    assert bench.msi(DEV, 3) == []
    bench.run(mapc(2, 0))
    assert bench.msi(DEV, 3) == [(0, "SetLpi", (LPI2,))]


def test_mapi_and_vmapi_take_the_event_as_intid() -> None:
    """MAPI and VMAPI map an event to the (v)LPI of the same number."""
    bench = standard()
    bench.run(mapd(DEV2, 13, ITT + 0x10_0000), encode("MAPI", device_id=DEV2, event_id=8300, icid=1))
    bench.run(encode("VMAPI", device_id=DEV2, event_id=8301, vpeid=7, doorbell=NONE))
    assert bench.msi(DEV2, 8300) == [(2, "SetLpi", (8300,))]
    assert bench.msi(DEV2, 8301) == [(3, "SetVlpi", (7, 8301, NONE))]


def test_mapping_a_mapped_event_is_told() -> None:
    """MAPTI of an event that was not discarded takes the new mapping, counted and logged."""
    bench = standard()
    bench.run(mapti(1, LPI2, 1))
    assert bench.msi(DEV, 1) == [(2, "SetLpi", (LPI2,))]
    assert bench.count["events_remapped"] == 1


def test_movi_moves_pending_and_waits() -> None:
    """MOVI moves the pending state and is confirmed by the old redistributor before the next command runs."""
    bench = standard()
    bench.auto = False
    bench.run(encode("MOVI", device_id=DEV, event_id=1, icid=1), encode("INT", device_id=DEV, event_id=1))
    ((rd, name, fields),) = bench.take_syncs()
    assert (rd, name) == (1, "Sync")
    bench.ack(rd, name, fields)
    assert bench.take() == [(2, "SetLpi", (LPI,))]


def test_movi_message() -> None:
    """MOVI names INTID and new redistributor; within one redistributor nothing is sent; the old collection must be mapped."""
    bench = standard()
    assert bench.do("MOVI", device_id=DEV, event_id=1, icid=1) == [(1, "MoveLpi", (LPI, 2))]
    bench.run(mapc(0, 2))
    assert bench.do("MOVI", device_id=DEV, event_id=1, icid=0) == []
    assert int(bench.error("MOVI", device_id=DEV, event_id=3, icid=0), 16) == 0x010109
    assert bench.msi(DEV, 3) == []


def test_vmapp_with_alloc() -> None:
    """GICv4.1: with Alloc=1 the home gets all fields; with Alloc=0 it learns of one more ITS, wherever RDbase says it is."""
    bench = ItsBench().enable()
    command = vmapp(7, 3, ptz=0, vpt=VPT, default_doorbell=8300)
    assert bench.run(command) == [(3, "MapVpe", (7, 1, 0, VCONF, VPT, 15, 8300))]
    bench.mapped_elsewhere(8, rd=1)
    assert bench.run(vmapp(8, 2, alloc=0)) == [(1, "MapVpe", (8, 0, 0, 0, 0, 15, 1023))]
    assert bench.run(vmapp(8, 2, alloc=0)) == [], "counted once for each ITS"
    assert bench.sgir(8, 2) == [(1, "SetVsgi", (8, 2))]


def test_vmapp_unmap() -> None:
    """VMAPP V=0 tells the home and waits for its Sync before the next command; events of the vPE drop from then on."""
    bench = standard()
    bench.auto = False
    bench.run(encode("VMAPP", vpeid=7, valid=0, alloc=1), encode("VINVALL", vpeid=8))
    ((rd, name, fields),) = bench.take_syncs()
    assert (rd, name) == (3, "Sync") and bench.take() == []
    bench.auto = True
    bench.ack(rd, name, fields)
    assert bench.take() == [(0, "VInvAll", (8,))]
    assert bench.do("VMAPP", vpeid=8, valid=0) == [(0, "UnmapVpe", (8, 0))]
    assert bench.sgir(7, 1) == bench.sgir(8, 1) == bench.msi(DEV, 2) == []
    assert bench.count["sgir_dropped"] == 2 and bench.count["msi_dropped"] == 1


def test_vmapp_unmap_sends_unmap() -> None:
    """VMAPP V=0 with Alloc=1 sends UnmapVpe to the vPE's home."""
    assert standard().do("VMAPP", vpeid=7, valid=0, alloc=1) == [(3, "UnmapVpe", (7, 1))]


def test_v40_vmapp() -> None:
    """GICv4.0: each VMAPP and its V=0 reach the home; the 4.1 fields are ignored; individual doorbells travel with the event."""
    bench = ItsBench("4.0").enable()
    command = encode("VMAPP", vpeid=7, rdbase=3, valid=1, vpt=VPT, vpt_size=15, alloc=1, vconf=VCONF)
    assert bench.run(command) == [(3, "MapVpe", (7, 0, 0, 0, VPT, 15, NONE))]
    bench.run(mapd(), vmapti(2, VLPI, 7, doorbell=8400))
    assert bench.msi(DEV, 2) == [(3, "SetVlpi", (7, VLPI, 8400))]
    assert bench.do("VMAPP", vpeid=7, valid=0) == [(3, "UnmapVpe", (7, 0))]


def test_individual_doorbells_need_nid_0() -> None:
    """With nID=1 (GICv4.1) the Dbell fields count as 1023, whatever they say."""
    bench = standard()
    bench.run(vmapti(5, VLPI2, 8, doorbell=5))
    assert bench.msi(DEV, 5) == [(0, "SetVlpi", (8, VLPI2, NONE))]
    bench = ItsBench("4.0").enable()
    bench.run(vmapp(7, 3), mapd())
    fields = {"device_id": DEV, "event_id": 2, "vpeid": 7, "vintid": VLPI, "doorbell": 5}
    assert bench.error("VMAPTI", **fields) == "0x012a13"


def test_vmovi() -> None:
    """VMOVI moves the pending vLPI from the old home to the new vPE's and waits; D=1 replaces the doorbell (GICv4.0)."""
    bench = standard()
    assert bench.do("VMOVI", device_id=DEV, event_id=2, vpeid=8) == [(3, "MoveVlpi", (7, VLPI, 8, 0, NONE))]
    assert [(rd, name) for rd, name, _ in bench.take_syncs()] == [(3, "Sync")]
    assert bench.msi(DEV, 2) == [(0, "SetVlpi", (8, VLPI, NONE))]
    bench = ItsBench("4.0").enable()
    bench.run(vmapp(7, 3), vmapp(8, 0), mapd(), vmapti(2, VLPI, 7, doorbell=8400))
    fields = {"device_id": DEV, "event_id": 2, "vpeid": 8}
    assert bench.do("VMOVI", **fields) == [(3, "MoveVlpi", (7, VLPI, 8, 0, 8400))]
    assert bench.do("VMOVI", **fields | {"vpeid": 7, "d": 1, "doorbell": 8401}) == [
        (0, "MoveVlpi", (8, VLPI, 7, 3, 8401))
    ]
    assert bench.msi(DEV, 2) == [(3, "SetVlpi", (7, VLPI, 8401))]
    assert bench.do("VMOVI", **fields | {"vpeid": 7, "d": 1, "doorbell": 8402}) == []
    assert bench.msi(DEV, 2) == [(3, "SetVlpi", (7, VLPI, 8402))]


def test_vmovi_from_an_unmapped_vpe() -> None:
    """An event of an unmapped vPE can be given to a mapped one; there is no pending state to fetch."""
    bench = standard()
    assert bench.do("VMOVI", device_id=DEV, event_id=4, vpeid=8) == []
    assert bench.msi(DEV, 4) == [(0, "SetVlpi", (8, VLPI2, NONE))]


def test_vmovp_holds_events_until_the_state_has_moved() -> None:
    """VMOVP tells the old home; until that confirms, MSIs and vSGIs of the vPE wait, then go to the new one in order."""
    bench = standard()
    bench.auto = False
    sent = bench.run(encode("VMOVP", vpeid=7, rdbase=1, db=1, default_doorbell=8305), encode("VSYNC", vpeid=7), sync(2))
    assert sent == [(3, "MoveVpe", (7, 1, 1, 8305))]
    ((rd, name, fields),) = bench.take_syncs()
    assert (rd, name, fields[1]) == (3, "VSync", 7)
    bench.sgir(7, 1)
    bench.msis((DEV, 2), (DEV, 1))
    bench.sgir(7, 2)
    assert bench.take() == []
    bench.ack(rd, name, fields)
    here = [sent for sent in bench.take() if sent[0] == 1]
    assert here == [
        (1, "SetVsgi", (7, 1)),
        (1, "SetVlpi", (7, VLPI, NONE)),
        (1, "SetLpi", (LPI,)),
        (1, "SetVsgi", (7, 2)),
    ]
    assert [(rd, name) for rd, name, _ in bench.take_syncs()] == [(1, "VSync"), (2, "Sync")]


def test_vmovp_doorbell_fields() -> None:
    """VMOVP to the home itself still carries the doorbell; DB=0 and GICv4.0 carry none."""
    bench = standard()
    assert bench.do("VMOVP", vpeid=7, rdbase=3, db=1, default_doorbell=8306) == [(3, "MoveVpe", (7, 3, 1, 8306))]
    assert bench.do("VMOVP", vpeid=7, rdbase=2, default_doorbell=8306) == [(3, "MoveVpe", (7, 2, 0, NONE))]
    bench = ItsBench("4.0").enable()
    bench.run(vmapp(7, 3))
    assert bench.do("VMOVP", vpeid=7, rdbase=2, db=1, default_doorbell=8306) == [(3, "MoveVpe", (7, 2, 0, NONE))]


def test_vmovp_after_another_its_moved_the_vpe() -> None:
    """With a shared vPE table the old home is the one in memory, not the one this ITS remembers."""
    bench = standard()
    entry = int.from_bytes(bench.memory.peek(VPES + 8 * 7, 8), "little")
    moved = entry & ~(0xFFFF << 6) | 2 << 6
    bench.memory.poke(VPES + 8 * 7, moved.to_bytes(8, "little"))
    assert bench.do("VMOVP", vpeid=7, rdbase=3) == [(2, "MoveVpe", (7, 3, 0, NONE))]


# -- tables ------------------------------------------------------------------------------------------------------------


def test_device_table_with_two_levels() -> None:
    """A device whose level-1 entry is invalid is out of range, until software gives it a page; no restart is needed."""
    bench = ItsBench().enable()
    far = 0x5_0000
    fields = {"device_id": far, "size": 4, "itt": ITT, "valid": 1}
    assert bench.error("MAPD", **fields) == "0x010801"
    assert bench.msi(far, 1) == []
    bench.level2(DEVICES, far)
    bench.run(mapc(0, 2), mapd(far), mapti(1, LPI, 0, far))
    assert bench.count["command_errors"] == 1
    assert bench.msi(far, 1) == [(2, "SetLpi", (LPI,))]
    page = LEVEL2 + far * 8 // 0x1_0000 * 0x1_0000
    assert any(bench.memory.peek(page + far * 8 % 0x1_0000, 8))


@pytest.mark.parametrize(("size", "page"), [(0, 0x1000), (1, 0x4000), (2, 0x1_0000)])
@pytest.mark.parametrize("levels", [1, 2])
def test_table_walk_honours_page_size(size: int, page: int, levels: int) -> None:
    """The last device of a table of two pages (flat) or of two level-1 pages is reached, the one behind it is not."""
    bench = ItsBench(device_bits=32)
    bench.enable()
    bench.write(CTLR, 0, 4)
    if levels == 1:
        last = 2 * page // 8 - 1
        bench.baser(0, DEVICES, size << 8, pages=2)
    else:
        last = 2 * (page // 8) * (page // 8) - 1
        bench.baser(0, DEVICES, size << 8 | INDIRECT, pages=2)
        number = last * 8 // page
        entry = 1 << 63 | LEVEL2
        bench.memory.poke(DEVICES + 8 * number, entry.to_bytes(8, "little"))
    bench.write(CTLR, 1, 4)
    bench.run(mapc(0, 2), mapd(last), mapti(1, LPI, 0, last))
    assert bench.msi(last, 1) == [(2, "SetLpi", (LPI,))]
    where = DEVICES + 8 * last if levels == 1 else LEVEL2 + page - 8
    assert any(bench.memory.peek(where, 8))
    assert bench.error("MAPD", device_id=last + 1, size=4, itt=ITT, valid=1) == "0x010801"


def test_high_addresses_of_64k_pages() -> None:
    """With 64 KB pages BASER bits [15:12] are address bits [51:48]."""
    from nodes.its.tables import Layout

    assert Layout.of(1 << 63 | PAGES_64K | 0x1234_5678_0000 | 0x9 << 12).base == 0x9_1234_5678_0000
    assert Layout.of(1 << 63 | 0x1234_5678_9000).base == 0x1234_5678_9000


def test_collection_table_bounds_and_invalid_table() -> None:
    """An ICID beyond the collection table, or any with BASER1.Valid=0, is out of range."""
    bench = ItsBench().enable()
    bench.write(CTLR, 0, 4)
    bench.baser(1, COLLECTIONS)
    bench.write(CTLR, 1, 4)
    bench.run(mapc(2047, 1))
    assert bench.count["command_errors"] == 0
    assert bench.error("MAPC", icid=2048, rdbase=1, valid=1) == "0x010903"
    bench.write(CTLR, 0, 4)
    bench.write(0x108, 0)
    bench.write(CTLR, 1, 4)
    assert bench.error("MAPC", icid=0, rdbase=1, valid=1) == "0x010903"


def test_shared_vpe_table_belongs_to_alloc() -> None:
    """VMAPP with Alloc=0 leaves the shared entry alone: mapping writes nothing, unmapping does not clear it."""
    bench = ItsBench().enable()
    bench.mapped_elsewhere(7, rd=3)
    before = bench.memory.peek(VPES, 0x100)
    bench.run(vmapp(7, 0, alloc=0), sync(0))
    assert bench.memory.peek(VPES, 0x100) == before
    bench.run(encode("VMAPP", vpeid=7, valid=0), sync(0))
    assert bench.memory.peek(VPES, 0x100) == before
    assert bench.count["command_errors"] == 0


def test_vpes_of_another_table_are_not_mapped() -> None:
    """A vPE is mapped on this ITS by its VMAPP only: a valid entry of a table that it is given later does not map one."""
    bench = standard()
    bench.memory.poke(VPES + 0x1_0000, bench.memory.peek(VPES, 0x100))
    bench.write(CTLR, 0, 4)
    bench.baser(2, VPES, PAGES_64K)
    bench.write(CTLR, 1, 4)
    assert bench.sgir(7, 1) == [(3, "SetVsgi", (7, 1))]
    bench.write(CTLR, 0, 4)
    bench.baser(2, VPES + 0x1_0000, PAGES_64K)
    bench.write(CTLR, 1, 4)
    assert bench.sgir(7, 1) == []
