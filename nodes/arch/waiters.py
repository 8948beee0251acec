"""Steps that wait until others, known by numbers, are over: withdrawn interrupts, open tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Waiters:
    """Callbacks, each with the numbers for which it still waits."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[set[int], Callable[[], None]]] = []

    def after(self, numbers: Iterable[int], done: Callable[[], None]) -> None:
        """Call `done` when all of the numbers are over; at once if there are none."""
        waiting = set(numbers)
        if waiting:
            self._waiting.append((waiting, done))
        else:
            done()

    def over(self, number: int) -> None:
        """That number is over; calls whoever waited for it last, in the order in which they began to wait."""
        if not self._waiting:
            return
        free = []
        for entry in self._waiting:
            entry[0].discard(number)
            if not entry[0]:
                free.append(entry)
        for entry in free:
            self._waiting.remove(entry)
        for _, done in free:
            done()
