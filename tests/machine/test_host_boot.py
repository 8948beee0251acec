"""Host bring-up: EL3's Secure steps, distributor, CPUs, ITSs, LPIs, vPE table, SMMU and PCI, at the registers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cosim.api import ModelError
from tests.machine.host_rig import ITS_BASES, PeDouble, Rig


@pytest.fixture(scope="module")
def rig() -> Rig:
    """A booted GICv4.1 machine of three PEs."""
    return Rig().boot()


def first(log: list[tuple[str, int, int, bool]], entry: tuple[str, int, int, bool]) -> int:
    return log.index(entry)


def test_secure_steps_come_first(rig: Rig) -> None:
    """EL3 enables affinity routing and moves all SPIs to Group 1 by Secure accesses before the host's first write."""
    log = [entry for entry in rig.gicd.log_ if entry[0] == "w"]
    assert log[0] == ("w", 0, 0x30, True)
    assert log[1:16] == [("w", 0x80 + 4 * n, 0xFFFF_FFFF, True) for n in range(1, 16)]
    assert not any(secure for *_, secure in log[16:])


def test_redistributors_are_woken_by_secure_accesses(rig: Rig) -> None:
    """Each Redistributor gets ProcessorSleep = 0 and Group 1 for its SGIs and PPIs in Secure state, then the wait for it."""
    for rd in rig.rds:
        assert rd.log_[1:4] == [
            ("w", 0x14, 0, True),
            ("w", 0x1_0080, 0xFFFF_FFFF, True),
            ("r", 0x14, 0, True),
        ]


def test_distributor_sequence(rig: Rig) -> None:
    """The host disables the distributor, waits for RWP, sets SPIs up, enables it with 0x13, then routes each SPI to CPU 0."""
    writes = [(addr, value) for kind, addr, value, secure in rig.gicd.log_ if kind == "w" and not secure]
    assert writes[0] == (0, 0)
    enable = writes.index((0, 0x13))
    assert all(addr < 0x6000 for addr, _ in writes[:enable])
    routers = [(addr, value) for addr, value in writes[enable:] if addr >= 0x6000]
    assert routers == [(0x6000 + 8 * n, 0) for n in range(32, 512)]
    assert rig.gicd.bank.at("GICD_IPRIORITYR", 8) == 0xA0A0_A0A0


def test_cpu_interfaces(rig: Rig) -> None:
    """EL3 opens system registers; then each CPU sets SRE, PMR 0xF0, BPR1, EOImode = 1 and enables Group 1, in that order."""
    for pe in rig.pes:
        assert [entry[0] for entry in pe.sysregs] == [
            "ICC_SRE_EL3",
            "ICC_SRE_EL2",
            "ICC_PMR_EL1",
            "ICC_SRE_EL1",
            "ICC_PMR_EL1",
            "ICC_BPR1_EL1",
            "ICC_CTLR_EL1",
            "ICC_IGRPEN1_EL1",
        ]
        assert pe.sysregs[0][1:] == (0xF, 3, 1)
        assert pe.sysregs[2:5:2] == [("ICC_PMR_EL1", 0xFF, 3, 1), ("ICC_PMR_EL1", 0xF0, 2, 0)]
        assert pe.sysregs[6] == ("ICC_CTLR_EL1", 2, 2, 0)


def test_lpi_tables_before_enable(rig: Rig) -> None:
    """PROPBASER (16 ID bits, one table for all) and PENDBASER with PTZ are written before EnableLPIs."""
    tables = set()
    for rd in rig.rds:
        order = [addr for kind, addr, _, _ in rd.log_ if kind == "w"]
        assert order.index(0x70) < order.index(0x78) < order.index(0x00)
        assert rd.writes(0x70)[0] & 0x1F == 15 and rd.writes(0x78)[0] >> 62 & 1
        tables.add(rd.writes(0x70)[0])
    assert len(tables) == 1
    assert rig.memory.peek(rig.host.lpis.prop, 0xE000) == b"\xa2" * 0xE000


def test_vpe_table_is_shared(rig: Rig) -> None:
    """GITS_BASER2 of every ITS and GICR_VPROPBASER of every Redistributor name one two-level table, each in its own layout."""
    table = rig.host.vpe_table_of(rig.host.cpus[0])
    for its in rig.its:
        value = its.bank.at("GITS_BASER", 2)
        assert value & 0xFFFF_FFFF_F000 == table.base and value >> 62 == 3 and value >> 8 & 3 == 2
    for rd in rig.rds:
        value = rd.bank["GICR_VPROPBASER"]
        assert value & 0xF_FFFF_FFFF_F000 == table.base
        assert value >> 63 == 1 and value >> 55 & 1 == 1 and value >> 53 & 3 == 2 and not value >> 52 & 1


