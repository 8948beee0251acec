"""Limits that grow with the number of workers are raised as far as needed, and no further."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.runs import ROOT, environment


@pytest.mark.parametrize(
    ("limit", "workers", "expected"),
    [((300, 2000), 10, "300"), ((300, 2000), 500, "1256"), ((300, 300), 500, "UsageError")],
)
def test_room_for_workers(limit: tuple[int, int], workers: int, expected: str) -> None:
    """Two files for each worker and some to spare: untouched when there is room, raised below the hard limit, refused beyond."""
    code = (
        "import resource\n"
        "from cosim.errors import UsageError\n"
        "from cosim.run.limits import room_for\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {limit})\n"
        "try:\n"
        f"    room_for({workers})\n"
        "except UsageError as error:\n"
        "    assert 'must be at least 1256 for 500 workers, not 300' in str(error), error\n"
        "    print('UsageError')\n"
        "else:\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == expected, done.stderr
