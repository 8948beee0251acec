"""The run directory: ``runs/NAME/TIMESTAMP`` with a link ``latest``, or the one that was asked for; mode 0700.

Contents: result.json, latencies.csv, registers.json, digests.json, plan.json, topology.yaml, console/GUEST.log, log.jsonl,
journal/, workers/ (what workers wrote to stderr), run.json (how to reach a running run). A run that failed leaves all that it had.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from cosim.errors import UsageError
from cosim.link.base import IPC_PATH_MAX

LATEST = "latest"
DIGESTS_FILE = "digests.json"
"""{node: [messages consumed, digest in hex]}, of a run that came to its end."""
OWNER_FILE = "owner"
"""In a socket directory: who made it."""
_SOCKET_PREFIX = "cosim-"
_SOCKET_ROOM = len("/cosim-12345678/control")


class RunDir:
    """One run's directory; files are made as they are needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._consoles: dict[str, TextIO] = {}

    @classmethod
    def create(cls, name: str, wanted: Path | None) -> RunDir:
        """A fresh directory. Raises UsageError when `wanted` exists and is not empty, or cannot be made."""
        try:
            if wanted is not None:
                wanted.mkdir(parents=True, exist_ok=True, mode=0o700)
                if any(wanted.iterdir()):
                    raise UsageError(
                        f"run directory must be new or empty, not {wanted}",
                        code="run-dir",
                        next_step="name another one with --run-dir, or remove it",
                    )
                path = wanted
            else:
                path = _timestamped(Path("runs") / name)
            os.chmod(path, 0o700)
            for folder in ("console", "journal", "workers"):
                (path / folder).mkdir()
        except OSError as error:
            raise UsageError(
                f"run directory {wanted or Path('runs') / name} cannot be made: {error.strerror}",
                code="run-dir",
                next_step="name another one with --run-dir",
            ) from None
        return cls(path.absolute())

    def write(self, name: str, data: str | dict[str, Any]) -> None:
        """Write a file whole: to a temporary name, then renamed. UsageError when the disk does not take it."""
        text = data if isinstance(data, str) else json.dumps(data, indent=1) + "\n"
        temporary = self.path / f".{name}.tmp"
        try:
            temporary.write_text(text)
            temporary.replace(self.path / name)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise unwritable(self.path / name, error) from None

    def console(self, name: str, text: str) -> None:
        """Append to console/NAME.log. UsageError when the disk does not take it."""
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip(".") or "_"
        path = self.path / "console" / f"{safe}.log"
        try:
            file = self._consoles.get(name)
            if file is None:
                file = self._consoles[name] = path.open("a", errors="backslashreplace")
            file.write(text)
            file.flush()
        except OSError as error:
            raise unwritable(path, error) from None

    def close(self) -> None:
        """Close the console files."""
        files, self._consoles = self._consoles, {}
        for name, file in files.items():
            try:
                file.close()
            except OSError as error:
                raise unwritable(self.path / "console" / name, error) from None


def unwritable(path: Path, error: OSError) -> UsageError:
    """The error for a file of a run directory that the system does not let us write: a full disk, a quota."""
    return UsageError(
        f"run directory must be writable to the end of the run: {error.strerror}",
        code="run-dir",
        where=str(path),
        next_step="make room, or name a directory on another disk with --run-dir",
    )


def registers_text(registers: list[tuple[str, dict[str, dict[str, int]], str]]) -> str:
    """registers.json, {node: {block: {register: value}}}, one line a node; from [node, blocks, fault] entries."""
    lines = [f"{json.dumps(node)}: {json.dumps(blocks)}" for node, blocks, _fault in sorted(registers)]
    return "{" + ",\n ".join(lines) + "}\n"


