"""The supervisor's side of foreign nodes: their secrets, how each is started, and how it is told where to connect.

A foreign process finds four variables in its environment: COSIM_ENDPOINT, COSIM_NAME, COSIM_TOKEN_FILE (a file of mode 0600 in
the run's socket directory) and COSIM_RUN_DIR; with ``--wave`` also COSIM_WAVE, the path without suffix of the waveforms that it
has to write. One that is started by somebody else gets them from ``attach/NAME.env``.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cosim.core.plan import NodePlan, Plan
from cosim.errors import UsageError
from cosim.run.guard import end_all_with
from cosim.run.spawn import Child, child_environment

PYTHON = "python"
"""First word of an argv that stands for the interpreter that runs cosim."""

REFUSALS = frozenset(("version", "token", "unknown-name", "ports", "wave", "options", "lookahead", "quantum"))
"""Codes of errors after which a node has been told REFUSED (docs/protocol.md); "duplicate" is told to another one."""


def with_waves(plan: Plan, wave: bool | Sequence[str]) -> Plan:
    """The plan, in which the external nodes that `wave` names (True: all) write waveforms.

    Raises:
        UsageError: a name is not that of an external node, or there is none.
    """
    if not wave:
        return plan
    have = [node.name for node in plan.nodes if node.external is not None]
    wanted = set(have if wave is True else wave)
    if not wanted or wanted - set(have):
        text = ", ".join(sorted(wanted - set(have))) or "none"
        raise UsageError(
            f"waveforms must be of external nodes, which are {', '.join(have) or 'none'} in {plan.name}, not of {text}",
            code="wave",
            where="--wave-of" if wanted else "--wave",
            next_step="name external nodes" if have else "choose a topology whose models block has an external node",
        )
    nodes = (
        node._replace(external={**node.external, "wave": True}) if node.external and node.name in wanted else node
        for node in plan.nodes
    )
    return plan._replace(nodes=tuple(nodes))


def without_limits(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan, in which no wall-clock limit holds for a grant of the external nodes among `names`.

    Raises:
        UsageError: a name is not that of a node.
    """
    unknown = sorted(set(names) - {node.name for node in plan.nodes})
    if unknown:
        raise UsageError(
            f"--no-limit must name nodes of {plan.name}, not {', '.join(unknown)}",
            code="no-limit",
            where="--no-limit",
            next_step="`cosim check TOPOLOGY` prints their names",
        )
    nodes = (
        n._replace(external={**n.external, "wall_limit_ms": 0}) if n.external and n.name in names else n
        for n in plan.nodes
    )
    return plan._replace(nodes=tuple(nodes)) if names else plan


