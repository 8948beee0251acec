"""Every error of every ITS command: syndrome, state of the queue, and mappings that stay as they were (sheet 4.4)."""

from __future__ import annotations

import pytest

from nodes.arch.its_commands import LAYOUTS, encode
from tests.machine.its_bench import (
    CREADR,
    CWRITER,
    DEV,
    DEV2,
    DEV3,
    LPI,
    NONE,
    QUEUE,
    VLPI,
    mappings,
    standard,
    vmapp,
    vmapti,
)

BIG_DEVICE, BIG_EVENT = 0x10_0000, 32
EVENT1, EVENT2 = {"device_id": DEV, "event_id": 1}, {"device_id": DEV, "event_id": 2}
VMAPP_OK = {"vpeid": 10, "rdbase": 1, "valid": 1, "alloc": 1, "vpt_size": 15, "default_doorbell": NONE}
VMAPP_V40 = {"vpeid": 10, "rdbase": 1, "valid": 1, "vpt_size": 15}
MAPTI_OK = {"device_id": DEV, "event_id": 0, "pintid": LPI, "icid": 0}
MAPI_OK = {"device_id": DEV, "event_id": 0, "icid": 0}
VMAPTI_OK = {"device_id": DEV, "event_id": 0, "vpeid": 7, "vintid": VLPI, "doorbell": NONE}

VPE_COMMANDS = (("VSYNC", 0x25), ("VINVALL", 0x2D), ("INVDB", 0x2E))

EVENT_ERRORS = [
    ({"device_id": BIG_DEVICE, "event_id": 1}, 1),
    ({"device_id": DEV2, "event_id": 1}, 4),
    ({"device_id": DEV, "event_id": BIG_EVENT}, 5),
]
UNMAPPED_EVENTS = [({"device_id": DEV, "event_id": 0}, 7), ({"device_id": DEV, "event_id": 3}, 7)]
UNMAPPED_VPE_EVENT = [({"device_id": DEV, "event_id": 4}, 0x12)]

