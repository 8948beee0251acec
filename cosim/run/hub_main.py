"""The hub as a process: ``python -m cosim.run.hub_main PARENT_PID`` with its order on stdin.

stdin and stdout carry length-prefixed msgpack (u32 little-endian, body): first the order (endpoint, plan, journal folder,
limits), then commands in and events out; see `cosim.run.hub`. The end of stdin means that the supervisor is gone.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from cosim.core.plan import Plan
from cosim.node.death import die_with
from cosim.run.hub import Hub
from cosim.run.limits import room_for

_LENGTH = struct.Struct("<I")


def read_exactly(fd: int, size: int) -> bytes:
    """`size` bytes; EOFError at the end of the stream."""
    parts = []
    while size:
        part = os.read(fd, size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_item(fd: int) -> Any:
    """The next item of a length-prefixed msgpack stream."""
    (size,) = _LENGTH.unpack(read_exactly(fd, _LENGTH.size))
    return msgpack.unpackb(read_exactly(fd, size), strict_map_key=False)


def pack_item(item: Any) -> bytes:
    """An item of a length-prefixed msgpack stream."""
    body: bytes = msgpack.packb(item, use_bin_type=True)
    return _LENGTH.pack(len(body)) + body


def open_hub(endpoint: str, keys: dict[str, Any] | None = None) -> Any:
    """The hub's socket: ``ipc://`` is spoken by the main thread itself, ``zmq+ipc://`` and ``tcp://`` by libzmq; the latter
    needs the run's keys (`cosim.link.keys.RunKeys.for_hub`)."""
    if endpoint.startswith("ipc://"):
        from cosim.link.unix_link import FastHubSocket

        return FastHubSocket(endpoint)
    from cosim.link.keys import RunKeys
    from cosim.link.zmq_link import HubSocket

    return HubSocket(endpoint.removeprefix("zmq+"), None if keys is None else RunKeys.from_order(keys))


def emit(event: list[Any]) -> None:
    """Tell the parent."""
    data = memoryview(pack_item(event))
    while data:
        data = data[os.write(1, data) :]


def command() -> list[list[Any]]:
    """The next command of the parent; its end is that of this process."""
    try:
        return [read_item(0)]
    except EOFError:
        os._exit(4)


def serve(hub: Hub, link: Any) -> int:
    """Run a hub to its end and close its link; the exit status."""
    try:
        hub.run()
    except KeyboardInterrupt:
        return 130
    finally:
        link.close()
    return 0


def main() -> int:
    """Entry point of the hub process."""
    die_with(int(sys.argv[1]))
    order = read_item(0)
    room_for(len(order["plan"]["groups"]))
    try:
        socket = open_hub(order["endpoint"], order["keys"])
    except OSError as error:
        emit(["unbound", error.strerror or str(error)])
        return 2
    socket.watch(0)

    if order["root"] is None:
        make: Callable[..., Hub] = Hub
    else:
        from cosim.run.roothub import RootHub

        make = partial(RootHub, **order["root"])
    hub = make(
        Plan.from_dict(order["plan"]),
        socket,
        emit,
        journal=Path(order["journal"]) if order["journal"] else None,
        commands=command,
        join_timeout_s=order["join_timeout_s"],
        stall_s=order["stall_s"],
        tokens=order["tokens"],
    )
    emit(["bound", getattr(socket, "endpoint", order["endpoint"])])
    return serve(hub, socket)


if __name__ == "__main__":
    sys.exit(main())
