"""`cosim regs`, `lspci` and `logs` on runs: while they go on, and after their end."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from cosim.core.time import fmt
from tests.support.runs import ROOT, command, cosim, environment, ring, start, wait_running


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of tiny."""
    run = tmp_path_factory.mktemp("looking") / "run"
    done = cosim("up", "tiny", "--workers", "0", "--run-dir", run, "--quiet")
    assert done.returncode == 0, done.stderr
    return run


def test_a_table_needs_no_run(tmp_path: Path) -> None:
    """A block by name, in any case: offset, width, access and fields; in JSON, too; without a name the blocks."""
    text = cosim("regs", "gits", "BASER", cwd=tmp_path).stdout
    assert "0x00100" in text and "GITS_BASER<0..7>" in text and "Indirect[62]" in text
    (row,) = json.loads(cosim("regs", "GICD", "TYPER2", "--json", cwd=tmp_path).stdout)
    assert (row["name"], row["offset"], row["width"], row["access"]) == ("GICD_TYPER2", 0xC, 32, "RO")
    blocks = {entry["block"] for entry in json.loads(cosim("regs", "--json", cwd=tmp_path).stdout)}
    assert {"GICD", "GICR", "GITS", "SMMU", "SMMUTE"} <= blocks


def test_what_does_not_exist_is_refused(finished: Path, tmp_path: Path) -> None:
    """Unknown block, register, node, node without registers: exit 2 and what there is instead."""
    for arguments, text in (
        (("regs", "GICX"), "block must be one of"),
        (("regs", "GICD", "CTRL"), "register must be one of block GICD"),
        (("regs", "its7", "--run", str(finished)), "node must be one of"),
        (("regs", "memory", "--run", str(finished)), "has no registers to show"),
    ):
        done = cosim(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert text in done.stderr


def test_registers_of_a_finished_run_are_those_of_its_end(finished: Path) -> None:
    """The queue is empty and the ITS quiescent after the host's orderly end; a redistributor's table is its own."""
    got = json.loads(cosim("regs", "its0", "--run", finished, "--json").stdout)
    values = {entry["name"]: entry for entry in got["GITS"]}
    assert values["GITS_CWRITER"]["value"] == values["GITS_CREADR"]["value"] > 0
    assert values["GITS_CTLR"]["fields"]["Quiescent"] == 1
    text = cosim("regs", "redistributor1", "CTLR", "TYPER", "--run", finished).stdout
    assert "ProcessorNumber=1" in text.replace("_", "") and "Last=1" in text


def test_ps_of_a_finished_run_says_when_it_ended(finished: Path) -> None:
    """Its nodes are at the run's last simulated time; a line has the end, the duration and the status."""
    lines = cosim("ps", finished).stdout.splitlines()
    end_ps = json.loads((finished / "result.json").read_text())["sim_time_ps"]
    (row,) = [line for line in lines if line.startswith("memory ")]
    assert fmt(end_ps) in row and row.rstrip().endswith("ended")
    how = r"run is over: passed, ended 20\S+T\S+, after \d+\.\d\d s; (.*) simulated"
    found = re.fullmatch(how, lines[-1])
    assert found is not None and found[1] == fmt(end_ps)
    rows = json.loads(cosim("ps", finished, "--json").stdout)
    assert {entry["sim_time_ps"] for entry in rows} == {end_ps}


def test_addresses_of_registers_are_whole(finished: Path) -> None:
    """The queue's address is where the queue is, as the register's own digits say, not shifted by the field's lowest bit."""
    text = cosim("regs", "its0", "CBASER", "CWRITER", "--run", finished).stdout
    values = json.loads(cosim("regs", "its0", "CBASER", "CWRITER", "--run", finished, "--json").stdout)["GITS"]
    base, writer = (entry["value"] for entry in values)
    assert f"Physical_Address={base & 0xF_FFFF_FFFF_F000:#x}" in text
    assert f"Offset={writer & 0xF_FFE0:#x}" in text


@pytest.mark.parametrize(("workers", "transactions"), [("per-node", 300), ("0", 1000)])
def test_registers_of_a_run_that_goes_on(tmp_path: Path, workers: str, transactions: int) -> None:
    """Asked between grants, a run answers with values that change nothing: its digest is that of a run that nobody asked.
    Nodes at work, and all of a run in one process, answer between two grants."""
    runs = {name: tmp_path / name for name in ("asked", "alone")}
    argv = [
        "up",
        "rdn2cfg1",
        "--quiet",
        "--test",
        "vlpi.smmute",
        "--set",
        f"smmute_transactions={transactions}",
        "--run-dir",
    ]
    process = subprocess.Popen(
        command(*argv, runs["asked"], "--workers", workers), cwd=ROOT, env=environment(), text=True
    )
    wait_running(runs["asked"], process)
    answers = []
    try:
        while process.poll() is None:
            done = cosim("regs", "distributor", "CTLR", "--run", runs["asked"], "--json")
            if done.returncode == 0 and process.poll() is None:
                answers.append(json.loads(done.stdout)["GICD"][0]["fields"]["ARE_NS"])
            elif done.returncode:  # the run may end meanwhile
                assert "was at work" not in done.stderr and process.wait(60) == 0, done.stderr
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
    assert answers
    assert cosim(*argv, runs["alone"], "--workers", "0").returncode == 0
    digests = {json.loads((run / "result.json").read_text())["digest"] for run in runs.values()}
    assert len(digests) == 1


def test_lspci_shows_what_the_host_saw(finished: Path) -> None:
    """Both functions by their class; -vv of the one passed through shows its driver; a run without a host has none."""
    text = cosim("lspci", finished).stdout.splitlines()
    assert "08:00.1 Unassigned class [ff00]: ARM Device ff80 (rev 0f)" in text
    detail = cosim("lspci", finished, "-vv", "-s", "08:00.1").stdout
    assert "\tKernel driver in use: vfio-pci\n" in detail
    assert "MSI-X: Enable- Count=2048" in detail
    (record,) = json.loads(cosim("lspci", finished, "-s", "08:00.1", "--json").stdout)
    assert record["driver"] == "vfio-pci" and len(bytes.fromhex(record["config"])) >= 256


def test_lspci_of_a_run_without_pci_says_so(tmp_path: Path) -> None:
    """Exit 2 and a reason."""
    assert (
        cosim(
            "up", ring(tmp_path), "--allow-models", "tests.support", "--workers", "0", "--run-dir", tmp_path / "r"
        ).returncode
        == 0
    )
    done = cosim("lspci", tmp_path / "r")
    assert done.returncode == 2
    assert "must have enumerated PCI" in done.stderr


def test_logs_shorten_what_is_long(finished: Path) -> None:
    """A configuration space in hex does not flood the terminal: one line sums all of them up, -a shows their beginnings."""
    text = cosim("logs", "hypervisor", "--run", finished).stdout
    assert "pci device" not in text and text.count("PCI enumerated functions=") == 1
    assert "pci device" in cosim("logs", "hypervisor", "--run", finished, "--json").stdout
    lines = cosim("logs", "-a", "hypervisor", "--run", finished).stdout.splitlines()
    assert any("pci device" in line and "characters; see --json" in line for line in lines)
    assert max(map(len, lines)) < 400


def test_following_waits_for_a_console_and_ends_with_the_run(tmp_path: Path) -> None:
    """logs -f of a console that comes later prints it whole and ends when the run does; a name that never came is refused."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, "--set", "work_us=50000")
    wait_running(run, process)
    followers = {
        name: subprocess.Popen(command("logs", "-f", name, "--run", run), cwd=ROOT, env=environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in ("ring", "nothing")
    }  # fmt: skip
    process.communicate(timeout=60)
    assert process.returncode == 0
    out, _ = followers["ring"].communicate(timeout=30)
    assert out == "token 40 came home to n0\n"
    _, errors = followers["nothing"].communicate(timeout=30)
    assert followers["nothing"].returncode == 2
    assert "none of that name came" in errors


def test_following_ends_when_the_supervisor_was_killed(tmp_path: Path) -> None:
    """kill -9 of the run leaves no result: logs -f ends all the same."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, "--set", "work_us=1000", "--set", "rounds=1000000")
    wait_running(run, process)
    follower = subprocess.Popen(
        command("logs", "-f", "--run", run), cwd=ROOT, env=environment(), stdout=subprocess.PIPE
    )
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=30)
    follower.communicate(timeout=30)
    assert follower.returncode == 0
