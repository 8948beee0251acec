"""The package as its users get it: a wheel that finds its topologies, and the errors' contract."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cosim.errors import TopologyError
from cosim.topo.find import find_topology, shipped_topologies

ROOT = Path(__file__).resolve().parents[2]


def test_a_wheel_carries_and_finds_the_topologies(tmp_path: Path) -> None:
    """From a wheel, far from the checkout, the shipped topology is found by name and is the same file."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    (wheel,) = tmp_path.glob("cosim-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = "from cosim.topo.find import find_topology; print(find_topology('topologies/rdn2cfg1.yaml'))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    found = Path(result.stdout.strip())
    assert found == site / "cosim" / "_topologies" / "rdn2cfg1.yaml"
    assert found.read_bytes() == (ROOT / "topologies" / "rdn2cfg1.yaml").read_bytes()
    assert (site / "cosim" / "py.typed").exists() and (site / "nodes" / "py.typed").exists()


@pytest.mark.parametrize("name", ["rdn2cfg1", "rdn2cfg1.yaml", "topologies/rdn2cfg1.yaml"])
def test_a_shipped_topology_is_found_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name, with or without suffix and directory, means the shipped file in any directory."""
    monkeypatch.chdir(tmp_path)
    assert find_topology(name).samefile(ROOT / "topologies" / "rdn2cfg1.yaml")


def test_a_file_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that exists under the path given is taken, whatever is shipped under that name."""
    monkeypatch.chdir(tmp_path)
    Path("rdn2cfg1.yaml").write_text("mine: 1\n")
    assert find_topology("rdn2cfg1.yaml").read_text() == "mine: 1\n"


def test_a_topology_that_is_not_there_is_an_error_with_a_suggestion() -> None:
    """A misspelt name gives exit code 2 and the nearest name; a foreign path never means a shipped file."""
    with pytest.raises(TopologyError) as caught:
        find_topology("rdn2cfg11")
    assert caught.value.exit_code == 2
    assert caught.value.code == "topology-not-found"
    assert "did you mean 'rdn2cfg1'?" in str(caught.value)
    with pytest.raises(TopologyError):
        find_topology("elsewhere/rdn2cfg1.yaml")


def test_the_shipped_topologies_are_those_of_the_checkout() -> None:
    """In a checkout no stale copy inside the package hides the files that are edited."""
    assert shipped_topologies() == ROOT / "topologies"
