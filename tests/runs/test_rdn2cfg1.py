"""The main job: RD-N2-Cfg1's two virtual-interrupt tests, with the counts that the hardware path must give."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import cosim, result, total

TOPOLOGY = "topologies/rdn2cfg1.yaml"
PASS_LINES = [
    "PASS: gicv3: ipi: self: Interrupts received",
    "PASS: gicv3: ipi: target-list: Interrupts received",
    "PASS: gicv3: ipi: broadcast: Interrupts received",
]
RELIED_ON = [
    "its0.msi_translated",
    "its0.sgir_writes",
    "its0.commands",
    *(f"redistributor{n}.{c}" for n in range(8) for c in ("vlpi_delivered", "vsgi_delivered", "doorbells")),
    "hypervisor.exits",
    "hypervisor.exits_sgi_trap",
    "hypervisor.exits_irq",
    "hypervisor.host_lpis",
    "hypervisor.lr_injections",
    "smmute.transactions",
    "smmute.msis",
    "smmu0.translations",
    "smmu0.faults",
]


def run(folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Run the topology in one process; exit code, result, and all console text."""
    done = cosim("up", TOPOLOGY, "--run-dir", folder / "run", *options)
    text = "".join(p.read_text() for p in sorted((folder / "run" / "console").glob("*.log")))
    return done.returncode, result(folder / "run"), text


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str]:
    """The run with default parameters, all in one process."""
    return run(tmp_path_factory.mktemp("plain"), "--workers", "0")


def test_the_main_job_with_one_process_per_node(tmp_path: Path, plain: tuple[int, dict[str, Any], str]) -> None:
    """24 workers, at most 20,000 grants, both tests passed, and the digest of the run in one process."""
    code, got, _ = run(tmp_path)
    assert code == 0
    assert got["workers"] == got["nodes"] >= 24
    assert got["grants"] <= 20_000
    assert [(t["name"], t["status"]) for t in got["tests"]] == [("vsgi.ipi", "passed"), ("vlpi.smmute", "passed")]
    assert got["digest"] == plain[1]["digest"]
    for key in ("counters", "events", "messages", "sim_time_ps", "latency_ps", "paths"):
        assert got[key] == plain[1][key]


@pytest.mark.parametrize("workers", ["4", "1"])
def test_packed_workers_give_the_same_digest(
    tmp_path: Path, workers: str, plain: tuple[int, dict[str, Any], str]
) -> None:
    """The digest does not depend on how many workers host the nodes."""
    code, got, _ = run(tmp_path, "--workers", workers)
    assert (code, got["digest"], got["workers"]) == (0, plain[1]["digest"], int(workers))


def test_guests_print_what_arms_page_shows(plain: tuple[int, dict[str, Any], str]) -> None:
    """The three PASS lines, the summary, ten result blocks with status 0, and the session's end of each guest."""
    code, _, text = plain
    assert code == 0
    for line in [*PASS_LINES, "SUMMARY: 3 tests", "Kernel driver in use: vfio-pci", "GICv4.1 support enabled"]:
        assert line in text
    assert len(re.findall(r"- status\s+= 0 Success", text)) == 10
    assert [int(n) for n in re.findall(r"- transaction\s+= (\d+)", text)] == list(range(1, 11))
    assert "000: f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff 00" in text
    assert text.count("# KVM session ended normally.") >= 2


def test_every_interrupt_is_injected_directly(plain: tuple[int, dict[str, Any], str]) -> None:
    """3 traps become 12 vSGIs and 10 MSIs become 10 vLPIs, none through a list register, a host LPI or a doorbell."""
    _, got, _ = plain
    counters = got["counters"]
    assert set(RELIED_ON) <= set(counters)
    assert counters["hypervisor.exits_sgi_trap"] == 3
    assert counters["its0.sgir_writes"] == total(got, "vsgi_delivered") == 12
    assert counters["smmute.msis"] == counters["its0.msi_translated"] == total(got, "vlpi_delivered") == 10
    assert counters["smmute.transactions"] == 10
    for zero in ("hypervisor.lr_injections", "hypervisor.host_lpis", "smmu0.faults"):
        assert counters[zero] == 0
    assert total(got, "doorbells") == 0
    assert got["paths"] == {
        "vsgi": {"direct": 12, "lr": 0, "exits_between": 0},
        "vlpi": {"direct": 10, "lr": 0, "exits_between": 0},
    }


def test_latencies_come_from_the_machine(tmp_path: Path, plain: tuple[int, dict[str, Any], str]) -> None:
    """12 and 10 samples, at least the sum of the links on the way, and longer when a link is longer."""
    latency = plain[1]["latency_ps"]
    assert (latency["vsgi"]["count"], latency["vlpi"]["count"]) == (12, 10)
    assert latency["vsgi"]["min"] >= 300_000 + 40_000 + 20_000 + 5_000
    assert latency["vlpi"]["min"] >= 250_000 + 40_000 + 20_000 + 5_000
    _, slow, _ = run(tmp_path, "--workers", "0", "--set", "t_gic=120ns")
    for family in ("vsgi", "vlpi"):
        assert slow["latency_ps"][family]["min"] == latency[family]["min"] + 100_000


