"""Encodings of ITS commands against computed vectors (IHI 0069H section 5.3)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.arch.its_commands import COMMAND_SIZE, LAYOUTS, decode, encode

DEV = {"device_id": 0x30801}
EVENT = {**DEV, "event_id": 2}
VPE = {"vpeid": 0x12}

VECTORS = [
    ("MAPD", {**DEV, "itt": 0x8_8012_3400, "size": 4, "valid": 1}, (0x0003080100000008, 0x4, 0x8000000880123400, 0)),
    ("MAPC", {"icid": 3, "rdbase": 3, "valid": 1}, (0x9, 0, 0x8000000000030003, 0)),
    ("MAPTI", {**EVENT, "pintid": 8194, "icid": 3}, (0x000308010000000A, 0x0000200200000002, 0x3, 0)),
    ("MAPI", {"device_id": 0x10, "event_id": 8200, "icid": 1}, (0x000000100000000B, 0x2008, 0x1, 0)),
    ("MOVI", {**EVENT, "icid": 5}, (0x0003080100000001, 0x2, 0x5, 0)),
    ("MOVALL", {"rdbase1": 3, "rdbase2": 4}, (0xE, 0, 0x30000, 0x40000)),
    ("DISCARD", EVENT, (0x000308010000000F, 0x2, 0, 0)),
    ("INV", EVENT, (0x000308010000000C, 0x2, 0, 0)),
    ("INT", EVENT, (0x0003080100000003, 0x2, 0, 0)),
    ("CLEAR", EVENT, (0x0003080100000004, 0x2, 0, 0)),
    ("INVALL", {"icid": 3}, (0xD, 0, 0x3, 0)),
    ("SYNC", {"rdbase": 3}, (0x5, 0, 0x30000, 0)),
    (
        "VMAPP",
        {
            **VPE,
            "rdbase": 3,
            "valid": 1,
            "alloc": 1,
            "ptz": 0,
            "vpt": 0x8_8100_0000,
            "vpt_size": 15,
            "vconf": 0x8_8200_0000,
            "default_doorbell": 8300,
        },
        (0x0000000882000129, 0x000000120000206C, 0x8000000000030000, 0x000000088100000F),
    ),
    ("VMAPP", {**VPE, "valid": 0, "alloc": 1}, (0x129, 0x0000001200000000, 0, 0)),
    (
        "VMAPP",
        {**VPE, "rdbase": 3, "valid": 1, "vpt": 0x8_8100_0000, "vpt_size": 15},
        (0x29, 0x0000001200000000, 0x8000000000030000, 0x000000088100000F),
    ),
    (
        "VMAPTI",
        {**EVENT, **VPE, "vintid": 8195, "doorbell": 1023},
        (0x000308010000002A, 0x0000001200000002, 0x000003FF00002003, 0),
    ),
    (
        "VMAPI",
        {**DEV, "event_id": 8195, **VPE, "doorbell": 1023},
        (0x000308010000002B, 0x0000001200002003, 0x000003FF00000000, 0),
    ),
    (
        "VMOVI",
        {**EVENT, "vpeid": 0x13, "d": 1, "doorbell": 8301},
        (0x0003080100000021, 0x0000001300000002, 0x0000206D00000001, 0),
    ),
    (
        "VMOVP",
        {**VPE, "rdbase": 5, "db": 1, "default_doorbell": 8300},
        (0x22, 0x0000001200000000, 0x8000000000050000, 0x206C),
    ),
    (
        "VMOVP",
        {"seqnum": 7, "itslist": 0b111, **VPE, "rdbase": 5},
        (0x0000000700000022, 0x0000001200000007, 0x0000000000050000, 0),
    ),
    ("VSYNC", VPE, (0x25, 0x0000001200000000, 0, 0)),
    ("VINVALL", VPE, (0x2D, 0x0000001200000000, 0, 0)),
    ("INVDB", VPE, (0x2E, 0x0000001200000000, 0, 0)),
    (
        "VSGI",
        {**VPE, "sgi": 1, "enable": 1, "group": 1, "priority": 0xA0},
        (0x0000000100A00523, 0x0000001200000000, 0, 0),
    ),
    ("VSGI", {**VPE, "sgi": 1, "clear": 1}, (0x0000000100000223, 0x0000001200000000, 0, 0)),
]


@pytest.mark.parametrize(("name", "fields", "words"), VECTORS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(VECTORS)])
def test_vector(name: str, fields: dict[str, int], words: tuple[int, ...]) -> None:
    """The command encodes to the vector's four words, and these decode to the same fields, all others zero."""
    data = struct.pack("<4Q", *words)
    assert encode(name, **fields) == data
    command = decode(data)
    assert command.name == name
    assert {key: value for key, value in command.fields.items() if value} == {k: v for k, v in fields.items() if v}


def test_every_command_has_a_vector() -> None:
    """No command's encoding is left to itself."""
    assert {name for name, _, _ in VECTORS} == set(LAYOUTS)


@given(st.binary(min_size=COMMAND_SIZE, max_size=COMMAND_SIZE))
def test_decode_is_total(data: bytes) -> None:
    """Any 32 bytes decode; a known command's fields encode back to themselves."""
    command = decode(data)
    if command.name:
        again = decode(encode(command.name, **command.fields))
        assert again == command
    else:
        assert command.opcode not in {opcode for opcode, _ in LAYOUTS.values()}


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("MAPX", {}, "must be one of"),
        ("MAPC", {"device_id": 1}, "must have fields"),
        ("MAPD", {"itt": 0x8000_0080}, "0x100"),
        ("MAPC", {"icid": 0x1_0000}, "must fit"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, fields: dict[str, int], text: str) -> None:
    """A wrong command, field, alignment or value is a ValueError that says what would be right."""
    with pytest.raises(ValueError, match=text):
        encode(name, **fields)
