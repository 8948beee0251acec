"""Stands for a host hub where only the engine is under test: reads its credential to the end, says what it is, lives.

``standin.py NAME FOLDER --credential - [--exit STATUS]``: writes FOLDER/NAME.alive with the pid, the digest of the credential
and the addresses of this host; sleeps, or ends with a status. It takes no notice of anything but signals.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    """The program."""
    name, folder, source = arguments[0], Path(arguments[1]), arguments[arguments.index("--credential") + 1]
    credential = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    if source != "-" and Path(source).stat().st_mode & 0o077:
        raise SystemExit(f"{source} must be readable by its owner alone")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.77.0.10", 9))  # sends nothing; says which address this host has
        address = probe.getsockname()[0]
    facts = {"pid": os.getpid(), "credential": hashlib.sha256(credential).hexdigest(), "address": address}
    partial = folder / f"{name}.partial"
    partial.write_text(json.dumps(facts))
    partial.rename(folder / f"{name}.alive")
    sys.stderr.write(f"{name} lives\n")
    sys.stderr.flush()
    if "--exit" in arguments:
        return int(arguments[arguments.index("--exit") + 1])
    while True:
        time.sleep(60)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
