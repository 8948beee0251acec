"""The run digest: what each node consumed, in key order, and nothing else.

A node's digest is blake2b over the canonical msgpack of (key, kind, fields) of each message that it consumed. The run digest
is blake2b over the sorted (name, count, digest) of all nodes: it depends on neither placement nor grant schedule, machine
nor load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

try:
    from _blake2 import blake2b as blake2b  # the same, without the OpenSSL that hashlib loads into every worker
except ImportError:  # pragma: no cover  (another Python than CPython)
    from hashlib import blake2b as blake2b


_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


class NodeDigest:
    """Running digest of one node's input sequence: of each message `update(pack((arrival, priority, src, seq, kind, fields)))`,
    and one more in `count`. `add` does that; the kernel does it without the call."""

    __slots__ = ("_hash", "count", "pack", "update")

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=32)
        self.update: Callable[[Any], None] = self._hash.update
        self.pack: Callable[[Any], Any] = _pack
        self.count = 0

    def add(self, arrival: int, priority: int, src: int, seq: int, kind: int, fields: tuple[Any, ...]) -> None:
        """Account for one consumed message; calls come in key order."""
        self.update(self.pack((arrival, priority, src, seq, kind, fields)))
        self.count += 1

    def result(self) -> tuple[int, bytes]:
        """(number of messages, 32-byte digest) so far."""
        return self.count, self._hash.digest()


def run_digest(nodes: Mapping[str, tuple[int, bytes]]) -> str:
    """Hex digest of a run from each node's (count, digest), by node name."""
    total = blake2b(digest_size=32)
    for name in sorted(nodes):
        count, digest = nodes[name]
        total.update(msgpack.packb((name, count, digest), use_bin_type=True))
    return total.hexdigest()
