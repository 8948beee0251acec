"""What a redistributor has by parameter: DirectLPI, CommonLPIAff, its vPE table, GICv4.0's layouts, and states that take time."""

from __future__ import annotations

import pytest

from cosim.api import NONSECURE, SECURE, ModelError, ns
from tests.machine.redistributor_bench import (
    CTLR,
    GICD,
    GICR,
    INVALLR,
    INVLPIR,
    PENDING_LAST,
    SGI_BASE,
    SYNCR,
    TYPER,
    VALID,
    VCONF,
    VPENDBASER,
    VPROPBASER,
    VPT,
    VTABLE,
    Gic,
)

SETLPIR, CLRLPIR = 0x40, 0x48
IIDR = 0x4
INDIRECT, PAGE_64K = 1 << 55, 2 << 53
LPI = 8200


def fault_count(gic: Gic, name: str, rd: int = 0) -> int:
    return gic.rds[rd].count[name]


# -- identification ----------------------------------------------------------------------------------------------------


def test_iidr_of_older_versions_is_not_gic700s() -> None:
    """GICR_IIDR and GICD_IIDR say GIC-700 on GICv4.1 only; GICv3 and GICv4.0 have a value of the model's own."""
    for version, expected in (("3", 0xC000_043B), ("4.0", 0xC000_043B), ("4.1", 0x0400_043B)):
        gic = Gic(gic_version=version)
        assert gic.read(IIDR) == gic.gicd_read(0x8) == expected


@pytest.mark.parametrize(("version", "direct", "inv"), [("3", 0, False), ("4.0", 1, True), ("4.1", 0, True)])
def test_direct_lpi_by_version(version: str, direct: int, inv: bool) -> None:
    """DirectLPI is 1 on GICv4.0 only; INVLPIR, INVALLR and SYNCR are there with it or with GICv4.1, and else reserved."""
    gic = Gic(gic_version=version)
    assert gic.read(TYPER, 8) >> 3 & 1 == direct
    gic.read(SYNCR)
    assert bool(fault_count(gic, "reserved_accesses")) != inv
    gic.write(SETLPIR, LPI, 8)
    assert (LPI in gic.rds[0].lpis.pending) == bool(direct)


# -- DirectLPI ---------------------------------------------------------------------------------------------------------


def test_setlpir_and_clrlpir() -> None:
    """SETLPIR makes an LPI pending at its own redistributor, CLRLPIR takes it back from the PE."""
    gic = Gic(2, gic_version="4.0")
    gic.config(LPI)
    gic.write(SETLPIR, LPI, 8, rd=1)
    assert gic.take(0) == 1023 and gic.take(1) == LPI
    gic.write(SETLPIR, LPI, 8, rd=1)
    assert gic.holds(1)
    gic.write(CLRLPIR, LPI, 8, rd=1)
    assert not gic.holds(1) and gic.read(SYNCR, rd=1) == 0
    gic.write(SETLPIR, LPI, 4, rd=1)
    assert gic.take(1) == LPI, "the lower half suffices"


def test_v40_invlpir_reads_a_changed_configuration() -> None:
    """With DirectLPI a GICv4.0 redistributor masks and unmasks an LPI by its table and INVLPIR; bit 63 means nothing there."""
    gic = Gic(gic_version="4.0")
    gic.config(LPI)
    gic.write(SETLPIR, LPI, 8)
    assert gic.holds()
    gic.config(LPI, enable=False)
    gic.write(INVLPIR, 1 << 63 | LPI, 8)
    assert not gic.holds()
    gic.config(LPI)
    gic.write(INVALLR, 0, 8)
    assert gic.take() == LPI


@pytest.mark.parametrize("register", [CLRLPIR, INVLPIR, INVALLR])
def test_syncr_is_busy_for_its_time(register: int) -> None:
    """SYNCR.Busy is 1 for `syncr_ps` after each of the registers that it tracks."""
    gic = Gic(gic_version="4.0", syncr_ps=ns(500))
    gic.config(LPI)
    bus = gic.its.bus

    async def body() -> list[int]:
        await bus.write64(GICR + register, LPI)
        seen = [await bus.read32(GICR + SYNCR)]
        await gic.its.sleep(ns(500))
        return [*seen, await bus.read32(GICR + SYNCR)]

    assert gic.run(body()) == [1, 0]


