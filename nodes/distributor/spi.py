"""Shared peripheral interrupts: state, Security rules, routing, and which redistributor has been sent what.

Pending is a latch (an edge, a write to ISPENDR or SETSPI) or, of a level-sensitive SPI, the level of its wire or of SETSPI and
CLRSPI. An SPI that is enabled, pending and not active is sent to the redistributor of its target, which holds it back while its
group is off. What has been sent and changed is taken back first: until the redistributor's acknowledge it may still be taken.

Masks have bit n for INTID n. Source: IHI 0069 chapters 4 and 12 (GICD_).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nodes.arch.groups import config_of, edges_of, group_of, read_priorities, written_priorities
from nodes.arch.waiters import Waiters

IRM = 1 << 31
AFFINITY = 0xFF_00FF_FFFF


class Sent(NamedTuple):
    """What a redistributor (`target`, ProcessorNumber) was sent."""

    target: int
    priority: int
    group: int


class Spis:
    """State of INTIDs 32 to `limit` - 1.

    `send(target, intid, priority, group)` and `withdraw(target, intid)` go to redistributors; `unroutable(intid)` hears of an
    SPI whose IROUTER names no PE. `participates[n]` has bit g set when PE n takes 1-of-N SPIs of group g.
    """

    def __init__(
        self,
        limit: int,
        affinities: list[int],
        two_states: bool,
        priority_bits: int,
        send: Callable[[int, int, int, int], None],
        withdraw: Callable[[int, int], None],
        unroutable: Callable[[int], None],
    ) -> None:
        self.limit = limit
        self.two_states = two_states
        self._priority_mask = 0xFF << (8 - priority_bits) & 0xFF
        self._send = send
        self._withdraw = withdraw
        self._unroutable = unroutable
        self._targets = {affinity: n for n, affinity in enumerate(affinities)}
        self.participates = [0] * len(affinities)
        self.enabled = self.latch = self.message = self.active = 0
        self.level: dict[int, int] = {}  # INTID -> wires that are high
        self.group = self.modifier = self.edge = 0
        self.priority = bytearray(limit)
        self.router = [0] * limit
        self._ns_access = [0, 0, 0, 0]  # by level of NSACR: SPIs that Non-secure software may reach
        self.sent: dict[int, Sent] = {}
        self.clearing: set[int] = set()
        self._returned = Waiters()

    # -- state -----------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Latches and the levels of level-sensitive SPIs."""
        level = self.message
        for intid, high in self.level.items():
            if high:
                level |= 1 << intid
        return self.latch | level & ~self.edge

    def _is_pending(self, intid: int) -> bool:
        bit = 1 << intid
        if self.latch & bit:
            return True
        return not self.edge & bit and bool(self.message & bit or self.level.get(intid))

    def group_of(self, intid: int) -> int:
        """0, 1 (Non-secure Group 1, or Group 1 with one Security state) or 2 (Secure Group 1)."""
        return group_of(intid, self.group, self.modifier, self.two_states)

    def visible(self, secure: bool) -> int:
        """The SPIs that an access in that Security state may see and change."""
        return -1 if secure or not self.two_states else self.group

    # -- GICD_NSACR: what Non-secure software may do with Secure SPIs -----------------------------------------------------

    def write_nsacr(self, index: int, value: int) -> None:
        """NSACR<index>: two bits per SPI, of 16 * index on."""
        if not self.two_states:
            return  # RAZ/WI with one Security state
        for lane in range(16):
            for level in (1, 2, 3):
                bit = 1 << 16 * index + lane
                granted = (value >> 2 * lane & 3) >= level
                self._ns_access[level] = self._ns_access[level] & ~bit | (bit if granted else 0)

    def read_nsacr(self, index: int) -> int:
        """NSACR<index>."""
        value = 0
        for level in (1, 2, 3):
            granted = self._ns_access[level] >> 16 * index & 0xFFFF
            value += sum(1 << 2 * lane for lane in range(16) if granted >> lane & 1)
        return value

    def accessible(self, secure: bool, level: int) -> int:
        """The SPIs for which that access may set pending (`level` 1), clear pending and see active (2), route (3)."""
        return self.visible(secure) | self._ns_access[level]

    # -- delivery --------------------------------------------------------------------------------------------------------

    def _target(self, intid: int, group: int) -> int | None:
        router = self.router[intid]
        if not router & IRM:
            affinity = router & AFFINITY
            return self._targets.get((affinity >> 32) << 24 | affinity & 0xFFFFFF)
        sent = self.sent.get(intid)
        if sent is not None and self.participates[sent.target] >> group & 1:
            return sent.target
        for n, groups in enumerate(self.participates):  # 1 of N: the first that takes part
            if groups >> group & 1:
                return n
        return None

    def _wanted(self, intid: int) -> Sent | None:
        bit = 1 << intid
        if not self.enabled & bit or self.active & bit or not self._is_pending(intid):
            return None
        group = self.group_of(intid)
        target = self._target(intid, group)
        if target is None:
            if not self.router[intid] & IRM:
                self._unroutable(intid)
            return None
        return Sent(target, self.priority[intid], group)

    def evaluate(self, intid: int) -> None:
        """Bring what the redistributors have in line with the state."""
        if intid in self.clearing:
            return  # again at the acknowledge
        sent = self.sent.get(intid)
        wanted = self._wanted(intid)
        if sent == wanted:
            return
        if sent is not None:
            self.clearing.add(intid)
            self._withdraw(sent.target, intid)
        elif wanted is not None:
            self.sent[intid] = wanted
            self._send(wanted.target, intid, wanted.priority, wanted.group)

    def evaluate_mask(self, mask: int) -> None:
        """`evaluate` every SPI of the mask."""
        mask &= (1 << self.limit) - 1 & ~0xFFFF_FFFF
        while mask:
            bit = mask & -mask
            mask ^= bit
            self.evaluate(bit.bit_length() - 1)

    def activated(self, intid: int) -> bool:
        """A PE acknowledged it; false if nobody had been sent it."""
        if intid not in self.sent:
            return False
        bit = 1 << intid
        self.active |= bit
        self.latch &= ~bit
        if intid not in self.clearing:
            del self.sent[intid]
            self.evaluate(intid)
        return True

    def cleared(self, intid: int) -> None:
        """The redistributor no longer has it."""
        self.clearing.discard(intid)
        self.sent.pop(intid, None)
        self.evaluate(intid)
        self._returned.over(intid)

    def after_clear(self, mask: int, done: Callable[[], None]) -> None:
        """Call `done` when every withdrawal of an SPI of the mask is acknowledged; at once if there is none."""
        self._returned.after((intid for intid in self.clearing if mask >> intid & 1), done)

    # -- events ----------------------------------------------------------------------------------------------------------

    def drive(self, intid: int, level: int) -> None:
        """One of the wires of that SPI changed."""
        self.level[intid] = self.level.get(intid, 0) + (1 if level else -1)
        if level:
            self.latch |= self.edge & 1 << intid
        self.evaluate(intid)

    def message_set(self, intid: int) -> None:
        """SETSPI: an edge, or a level that stays until CLRSPI."""
        bit = 1 << intid
        if self.edge & bit:
            self.latch |= bit
        else:
            self.message |= bit
        self.evaluate(intid)

    def message_clear(self, intid: int) -> None:
        """CLRSPI."""
        bit = 1 << intid
        if self.edge & bit:
            self.latch &= ~bit
        else:
            self.message &= ~bit
        self.evaluate(intid)

    def deactivate(self, intid: int) -> None:
        """No longer active; a level that is still high makes it pending again."""
        self.active &= ~(1 << intid)
        self.evaluate(intid)

    def set_participation(self, n: int, groups: int) -> None:
        """PE n takes 1-of-N SPIs of these groups from now on."""
        self.participates[n] = groups
        for intid in range(32, self.limit):
            if self.router[intid] & IRM and self.enabled >> intid & 1:
                self.evaluate(intid)

    # -- registers with more than a bit per SPI --------------------------------------------------------------------------

    def read_priorities(self, index: int, secure: bool) -> int:
        """IPRIORITYR<index>."""
        shifted = self.two_states and not secure
        return read_priorities(index, self.priority, self.visible(secure), shifted)

    def write_priorities(self, index: int, value: int, lanes: int, secure: bool) -> None:
        """IPRIORITYR<index>; Non-secure software reaches the lower half of the range only."""
        shifted = self.two_states and not secure
        for intid, priority in written_priorities(index, value, lanes, self.visible(secure), shifted):
            self.priority[intid] = priority & self._priority_mask
            self.evaluate(intid)

    def read_config(self, index: int, secure: bool) -> int:
        """ICFGR<index>: bit 2n+1 is 1 for an edge-triggered SPI 16 * index + n."""
        edges = (self.edge & self.visible(secure)) >> 16 * index
        return config_of(edges)

    def write_config(self, index: int, value: int, secure: bool) -> None:
        """ICFGR<index>."""
        bits = edges_of(value) << 16 * index
        may = 0xFFFF << 16 * index & self.visible(secure)
        self.edge = self.edge & ~may | bits & may
        self.evaluate_mask(may)
