"""The tutorial of docs/writing-a-node.md, carried out to the letter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cosim.api

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "writing-a-node.md").read_text()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the page's files, each named by the first line of its block."""
    for name, body in re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", PAGE, re.M | re.S):
        uses = {"test_timer.py": "from timer import Timer\n", "test_driver.py": "from driver import Driver\n"}.get(
            name, ""
        )
        if name == "test_driver.py":
            uses += "from timer import Timer\n"
        (tmp_path / name).write_text(uses + body)
    return tmp_path


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in the directory, with it on the path."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_pages_tests_pass(files: Path) -> None:
    """The tests that the page shows pass against the models that it shows, and all four of them ran."""
    result = run(files, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_timer.py", "test_driver.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout


def test_the_pages_tests_can_fail(files: Path) -> None:
    """A timer that fires a nanosecond late is found by them."""
    model = (files / "timer.py").read_text()
    assert "self.after(ns(new)," in model
    (files / "timer.py").write_text(model.replace("self.after(ns(new),", "self.after(ns(new + 1),"))
    assert run(files, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_timer.py").returncode == 1


def test_the_pages_machine_runs(files: Path) -> None:
    """The topology that the page shows runs as processes and prints what the page says."""
    result = run(
        files,
        "-m",
        "cosim",
        "up",
        "timer.yaml",
        "--allow-models",
        "timer",
        "--allow-models",
        "driver",
        "--run-dir",
        "run",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 interrupts" in result.stdout
    assert (files / "run" / "console" / "driver.log").read_text() == "3 interrupts\n"


def test_what_the_page_imports_is_the_public_interface() -> None:
    """Every name that the page imports from cosim.api is in its __all__."""
    names = {
        name.strip() for line in re.findall(r"^from cosim\.api import (.*)$", PAGE, re.M) for name in line.split(",")
    }
    assert names and names <= set(cosim.api.__all__)
