"""A foreign node in Python: a memory of bytes, as the part `memory` of a machine. Run by cosim; see docs/attach.md."""

from __future__ import annotations

import sys

from cosim.attach.client import AttachClient, Message

PAGE = 4096


class Memory:
    """Sparse bytes, zero at reset."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`."""
        return bytes(self.pages.get(a // PAGE, bytes(PAGE))[a % PAGE] for a in range(address, address + size))

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        for offset, byte in enumerate(data):
            page = self.pages.setdefault((address + offset) // PAGE, bytearray(PAGE))
            page[(address + offset) % PAGE] = byte


def serve(node: AttachClient, memory: Memory, message: Message) -> None:
    """Carry out one access and complete it."""
    if message.kind == "mmio.Read":
        data = memory.read(message.addr, message.size)
        node.count["reads"] += 1
        node.reply(message, data=int.from_bytes(data, "little") if message.size in (1, 2, 4, 8) else data)
    else:
        value = message.data
        memory.write(message.addr, value.to_bytes(message.size, "little") if isinstance(value, int) else value)
        node.count["writes"] += 1
        node.reply(message)


def main() -> int:
    """Serve until the run is over."""
    memory = Memory()
    with AttachClient.from_env(ports={"bus": "mmio_target"}, model={"memory": "1"}) as node:
        for grant in node:
            for message in grant:
                serve(node, memory, message)
            node.done()
    return 0


if __name__ == "__main__":
    sys.exit(main())