def digests_text(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """digests.json, one line a node; from the nodes of a hub's report."""
    lines = [f"{json.dumps(name)}: {json.dumps([n['count'], n['digest'].hex()])}" for name, n in sorted(nodes.items())]
    return "{" + ",\n ".join(lines) + "}\n"


def _timestamped(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        path = parent / (stamp if number == 0 else f"{stamp}-{number}")
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        link = parent / LATEST
        temporary = parent / f".{LATEST}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.name)
        temporary.replace(link)
        return path
    raise OSError(f"no free name below {parent} for {stamp}")


def socket_dir() -> Path:
    """A new 0700 directory with a short path for sockets: below $XDG_RUNTIME_DIR if it is ours, else a temporary one.

    Raises:
        UsageError: in none of them could one be made.
    """
    remove_stale_socket_dirs()
    reasons = []
    for folder in _socket_folders():
        if len(os.fsencode(os.path.abspath(folder))) > IPC_PATH_MAX - _SOCKET_ROOM:
            reasons.append(f"{folder} is too long for a socket's path")
            continue
        try:
            path = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir=folder))
            with open(os.open(path / OWNER_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(_owner(os.getpid()), file)
            return path
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
    raise UsageError(
        f"a directory for sockets must be made below $XDG_RUNTIME_DIR, $TMPDIR or /tmp: {'; '.join(reasons)}",
        code="socket-dir",
        where="start-up",
        next_step="set XDG_RUNTIME_DIR to a directory of yours with a short path",
    )


def _socket_folders() -> list[str]:
    """Where directories for sockets may be made, best first."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        found = os.stat(base) if os.path.isdir(base) else None
        if found is None or found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            base = None
    return list(dict.fromkeys(filter(None, (base, tempfile.gettempdir(), "/tmp"))))


def remove_socket_dir(path: Path) -> None:
    """Remove a directory made by `socket_dir`."""
    shutil.rmtree(path, ignore_errors=True)


def remove_stale_socket_dirs(folders: Iterable[str] | None = None) -> list[Path]:
    """Remove the socket directories of processes that were killed before they could; returns those.

    Only directories of this user that say who made them: a process of this boot and of this PID namespace that is gone.

    Args:
        folders: where to look; all in which `socket_dir` makes them unless given.
    """
    removed = []
    for folder in _socket_folders() if folders is None else folders:
        try:
            with os.scandir(folder) as entries:
                found = [Path(entry) for entry in entries if entry.name.startswith(_SOCKET_PREFIX)]
        except OSError:
            continue
        for path in filter(_is_stale, found):
            remove_socket_dir(path)
            removed.append(path)
    return removed


def _is_stale(path: Path) -> bool:
    """Whether the process that made this socket directory is gone; False wherever there is a doubt."""
    try:
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
            return False
        with open(os.open(path / OWNER_FILE, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            owner = json.load(file)
        here = _owner(os.getpid())
        if [owner[key] for key in ("boot", "namespace")] != [here[key] for key in ("boot", "namespace")]:
            return False
        try:
            return bool(_owner(int(owner["pid"]))["started"] != owner["started"])
        except FileNotFoundError:
            return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _owner(pid: int) -> dict[str, Any]:
    """What tells a process from all others: pid, start (ticks since boot), boot, PID namespace. FileNotFoundError: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError as error:
        raise FileNotFoundError(str(error)) from None
    return {
        "pid": pid,
        "started": int(fields[19]),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "namespace": os.readlink("/proc/self/ns/pid"),
    }


def find_run(name: str | None) -> Path:
    """The directory of a run: a path, a topology's name below ``runs/``, or without a name the latest of all.

    Raises:
        UsageError: there is none.
    """
    if name is not None:
        for path in (Path(name), Path("runs") / name / LATEST, Path("runs") / name):
            if (path / "run.json").is_file():
                return path.resolve()
        raise UsageError(f"run must be a run directory or the name of a topology that was run here, not {name!r}", code="no-run",
                         next_step="`ls runs` shows the runs of this folder")  # fmt: skip
    latest = sorted(Path("runs").glob(f"*/{LATEST}/run.json"), key=lambda p: p.stat().st_mtime)
    if not latest:
        raise UsageError(
            "no run was found below ./runs", code="no-run", next_step="start one with `cosim up`, or name its directory"
        )
    return latest[-1].parent.resolve()
