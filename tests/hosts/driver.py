"""Uses an engine from inside a host's namespace: ``python -m tests.hosts.driver`` with an order (JSON) as its argument.

The order: ``engine``, ``folder``, ``options`` {name: text}, ``slots`` [[name, host, command, credential]]. It prints a JSON
line for each thing that happens ("started", "exit", "error", "stopped"), polls until all slots have ended or its stdin
ends, then stops the engine.
"""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path
from typing import Any

import anyio

from cosim.engines.base import Slot
from cosim.engines.registry import make_engine
from cosim.errors import CosimError


def say(kind: str, **fields: Any) -> None:
    """One line for the test."""
    os.write(1, json.dumps({"kind": kind, **fields}).encode() + b"\n")


async def drive(order: dict[str, Any]) -> None:
    """Start, poll, stop."""
    slots = [
        Slot(name, host, tuple(command), credential.encode()) for name, host, command, credential in order["slots"]
    ]
    engine = make_engine(order["engine"], Path(order["folder"]), order["options"])
    left = {slot.name for slot in slots}
    try:
        await engine.start(slots)
        say("started", pid=os.getpid())
        while left and not select.select([0], [], [], 0)[0]:
            for one in await engine.poll():
                left.discard(one.name)
                say("exit", name=one.name, status=one.status, text=one.text, log=engine.logs(one.name))
            await anyio.sleep(0.05)
    except CosimError as error:
        say("error", code=error.code, what=error.what, exit_code=error.exit_code)
    finally:
        await engine.stop()
    say("stopped", logs={slot.name: engine.logs(slot.name) for slot in slots})


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    anyio.run(drive, given, backend=given.get("backend", "asyncio"))