# -- RWP ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "value", "status"),
    [
        (GICR + SGI_BASE + 0x180, 1 << 20, GICR),
        (GICR + CTLR, 1 | 1 << 25, GICR),
        (GICR + CTLR, 0, GICR),
        (GICD + 0x184, 1, GICD),
        (GICD, 0, GICD),
    ],
    ids=["ICENABLER0", "DPG1NS", "EnableLPIs", "ICENABLER1", "group enable"],
)
def test_rwp_takes_time_and_ends(address: int, value: int, status: int) -> None:
    """Each write that RWP tracks shows RWP = 1 for at least `rwp_ps`, then 0."""
    gic = Gic(rwp_ps=ns(300))
    bus, bit = gic.its.bus, 3 if status == GICR else 31

    async def body() -> list[int]:
        await bus.write32(address, value, SECURE)
        seen = [await bus.read32(status) >> bit & 1]
        await gic.its.sleep(ns(600))
        return [*seen, await bus.read32(status) >> bit & 1]

    assert gic.run(body()) == [1, 0]


def test_isenabler_does_not_set_rwp() -> None:
    """RWP does not track what enables."""
    gic = Gic(rwp_ps=ns(300))
    bus = gic.its.bus

    async def body() -> int:
        await bus.write32(GICR + SGI_BASE + 0x100, 1 << 20)
        await bus.write32(GICD + 0x104, 1)
        return await bus.read32(GICR + CTLR) >> 3 & 1 | await bus.read32(GICD) >> 31

    assert gic.run(body()) == 0


# -- the vPE configuration table ---------------------------------------------------------------------------------------


def remap(gic: Gic, vpropbaser: int) -> None:
    gic.write(VPROPBASER, VALID | VTABLE | vpropbaser, 8)


def map_vpe(gic: Gic, vpeid: int) -> bool:
    gic.send("MapVpe", vpeid, 1, 1, VCONF, VPT + vpeid * 0x1_0000, 15, 1023)
    return vpeid in gic.rds[0].vpes.table


@pytest.mark.parametrize(("size", "page"), [(0, 0x1000), (1, 0x4000), (2, 0x1_0000), (3, 0x1_0000)])
def test_flat_vpe_table_ends_with_its_size(size: int, page: int) -> None:
    """The last vPE of two pages of each page size is mapped, the one behind it is dropped with a count."""
    gic = Gic()
    remap(gic, size << 53 | 1)
    if size == 3:
        assert gic.read(VPROPBASER, 8) >> 53 & 3 == 2, "the reserved size reads as 64 KB"
    last = 2 * page // 8 - 1
    assert map_vpe(gic, last) and fault_count(gic, "vpe_errors") == 0
    assert not map_vpe(gic, last + 1) and fault_count(gic, "vpe_errors") == 1


def test_indirect_vpe_table_needs_its_level_1_entry() -> None:
    """A vPE whose level-1 entry is invalid is not mapped, and what came for it meanwhile is dropped; made valid, it is."""
    gic = Gic()
    remap(gic, INDIRECT)
    entries = 0x1000 // 8
    assert not map_vpe(gic, entries + 1)
    assert fault_count(gic, "vpe_errors") == 1
    gic.send("SetVsgi", entries + 1, 3)
    assert fault_count(gic, "vsgi_dropped") == 1
    for n, byte in enumerate((VALID | 0x9500_0000).to_bytes(8, "little")):
        gic.memory.data[VTABLE + 8 + n] = byte
    assert map_vpe(gic, entries + 1)
    assert not map_vpe(gic, 0), "the entry of another page is still invalid"


def test_a_level_1_entry_is_read_once() -> None:
    """vPEs of one level-2 page cost one read of level 1, until VPROPBASER is written."""
    gic = Gic()
    for n, byte in enumerate((VALID | 0x9500_0000).to_bytes(8, "little")):
        gic.memory.data[VTABLE + n] = byte
    remap(gic, INDIRECT | PAGE_64K)
    gic.memory.reads.clear()
    assert all(map_vpe(gic, vpeid) for vpeid in (1, 2, 3))
    assert gic.memory.reads == [(VTABLE, 8)]
    remap(gic, INDIRECT | PAGE_64K)
    assert map_vpe(gic, 4) and len(gic.memory.reads) == 2


# -- CommonLPIAff ------------------------------------------------------------------------------------------------------


def test_common_lpi_aff_is_in_typer_and_checked() -> None:
    """GICR_TYPER.CommonLPIAff is the parameter, which has two bits."""
    assert Gic(common_lpi_aff=2).read(TYPER, 8) >> 24 & 3 == 2
    with pytest.raises(ModelError, match=r"common_lpi_aff of redistributor0 must be in 0\.\.3, not 4"):
        Gic(common_lpi_aff=4, boot=False).bench.boot()


