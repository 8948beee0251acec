"""Stock QEMU as the GIC and ITS of a machine: examples/qemu_gic, its fitness, and what becomes of a run when QEMU fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cosim.attach.qemu import GICD, GICR, GITS, MIB, RAM, QemuError, QemuGic, encoding, version
from cosim.run.conform import Kit, examine, stimulus_from
from cosim.run.conform_kit import Setup
from examples.qemu_gic.node import PORTS
from tests.external.nodes import EXAMPLES, plain_yaml
from tests.support.processes import is_running
from tests.support.runs import ROOT, TIMEOUT_S, children, command, cosim, environment, result

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-system-aarch64") is None, reason="needs qemu-system-aarch64 (Debian package qemu-system-arm)"
)

QEMU_GIC = EXAMPLES / "qemu_gic"
TOPOLOGY = QEMU_GIC / "qemu_gic.yaml"
OPTIONS = ("--allow-models", "examples.qemu_gic")
LIVENESS_S = 5.0
PMR, IAR1, IGRPEN1 = encoding(3, 0, 4, 6, 0), encoding(3, 0, 12, 12, 0), encoding(3, 0, 12, 12, 7)

SEEN = """\
distributor: SPI, INTID 40 at CPU 0
its line is low again: nothing
redistributor: SGI of CPU 0: INTID 3 at CPU 1
its: MSI with EventID 0: INTID 8192 at CPU 0
its: MSI with EventID 1: INTID 8193 at CPU 0
its: MSI with EventID 2: INTID 8194 at CPU 0
its: MSI with EventID 3: INTID 8195 at CPU 0
a disabled LPI: nothing
enabled, and INV: INTID 8192 at CPU 0
with all priorities masked: nothing
by priority 0x60: INTID 8195 at CPU 0
by priority 0x80: INTID 8194 at CPU 0
by priority 0xa0: INTID 8193 at CPU 0
by priority 0xc0: INTID 8192 at CPU 0
moved by MOVI: INTID 8193 at CPU 1
and not at CPU 0: nothing
the other device, which no MAPD names: nothing
an event after DISCARD: nothing
"""
SEEN_VIRTUAL = """\
doorbell of a vPE that is not resident: INTID 8196 at CPU 0
resident: the vLPI that was pending: INTID 8200 at CPU 0
and one injected directly: INTID 8200 at CPU 0
without a doorbell: nothing
"""


def up(folder: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """`cosim up` of the example: exit code, stderr, result."""
    done = cosim("up", TOPOLOGY, *OPTIONS, "--run-dir", folder, *options)
    return done.returncode, done.stderr, result(folder)


def passes(folder: Path, *options: str) -> dict[str, Any]:
    """The same, which must pass; its result."""
    code, err, got = up(folder, *options)
    assert (code, err, got["status"]) == (0, "", "passed")
    return got


@pytest.fixture(scope="module")
def machine() -> Iterator[QemuGic]:
    """QEMU, without a run."""
    gic = QemuGic(cpus=2, ram=8 * MIB, device_ids=(8,))
    yield gic
    gic.close()


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_every_interrupt_comes_from_qemu_at_its_time(tmp_path: Path) -> None:
    """SPI, SGI, LPIs of MSIs, masks, priorities, MOVI, DISCARD: the driver sees what the architecture says, and when; the same
    digest for every placement, and no taint: the node is deterministic."""
    results = [passes(tmp_path / "0", "--workers", "0"), passes(tmp_path / "n")]
    console = (tmp_path / "n" / "console" / "driver.log").read_text()
    assert console.startswith(SEEN)
    page = (ROOT / "docs" / "attach-qemu.md").read_text()
    quoted = re.findall(r"^    ((?:distributor|redistributor|its|a disabled|enabled|moved)\b.*)$", page, re.MULTILINE)
    assert len(quoted) == 7 and set(quoted) <= set(console.splitlines())
    assert results[0]["digest"] == results[1]["digest"]
    assert results[0]["sim_time_ps"] == results[1]["sim_time_ps"]
    assert results[0]["tainted"] == []
    counters = results[0]["counters"]
    assert counters["qemu.msis"] == counters["device0.msis"] + counters["device1.msis"] == 32
    assert counters["driver.interrupts"] == 32


def test_virtual_interrupts_of_gicv4(tmp_path: Path) -> None:
    """With GICv4.0 and four CPUs: a vLPI of a vPE that is not resident is pending in its table and rings its doorbell; when the
    vPE is resident its guest takes it, and the next one comes directly, in time and without a doorbell."""
    passes(tmp_path / "run", "--workers", "0", "--set", "gic_version=4.0", "--set", "cpus=4", "--set", "rounds=1")
    console = (tmp_path / "run" / "console" / "driver.log").read_text()
    assert console.startswith(SEEN + SEEN_VIRTUAL)


def test_the_node_is_fit() -> None:
    """The kit's cases but those that only wait; the stimulus takes SPI, SGI, PPI and LPI out of QEMU, and gets refusals."""
    stimulus, setup = stimulus_from(
        plain_yaml(QEMU_GIC / "stimulus.yaml"), Setup(["python", str(QEMU_GIC / "node.py")])
    )
    kit = Kit(setup, stimulus)
    wanted = ("far", "seeds", "one event", "random", "off in", "reset", "past", "4,096", "kill")
    verdicts = list(examine(kit, lambda name: any(text in name for text in wanted)))
    assert [(v.case, v.rule, v.text) for v in verdicts if v.rule] == []
    assert len(verdicts) == len(wanted)
    assert kit.reference is not None
    shown = "\n".join(kit.reference.shown)
    assert [n for n in re.findall(r"data=(\w+)", shown) if n in ("0x28", "3", "0x1b", "0x2000")] == [
        "0x28", "3", "0x1b", "0x2000",
    ]  # fmt: skip
    assert shown.count("line=0, level=1") == shown.count("line=0, level=0") == 4
    assert shown.count("status=2") == 4 and shown.count("status=3") == 2


