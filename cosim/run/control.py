"""The control socket of a run: how `cosim ps`, `why` and `down` reach it. One JSON object a line, request and answer.

The socket lies in the run's 0700 socket directory; run.json tells where.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from cosim.errors import UsageError

MAX_REQUEST = 65_536
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve(
    path: Path, answer: Answer, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests on the Unix socket `path` until cancelled."""

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            data = b""
            try:
                while b"\n" not in data and len(data) < MAX_REQUEST:
                    data += await stream.receive()
                request = json.loads(data)
                reply = await answer(request if isinstance(request, dict) else {})
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return
            except ValueError as error:
                reply = {"error": f"request must be one JSON object: {error}"}
            try:
                await stream.send(json.dumps(reply).encode() + b"\n")
            except anyio.BrokenResourceError:
                return

    listener = await anyio.create_unix_listener(path, mode=0o600)
    async with listener:
        task_status.started()
        await listener.serve(handle)


def ask(run: Path, request: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any] | None:
    """Ask the run in directory `run`; None when it is not running any more.

    Raises:
        UsageError: the directory holds no run, or the run does not answer in time.
    """
    try:
        info = json.loads((run / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{run} must be a run directory with a run.json: {error}", code="no-run") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(info["control"])
            connection.sendall(json.dumps(request).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                part = connection.recv(1 << 16)
                if not part:
                    break
                data += part
        except TimeoutError:
            raise UsageError(
                f"run {run} must answer within {timeout_s:.0f} s, and did not; its supervisor is pid {info.get('pid')}",
                code="no-answer",
                next_step="if that process is stopped, continue it (kill -CONT); else end it with `cosim down`",
            ) from None
        except OSError:
            return None
    return json.loads(data) if data else None
