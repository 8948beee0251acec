"""--wave: who has to write waveforms is told so, and who can't says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.external.test_runs import PYTHON_MEMORY, tiny
from tests.support.runs import cosim, result

PRINTER = "import os; print(os.environ.get('COSIM_WAVE'), flush=True)"


@pytest.mark.parametrize(
    ("topology", "options", "text"),
    [
        ("tiny", ["--wave"], "which are none in tiny, not of none"),
        ("rdn2cfg1_rtl", ["--wave-of", "smmu0"], "which are smmute in rdn2cfg1, not of smmu0"),
    ],
)
def test_nobody_to_write_them_is_a_usage_error(topology: str, options: list[str], text: str, tmp_path: Path) -> None:
    """A run that would leave no waveform is not begun: exit code 2, and which nodes there are."""
    done = cosim("up", topology, "--run-dir", tmp_path / "run", *options)
    assert done.returncode == 2
    assert text in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_node_that_cannot_is_refused(tmp_path: Path) -> None:
    """A memory whose HELLO has no capability `wave` ends the run with exit code 4, by the rule's name."""
    done = cosim("up", tiny(tmp_path, argv=PYTHON_MEMORY), "--run-dir", tmp_path / "run", "--quiet", "--wave")
    assert done.returncode == 4
    assert "broke a rule of the protocol (wave)" in done.stderr
    assert "caps in HELLO must have 'wave'" in done.stderr
    (error,) = result(tmp_path / "run")["errors"]
    assert error["node"] == "memory"


@pytest.mark.parametrize("wanted", [True, False])
def test_the_path_is_told_when_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """COSIM_WAVE is waves/NODE in the run directory; without --wave it is not there, though the user's environment has one."""
    monkeypatch.setenv("COSIM_WAVE", "/elsewhere")
    topology = tiny(tmp_path, argv=["python", "-c", PRINTER])
    done = cosim("up", topology, "--run-dir", tmp_path / "run", "--quiet", *(["--wave-of", "memory"] if wanted else []))
    assert done.returncode == 4  # it says its line and ends
    said = (tmp_path / "run" / "workers" / "memory.log").read_text().strip()
    assert said == (str(tmp_path / "run" / "waves" / "memory") if wanted else "None")
