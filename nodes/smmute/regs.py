"""Frames of the SMMUv3 test engine: one pair of user page and privileged page, as in BAR0 (TF-A-Tests,
SMMUv3TestEngine.h).

Frame i of the user page belongs with frame i of the privileged page; BAR0 holds pairs every 128 KB. Each register
is an array indexed by frame: ``bank.at("udata3", i)`` is operand 3 of frame i.
"""

from __future__ import annotations

from cosim.api import Access, Block, F, Reg

RO = Access.RO

FRAMES = 512
STRIDE = 128
PRIVILEGED = 0x1_0000

NO_FRAME, HALTED, MEMCPY, RAND48, SUM64 = range(5)
"""Values of ``cmd``; software writes them, and reads the first two when nothing runs."""
FRAME_MISCONFIGURED = 0xFFFF_FFFE
ERROR = 0xFFFF_FFFF


def _frame(offset: int, width: int, name: str, access: Access = Access.RW, **fields: tuple[int, int]) -> Reg:
    """A register of every frame of a page; ``offset`` is that in frame 0."""
    return Reg(
        offset,
        width,
        name,
        access,
        count=FRAMES,
        stride=STRIDE,
        fields=[F(field, hi, lo) for field, (hi, lo) in fields.items()],
    )


USER_PAGE = [
    _frame(0x00, 32, "cmd"),
    _frame(0x04, 32, "uctrl", MSI_ABORTED=(0, 0), RATE=(31, 16)),
    _frame(0x08, 32, "count_of_transactions_launched", RO),
    _frame(0x0C, 32, "count_of_transactions_returned", RO),
    _frame(0x10, 64, "msiaddress"),
    _frame(0x18, 32, "msidata"),
    _frame(0x1C, 32, "msiattr"),
    _frame(0x20, 32, "attributes", source=(15, 0), destination=(31, 16)),
    _frame(0x24, 32, "seed"),
    _frame(0x28, 64, "begin"),
    _frame(0x30, 64, "end_incl"),
    _frame(0x38, 64, "stride"),
    *[_frame(0x40 + 8 * n, 64, f"udata{n}") for n in range(8)],
]

PRIVILEGED_PAGE = [
    _frame(PRIVILEGED + 0x00, 32, "pctrl", SSD_NS=(0, 0), ATS_ENABLE=(8, 8), PRI_ENABLE=(9, 9)),
    _frame(PRIVILEGED + 0x04, 32, "downstream_port_index"),
    _frame(PRIVILEGED + 0x08, 32, "streamid"),
    _frame(PRIVILEGED + 0x0C, 32, "substreamid"),
    *[_frame(PRIVILEGED + 0x10 + 8 * n, 64, f"pdata{n}") for n in range(14)],
]

SMMUTE = Block(
    "SMMUTE",
    0x2_0000,
    USER_PAGE + PRIVILEGED_PAGE,
    source="TF-A-Tests, spm/cactus/cactus_tests/SMMUv3TestEngine.h",
    frames={"user": 0, "privileged": PRIVILEGED},
)
