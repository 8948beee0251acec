"""Several hosts in one machine: network namespaces on a switch that reaches nothing else.

Without delay and loss the switch is a Linux bridge with one veth pair per host. With them it is `tests.hosts.relay`, a
program that forwards between TAP devices: not every kernel has netem.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
"""Program -> Debian package."""
CUT = """\
add table inet cosim
add chain inet cosim in { type filter hook input priority 0; policy drop; }
add chain inet cosim out { type filter hook output priority 0; policy drop; }
"""


def missing() -> list[str]:
    """What these namespaces need and this machine does not have."""
    lacking = [f"{name} (Debian package {package})" for name, package in PROGRAMS.items() if not shutil.which(name)]
    if os.geteuid() != 0:
        lacking.append("root")
    if not os.path.exists("/dev/net/tun"):
        lacking.append("/dev/net/tun")
    return lacking


def run(*words: str, text: str = "") -> str:
    """Run a program of the system to its end; its output."""
    done = subprocess.run(words, input=text, text=True, capture_output=True, timeout=20)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done.stdout


class Network:
    """Hosts "h0", "h1", ... with the addresses 10.77.0.10, .11, ...; made at once, removed by `close`."""

    def __init__(self, tag: str, hosts: int, *, delay_ms: float = 0, loss: float = 0, seed: int = 1) -> None:
        """Make the namespaces.

        Args:
            tag: part of their names, up to six letters; another for each network that exists at once.
            hosts: how many.
            delay_ms: of each packet, one way.
            loss: share of packets that get lost, one way.
            seed: of the losses.
        """
        self._tag = f"{tag}{os.getpid() % 10000}"
        self._relay: subprocess.Popen[bytes] | None = None
        self.hosts = [f"h{i}" for i in range(hosts)]
        try:
            for host in self.hosts:
                run("ip", "netns", "add", self.namespace(host))
            if delay_ms or loss:
                self._start_relay(delay_ms, loss, seed)
            else:
                self._start_bridge()
            for host in self.hosts:
                inside = ("ip", "-n", self.namespace(host))
                run(*inside, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
                run(*inside, "link", "set", "eth0", "up")
                run(*inside, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def namespace(self, host: str) -> str:
        """Name of a host's namespace, as ip-netns(8) has it."""
        return f"cs{self._tag}{host}"

    def address(self, host: str) -> str:
        """A host's address."""
        return f"10.77.0.{10 + self.hosts.index(host)}"

    def inside(self, host: str, *words: str, hostname: str = "") -> list[str]:
        """argv of a command on a host.

        nsenter, not ``ip netns exec``, which hides /sys/fs/cgroup from Slurm. With `hostname`, in a UTS namespace too.
        """
        argv = ["nsenter", f"--net=/run/netns/{self.namespace(host)}"]
        if hostname:
            argv += ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', hostname]
        return [*argv, *words]

    def cut(self, host: str) -> None:
        """Drop every packet that a host sends or gets from now on; its connections hear nothing of it."""
        run(*self.inside(host, "nft", "-f", "-"), text=CUT)

    def heal(self, host: str) -> None:
        """Undo `cut`."""
        run(*self.inside(host, "nft", "delete", "table", "inet", "cosim"))

    def close(self) -> None:
        """Remove everything; what still runs inside keeps running, without a network."""
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
            self._relay = None
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", self.namespace(host)], capture_output=True, timeout=20)
        subprocess.run(["ip", "link", "del", f"br{self._tag}"], capture_output=True, timeout=20)

    def _start_bridge(self) -> None:
        bridge = f"br{self._tag}"
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "link", "set", bridge, "up")
        for host in self.hosts:
            outside = f"v{self._tag}{host}"
            run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", self.namespace(host))
            run("ip", "link", "set", outside, "master", bridge, "up")

    def _start_relay(self, delay_ms: float, loss: float, seed: int) -> None:
        paths = [f"/run/netns/{self.namespace(host)}" for host in self.hosts]
        relay = str(Path(__file__).with_name("relay.py"))
        argv = [sys.executable, relay, str(delay_ms), str(loss), str(seed), *paths]
        self._relay = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self._relay.stdout is not None
        with self._relay.stdout as ready:
            assert ready.readline() == b"ready\n", "the relay must say that it is ready"
