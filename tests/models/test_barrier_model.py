"""The barrier's rule, model-checked: every interleaving of a small machine, by Spin."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("barrier.pml")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("spin") is None, reason="spin is not installed (Debian package spin)"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed (Debian package gcc); spin needs it"),
]


def errors(where: Path, *defines: str) -> int:
    """Number of errors (0 or 1: it stops at the first) that an exhaustive search of the model finds."""
    run = {"cwd": where, "check": True, "capture_output": True, "text": True}
    subprocess.run(["spin", "-a", *defines, str(MODEL)], **run)  # type: ignore[call-overload]
    # Hash-compact storage (HC4) keeps millions of states in some hundred megabytes.
    options = ["-O2", "-DSAFETY", "-DNOFAIR", "-DHC4", "-DVECTORSZ=1024"]
    subprocess.run(["gcc", *options, "-o", "pan", "pan.c"], **run)  # type: ignore[call-overload]
    output = subprocess.run(["./pan", "-m200000", "-w24"], **run).stdout  # type: ignore[call-overload]
    assert "max search depth too small" not in output, "the search must be exhaustive"
    found = re.search(r"errors: (\d+)", output)
    assert found is not None, output
    return int(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("size", [("-DT=7", "-DLEFT=2"), ("-DT=5", "-DLEFT=3")], ids=" ".join)
def test_rule_is_safe_and_live(tmp_path: Path, size: tuple[str, str]) -> None:
    """No behaviour of three workers on any of the model's topologies breaks I1, I3, I4 or I5."""
    assert errors(tmp_path, *size) == 0


@pytest.mark.parametrize("mutant", ["FORGET", "NOKEPT", "DIRECT", "NORETURN", "NONEXT"])
def test_model_is_able_to_fail(tmp_path: Path, mutant: str) -> None:
    """With a piece of the rule left out the search finds a violation."""
    assert errors(tmp_path, "-DT=7", "-DLEFT=2", f"-D{mutant}") == 1
