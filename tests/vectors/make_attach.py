"""Writes attach.json: the plan, HELLO, GRANT, DONE and BYE of a foreign node as bytes. ``python -m tests.vectors.make_attach``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack

from cosim.attach.plan import AttachPlan, LinkRow, RegionRow, core_kinds
from cosim.core.codec import VERSION, FrameType, encode, pack_records
from cosim.core.message import Record
from cosim.core.time import NEVER

FILE = Path(__file__).with_name("attach.json")

PLAN = AttachPlan(
    node=3,
    name="dut",
    kind="engine",
    seed=7,
    reaction=0,
    wall_limit_ms=30_000,
    links=(
        LinkRow(4, "regs", 0, "pe0.bus", 20_000, 0, 5, {"stream_id": 0x30801}),
        LinkRow(5, "regs", 1, "pe0.bus", 20_000, 60_000, 5, {}),
        LinkRow(6, "dma", 1, "memory.bus", 30_000, NEVER, 1, {}),
        LinkRow(7, "dma", 0, "memory.bus", 30_000, 0, 1, {}),
        LinkRow(8, "irq", 1, "gic.wire", 10_000, 5_000, 0, {}),
        LinkRow(9, "power", 0, "pe0.power", 1_000_000, 0, 5, {}),
    ),
    ports=(("dma", "mmio_initiator"), ("irq", "wire"), ("power", "power"), ("regs", "mmio_target")),
    maps=(("dma", (RegionRow(0x8000_0000, 0x1000, 6, 0x8000_0000, "ram"),)),),
    kinds=tuple(core_kinds()),
    params={"base": 0x4000, "name": "dut", "deep": [1, {"a": None, "b": 1.5}], "negative": -5},
)


def session() -> list[dict[str, Any]]:
    """Two grants and the end: what comes, what a node does (in words that each driver knows), what it answers."""
    read = Record(100_000, 9, 4, 64, (3, 0x10, 4, 3))
    write = Record(90_000, 8, 4, 65, (2, 0x18, 8, 0x1122334455667788, 3))
    block = Record(130_000, 10, 4, 66, (0x40, 3, b"abc", 3))
    epoch = Record(95_000, 0, 9, 193, (2,))
    replies = [Record(110_000, 0, 5, 67, (2, 0, 0)), Record(120_000, 1, 5, 67, (3, 0, 0xCAFE))]
    request = Record(200_000, 2, 6, 64, (0, 0x8000_0010, 64, 3))
    level = Record(190_000, 3, 8, 128, (0, 1))
    completion = Record(300_000, 11, 7, 67, (0, 2, 0))
    off = Record(400_000, 12, 9, 192, ())
    return [
        {
            "grant": encode(
                FrameType.GRANT, 1, 150_000, [(0, pack_records([write, read, block])), (2, pack_records([epoch]))]
            ).hex(),
            "take": ["write 2 0x18 8", "read 3 0x10 4", "post 0x40 3"],
            "replies": [[2, 0], [3, 0xCAFE]],
            "done": encode(
                FrameType.DONE, 1, 150_000, 170_000, 170_000, 4, [(0, 0, 0, pack_records(replies))], None
            ).hex(),
        },
        {
            "grant": encode(FrameType.GRANT, 2, 1_000_000, [(1, pack_records([completion]))]).hex(),
            "at": 170_000,
            "dma_read": [0x8000_0010, 64],
            "level_at": 180_000,
            "done": encode(
                FrameType.DONE, 2, 195_000, 300_000, 300_000, 0, [(0, 0, 0, pack_records([request, level]))], None
            ).hex(),
        },
        {
            "deliver": encode(FrameType.GRANT, 0, 0, [(2, pack_records([off]))]).hex(),
            "grant": encode(FrameType.GRANT, 3, 1_000_000, []).hex(),
            "take": ["completion 0 2"],
            "done": encode(FrameType.DONE, 3, 1_000_000, NEVER, NEVER, 2, [], None).hex(),
        },
        {
            "bye": encode(FrameType.BYE, "quiescent", None).hex(),
            "report": encode(
                FrameType.BYE, "quiescent", msgpack.packb([{"accesses": 3}, [[2, {"accesses": 1}]]], use_bin_type=True)
            ).hex(),
        },
    ]


def vectors() -> dict[str, Any]:
    """The content of attach.json."""
    options = {
        "ports": {"regs": "mmio_target", "dma": "mmio_initiator", "irq": "wire"},
        "lookahead_ps": 0,
        "quantum_ps": 1000,
        "caps": ["deliver"],
        "model": {"model": "1"},
        "token": "secret",
    }
    plan = PLAN.to_msgpack()
    return {
        "plan": plan.hex(),
        "refused_plans": {
            "empty": "",
            "no array": "01",
            "other layout": (b"\x9c\x02" + plan[2:]).hex(),
            "cut short": plan[:-1].hex(),
            "too long": (plan + b"\xc0").hex(),
        },
        "hello": encode(FrameType.HELLO, VERSION, "dut", "c", 0, options).hex(),
        "welcome": encode(FrameType.WELCOME, VERSION, plan, [16 * 1024 * 1024, 65_536]).hex(),
        "session": session(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n")