def test_collections_of_every_its(rig: Rig) -> None:
    """Each ITS gets one run: MAPC and INVALL of every CPU, and one SYNC for each Redistributor."""
    for index in range(2):
        commands = rig.commands(index)
        assert [c.name for c in commands] == ["MAPC"] * 3 + ["INVALL"] * 3 + ["SYNC"] * 3
        assert [(c["icid"], c["rdbase"], c["valid"]) for c in commands[:3]] == [(n, n, 1) for n in range(3)]
        assert rig.its[index].count["command_errors"] == 0


def test_boot_messages(rig: Rig) -> None:
    """The host's log has Linux's lines about what the GIC can do."""
    text = rig.console()
    assert "GICv3: VLPI support, direct LPI support, RVPEID support" in text
    for base in ITS_BASES:
        assert f"ITS@{base:#018x}: Using GICv4.1 mode 00000000 00000001" in text
        assert f"ITS@{base:#018x}: Single VMOVP capable" in text
    assert "ITS: Enabling GICv4 support" in text


def test_bars_are_sized_and_assigned(rig: Rig) -> None:
    """Enumeration finds both functions, sizes their 64-bit BARs and assigns aligned addresses from the window."""
    functions = rig.host.pci.functions
    assert list(functions) == [0x800, 0x801]
    bars = functions[0x801].bars
    assert {index: bar.size for index, bar in bars.items()} == {0: 0x4_0000, 2: 0x8000, 4: 0x1000}
    assert all(bar.address % bar.size == 0 and bar.address >= 0x40_0000_0000 for bar in bars.values())
    config = rig.endpoint.config[1]
    assert int.from_bytes(config[0x10:0x18], "little") & ~0xF == bars[0].address
    assert config[4] & 2
    assert functions[0x801].msix_vectors == 2048


def test_smmu_is_enabled_last_and_stepwise(rig: Rig) -> None:
    """CR0 goes through command queue, event queue, translation; the stream table has 18 bits and every STE is invalid."""
    assert rig.smmu.writes(0x20) == [0, 8, 12, 13]
    assert rig.smmu.writes(0x88) == [18]
    base = rig.smmu.writes(0x80)[0] & 0xF_FFFF_FFFF_FFC0
    assert base % (64 << 18) == 0
    assert rig.memory.peek(base + 64 * 0x3_0801, 64) == bytes(64)


def test_few_accesses() -> None:
    """Boot waits rarely: on eight PEs the hypervisor is woken at fewer than 120 points in time."""
    rig = Rig(pes=8)
    rig.bench.run(0)
    times: set[int] = set()
    receiver = rig.node.receiver

    def spy(link: int, kind: int) -> Callable[..., object]:
        receive = receiver(link, kind)

        def note(*fields: object) -> object:
            times.add(rig.node.now)
            return receive(*fields)

        return note

    rig.node.receiver = spy  # type: ignore[method-assign]
    rig.call(rig.host.boot())
    assert 0 < len(times) < 120


@pytest.mark.parametrize(
    ("version", "v4", "line"),
    [
        ("3", None, "GICv3: no VLPI support, no direct LPI support, no RVPEID support"),
        ("4.0", "4.0", "GICv3: VLPI support, direct LPI support, no RVPEID support"),
        ("4.1", "4.1", "GICv3: VLPI support, direct LPI support, RVPEID support"),
    ],
)
def test_versions(version: str, v4: str | None, line: str) -> None:
    """The driver finds out what the GIC can do from its ID registers, also the stride of the Redistributors."""
    rig = Rig(version=version).boot()
    assert (rig.host.v4.version if rig.host.v4 else None) == v4
    assert line in rig.console()
    assert [its.count["command_errors"] for its in rig.its] == [0, 0]


def test_a_cpu_without_redistributor_is_an_error() -> None:
    """A CPU whose affinity no Redistributor has is named, with what there is."""
    rig = Rig()
    rig.node.params["mpidrs"].append(0x8100_0000 | 9 << 16)
    rig.bench.add("pe3", PeDouble)
    rig.bench.link("pe3.trap", "hypervisor.trap", 1000, both=True)
    with pytest.raises(ModelError, match=r"\[cpu3\] have none"):
        rig.boot()


def test_shutdown_quiesces() -> None:
    """Shutdown stops SMMU and ITSs, clears the group enables, and needs no guest memory to be left."""
    rig = Rig().boot()
    rig.call(rig.host.shutdown())
    assert rig.smmu.bank["SMMU_CR0"] == 0
    assert all(not its.bank.field("GITS_CTLR", "Enabled") for its in rig.its)
    assert rig.gicd.writes(0)[-1] == 0x10
    leaked = Rig().boot()
    leaked.host.memory.alloc(4096, owner="vm")
    with pytest.raises(ModelError, match="must be freed"):
        leaked.call(leaked.host.shutdown())