@pytest.mark.parametrize(
    ("level", "same"),
    [(0, True), (1, True), (2, False), (3, False)],
    ids=["all", "Aff3", "Aff3.Aff2", "Aff3.Aff2.Aff1"],
)
def test_residency_stays_in_the_group_of_the_home(level: int, same: bool) -> None:
    """A vPE becomes resident away from its home within its CommonLPIAff group; outside the claim is refused and counted."""
    gic = Gic(2, affinities=[0x0001_0000, 0x0002_0000], common_lpi_aff=level)
    gic.map_vpe(1)
    gic.send("SetVlpi", 1, LPI, 1023)
    gic.config(LPI, base=VCONF)
    gic.schedule(1, rd=1)
    assert (gic.vtake(1) == LPI) == same
    assert (fault_count(gic, "vpe_errors", 0) == 0) == same
    assert (1 in gic.rds[0].vpes.table) != same


# -- GICv4.0 -----------------------------------------------------------------------------------------------------------


def v40() -> Gic:
    gic = Gic(gic_version="4.0")
    gic.config(LPI, base=VCONF)
    gic.config(LPI + 1, base=VCONF)
    gic.write(VPROPBASER, VCONF | 15, 8)
    gic.send("MapVpe", 1, 0, 0, 0, VPT, 15, 1023)
    return gic


def test_v40_pending_table_is_current_while_not_resident() -> None:
    """GICv4.0: what becomes pending, or is cleared, while the vPE is off the PE is in the table in memory after VSYNC."""
    gic = v40()
    gic.send("SetVlpi", 1, LPI, 1023)
    assert gic.memory.pending_bit(VPT, LPI)
    gic.send("ClearVlpi", 1, LPI)
    assert not gic.memory.pending_bit(VPT, LPI)
    gic.send("SetVlpi", 1, LPI + 1, 1023)
    gic.write(VPENDBASER, VALID | VPT, 8)
    assert gic.vtake() == LPI + 1
    gic.write(VPENDBASER, VPT, 8)
    assert not gic.memory.pending_bit(VPT, LPI + 1)


def test_v40_vpendbaser_after_a_deschedule() -> None:
    """GICv4.0: PendingLast says whether something is left, IDAI is 0 since the table's own area is always valid."""
    gic = v40()
    gic.write(VPENDBASER, VALID | PENDING_LAST | VPT, 8)
    gic.write(VPENDBASER, VPT, 8)
    assert gic.read(VPENDBASER, 8) == VPT
    gic.write(VPENDBASER, VALID | 1 << 62 | VPT, 8)
    gic.send("SetVlpi", 1, LPI, 1023)
    gic.write(VPENDBASER, VPT | 1 << 62, 8)
    assert gic.read(VPENDBASER, 8) == VPT | PENDING_LAST


def test_v40_doorbell_rings_each_time() -> None:
    """GICv4.0: an individual doorbell rings for each event while the vPE is off the PE, and not while it is on it."""
    gic = v40()
    gic.config(8300)
    for _ in range(2):
        gic.send("SetVlpi", 1, LPI, 8300)
        assert gic.take() == 8300
    gic.write(VPENDBASER, VALID | VPT, 8)
    gic.send("SetVlpi", 1, LPI + 1, 8300)
    assert gic.take() == 1023
    assert fault_count(gic, "doorbells") == 2


# -- nASSGIreq ---------------------------------------------------------------------------------------------------------


def test_sgis_without_active_state() -> None:
    """With nASSGIreq an SGI can be taken again before it is deactivated, and ISACTIVER0[15:0] reads 0; PPIs stay as they are."""
    gic = Gic(two_security_states=False, nassgi_cap=True)
    assert gic.gicd_read(0xC) == 1 << 8
    gic.gicd_write(0x0, 0)
    gic.gicd_write(0x0, 1 << 8 | 3)
    assert gic.gicd_read(0x0) >> 8 & 1 == 1
    gic.write(SGI_BASE + 0x80, 0xFFFF_FFFF)
    gic.write(SGI_BASE + 0x100, 1 << 3)
    for _ in range(2):
        gic.write(SGI_BASE + 0x200, 1 << 3)
        assert gic.take() == 3
    gic.write(SGI_BASE + 0x300, 1 << 4 | 1 << 20)
    assert gic.read(SGI_BASE + 0x300) == 1 << 20