# -- QEMU fails --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("/no/such/qemu", "/no/such/qemu must be installed (Debian package qemu-system-arm), but was not found"),
        ("true", "true must be QEMU for AArch64 (Debian package qemu-system-arm); asked for its version it said "),
    ],
)
def test_no_qemu(tmp_path: Path, program: str, shown: str) -> None:
    """Exit 4, the node's name, and what to install."""
    code, err, got = up(tmp_path / "run", "--set", f"qemu={program}")
    assert (code, [(e["code"], e["node"]) for e in got["errors"]]) == (4, [("node-failed", "qemu")])
    assert shown in err


def _qemu_of(pid: int) -> tuple[list[int], int]:
    """All processes of a run, and the QEMU among them once it is up."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        pids, lines = [pid], {}
        for found in pids:
            below = children(found)
            lines.update(below)
            pids += below
        qemu = [p for p, line in lines.items() if line.startswith("qemu-system") and "-qtest" in line]
        if qemu:
            return pids[1:], qemu[0]
        time.sleep(0.02)
    raise AssertionError("QEMU was not started in time")


def _strike(folder: Path, blow: signal.Signals, *options: str) -> tuple[int, str]:
    """Send a signal to the QEMU of a long run at work; the run's exit code and stderr. Nothing may be left of it."""
    argv = command("up", TOPOLOGY, *OPTIONS, "--run-dir", folder, "--set", "rounds=1000000", *options)
    process = subprocess.Popen(
        argv, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    console = folder / "console" / "driver.log"
    deadline = time.monotonic() + TIMEOUT_S
    while not console.exists() or "DISCARD" not in console.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    pids, qemu = _qemu_of(process.pid)
    os.kill(qemu, blow)
    _, err = process.communicate(timeout=TIMEOUT_S)
    deadline = time.monotonic() + LIVENESS_S
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "processes of the run must be gone"
        time.sleep(0.02)
    return process.returncode, err


def test_qemu_dies_in_mid_grant(tmp_path: Path) -> None:
    """Exit 4 with the signal that ended QEMU, its name and the simulated time; nothing is left."""
    code, err = _strike(tmp_path / "run", signal.SIGKILL)
    assert code == 4
    assert re.search(r"qemu failed at \d.*: QEMU must .* it ended by SIGKILL, and its output is: nothing", err), err
    assert result(tmp_path / "run")["errors"][0]["code"] == "node-failed"


def test_qemu_hangs(tmp_path: Path) -> None:
    """A QEMU that does not answer is named before the run's own limit of a grant has passed; it is killed."""
    code, err = _strike(tmp_path / "run", signal.SIGSTOP, "--stall-limit", "1.5")
    assert code == 4
    assert "QEMU must answer within 1.05 s, but did not" in err


# -- the library -------------------------------------------------------------------------------------------------------


def test_registers_memory_and_cpus(machine: QemuGic) -> None:
    """One access of each kind: frames of all three blocks, RAM, system registers of each CPU; what is undefined is told."""
    assert machine.load(GICD + 4, 4) >> 17 & 1 == 1  # GICD_TYPER.LPIS
    assert machine.load(GICR + 0x2_0008, 8) >> 8 & 0xFFFF == 1  # GICR_TYPER.ProcessorNumber
    assert machine.load(GITS + 8, 8) & 1  # GITS_TYPER.Physical
    assert machine.read(RAM, MIB) == bytes(MIB)
    data = bytes(range(256)) * 400
    machine.write(RAM + 5, data)
    assert machine.read(RAM + 5, len(data)) == data
    for cpu in (0, 1):
        assert machine.msr(cpu, PMR, 0x80 + 8 * cpu)
    assert [machine.mrs(cpu, PMR) for cpu in (0, 1)] == [0x80, 0x88]
    assert not machine.msr(0, IAR1, 0)
    assert machine.mrs(1, encoding(3, 4, 12, 11, 0)) is None  # ICH_HCR_EL2, without EL2
    assert machine.mrs(0, PMR, guest=True) is None  # GICv3 has no virtual one here
    assert machine.mrs(0, PMR) == 0x80


def test_a_reset(machine: QemuGic) -> None:
    """Registers and lines are as after power-on, RAM keeps its contents, the secondary CPU is on again."""
    machine.write(RAM, b"kept")
    machine.store(GICD, 4, 0b10)
    machine.store(GICD + 0x84, 4, 1)
    machine.store(GICD + 0x104, 4, 1)
    machine.msr(0, PMR, 0xF0)
    machine.msr(0, IGRPEN1, 1)
    machine.spi(0, 1)
    assert machine.lines(0) == (1, 0, 0, 0) and machine.lines(1) == (0,) * 4
    machine.spi(0, 0)
    assert machine.lines(0) == (0,) * 4
    machine.spi(0, 1)
    machine.reset()
    assert [machine.lines(cpu) for cpu in (0, 1)] == [(0,) * 4] * 2
    assert [machine.mrs(cpu, PMR) for cpu in (0, 1)] == [0, 0]
    assert machine.read(RAM, 4) == b"kept"
    machine.spi(0, 0)


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        ({"gic_version": "4.1"}, "gic_version must be one of 3, 4.0, not '4.1'"),
        ({"cpus": 17}, "cpus must be 1 to 16, not 17"),
        ({"ram": MIB + 1}, "ram must be a multiple of 1 MiB, not 1048577 bytes"),
        ({"device_ids": [8, 0x101]}, "not 0x101"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], shown: str) -> None:
    """Each is told before QEMU is started, with what would be right."""
    with pytest.raises(ValueError, match=re.escape(shown)):
        QemuGic(**wrong)


def test_the_page_has_every_port() -> None:
    """docs/attach-qemu.md has a row for each port of the node, and the topology names their roles as the node does."""
    page = (ROOT / "docs" / "attach-qemu.md").read_text()
    assert [port for port in PORTS if f"| `{port}` | " not in page] == []
    assert plain_yaml(TOPOLOGY)["models"]["qemu_gic"]["external"]["ports"] == PORTS


def test_a_folder_that_takes_no_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is too long for a socket is told, with what to do."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(QemuError, match="set TMPDIR to a shorter path"):
        QemuGic()
    assert list(folder.iterdir()) == []


def test_a_program_that_does_not_connect() -> None:
    """Its end and its output are told at once."""
    with pytest.raises(
        QemuError, match=r"must connect to its qtest socket .* it ended with status 1, .*invalid option"
    ):
        QemuGic(binary="sleep")
    assert "QEMU emulator version" in version()