ERRORS: list[tuple[str, dict[str, int], int]] = [
    ("MAPD", {"device_id": BIG_DEVICE, "size": 4, "valid": 1}, 0x010801),
    ("MAPD", {"device_id": 0x4_0000, "size": 4, "valid": 1}, 0x010801),
    ("MAPD", {"device_id": BIG_DEVICE}, 0x010801),
    ("MAPD", {"device_id": DEV, "size": 16, "valid": 1}, 0x010802),
    ("MAPC", {"icid": 0, "rdbase": 4, "valid": 1}, 0x010902),
    ("MAPC", {"icid": 0x100, "rdbase": 1, "valid": 1}, 0x010903),
    ("MAPTI", MAPTI_OK | {"device_id": BIG_DEVICE}, 0x010A01),
    ("MAPTI", MAPTI_OK | {"icid": 0x100}, 0x010A03),
    ("MAPTI", MAPTI_OK | {"device_id": DEV2}, 0x010A04),
    ("MAPTI", MAPTI_OK | {"event_id": BIG_EVENT}, 0x010A05),
    ("MAPTI", MAPTI_OK | {"pintid": 8191}, 0x010A06),
    ("MAPTI", MAPTI_OK | {"pintid": 0x1_0000}, 0x010A06),
    ("MAPI", MAPI_OK | {"device_id": BIG_DEVICE}, 0x010B01),
    ("MAPI", MAPI_OK | {"device_id": DEV2}, 0x010B04),
    ("MAPI", MAPI_OK | {"event_id": BIG_EVENT}, 0x010B05),
    ("MAPI", MAPI_OK, 0x010B06),
    ("MAPI", {"device_id": DEV3, "event_id": LPI, "icid": 0x100}, 0x010B03),
    ("MOVI", {**EVENT1, "icid": 0x100}, 0x010103),
    ("MOVI", {**EVENT1, "icid": 2}, 0x010109),
    ("MOVI", {"device_id": BIG_DEVICE, "event_id": 1}, 0x010101),
    ("MOVI", {"device_id": DEV2, "event_id": 1}, 0x010104),
    ("MOVI", {"device_id": DEV, "event_id": BIG_EVENT}, 0x010105),
    ("MOVI", {"device_id": DEV, "event_id": 0}, 0x010107),
    ("MOVI", EVENT2, 0x010107),
    *[("INT", f, 0x010300 | cc) for f, cc in EVENT_ERRORS + UNMAPPED_EVENTS + UNMAPPED_VPE_EVENT],
    *[("CLEAR", f, 0x010500 | cc) for f, cc in EVENT_ERRORS + UNMAPPED_EVENTS + UNMAPPED_VPE_EVENT],
    *[("INV", f, 0x010C00 | cc) for f, cc in EVENT_ERRORS + UNMAPPED_EVENTS + UNMAPPED_VPE_EVENT],
    *[("DISCARD", f, 0x010F00 | cc) for f, cc in EVENT_ERRORS + UNMAPPED_EVENTS + UNMAPPED_VPE_EVENT],
    ("INVALL", {"icid": 0x100}, 0x010D03),
    ("INVALL", {"icid": 2}, 0x010D09),
    ("MOVALL", {"rdbase1": 4, "rdbase2": 1}, 0x010E01),
    ("MOVALL", {"rdbase1": 1, "rdbase2": 4}, 0x010E01),
    ("SYNC", {"rdbase": 4}, 0x010502),
    ("VMAPP", VMAPP_OK | {"vpeid": 0x100}, 0x012911),
    ("VMAPP", VMAPP_OK | {"rdbase": 4}, 0x012902),
    ("VMAPP", VMAPP_OK | {"vpt_size": 12}, 0x012902),
    ("VMAPP", VMAPP_OK | {"vpt_size": 16}, 0x012902),
    ("VMAPP", VMAPP_OK | {"default_doorbell": 8191}, 0x012913),
    ("VMAPP", {"vpeid": 9, "valid": 0, "alloc": 1}, 0x012912),
    ("VMAPP", VMAPP_OK | {"vpeid": 7}, 0x012916),
    ("VMAPP", VMAPP_OK | {"vpeid": 9, "alloc": 0}, 0x012916),
    ("VMAPTI", VMAPTI_OK | {"device_id": BIG_DEVICE}, 0x012A01),
    ("VMAPTI", VMAPTI_OK | {"device_id": DEV2}, 0x012A04),
    ("VMAPTI", VMAPTI_OK | {"event_id": BIG_EVENT}, 0x012A05),
    ("VMAPTI", VMAPTI_OK | {"vintid": 8191}, 0x012A06),
    ("VMAPTI", VMAPTI_OK | {"vintid": 0x1_0000}, 0x012A06),
    ("VMAPTI", VMAPTI_OK | {"vpeid": 0x100}, 0x012A11),
    ("VMAPTI", VMAPTI_OK | {"vpeid": 9}, 0x012A12),
    ("VMAPI", {"device_id": DEV, "event_id": 0, "vpeid": 7, "doorbell": NONE}, 0x012B06),
    ("VMAPI", {"device_id": DEV2, "event_id": 0, "vpeid": 7, "doorbell": NONE}, 0x012B04),
    ("VMAPI", {"device_id": BIG_DEVICE, "event_id": 0, "vpeid": 7, "doorbell": NONE}, 0x012B01),
    ("VMAPI", {"device_id": DEV, "event_id": BIG_EVENT, "vpeid": 7, "doorbell": NONE}, 0x012B05),
    ("VMAPI", {"device_id": DEV3, "event_id": VLPI, "vpeid": 0x100, "doorbell": NONE}, 0x012B11),
    ("VMAPI", {"device_id": DEV3, "event_id": VLPI, "vpeid": 9, "doorbell": NONE}, 0x012B12),
    ("VMOVI", {"device_id": BIG_DEVICE, "event_id": 2, "vpeid": 8}, 0x012101),
    ("VMOVI", {"device_id": DEV, "event_id": BIG_EVENT, "vpeid": 8}, 0x012105),
    ("VMOVI", {**EVENT1, "vpeid": 8}, 0x012107),
    ("VMOVI", {"device_id": DEV, "event_id": 0, "vpeid": 8}, 0x012107),
    ("VMOVI", {**EVENT2, "vpeid": 9}, 0x012112),
    ("VMOVI", {**EVENT2, "vpeid": 0x100}, 0x012111),
    ("VMOVI", {"device_id": DEV2, "event_id": 2, "vpeid": 8}, 0x012104),
    ("VMOVP", {"vpeid": 0x100, "rdbase": 1}, 0x012211),
    ("VMOVP", {"vpeid": 9, "rdbase": 1}, 0x012212),
    ("VMOVP", {"vpeid": 7, "rdbase": 4}, 0x012202),
    ("VMOVP", {"vpeid": 7, "rdbase": 1, "db": 1, "default_doorbell": 8191}, 0x012213),
    ("VSGI", {"vpeid": 0x100, "sgi": 1}, 0x012311),
    ("VSGI", {"vpeid": 9, "sgi": 1}, 0x012312),
    *[(name, {"vpeid": 0x100}, op << 8 | 0x010011) for name, op in VPE_COMMANDS],
    *[(name, {"vpeid": 9}, op << 8 | 0x010012) for name, op in VPE_COMMANDS],
]
"""(command, fields, syndrome) on a GICv4.1 ITS in the state of `standard`."""