def test_nassgi_needs_one_security_state() -> None:
    """`nassgi_cap` with two Security states is refused by name."""
    with pytest.raises(ModelError, match="nassgi_cap of distributor must be false"):
        Gic(nassgi_cap=True, boot=False).bench.boot()


# -- GICD_NSACR --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_nsacr_opens_a_secure_spi_step_by_step(level: int) -> None:
    """Of a Group 0 SPI Non-secure software may set pending from 1, clear pending and see active from 2, route from 3."""
    gic = Gic()
    bit, spi = 1 << 8, 40
    gic.gicd_write(0xE08, level << 2 * 8, attr=SECURE)
    assert gic.gicd_read(0xE08, attr=SECURE) == level << 2 * 8
    assert gic.gicd_read(0xE08) == 0
    pending = gic.dist.spis
    gic.gicd_write(0x204, bit)
    assert bool(pending.latch >> spi & 1) == (level >= 1)
    assert bool(gic.gicd_read(0x204) & bit) == (level >= 1)
    gic.gicd_write(0x204, bit, attr=SECURE)
    gic.gicd_write(0x284, bit)
    assert bool(pending.latch >> spi & 1) == (level < 2)
    gic.gicd_write(0x304, bit, attr=SECURE)
    assert bool(gic.gicd_read(0x304) & bit) == (level >= 2)
    gic.gicd_write(0x384, bit)
    assert pending.active >> spi & 1 == 1, "active is to be seen, not to be changed"
    gic.gicd_write(0x6000 + 8 * spi, 1 << 31, 8)
    assert bool(pending.router[spi]) == (level == 3)
    gic.gicd_write(0x104, bit)
    assert not pending.enabled >> spi & 1
    gic.gicd_write(0x284, bit, attr=SECURE)
    gic.gicd_write(0x40, spi)
    assert bool(pending.message >> spi & 1) == (level >= 1)
    gic.gicd_write(0x48, spi, attr=NONSECURE)
    assert bool(pending.message >> spi & 1) == (level == 1)


def test_nsacr_is_razwi_with_one_security_state() -> None:
    """With DS = 1 GICD_NSACR reads 0 whatever was written."""
    gic = Gic(two_security_states=False)
    gic.gicd_write(0xE08, 0xFFFF_FFFF)
    assert gic.gicd_read(0xE08) == 0


# -- 1 of N ------------------------------------------------------------------------------------------------------------


def test_one_of_n_follows_dpg_sleep_and_groups() -> None:
    """A 1-of-N SPI goes to a PE that is awake and not excluded by its DPG bit, moves when that changes, and waits for one."""
    gic = Gic(2)
    spi, bit = 40, 1 << 8
    gic.gicd_write(0x84, bit, attr=SECURE)
    gic.gicd_write(0x6000 + 8 * spi, 1 << 31, 8)
    gic.gicd_write(0x104, bit)
    gic.gicd_write(0x204, bit)
    assert (gic.holds(0), gic.holds(1)) == (True, False)
    gic.write(CTLR, 1 | 1 << 25, rd=0)
    assert (gic.holds(0), gic.holds(1)) == (False, True)
    gic.write(0x14, 2, rd=1, attr=SECURE)
    assert (gic.holds(0), gic.holds(1)) == (False, False)
    gic.write(CTLR, 1 | 1 << 24 | 1 << 26, rd=0)
    assert gic.take(0) == spi, "DPG0 and DPG1S do not exclude a Group 1 NS interrupt"


def test_group_0_goes_to_the_pe_as_group_0() -> None:
    """A Group 0 SPI, PPI and SGI reach the CPU interface with group 0, which it signals as FIQ."""
    gic = Gic()
    gic.gicd_write(0x6000 + 8 * 40, 0, 8, attr=SECURE)
    gic.gicd_write(0x104, 1 << 8, attr=SECURE)
    gic.gicd_write(0x204, 1 << 8, attr=SECURE)
    assert gic.pes[0].held == (40, 0, 0) and gic.take() == 40
    gic.write(SGI_BASE + 0x80, 0, attr=SECURE)
    gic.write(SGI_BASE + 0x100, 1 << 3 | 1 << 25, attr=SECURE)
    gic.write(SGI_BASE + 0x200, 1 << 3, attr=SECURE)
    assert gic.pes[0].held == (3, 0, 0) and gic.take() == 3