def test_each_test_has_counters_of_its_own(plain: tuple[int, dict[str, Any], str]) -> None:
    """What one test did does not show in the other's counters."""
    vsgi, vlpi = plain[1]["tests"]
    assert vsgi["counters"]["its0.sgir_writes"] == 12
    assert "its0.sgir_writes" not in vlpi["counters"]
    assert vlpi["counters"]["its0.msi_translated"] == 10
    assert vsgi["paths"]["vlpi"]["direct"] == 0 and vlpi["paths"]["vlpi"]["direct"] == 10


def test_without_nassgireq_the_same_lines_come_by_list_registers(
    tmp_path: Path, plain: tuple[int, dict[str, Any], str]
) -> None:
    """kvm-unit-tests' own sequence: same guest text, no GITS_SGIR write, 12 SGIs through list registers."""
    code, got, text = run(tmp_path, "--workers", "0", "--set", "nassgireq=false")
    assert code == 0
    assert all(line in text for line in PASS_LINES)
    assert got["counters"]["its0.sgir_writes"] == 0
    assert got["counters"]["hypervisor.lr_injections"] == 12
    assert got["paths"]["vsgi"]["lr"] == 12
    assert got["digest"] != plain[1]["digest"]


def test_without_vgic_v4_enable_everything_goes_by_list_registers(tmp_path: Path) -> None:
    """KVM's default: 12 SGIs and 10 MSIs by list register, each MSI a host LPI first."""
    code, got, text = run(tmp_path, "--workers", "0", "--set", "vgic_v4_enable=false")
    assert code == 0
    assert all(line in text for line in PASS_LINES)
    assert "GICv4 support disabled" in text
    counters = got["counters"]
    assert (counters["hypervisor.lr_injections"], counters["hypervisor.host_lpis"]) == (22, 10)
    assert counters["its0.sgir_writes"] == total(got, "vlpi_delivered") == total(got, "vsgi_delivered") == 0


def test_a_discarded_event_is_found_by_the_drivers_poll(tmp_path: Path) -> None:
    """break=discard: transactions 1 and 9 complete by the poll, the driver says so, 8 MSIs arrive, exit 1."""
    code, got, text = run(tmp_path, "--workers", "0", "--set", "break=discard")
    assert code == 1
    assert [int(n) for n in re.findall(r"missed MSI for transaction (\d+)", text)] == [1, 9]
    assert len(re.findall(r"- status\s+= 0 Success", text)) == 10
    assert got["counters"]["its0.msi_translated"] == 8
    assert [t["status"] for t in got["tests"]] == ["passed", "failed"]
    assert (got["status"], got["errors"]) == ("failed", [])


def test_a_disabled_vsgi_is_found_by_the_guest(tmp_path: Path) -> None:
    """break=vsgi: the guest itself counts one missing acknowledge in two tests and prints FAIL; exit 1."""
    code, got, text = run(tmp_path, "--workers", "0", "--set", "break=vsgi")
    assert code == 1
    assert text.count("ACKS: missing=1 extra=0 unexpected=0") == 2
    assert PASS_LINES[0] in text
    for name in ("target-list", "broadcast"):
        assert f"FAIL: gicv3: ipi: {name}: Interrupts received" in text
    assert "SUMMARY: 3 tests, 2 unexpected failures" in text
    assert [t["status"] for t in got["tests"]] == ["failed", "passed"]


def test_one_test_alone(tmp_path: Path) -> None:
    """--test runs just that one: its interrupts, no others."""
    code, got, text = run(tmp_path, "--workers", "0", "--test", "vlpi.smmute")
    assert (code, [t["name"] for t in got["tests"]]) == (0, ["vlpi.smmute"])
    assert got["latency_ps"]["vsgi"] is None
    assert "PASS:" not in text


def test_a_run_that_is_cut_short_has_unfinished_tests(tmp_path: Path) -> None:
    """--until before the end: exit 1, the tests are unfinished, and the result has all that there was."""
    code, got, _ = run(tmp_path, "--workers", "0", "--until", "300ms")
    assert code == 1
    assert [t["status"] for t in got["tests"]] == ["unfinished", "unfinished"]
    assert got["sim_time_ps"] == 300_000_000_000


def test_the_small_machine_runs_both_tests(tmp_path: Path) -> None:
    """tiny.yaml, two PEs: both tests pass with 3 direct vSGIs and 10 direct vLPIs."""
    done = cosim("up", "topologies/tiny.yaml", "--run-dir", tmp_path / "run", "--workers", "0", "--json")
    got = json.loads(done.stdout)
    assert (done.returncode, got["status"]) == (0, "passed")
    assert got["paths"]["vsgi"]["direct"] == 3
    assert got["paths"]["vlpi"]["direct"] == 10
