"""Wrong topologies: each NAME.yaml here must be refused with exactly the text of NAME.txt.

A line ``#args: ...`` in the file gives more arguments. To see what `cosim up` says today, and review it:

    python -m tests.wrong.test_wrong           prints the texts that differ
    python -m tests.wrong.test_wrong --write   writes them
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import shlex
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = sorted(path.name for path in HERE.glob("*.yaml"))


def refuse(name: str) -> tuple[int | str | None, str, str]:
    """Exit code, stdout and stderr of ``cosim up NAME`` with the file's arguments, run in its directory."""
    from cosim.cli.main import main

    text = (HERE / name).read_text(encoding="utf-8")
    extra = [line.removeprefix("#args:") for line in text.splitlines() if line.startswith("#args:")]
    out, err = io.StringIO(), io.StringIO()
    before, directory, code = sys.argv, os.getcwd(), None
    sys.argv = ["cosim", "up", name, *shlex.split(" ".join(extra))]
    try:
        os.chdir(HERE)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
        os.chdir(directory)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_topology_is_refused(name: str) -> None:
    """`cosim up` ends with code 2 before anything is started, and says all that is wrong, where, and what to do."""
    code, out, err = refuse(name)

    assert code == 2
    assert out == ""
    assert err == (HERE / name).with_suffix(".txt").read_text(encoding="utf-8")
    assert not (HERE / "runs").exists()


def main() -> None:
    """Print, or write, the texts that differ from the expected ones."""
    for name in FILES:
        expected = (HERE / name).with_suffix(".txt")
        was = expected.read_text(encoding="utf-8") if expected.exists() else ""
        now = refuse(name)[2]
        sys.stdout.writelines(difflib.unified_diff(was.splitlines(True), now.splitlines(True), name, "now"))
        if "--write" in sys.argv:
            expected.write_text(now, encoding="utf-8")


if __name__ == "__main__":
    main()
