"""Engine `ssh`: one OpenSSH client per slot; nothing is needed on the hosts but sshd and cosim.

The credential goes through the connection to `cosim.engines.slot`, which holds the other end of the client's stdin: the
command ends when this engine stops, or its process dies, or the connection breaks and sshd notices. Over a network that
was cut, it ends by its lease.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosim.engines.base import Exit, Slot, program
from cosim.engines.files import SlotFiles
from cosim.engines.options import read_options
from cosim.engines.programs import Programs
from cosim.engines.slot import order
from cosim.errors import UsageError

STOP_GRACE_S = 0.6
"""For the clients to end after their stdin has. One that is killed then has told its launcher, if anything can: the launcher
ends the command without it."""


@dataclass(frozen=True)
class SshOptions:
    """What ``--engine-option`` may set. Everything else is the business of ssh_config(5)."""

    user: str = ""
    """Login name; "" is what ssh_config says."""
    port: int = 0
    """TCP port; 0 is what ssh_config says."""
    identity: str = ""
    """File of a private key."""
    config: str = ""
    """An ssh_config(5) file in place of the user's and the system's."""
    python: str = "python3"
    """Interpreter on the hosts that has cosim."""
    directory: str = ""
    """Where to start on the hosts; a cosim source tree need not be installed there."""
    connect_timeout: int = 10
    """Seconds for a connection to be made."""
    alive_interval: int = 2
    """Seconds between the client's questions whether the host still answers."""
    alive_count: int = 2
    """Unanswered questions until the client gives up."""
    ssh: str = "ssh"
    """The client program."""


class SshEngine:
    """Places slots by ssh; `Slot.host` is any destination that ssh takes: an address, user@address, a name of ssh_config."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self._options = read_options("ssh", SshOptions, options)
        self._files = SlotFiles(folder)
        self._programs = Programs()

    async def start(self, slots: Sequence[Slot]) -> None:
        """Start one client per slot; see `Engine.start`."""
        for slot in slots:
            if not slot.host or slot.host.startswith("-"):
                raise UsageError(
                    f"engine ssh must know a destination for {slot.name}, not {slot.host!r}",
                    code="engine-host",
                    where=slot.name,
                    next_step="name the hosts: --hosts ADDRESS,ADDRESS or deploy: hosts: in the topology",
                )
        self._files.make()
        for slot in slots:
            self._programs.start(slot.name, self.argv(slot), self._files.log(slot.name), order(slot.credential))

    def argv(self, slot: Slot) -> list[str]:
        """The client's command line: the credential is not in it."""
        given = self._options
        pairs = {
            "BatchMode": "yes",  # never ask for a password: nobody is there
            "ConnectTimeout": given.connect_timeout,
            "ServerAliveInterval": given.alive_interval,
            "ServerAliveCountMax": given.alive_count,
            "ControlPath": "none",  # a connection of its own: one that breaks takes no other slot with it
            "ClearAllForwardings": "yes",
        }
        argv = [given.ssh, "-T", *(word for name, value in pairs.items() for word in ("-o", f"{name}={value}"))]
        for flag, text in (
            ("-F", given.config),
            ("-i", given.identity),
            ("-l", given.user),
            ("-p", str(given.port or "")),
        ):
            argv += [flag, text] if text else []
        return [*argv, "--", slot.host, self._remote(slot)]

    def _remote(self, slot: Slot) -> str:
        """What the login shell on the host gets."""
        python = self._options.python
        words = [python, "-m", "cosim.engines.slot", "--", *program(slot.command, python)]
        where = f"cd {shlex.quote(self._options.directory)} && " if self._options.directory else ""
        return f"{where}exec {shlex.join(words)}"

    async def poll(self) -> list[Exit]:
        """See `Engine.poll`; status 255 is ssh's own: no connection, or it broke."""
        return [
            Exit(one.name, one.status, f"ssh has lost or never had its connection: {one.text}")
            if one.status == 255
            else one
            for one in self._programs.poll()
        ]

    async def stop(self) -> None:
        """End the remote commands through their stdin; kill the clients that don't get through."""
        await self._programs.stop(STOP_GRACE_S)

    def logs(self, name: str) -> str | None:
        """What the command and the client have written."""
        return self._files.written(name)
