"""What has begun and not yet taken effect: memory reads, withdrawals, transfers. SYNC and VSYNC wait for it.

An acknowledge says that everything received before has taken effect. So each slow step takes a token when it begins and
gives it back when it is done; whoever must wait names the tokens that are open *now*, and later ones do not delay it.
"""

from __future__ import annotations

from collections.abc import Callable

from nodes.arch.waiters import Waiters

Done = Callable[[], None]


class Effects:
    """Open tokens of one node and those who wait for them."""

    __slots__ = ("_next", "_open", "_waiting")

    def __init__(self) -> None:
        self._open: dict[int, None] = {}
        self._next = 0
        self._waiting = Waiters()

    def begin(self) -> int:
        """A token for a step that takes time."""
        self._next += 1
        self._open[self._next] = None
        return self._next

    def end(self, token: int) -> None:
        """The step is done; runs whoever waited for it last, in the order in which they began to wait.

        Raises:
            KeyError: the token was given back before.
        """
        del self._open[token]
        self._waiting.over(token)

    def after(self, done: Done) -> None:
        """Call `done` when everything that is open now has ended; at once when nothing is."""
        self._waiting.after(self._open, done)

    @property
    def idle(self) -> bool:
        """Whether nothing is open."""
        return not self._open
