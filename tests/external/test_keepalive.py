"""Over TCP, a foreign node whose hub's machine has ended without a word must notice: its kernel asks the other one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cosim.link.keys import RunKeys, write_credential
from tests.external.nodes import EXAMPLES, build
from tests.support.runs import ROOT, environment

KEEPALIVE = "02"
"""Kind of the timer in /proc/net/tcp (Linux, Documentation/networking/proc_net_tcp.rst)."""
ESTABLISHED = "01"


def timers(port: int) -> list[str]:
    """Kinds of the timers of connections to a local port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [r[5].partition(":")[0] for r in rows if r[2].endswith(f":{port:04X}") and r[3] == ESTABLISHED]


@pytest.mark.parametrize("language", ["python", "c"])
def test_a_silent_hub_is_asked_whether_it_lives(tmp_path: Path, language: str) -> None:
    """The connection of a node has the kernel's keepalive timer, in Python and in C."""
    program = [sys.executable, str(EXAMPLES / "python_node" / "memory.py")]
    if language == "c":
        program = [str(build(EXAMPLES / "c_node" / "memory.c", tmp_path / "memory"))]
    keys = RunKeys.generate(["memory"])
    write_credential(tmp_path / "memory.credential", keys.credential("memory"))
    (tmp_path / "token").write_text("0" * 32)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        variables = {
            "COSIM_ENDPOINT": f"tcp://127.0.0.1:{port}",
            "COSIM_NAME": "memory",
            "COSIM_TOKEN_FILE": str(tmp_path / "token"),
            "COSIM_CREDENTIAL": str(tmp_path / "memory.credential"),
        }
        node = subprocess.Popen(program, cwd=ROOT, env={**environment(), **variables}, stderr=subprocess.DEVNULL)
        try:
            listener.settimeout(20)
            connection, _ = listener.accept()
            deadline = time.monotonic() + 10
            while KEEPALIVE not in timers(port) and time.monotonic() < deadline:
                time.sleep(0.05)  # the greeting's own retransmission timer comes first
            assert timers(port) == [KEEPALIVE]
            connection.close()
        finally:
            node.kill()
            node.wait()
