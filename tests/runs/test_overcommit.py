"""More vCPUs than PEs, and vCPUs that move between PEs: every interrupt is delivered once, blocked vCPUs by their doorbells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import cosim, result, total

TOPOLOGY = "topologies/rdn2cfg1.yaml"


def run(folder: Path, *settings: str, workers: str = "0", test: str = "") -> dict[str, Any]:
    """Run the topology with settings; its result, which must be a success."""
    options = [word for setting in settings for word in ("--set", setting)]
    options += ["--test", test] if test else []
    done = cosim("up", TOPOLOGY, "--run-dir", folder, "--workers", workers, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return result(folder)


SGIS = 1 + 8 + 15
"""Of the ipi test with 16 vCPUs: self, target-list (the even ones), broadcast."""


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """16 vCPUs on 8 PEs, in one process."""
    return run(tmp_path_factory.mktemp("sixteen") / "run", "vcpus=16")


def test_sixteen_vcpus_on_eight_pes_get_every_interrupt_directly(sixteen: dict[str, Any]) -> None:
    """Both tests pass; all 24 vSGIs and 10 vLPIs are injected directly; vCPUs that blocked are woken by their doorbells."""
    counters = sixteen["counters"]
    assert [t["status"] for t in sixteen["tests"]] == ["passed", "passed"]
    assert counters["its0.sgir_writes"] == total(sixteen, "vsgi_delivered") == SGIS
    assert total(sixteen, "vlpi_delivered") == 10
    assert counters["hypervisor.lr_injections"] == 0
    assert counters["hypervisor.doorbell_irqs"] == total(sixteen, "doorbells") > 0
    # At most one for each descheduling.
    assert counters["hypervisor.doorbell_irqs"] <= counters["hypervisor.blocks"]


@pytest.mark.parametrize("workers", ["4", "per-node"])
def test_the_digest_of_over_commit_does_not_depend_on_placement(
    tmp_path: Path, sixteen: dict[str, Any], workers: str
) -> None:
    """Time slices, doorbells and wake-ups are simulated time: the digest is that of one process."""
    assert run(tmp_path / "run", "vcpus=16", workers=workers)["digest"] == sixteen["digest"]


@pytest.mark.parametrize(
    ("version", "lr", "direct"), [("3", SGIS + 10, (0, 0)), ("4.0", SGIS, (0, 10)), ("4.1", 0, (SGIS, 10))]
)
def test_every_generation_shares_pes_among_busy_vcpus(
    tmp_path: Path, version: str, lr: int, direct: tuple[int, int]
) -> None:
    """Vcpus that never sleep have their turns by time slices, and lose no interrupt to them."""
    got = run(tmp_path / "run", "vcpus=16", "guest_wait=spin", f"gic_version={version}")
    assert got["counters"]["hypervisor.slice_irqs"] > 100
    assert got["counters"]["hypervisor.lr_injections"] == lr
    assert (total(got, "vsgi_delivered"), total(got, "vlpi_delivered")) == direct


@pytest.mark.parametrize("wait", ["wfi", "spin"])
@pytest.mark.parametrize("version", ["4.0", "4.1"])
def test_no_vlpi_is_lost_or_doubled_while_vcpus_migrate(tmp_path: Path, version: str, wait: str) -> None:
    """The guest's vCPU is moved from PE to PE every 9.1 us while 64 MSIs arrive: 64 acknowledges, none missed by the driver,
    and every PE has had some."""
    settings = (f"gic_version={version}", f"guest_wait={wait}", "t_migrate=9100ns", "smmute_transactions=64")
    got = run(tmp_path / "run", *settings, test="vlpi.smmute")
    counters = got["counters"]
    assert counters["hypervisor.vcpu_migrations"] > 64
    assert counters["smmute.msis"] == total(got, "vlpi_delivered") == 64
    assert all(counters[f"redistributor{n}.vlpi_delivered"] > 0 for n in range(8))
    assert counters["hypervisor.host_lpis"] == counters["hypervisor.lr_injections"] == 0
    assert got["paths"]["vlpi"]["direct"] == 64


@pytest.mark.parametrize("version", ["3", "4.0", "4.1"])
def test_every_its_command_works_on_interrupts_of_vcpus_that_migrate(tmp_path: Path, version: str) -> None:
    """Eight interrupts in flight, moved, cleared and discarded by the guest while its vCPUs move every 33 us and share two
    PEs: each of them is taken once, by the CPU and in the order that the guest asked for."""
    settings = (f"gic_version={version}", "pes=2", "vcpus=5", "t_migrate=33us")
    got = run(tmp_path / "run", *settings, test="vlpi.commands")
    assert got["counters"]["hypervisor.vcpu_migrations"] > 30
    assert got["tests"][0]["detail"] == "SUMMARY: 16 tests"


def test_the_digest_of_migrations_does_not_depend_on_placement(tmp_path: Path) -> None:
    """A vCPU's journal travels between processes as it does within one."""
    settings = ("pes=2", "vcpus=3", "t_migrate=50us")
    runs = [run(tmp_path / w, *settings, workers=w, test="vlpi.commands") for w in ("0", "per-node", "2")]
    assert runs[0]["digest"] == runs[1]["digest"] == runs[2]["digest"]
    assert runs[0]["counters"] == runs[1]["counters"]


def test_vcpus_that_migrate_and_share_pes_pass_both_tests(tmp_path: Path) -> None:
    """16 vCPUs on 8 PEs, each moved every 7 ms: all vSGIs and vLPIs arrive once."""
    got = run(tmp_path / "run", "vcpus=16", "t_migrate=7ms")
    assert got["counters"]["hypervisor.vcpu_migrations"] > 100
    assert (total(got, "vsgi_delivered"), total(got, "vlpi_delivered")) == (SGIS, 10)