class Group:
    """A process that leads a group: signals reach all of it, and its end is the end of all of it.

    `mark`: processes that have these bytes in their environment belong to it too, when it ends: what left the group.
    """

    def __init__(self, popen: subprocess.Popen[bytes], mark: bytes = b"") -> None:
        self._popen = popen
        self._mark = mark
        self.pid = popen.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._sweep(self._popen.poll())

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        status = self._sweep(self._popen.wait())
        assert status is not None
        return status

    def send_signal(self, sig: int) -> None:
        """Send a signal to the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, sig)

    def _sweep(self, status: int | None) -> int | None:
        if status is not None and self.returncode is None:
            self.returncode = status
            self.send_signal(signal.SIGKILL)
            if self._mark:
                end_all_with(self._mark)
        return status


class ForeignChild(Child):
    """A foreign program, its guard and what it has started; `wave`: it writes waveforms."""

    wave = False

    def cpu_and_state(self) -> tuple[float, str]:
        """CPU seconds of the group, and R if any of it runs or waits for a disk, T if any is stopped, else S."""
        ticks, states = 0, set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError, IndexError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[2]) == self.pid:
                        ticks += int(fields[11]) + int(fields[12])
                        states.add(fields[0])
        state = "R" if states & {"R", "D"} else "T" if "T" in states else "S"
        return ticks / os.sysconf("SC_CLK_TCK"), state


class Attached:
    """The foreign nodes of a run.

    Args:
        plan: of the run; nodes with `external` are foreign.
        sockets: the run's socket directory, for the token files.
        directory: the run directory.
        served: numbers in the plan of the workers of this host, if it has not all of them; `nodes` counts them from 0.
    """

    def __init__(self, plan: Plan, sockets: Path, directory: Path, served: Sequence[int] | None = None) -> None:
        first = [plan.nodes[plan.groups[w][0]] for w in (range(len(plan.groups)) if served is None else served)]
        self.nodes: dict[int, NodePlan] = {w: node for w, node in enumerate(first) if node.external is not None}
        self.tokens = {node.name: secrets.token_hex(16) for node in self.nodes.values()}
        self._endpoint = ""
        self._sockets = sockets
        self._directory = directory

    def hand_out_keys(self, workers: int) -> dict[str, Any]:
        """A key for each of the Python workers and each foreign node, as a file in the socket directory; returns what the hub
        needs."""
        from cosim.link.keys import RunKeys, write_credential

        names = [*(f"w{worker}" for worker in range(workers)), *self.tokens]
        keys = RunKeys.generate(names)
        for name in names:
            write_credential(self._sockets / f"{name}.credential", keys.credential(name))
        return keys.for_hub()

    def publish(self, endpoint: str) -> None:
        """Write what foreign nodes need to know, once it is known where the hub listens."""
        self._endpoint = endpoint.removeprefix("zmq+")
        for node in self.nodes.values():
            self._write(node)

    def _write(self, node: NodePlan) -> None:
        path = self._token_file(node)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.tokens[node.name] + "\n")
        folder = self._directory / "attach"
        folder.mkdir(exist_ok=True)
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self._variables(node).items()]
        (folder / f"{node.name}.env").write_text("\n".join(lines) + "\n")

    def _token_file(self, node: NodePlan) -> Path:
        return self._sockets / f"{node.name}.token"

    def _variables(self, node: NodePlan) -> dict[str, str]:
        assert node.external is not None
        waves = self._directory / "waves"
        if node.external.get("wave"):
            waves.mkdir(exist_ok=True)
        credential = self._sockets / f"{node.name}.credential"  # over tcp
        return {
            **({"COSIM_WAVE": str(waves / node.name)} if node.external.get("wave") else {}),
            "COSIM_ENDPOINT": self._endpoint,
            "COSIM_NAME": node.name,
            "COSIM_TOKEN_FILE": str(self._token_file(node)),
            "COSIM_RUN_DIR": str(self._directory),
            **({"COSIM_CREDENTIAL": str(credential)} if credential.exists() else {}),
        }

    def invitation(self, node: NodePlan) -> str:
        """What to do with a node that connects by itself."""
        assert node.external is not None
        return (
            f"waiting up to {node.external['wait_ms'] / 1000:.0f} s for {node.name}: run its program after `. "
            f"{self._directory / 'attach' / node.name}.env`"
        )

    def start(self, node: NodePlan) -> Child:
        """Start a node's program; what it prints goes to workers/NAME.log."""
        assert node.external is not None
        first, *rest = node.external["argv"]
        command = [sys.executable if first == PYTHON else first, *rest]
        log = self._directory / "workers" / f"{node.name}.log"
        inherited = {name: value for name, value in child_environment().items() if name != "COSIM_WAVE"}
        with log.open("wb") as file:
            popen = subprocess.Popen(
                [sys.executable, "-m", "cosim.run.guard", str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=node.external["cwd"],
                process_group=0,
                env={**inherited, **node.external["env"], **self._variables(node)},
            )
        mark = f"COSIM_TOKEN_FILE={self._token_file(node)}\0"
        child = ForeignChild(node.name, Group(popen, mark.encode()), log)
        child.wave = bool(node.external.get("wave"))
        return child
