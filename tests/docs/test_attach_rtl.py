"""docs/attach-rtl.md: its design takes the place of the Python timer, under cocotb and without it, and is fit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cosim.run.conform import Kit, examine, stimulus_from
from cosim.run.conform_kit import Setup
from tests.external.nodes import HEADER, ROOT, plain_yaml
from tests.support.runs import command, result
from tests.support.simulators import needs

PAGE, MODELS = ((ROOT / "docs" / name).read_text() for name in ("attach-rtl.md", "writing-a-node.md"))
ROW = "  timer: {external: {argv: [python, start.py], ports: {regs: mmio_target, irq: wire}}}\n"
CASES = ("partition: far", "partition: random(1)", "power off in mid-transfer")


def write(page: str, name: str, folder: Path) -> Path:
    """A file that a page shows: the code block whose first line names it."""
    found = re.search(rf"```\w+\n((?:#|//) {re.escape(name)}\n.*?)```", page, re.DOTALL)
    assert found is not None, name
    path = folder / name
    path.write_text(found[1])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in ("timer.v", "bench.py", "start.py", "main.cpp", "stimulus.yaml"):
        write(PAGE, name, folder)
    write(MODELS, "driver.py", folder)
    write(MODELS, "timer.yaml", folder)
    return folder


def up(folder: Path, argv: str, name: str, status: int = 0) -> dict[str, Any]:
    """`cosim up --wave` of the topology with another line for the timer; the result."""
    assert ROW in PAGE
    text = (
        (folder / "timer.yaml").read_text().replace("  timer: timer:Timer\n", ROW.replace("[python, start.py]", argv))
    )
    assert argv in text
    (folder / f"{name}.yaml").write_text(text)
    done = subprocess.run(
        command("up", f"{name}.yaml", "--allow-models", "driver", "--run-dir", name, "--wave"),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == status, done.stderr
    assert ("3 interrupts" in done.stdout) == (status == 0)
    return result(folder / name)


def kit(folder: Path, *argv: str) -> Kit:
    """The kit for a node, with the page's stimulus."""
    stimulus, setup = stimulus_from(plain_yaml(folder / "stimulus.yaml"), Setup(list(argv)))
    return Kit(setup, stimulus)


def shown(folder: Path, *argv: str) -> list[str]:
    """What a node sends; the cases must pass, and the page tells the number of messages."""
    node = kit(folder, *argv)
    assert [(v.case, v.rule, v.text) for v in examine(node, CASES.__contains__) if v.rule] == []
    assert node.reference is not None
    assert f"{len(node.reference.shown)} messages in each partition" in PAGE
    return node.reference.shown


@needs("icarus")
@needs("bare")
def test_the_page_s_timer_is_fit_and_of_one_digest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed from the page: cocotb with Icarus and Verilator alone send the same messages, run the driver of the other page with the
    same digest, and write the waveforms where it says."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    found = re.search(r"    (verilator --cc .*?-lzmq)\n", PAGE, re.DOTALL)
    assert found is not None
    line = found[1].replace("$(python -m cosim.attach)", f"-I{HEADER}")
    if shutil.which("verilator") is None:
        pytest.skip("needs a verilator on PATH (Debian package verilator)")
    built = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=110)
    assert built.returncode == 0, built.stderr
    assert shown(folder, "python", str(folder / "start.py")) == shown(folder, str(folder / "obj_dir" / "Vtimer"))
    cocotb, bare = up(folder, "[python, start.py]", "cocotb"), up(folder, "[obj_dir/Vtimer]", "bare")
    assert cocotb["digest"] == bare["digest"]
    assert (folder / "cocotb" / "waves" / "timer.fst").exists() and (folder / "bare" / "waves" / "timer.vcd").exists()


@needs("icarus")
def test_a_run_that_fails_leaves_its_waveforms(folder: Path, tmp_path: Path) -> None:
    """The software raises at its second interrupt; the FST is finished: its header block tells the end of time."""
    shutil.copytree(folder, tmp_path / "fails", ignore=shutil.ignore_patterns("obj_dir", "cocotb", "bare"))
    driver = tmp_path / "fails" / "driver.py"
    line = '            self.count["interrupts"] += 1\n'
    assert line in driver.read_text()
    driver.write_text(driver.read_text().replace(line, line + '            assert self.count["interrupts"] < 2\n'))
    up(tmp_path / "fails", "[python, start.py]", "run", status=3)
    data = (tmp_path / "fails" / "run" / "waves" / "timer.fst").read_bytes()
    kind, length, _begin, end = data[0], *(int.from_bytes(data[n : n + 8], "big") for n in (1, 9, 17))
    assert (kind, length) == (0, 329)
    assert 1_500_000 < end < 3_000_000


@needs("icarus")
def test_the_page_s_mistake_is_found(folder: Path, tmp_path: Path) -> None:
    """With `ahead` one edge too far the kit names the rule and the time that the page shows."""
    shutil.copytree(folder, tmp_path / "wrong", ignore=shutil.ignore_patterns("obj_dir", "cocotb", "bare"))
    source = tmp_path / "wrong" / "timer.v"
    right, wrong = "ahead = left == 0 ? 0 : left - 1;", "ahead = left;"
    assert right in PAGE and wrong in PAGE
    source.write_text(source.read_text().replace(right, wrong))
    (verdict,) = examine(
        kit(folder, "python", str(tmp_path / "wrong" / "start.py")), lambda name: name == "partition: far"
    )
    assert f"FAIL  {verdict.case}: rule {verdict.rule} at {verdict.time_ps // 1000}ns ({verdict.time_ps} ps)" in PAGE
