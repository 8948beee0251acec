"""docs/three-generations.md shows what the command gives, and what it says about the numbers is so."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from tests.support.runs import cosim

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "three-generations.md").read_text()
REFRESH = "python docs/refresh.py makes figure and table anew"


def refresh() -> ModuleType:
    """The script docs/refresh.py."""
    spec = importlib.util.spec_from_file_location("refresh", DOCS / "refresh.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """results.csv of the page's own command."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    argv = refresh().COMMAND.split()[1:-1]
    done = cosim(*argv, out)
    assert done.returncode == 0, done.stderr
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


def times(line: str) -> list[float]:
    """The medians of a row of the page's table, in ps."""
    scale = {"ns": 1e3, "us": 1e6}
    return [float(value) * scale[unit] for value, unit in re.findall(r"([\d.]+) (ns|us)", line)]


def test_the_command_shown_is_the_one_that_made_it() -> None:
    """The page names the command of the script that refreshes it."""
    assert f"    {refresh().COMMAND}\n" in PAGE


def test_the_table_is_what_the_command_gives(rows: list[dict[str, str]]) -> None:
    """Counts are equal; medians are within a factor of two, so that a changed latency somewhere needs no new page."""
    shown = [line for line in PAGE.splitlines() if re.match(r"\| (3|4\.[01]) ", line)]
    fresh = refresh().table(rows)[2:]
    assert len(shown) == len(fresh) == 6
    for old, new in zip(shown, fresh, strict=True):
        assert re.sub(r"[\d.]+ (ns|us)", "*", old) == re.sub(r"[\d.]+ (ns|us)", "*", new), REFRESH
        assert all(0.5 < a / b < 2 for a, b in zip(times(old), times(new), strict=True)), REFRESH


def test_what_the_page_says_is_so(rows: list[dict[str, str]]) -> None:
    """One text everywhere; direct is several times faster; waiting costs list registers time and direct injection none."""
    found = {(row["gic_version"], row["guest_wait"]): row for row in rows}
    assert {row["guest_text"] for row in rows} == {"A"}

    def median(version: str, wait: str, family: str) -> int:
        return int(found[version, wait][f"{family}_p50_ps"])

    assert median("3", "spin", "vlpi") > 5 * median("4.0", "spin", "vlpi")
    assert median("4.0", "spin", "vsgi") > 5 * median("4.1", "spin", "vsgi")
    assert median("3", "wfi", "vlpi") > median("3", "spin", "vlpi")
    assert median("4.0", "wfi", "vlpi") == median("4.0", "spin", "vlpi")
    assert median("4.0", "wfi", "vsgi") > median("3", "wfi", "vsgi")
    assert max(int(row["vlpi_p50_ps"]) for row in rows) == median("3", "wfi", "vlpi")
    for version in ("3", "4.0", "4.1"):
        assert found[version, "wfi"]["exits_sgi_trap"] == "3"
        assert int(found[version, "wfi"]["vsgi_exits_between"]) == 0


def test_the_figure_is_one_of_six_points() -> None:
    """The committed figure has a label for each point, medians and timing parameters."""
    texts = [t.text or "" for t in ElementTree.parse(DOCS / "figures" / "three-generations.svg").getroot().iter()]
    labels = [f"gic_version {v}, guest_wait {w}" for v in ("3", "4.0", "4.1") for w in ("wfi", "spin")]
    assert [text for text in texts if text in labels] == labels
    assert sum(text.endswith((" direct", " by list register")) for text in texts) == 12
    assert any(text.startswith("Timing parameters: ") for text in texts)
