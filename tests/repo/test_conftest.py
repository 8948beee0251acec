"""The guard against leaks, itself tested: a guard that never fires is no guard."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import is_running

ROOT = Path(__file__).resolve().parents[2]

LEAKS = {
    "child": ("process", "subprocess.Popen(['sleep', '60'])"),
    "orphan": (
        "process",
        "subprocess.run([sys.executable, '-c', \"import subprocess; subprocess.Popen(['sleep', '60'],"
        ' start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)"], check=True)',
    ),
    "socket": ("socket", "kept.append(socket.socket())"),
}


def run_pytest(directory: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run one test of its own, with this repository's configuration and conftest."""
    test = directory / "test_inner.py"
    test.write_text(f"import socket, subprocess, sys\nkept = []\ndef test_it():\n    {body}\n")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            str(ROOT / "pyproject.toml"),
            "--rootdir",
            str(directory),
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            str(test),
        ],
        cwd=ROOT,
        env={**os.environ, "COSIM_TEST_GRACE_S": "0.3"},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_fails_the_test(leak: str, tmp_path: Path) -> None:
    """A child, an orphan or a socket that a test leaves behind fails it, and the process is ended."""
    kind, body = LEAKS[leak]
    result = run_pytest(tmp_path, body)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "the test must leave no process and no socket" in result.stdout
    assert f"{kind} " in result.stdout or f"{kind}:" in result.stdout
    if kind == "process":
        pid = int(result.stdout.split("not process ")[1].split()[0])
        assert not is_running(pid)


def test_a_clean_test_passes_and_the_header_names_the_seed(tmp_path: Path) -> None:
    """Processes that were waited for and sockets that were closed are no leak; the seed can be repeated."""
    body = "socket.socket().close(); subprocess.run(['true'], check=True)"
    result = run_pytest(tmp_path, body)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "COSIM_TEST_SEED=" in result.stdout


def test_tests_that_share_something_are_run_by_one_process() -> None:
    """A fixture made once for its module, or the network of hosts, keeps its tests together; others go where there is room."""
    picked = ["tests/hosts/test_batch_script.py", "tests/machine/test_host_boot.py", "tests/unit/test_errors.py"]
    code = (
        "import pytest\n"
        "class Names:\n"
        "    def pytest_collection_finish(self, session):\n"
        "        for item in session.items:\n"
        "            marks = [m.args[0] for m in item.iter_markers('xdist_group')]\n"
        "            print('group', item.nodeid.partition('::')[0], *marks)\n"
        f"pytest.main({['-q', '--collect-only', '-p', 'no:cacheprovider', *picked]!r}, plugins=[Names()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    groups = {tuple(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("group ")}
    assert groups == {(picked[0], "hosts"), (picked[1], picked[1]), (picked[1],), (picked[2],)}, (
        done.stdout + done.stderr
    )
