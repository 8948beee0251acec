"""A host's hub as a process: ``python -m cosim.run.hosthub_main PARENT_PID``, started by `cosim.run.host_main`.

stdin and stdout are as of `cosim.run.hub_main`. First comes how to join the root (endpoint, name, credential, incarnation). When
the root has welcomed this host, its part of the plan goes to the parent (event ``welcome``), which answers with where the workers
will connect and their journals go. Then `HostHub` serves.
"""

from __future__ import annotations

import os
import platform
import select
import sys
from pathlib import Path
from typing import Any

from cosim.core.codec import VERSION, FrameType, WireError, decode, encode
from cosim.core.plan import Plan
from cosim.link.base import LinkClosed
from cosim.node.death import die_with
from cosim.node.worker import Socket
from cosim.run.hosthub import HostHub
from cosim.run.hostwire import unpack_welcome
from cosim.run.hub_main import command, emit, open_hub, read_item, serve
from cosim.run.limits import room_for

WELCOME_TIMEOUT_MS = 60_000


class NotWelcome(Exception):
    """The root refused this host, or said nothing."""


def open_root(order: dict[str, Any]) -> Any:
    """The link to the root: over ``ipc://`` by the main thread itself, over ``tcp://`` by libzmq with this host's key."""
    endpoint, name = order["endpoint"], order["name"]
    if endpoint.startswith("ipc://"):
        from cosim.link.unix_link import FastWorkerSocket

        return FastWorkerSocket(endpoint, name)
    from cosim.link.keys import parse_credential
    from cosim.link.zmq_link import WorkerSocket

    credential = order["credential"]
    return WorkerSocket(endpoint, name, parse_credential(credential, "--credential") if credential else None)


def join(root: Socket, order: dict[str, Any]) -> dict[str, Any]:
    """HELLO to the root; what its WELCOME holds.

    Raises:
        NotWelcome, LinkClosed, WireError: it was refused, the root is not there or does not speak the protocol.
    """
    options = {"incarnation": order["incarnation"], "machine": platform.node(), "folder": order["folder"]}
    root.send(encode(FrameType.HELLO, VERSION, order["name"], "host", os.getppid(), options))
    data = root.receive(WELCOME_TIMEOUT_MS)
    if data is None:
        raise NotWelcome(
            f"the root hub must welcome {order['name']} within {WELCOME_TIMEOUT_MS // 1000} s, and said nothing; "
            "has another host joined under this name?"
        )
    frame = decode(data)
    if frame.type is FrameType.REFUSED:
        raise NotWelcome(f"the root hub refused {order['name']} ({frame.body[0]}): {frame.body[1]}")
    if frame.type is not FrameType.WELCOME:
        raise WireError(f"the answer to HELLO must be WELCOME or REFUSED, not {frame.type.name}")
    return unpack_welcome(frame.body[1])


def main() -> int:
    """Entry point."""
    die_with(int(sys.argv[1]))
    order = read_item(0)
    try:
        root = open_root(order)
        welcome = join(root, order)
    except (NotWelcome, LinkClosed, WireError, ValueError, OSError) as error:
        emit(["refused", str(error)])
        return 4
    try:
        return _serve(root, order, welcome)
    finally:
        root.close()


def _serve(root: Any, order: dict[str, Any], welcome: dict[str, Any]) -> int:
    emit(["welcome", welcome])
    here = read_item(0)
    plan = Plan.from_dict(welcome["plan"])
    room_for(len(plan.hosts[welcome["host"]].workers))
    link = open_hub(here["endpoint"])
    both = select.epoll()  # the parent and the root in one descriptor: a link watches one
    both.register(0, select.EPOLLIN)
    both.register(root.fileno(), select.EPOLLIN)
    link.watch(both.fileno())

    def commands() -> list[list[Any]]:
        return command() if any(fd == 0 for fd, _events in both.poll(0)) else []

    hub = HostHub(
        plan,
        welcome["host"],
        root,
        link,
        emit,
        journal=Path(here["journal"]),
        commands=commands,
        join_timeout_s=welcome["join_timeout_s"],
        stall_s=welcome["stall_s"],
        tokens=here["tokens"],
        lease_s=order["lease_s"],
    )
    return serve(hub, link)


if __name__ == "__main__":
    sys.exit(main())
