"""A memory that is right in all but one thing: ``python bad_memory.py FAULT``. Run by cosim in the tests of bad nodes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cosim.attach import client
from cosim.attach.client import AttachClient, Message
from cosim.core.codec import FrameType, encode
from cosim.link.base import LinkClosed
from cosim.link.unix_link import FastWorkerSocket

PORTS = {"bus": "mmio_target"}


def act(fault: str, node: AttachClient, message: Message) -> None:
    """Do what is wrong, at the third access."""
    if fault == "dies":
        os._exit(7)
    elif fault == "stalls":
        time.sleep(600)
    elif fault == "slow":
        time.sleep(2.5)
    elif fault == "spins":
        while True:
            pass
    elif fault == "garbage":
        node._send(b"\x00\x01garbage")
    elif fault == "past":
        node._begun = 0
        node.reply(message, at=1)
    elif fault == "twice":
        second = FastWorkerSocket(os.environ["COSIM_ENDPOINT"], node.name)
        with suppress(LinkClosed):
            second.receive(60_000)
        time.sleep(600)
    elif fault == "hello-again":
        node._send(encode(FrameType.HELLO, (1, 0), node.name, "python", 0, node._options))
    elif fault == "raises":
        raise RuntimeError("the third access is bad luck")
    elif fault == "bye":
        node._send(encode(FrameType.BYE, "enough", None))
    elif fault == "leaves":
        os._exit(0)
    elif fault == "daemon":
        daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
        (Path(os.environ["COSIM_RUN_DIR"]) / "daemon.pid").write_text(f"{daemon.pid}\n")


def serve(fault: str, **options: Any) -> int:
    """A memory of words."""
    words: dict[int, int] = {}
    count = 0
    with AttachClient.from_env(ports=options.pop("ports", PORTS), **options) as node:
        for grant in node:
            for message in grant:
                count += 1
                if count == 3:
                    act(fault, node, message)
                if message.kind == "mmio.Read":
                    node.reply(message, data=words.get(message.addr, 0))
                else:
                    words[message.addr] = message.data
                    node.reply(message)
    return 0


def main(fault: str) -> int:
    """Some faults show in HELLO, the others later."""
    options: dict[str, Any] = {}
    if fault == "name":
        os.environ["COSIM_NAME"] = "somebody"
    elif fault == "slow-name":
        os.environ["COSIM_NAME"] = "somebody"
        try:
            return serve(fault)
        except client.AttachError as error:
            time.sleep(0.7)
            sys.exit(str(error))
    elif fault == "token":
        path = Path(os.environ["COSIM_RUN_DIR"]) / "other.token"
        path.write_text("00112233445566778899aabbccddeeff\n")
        os.environ["COSIM_TOKEN_FILE"] = str(path)
    elif fault == "version":
        client.__dict__["VERSION"] = (2, 0)
    elif fault == "ports":
        options["ports"] = {"bus": "mmio_initiator"}
    elif fault == "quantum":
        options["quantum_ps"] = 7
    elif fault == "options":
        options["quantum_ps"] = -1
    elif fault == "silent":
        time.sleep(600)
    elif fault == "no-ready":
        with AttachClient.from_env(ports=PORTS):
            time.sleep(600)
    return serve(fault, **options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