ERRORS_V40: list[tuple[str, dict[str, int], int]] = [
    ("VMAPTI", VMAPTI_OK | {"doorbell": 8191}, 0x012A13),
    ("VMAPI", {"device_id": DEV3, "event_id": VLPI, "vpeid": 7, "doorbell": 0x1_0000}, 0x012B13),
    ("VMOVI", {**EVENT2, "vpeid": 8, "d": 1, "doorbell": 5}, 0x012113),
    ("VMAPP", VMAPP_V40 | {"vpeid": 0x100}, 0x012911),
    ("VMAPP", VMAPP_V40 | {"rdbase": 4}, 0x012902),
    ("VMAPP", VMAPP_V40 | {"vpt_size": 12}, 0x012902),
    ("VMAPP", {"vpeid": 9, "valid": 0}, 0x012912),
    ("VMOVP", {"vpeid": 9, "rdbase": 1}, 0x012212),
    ("VSGI", {"vpeid": 7, "sgi": 1}, 0x012315),
    ("INVDB", {"vpeid": 7}, 0x012E15),
]

ERRORS_V3: list[tuple[str, dict[str, int], int]] = [
    (name, {"vpeid": 7}, LAYOUTS[name][0] << 8 | 0x010015)
    for name in ("VMAPP", "VMAPTI", "VMAPI", "VMOVI", "VMOVP", "VSGI", "VSYNC", "VINVALL", "INVDB")
]

ALL = [("4.1", *row) for row in ERRORS] + [("4.0", *row) for row in ERRORS_V40] + [("3", *row) for row in ERRORS_V3]
IDS = [f"v{version}-{name}-{code:06x}-{number}" for number, (version, name, _, code) in enumerate(ALL)]


@pytest.mark.parametrize(("version", "name", "fields", "code"), ALL, ids=IDS)
def test_a_wrong_command_is_skipped(version: str, name: str, fields: dict[str, int], code: int) -> None:
    """The command is passed over, counted and logged with its syndrome; it sends nothing and no mapping changes."""
    bench = standard(version)
    before = mappings(bench)
    assert bench.error(name, **fields) == f"{code:#08x}"
    assert mappings(bench) == before
    assert bench.take_syncs() == []
    assert not bench.read(CREADR) & 1


@pytest.mark.parametrize(("version", "name", "fields", "code"), ALL, ids=IDS)
def test_a_wrong_command_stalls(version: str, name: str, fields: dict[str, int], code: int) -> None:
    """With command_error "stall" CREADR stays at the command, Stalled; MSIs are translated as before; Retry goes on from there."""
    bench = standard(version, command_error="stall")
    before = mappings(bench)
    at = bench.read(CWRITER)
    bench.take_log()
    assert bench.run(encode(name, **fields), encode("INVALL", icid=0)) == []
    (entry,) = bench.take_log("ITS command error")
    assert (entry["syndrome"], entry["offset"]) == (f"{code:#08x}", f"{at:#x}")
    assert bench.read(CREADR) == at | 1 and bench.take_syncs() == []
    assert mappings(bench) == before
    bench.write(CWRITER, at + 0x40 | 1)
    assert bench.read(CREADR) == at | 1, "the same command fails again"
    bench.memory.poke(QUEUE + at, encode("INVALL", icid=1))
    bench.write(CWRITER, at + 0x40 | 1)
    assert bench.take() == [(2, "InvAll", ()), (1, "InvAll", ())]
    assert bench.read(CREADR) == bench.read(CWRITER) == at + 0x40
    assert mappings(bench) == before


def test_every_published_code_is_provoked() -> None:
    """The table above has each syndrome of the published list, and a private one for each virtual command."""
    provoked = {code for _, _, _, code in ALL}
    published = {
        *range(0x010801, 0x010803), *range(0x010902, 0x010904), 0x010A01, *range(0x010A03, 0x010A07),
        0x010B01, *range(0x010B03, 0x010B06), 0x010101, *range(0x010103, 0x010106), 0x010107, 0x010109,
        *(op << 8 | 0x010000 | cause for op in (0x03, 0x05, 0x0C, 0x0F) for cause in (1, 4, 5, 7)),
        0x010D03, 0x010D09, 0x010E01,
    }  # fmt: skip
    assert published <= provoked
    assert {0x012100, 0x012200, 0x012300, 0x012500, 0x012900, 0x012A00, 0x012B00, 0x012D00, 0x012E00} <= {
        code & ~0xFF for code in provoked
    }


def test_vpt_size_limits_vintids() -> None:
    """A vPE with 14 INTID bits takes no vINTID of 15, by VMAPTI nor by VMOVI."""
    bench = standard()
    bench.run(vmapp(10, 1, vpt_size=13), vmapti(5, 0x7FFF, 8))
    assert bench.error("VMAPTI", **VMAPTI_OK | {"vpeid": 10, "vintid": 0x4000}) == "0x012a06"
    assert bench.error("VMOVI", device_id=DEV, event_id=5, vpeid=10) == "0x012106"
    assert bench.do("VMAPTI", **VMAPTI_OK | {"vpeid": 10, "vintid": 0x3FFF}) == []
    assert bench.count["command_errors"] == 2
