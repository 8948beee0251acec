"""Directories for sockets that a killed process has left: which are removed, and which never."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cosim.run import rundir
from cosim.run.rundir import OWNER_FILE, remove_stale_socket_dirs, socket_dir


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of this process, in a folder of its own: a fault here must not reach the runs of this machine."""
    monkeypatch.setattr(rundir, "_socket_folders", lambda: [str(tmp_path)])
    return socket_dir()


def gone() -> int:
    """A pid that nobody has any more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def copied(made: Path, name: str, **changes: Any) -> Path:
    """A directory like `made`, whose owner differs in `changes`."""
    path = made.parent / name
    path.mkdir(mode=0o700)
    (path / OWNER_FILE).write_text(json.dumps({**json.loads((made / OWNER_FILE).read_text()), **changes}))
    (path / "control").touch()
    return path


def test_what_a_killed_process_left_is_removed(made: Path, tmp_path: Path) -> None:
    """Its pid is gone, or belongs to a process that was started at another time."""
    stale = {copied(made, "cosim-gone", pid=gone()), copied(made, "cosim-reused", started=1)}
    assert set(remove_stale_socket_dirs([str(tmp_path)])) == stale
    assert made.exists() and not any(path.exists() for path in stale)


def test_a_new_directory_removes_the_old_ones(made: Path) -> None:
    """`cosim up` leaves the folder tidier than it was."""
    stale = copied(made, "cosim-gone", pid=gone())
    assert socket_dir().exists() and made.exists() and not stale.exists()


def test_wherever_there_is_a_doubt_it_stays(made: Path, tmp_path: Path) -> None:
    """Of another boot or PID namespace (a container with the same /tmp), of another name, open to others, a link, without a
    readable owner, or of somebody else."""
    pid = gone()
    kept = [
        made,
        copied(made, "cosim-boot", pid=pid, boot="another"),
        copied(made, "cosim-namespace", pid=pid, namespace="pid:[1]"),
        copied(made, "other-name", pid=pid),
        copied(made, "cosim-open", pid=pid),
        copied(made, "cosim-text", pid="all"),
        copied(made, "cosim-empty"),
        copied(made, "cosim-linked"),
    ]
    os.chmod(tmp_path / "cosim-open", 0o755)
    (tmp_path / "cosim-empty" / OWNER_FILE).unlink()
    (tmp_path / "cosim-linked" / OWNER_FILE).unlink()
    (tmp_path / "cosim-linked" / OWNER_FILE).symlink_to(tmp_path / "other-name" / OWNER_FILE)
    (tmp_path / "cosim-link").symlink_to(tmp_path / "other-name")
    if os.getuid() == 0:
        kept.append(copied(made, "cosim-theirs", pid=pid))
        os.chown(kept[-1], 12345, 12345)
    assert remove_stale_socket_dirs([str(tmp_path), str(tmp_path / "missing")]) == []
    assert all(path.exists() for path in kept)
