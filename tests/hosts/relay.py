"""A switch between network namespaces that delays and loses packets: ``relay.py DELAY_MS LOSS SEED NAMESPACE-FILE...``.

It makes a TAP device "eth0" in each namespace, prints "ready" and forwards Ethernet frames between them as a learning switch
does, each after DELAY_MS, or not at all with probability LOSS. It dies with its parent. Needs root, and nothing but the
standard library and /dev/net/tun.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
FRAME = 1 << 16
WAITING = 10_000
"""Frames under way; a real queue would drop what comes beyond, too."""


def tap(libc: ctypes.CDLL, namespace: str) -> int:
    """A TAP device "eth0" inside a namespace; its descriptor works from anywhere."""
    with open(namespace) as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TAP | IFF_NO_PI))
    return fd


class Switch:
    """Frames under way between ports, and which port an Ethernet address was last seen at."""

    def __init__(self, ports: list[int], delay_s: float, loss: float, seed: int) -> None:
        self._ports = ports
        self._delay_s = delay_s
        self._loss = loss
        self._random = random.Random(seed)
        self._at: dict[bytes, int] = {}
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def take(self, port: int, frame: bytes, now: float) -> None:
        """A frame came in."""
        self._at[frame[6:12]] = port
        to = self._at.get(frame[:6])
        for out in self._ports if to is None else [to]:
            if out != port and self._random.random() >= self._loss and len(self._under_way) < WAITING:
                self._count += 1
                heapq.heappush(self._under_way, (now + self._delay_s, self._count, out, frame))

    def deliver(self, now: float) -> float | None:
        """Send what is due; seconds until the next is, None if nothing is under way."""
        while self._under_way and self._under_way[0][0] <= now:
            _, _, out, frame = heapq.heappop(self._under_way)
            try:
                os.write(out, frame)
            except OSError:
                pass  # that end is down, or its queue is full: a lost packet
        return self._under_way[0][0] - now if self._under_way else None


def main(delay_ms: float, loss: float, seed: int, namespaces: list[str]) -> None:
    """Make the devices and forward for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    ports = [tap(libc, namespace) for namespace in namespaces]
    switch = Switch(ports, delay_ms / 1000, loss, seed)
    poll = select.poll()
    for port in ports:
        poll.register(port, select.POLLIN)
    os.write(1, b"ready\n")
    os.close(1)
    while True:
        left = switch.deliver(time.monotonic())
        for port, _ in poll.poll(None if left is None else left * 1000):
            try:
                frame = os.read(port, FRAME)
            except OSError:
                continue
            switch.take(port, frame, time.monotonic())


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
