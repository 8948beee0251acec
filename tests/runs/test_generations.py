"""The three generations of virtual interrupts on one machine: the same text for the guest, other ways for the hypervisor."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.runs import cosim, result

TOPOLOGY = "topologies/rdn2cfg1.yaml"
GENERATIONS = ("3", "4.0", "4.1")


class Ran(NamedTuple):
    """A run: result.json, and each guest's console."""

    got: dict[str, Any]
    guests: dict[str, str]

    def count(self, counter: str) -> int:
        """A counter of the hypervisor, 0 if it never counted."""
        value: int = self.got["counters"].get(f"hypervisor.{counter}", 0)
        return value

    def total(self, counter: str) -> int:
        """A counter summed over the redistributors."""
        return sum(v for k, v in self.got["counters"].items() if re.fullmatch(rf"redistributor\d+\.{counter}", k))

    def delivery(self) -> dict[str, int]:
        """The counters that tell how interrupts reached the guests."""
        return {
            **{name: self.count(name) for name in ("exits_sgi_trap", "lr_injections", "host_lpis", "doorbell_irqs")},
            "sgir_writes": self.got["counters"]["its0.sgir_writes"],
            **{name: self.total(name) for name in ("vsgi_delivered", "vlpi_delivered", "doorbells")},
        }

    def of_test(self, name: str, counter: str) -> int:
        """A counter of the hypervisor in one test."""
        counters = next(t["counters"] for t in self.got["tests"] if t["name"] == name)
        value: int = counters.get(f"hypervisor.{counter}", 0)
        return value


def without_durations(text: str) -> str:
    """A guest's console without what it measured: the time that each transaction took."""
    return re.sub(r"(- duration +=) \d+ us", r"\1", text)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`ran("gic_version=3", "guest_wait=spin", workers="0")`: each combination runs once."""

    @cache
    def run(*settings: str, workers: str = "0", test: str = "") -> Ran:
        folder = tmp_path_factory.mktemp("generation") / "run"
        options = [word for setting in settings for word in ("--set", setting)]
        options += ["--test", test] if test else []
        done = cosim("up", TOPOLOGY, "--run-dir", folder, "--workers", workers, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        consoles = sorted(Path(folder, "console").glob("v*.log"))
        return Ran(result(folder), {p.stem: p.read_text() for p in consoles})

    return run


DELIVERY = {
    "3": (3, 22, 10, 0, 0, 0, 0, 0),
    "4.0": (3, 12, 0, 0, 0, 0, 10, 0),
    "4.1": (3, 0, 0, 0, 12, 12, 10, 0),
}
"""exits_sgi_trap, lr_injections, host_lpis, doorbell_irqs; sgir_writes; vSGIs, vLPIs, doorbells of the redistributors."""


@pytest.mark.parametrize("version", GENERATIONS)
def test_each_generation_delivers_by_its_own_way(ran: Any, version: str) -> None:
    """Of 12 SGIs and 10 MSIs, list registers take 22, 12 or none, the host's LPI handler 10, none or none."""
    run = ran(f"gic_version={version}")
    assert tuple(run.delivery().values()) == DELIVERY[version]
    assert run.got["counters"]["smmute.msis"] == run.got["counters"]["its0.msi_translated"] == 10


def test_guests_print_the_same_in_every_generation(ran: Any) -> None:
    """A guest cannot tell how its interrupts come, but by the time that they take."""
    texts = [ran(f"gic_version={version}").guests for version in GENERATIONS]
    assert set(texts[0]) == {"vsgi.ipi", "vlpi.smmute"}
    for name, text in texts[0].items():
        assert "# KVM session ended normally." in text
        assert all(without_durations(other[name]) == without_durations(text) for other in texts[1:])


@pytest.mark.parametrize(("version", "each"), [("3", 1), ("4.0", 0), ("4.1", 0)])
def test_a_busy_vcpu_exits_for_an_msi_only_without_direct_injection(ran: Any, version: str, each: int) -> None:
    """Between MSI write and acknowledge a spinning vCPU exits once per MSI on GICv3 and never on GICv4.x."""
    run = ran(f"gic_version={version}", "guest_wait=spin")
    path = next(t["paths"]["vlpi"] for t in run.got["tests"] if t["name"] == "vlpi.smmute")
    assert path["direct"] + path["lr"] == 10
    assert path["exits_between"] == 10 * each


@pytest.mark.parametrize(("version", "each"), [("3", 1), ("4.0", 0), ("4.1", 0)])
def test_a_sleeping_vcpu_traps_and_is_woken_for_an_msi_only_without_direct_injection(
    ran: Any, version: str, each: int
) -> None:
    """WFI exits and wake-ups of the smmute guest: one per MSI on GICv3, none on GICv4.x."""
    run = ran(f"gic_version={version}")
    assert run.of_test("vlpi.smmute", "exits_wfx") == 10 * each
    assert run.of_test("vlpi.smmute", "wakeups") == 10 * each


