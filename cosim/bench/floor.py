"""The floor: a raw pyzmq PAIR ping-pong of 16 bytes over ipc between two processes with blocking receives.

``python -m cosim.bench.floor ENDPOINT PARENT_PID`` is the process that answers; `Floor` starts it, and measures
as often as asked.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from types import TracebackType

import zmq

from cosim.node.death import die_with

SECONDS = 0.3
"""Length of one measurement."""
_END = b""


class Floor:
    """The other process, and `rate` to measure against it; a context manager."""

    def __enter__(self) -> Floor:
        self._folder = tempfile.TemporaryDirectory(prefix="cosim-floor-")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 20_000)
        endpoint = f"ipc://{self._folder.name}/floor"
        self._socket.bind(endpoint)
        self._child = subprocess.Popen([sys.executable, "-m", "cosim.bench.floor", endpoint, str(os.getpid())])
        self._trips(200)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._socket.send(_END, zmq.NOBLOCK)
            self._child.wait(5)
        except (zmq.ZMQError, subprocess.TimeoutExpired):
            self._child.kill()
            self._child.wait()
        self._socket.close()
        self._context.term()
        self._folder.cleanup()

    def rate(self, seconds: float = SECONDS) -> float:
        """Round trips per second, measured for about `seconds`."""
        trips, start = 0, time.perf_counter()
        while True:
            self._trips(100)
            trips += 100
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return trips / elapsed

    def _trips(self, count: int) -> None:
        send, receive, ball = self._socket.send, self._socket.recv, b"0123456789abcdef"
        for _ in range(count):
            send(ball)
            receive()


def main() -> int:
    """Answer until an empty message comes; die with the parent."""
    die_with(int(sys.argv[2]))
    context = zmq.Context()
    socket = context.socket(zmq.PAIR)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(sys.argv[1])
    try:
        while ball := socket.recv():
            socket.send(ball)
    except KeyboardInterrupt:
        return 1
    finally:
        socket.close()
        context.term()
    return 0


if __name__ == "__main__":
    sys.exit(main())
