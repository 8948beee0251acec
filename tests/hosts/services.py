"""What engines need on the hosts of a `Network`: an sshd per host, a Slurm of one slurmd per host, a Dask scheduler and workers.

Each has configuration, keys and ports of its own in a folder of the test; nothing of the system's is used or changed. Host
"h0" is where the driver, slurmctld and the Dask scheduler run.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from tests.hosts.network import Network, run

ROOT = Path(__file__).resolve().parents[2]
SSH_PORT = 2222
DASK_PORT = 8786
TLS_PORT = 8790
PROGRAMS = {
    "ssh": {"sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client"},
    "dask": {},
    "tls": {"openssl": "openssl"},
    "slurm": dict.fromkeys(("slurmctld", "slurmd", "sbatch", "srun", "salloc", "squeue"), "slurm-wlm")
    | {"munged": "munge"},
}
"""Engine -> program -> Debian package."""
SPARE = "spare"
"""Name of a Dask worker that a test may kill."""
VARIABLES = {"PYTHONPATH": str(ROOT)}
_SBIN = "/usr/sbin:/sbin"


def find(name: str) -> str | None:
    """A program's path; daemons may be where a user's PATH does not look."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")


class Services:
    """Daemons with a folder for their files; ended by `close`, last started first."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder
        self._daemons: list[tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []

    def daemon(self, name: str, argv: Sequence[str], **variables: str) -> subprocess.Popen[bytes]:
        """Start one; what it writes is in FOLDER/NAME.out."""
        output = (self.folder / f"{name}.out").open("wb")
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **variables},
            process_group=0,
            cwd=self.folder,
        )
        self._daemons.append((name, process, output))
        return process

    def until(self, ready: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
        """Wait until a condition holds; the daemons' last words when it does not."""
        deadline = time.monotonic() + limit_s
        while not ready():
            dead = [name for name, process, _ in self._daemons if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                words = "\n".join(
                    f"--- {name}: {(self.folder / f'{name}.out').read_text(errors='replace')[-1500:]}"
                    for name, _, _ in self._daemons
                )
                raise AssertionError(f"{what} must be there within {limit_s:.0f} s (ended: {dead or 'none'})\n{words}")
            time.sleep(0.05)

    def close(self) -> None:
        """End the daemons."""
        for _, process, _ in reversed(self._daemons):
            process.terminate()
        deadline = time.monotonic() + 2
        for _, process, output in reversed(self._daemons):
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            output.close()


class Sshd(Services):
    """sshd on every host; `config` is an ssh_config in which the hosts have their names."""

    def __init__(self, network: Network, folder: Path) -> None:
        super().__init__(network, folder)
        self.config = folder / "ssh_config"
        for name in ("host_key", "user_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "cosim test", "-f", str(folder / name))
        (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
        host_key = (folder / "host_key.pub").read_text()
        addresses = [network.address(host) for host in network.hosts]
        known = [f"[{address}]:{SSH_PORT} {host_key}" for address in addresses]
        (folder / "known_hosts").write_text("".join(known))
        self.config.write_text(
            "".join(f"Host {host}\n  HostName {network.address(host)}\n" for host in network.hosts)
            + f"Host *\n  Port {SSH_PORT}\n  User root\n  IdentityFile {folder / 'user_key'}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on this one
        sshd = find("sshd")
        assert sshd is not None
        for host in network.hosts:
            file = folder / f"sshd_config.{host}"
            file.write_text(
                f"Port {SSH_PORT}\nListenAddress {network.address(host)}\nHostKey {folder / 'host_key'}\nPidFile none\n"
                f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
                "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\nUseDNS no\n"
                "ClientAliveInterval 2\nClientAliveCountMax 2\n"
            )
            self.daemon(f"sshd.{host}", network.inside(host, sshd, "-D", "-e", "-f", str(file)))
        self.until(self._ready, "an sshd on each host")

    def _ready(self) -> bool:
        return all("listening on" in (self.folder / f"sshd.{host}.out").read_text() for host in self.network.hosts)

    @property
    def options(self) -> dict[str, str]:
        """Engine options."""
        return {"config": str(self.config), "python": sys.executable, "directory": str(ROOT)}


class Slurm(Services):
    """slurmctld on h0 and a slurmd on every other host, whose nodes have the hosts' names."""

    def __init__(self, network: Network, folder: Path) -> None:
        super().__init__(network, folder)
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._configure()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        munged = [
            str(find("munged")),
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder / 'munge.sock'}",
        ]
        munged += [f"--{name}-file={folder / ('munge.' + name)}" for name in ("pid", "log", "seed")]
        self.daemon("munged", munged)
        self.until((folder / "munge.sock").exists, "munged")
        for host in network.hosts:
            words = ["slurmctld", "-D", "-c"] if host == "h0" else ["slurmd", "-D", "-N", host]
            argv = network.inside(host, str(find(words[0])), *words[1:], hostname=host)
            self.daemon(f"{words[0]}.{host}", argv, PYTHONPATH=str(ROOT), **self.variables)

    def _configure(self) -> None:
        folder, network = self.folder, self.network
        nodes = [host for host in network.hosts if host != "h0"]
        for name in ("state", *(f"spool.{node}" for node in nodes)):
            (folder / name).mkdir()
        lines = {
            "ClusterName": "cosim",
            "SlurmctldHost": f"h0({network.address('h0')})",
            "SlurmUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder / 'munge.sock'}",
            "CryptoType": "crypto/munge",
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "spool.%n",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "slurmd.%n.pid",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "SlurmdParameters": "config_overrides",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU",
            "MpiDefault": "none",
            "ReturnToService": 2,
            "KillWait": 5,
            "SlurmdTimeout": 20,
        }
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        for node in nodes:
            text += f"NodeName={node} NodeAddr={network.address(node)} CPUs=12 RealMemory=4000\n"
        text += f"PartitionName=cosim Nodes={','.join(nodes)} Default=YES MaxTime=INFINITE State=UP\n"
        (folder / "slurm.conf").write_text(text)
        version = "cgroup/v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "cgroup/v1"
        constrain = "".join(f"Constrain{what}=no\n" for what in ("Cores", "Devices", "RAMSpace", "SwapSpace"))
        (folder / "cgroup.conf").write_text(f"CgroupPlugin={version}\nCgroupMountpoint=/sys/fs/cgroup\n{constrain}")

    def close(self) -> None:
        """End the daemons once no job is left: without them a job's last step would stay for ever."""
        deadline = time.monotonic() + 15
        while self._ask("squeue", "--noheader").strip() and time.monotonic() < deadline:
            time.sleep(0.1)
        super().close()

    def _ask(self, *words: str) -> str:
        argv = self.network.inside("h0", *words)
        return subprocess.run(
            argv, capture_output=True, text=True, env={**os.environ, **self.variables}, timeout=30
        ).stdout

    def wait(self) -> None:
        """Until all nodes are idle."""
        self.until(self._idle, "a Slurm whose nodes are all idle")

    def _idle(self) -> bool:
        states = self._ask("sinfo", "--noheader", "--Node", "--format=%T").split()
        return states == ["idle"] * (len(self.network.hosts) - 1)

    @property
    def options(self) -> dict[str, str]:
        """Engine options."""
        return {"python": sys.executable, "directory": str(ROOT), "poll_interval": "0.3", "wait": "60"}


class Dask(Services):
    """A Dask scheduler on h0 and one worker on every other host, with the hosts' names, and a spare one on the last."""

    def __init__(self, network: Network, folder: Path) -> None:
        super().__init__(network, folder)
        self._security: list[str] = []
        self._scheme, self._port = "tcp", DASK_PORT
        self._start({**{host: host for host in network.hosts[1:]}, SPARE: network.hosts[-1]})

    def _start(self, workers: dict[str, str]) -> None:
        """Start the scheduler, and workers by name on their hosts."""
        address = self.network.address("h0")
        self.address = f"{self._scheme}://{address}:{self._port}"
        self._dask("scheduler", "h0", "--port", str(self._port))
        rest = [
            "--nthreads",
            "2",
            "--resources",
            "slot=1",
            "--memory-limit",
            "0",
            "--death-timeout",
            "60",
            "--no-nanny",
        ]
        self.workers = {
            name: self._dask(
                "worker", host, self.address, "--name", name, *rest, "--local-directory", self._place(name)
            )
            for name, host in workers.items()
        }

    def _place(self, name: str) -> str:
        return str(self.folder / name)

    def _dask(self, kind: str, host: str, *words: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *words, "--no-dashboard", *self._security]
        argv += ["--host", f"{self._scheme}://{self.network.address(host)}"]
        return self.daemon(f"{kind}.{len(self._daemons)}", self.network.inside(host, *argv), **VARIABLES)

    @property
    def options(self) -> dict[str, str]:
        """Engine options."""
        return {"scheduler": self.address, "resource": "slot"}


class DaskTls(Dask):
    """A Dask scheduler on h0 and one worker, "h1", that speak TLS."""

    def __init__(self, network: Network, folder: Path) -> None:
        Services.__init__(self, network, folder)
        self._scheme, self._port = "tls", TLS_PORT
        cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
        words = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        run("openssl", "req", *words, "-subj", "/CN=cosim test", "-keyout", key, "-out", cert)
        self._files = {"ca": cert, "cert": cert, "key": key}
        flags = {"--tls-ca-file": cert, "--tls-cert": cert, "--tls-key": key}
        self._security = [word for pair in flags.items() for word in pair]
        self._start({"h1": "h1"})

    @property
    def options(self) -> dict[str, str]:
        """Engine options: credentials go through Dask."""
        files = {f"tls_{name}": path for name, path in self._files.items()}
        return {"scheduler": self.address, "credentials": "tls", **files}