@pytest.mark.parametrize("version", ["4.0", "4.1"])
def test_without_vgic_v4_enable_kvm_falls_back_to_gicv3(ran: Any, version: str) -> None:
    """vgic_v4_enable=false on a GICv4.x machine gives GICv3's console text, to the letter, and its delivery counters."""
    old, disabled = ran("gic_version=3"), ran(f"gic_version={version}", "vgic_v4_enable=false")
    assert disabled.guests == old.guests
    assert disabled.delivery() == old.delivery()


def test_the_host_says_what_it_supports(tmp_path: Path) -> None:
    """The kernel's line about GICv4 on each machine, enabled and not."""
    for settings, line in {
        ("gic_version=3",): None,
        ("gic_version=4.0",): "kvm [1]: GICv4 support enabled",
        ("gic_version=4.1", "vgic_v4_enable=false"): "kvm [1]: GICv4 support disabled",
    }.items():
        folder = tmp_path / "-".join(settings)
        options = [word for setting in settings for word in ("--set", setting)]
        assert cosim("up", TOPOLOGY, "--run-dir", folder, "--workers", "0", *options).returncode == 0
        found = re.findall(r"kvm \[1\]: GICv4.*", (folder / "console" / "host.log").read_text())
        assert found == ([] if line is None else [line])


def test_the_digest_of_a_gicv3_run_does_not_depend_on_placement(ran: Any) -> None:
    """One process per node, four workers and one process: one digest, and the same counters."""
    plain = ran("gic_version=3").got
    for workers in ("4", "per-node"):
        other = ran("gic_version=3", workers=workers).got
        assert (other["digest"], other["counters"]) == (plain["digest"], plain["counters"])


# -- more guests: every ITS command, two guests at once ------------------------------------------------------------------


def test_its_commands_of_a_guest_mean_the_same_in_every_generation(ran: Any) -> None:
    """Overflowing list registers or vLPIs: 16 checks of order, INT, CLEAR, INV, MOVI, MOVALL and DISCARD pass, with one text."""
    texts = []
    for version in GENERATIONS:
        run = ran(f"gic_version={version}", test="vlpi.commands")
        assert [(t["name"], t["status"], t["detail"]) for t in run.got["tests"]] == [
            ("vlpi.commands", "passed", "SUMMARY: 16 tests")
        ]
        texts.append(run.guests["vlpi.commands"])
        # DISCARD without a new MSI-X entry leaves its vector to software (sheet 7.2).
        assert run.count("host_lpis") == (1 if version != "3" else run.got["counters"]["smmute.msis"])
        assert bool(run.total("vlpi_delivered")) == (version != "3")
    assert texts[0] == texts[1] == texts[2]
    assert texts[0].count("PASS: its: ") == 16


@pytest.mark.parametrize("version", GENERATIONS)
def test_two_guests_interleaved_each_see_only_their_own_interrupts(ran: Any, version: str) -> None:
    """Two guests with one function each and the same virtual INTIDs: each completes its ten transactions by its own ten MSIs,
    whose latencies pair up by guest; no vLPI is missing, extra or at the other."""
    run = ran(f"gic_version={version}", test="vlpi.two_guests")
    (test,) = run.got["tests"]
    assert test["status"] == "passed"
    direct = 20 if version != "3" else 0
    assert (test["paths"]["vlpi"]["direct"], test["paths"]["vlpi"]["lr"]) == (direct, 20 - direct)
    assert run.got["counters"]["smmute.msis"] == 20
    assert run.got["latency_ps"]["vlpi"]["count"] == 20
    # One guest's boot vCPU is on PE 0, the other's on PE 1.
    took = "acks_direct" if direct else "acks_lr"
    assert [run.got["counters"][f"pe{n}.{took}"] for n in (0, 1)] == [10, 10]
    first, second = (run.guests[f"vlpi.two_guests.{n}"] for n in (0, 1))
    ignore = r"--name guest-\d"
    assert re.sub(ignore, "", without_durations(first)) == re.sub(ignore, "", without_durations(second))


@pytest.mark.parametrize("version", GENERATIONS)
def test_two_guests_share_one_pe(tmp_path: Path, version: str) -> None:
    """On a machine of one PE the two guests' vCPUs have turns; all 20 transactions succeed."""
    settings = ("--set", "pes=1", "--set", f"gic_version={version}", "--set", "guest_wait=spin")
    done = cosim(
        "up", TOPOLOGY, "--run-dir", tmp_path / "run", "--workers", "0", "--test", "vlpi.two_guests", *settings
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path / "run")["counters"]["smmute.msis"] == 20
