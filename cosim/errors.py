"""Errors that cosim raises, sorted by who must act, each with an exit code and a next step.

Every error says three things: what was expected and found, where, and what to do next. Each class
maps to one exit code of the command line (the first cause decides):

========================  ====  =====================================================
class                     exit  who acts
========================  ====  =====================================================
``TopologyError``         2     you, in the topology file
``UsageError``            2     you, on the command line or in the call
``NodeError``             3     the author of that model: it raised or broke a rule
``DeadlockError``         3     the author of the machine: nodes wait for each other
``PeerError``             4     the other end: a process or foreign node was lost
``InternalError``         5     cosim itself
``Interrupted``           130+  nobody: SIGINT (130), SIGTERM or ``cosim down`` (143)
========================  ====  =====================================================

Standard library only, and nothing from it at import time but ``typing``: workers load this module.
"""

from typing import ClassVar, TypedDict


class ErrorEntry(TypedDict):
    """One entry of ``errors[]`` in result.json."""

    code: str
    what: str
    where: str
    node: str | None
    sim_time_ps: int | None
    next_step: str


class CosimError(Exception):
    """Base of all errors that cosim reports to its user.

    what: what was expected and what was found ("X must be <constraint>, not <repr>").
    code: short stable string that scripts may compare, such as "node-raised" or "worker-lost";
        the class has a default.
    where: file:line:col, port, register or process, as text; "" if there is no place.
    node: name of the node concerned, or None.
    sim_time_ps: that node's simulated time in picoseconds, or None.
    next_step: what the reader should do now; "" if nothing can be done.
    """

    default_code: ClassVar[str] = "cosim"
    default_exit_code: ClassVar[int] = 5

    def __init__(
        self,
        what: str,
        *,
        code: str = "",
        where: str = "",
        node: str | None = None,
        sim_time_ps: int | None = None,
        next_step: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.code = code or self.default_code
        self.where = where
        self.node = node
        self.sim_time_ps = sim_time_ps
        self.next_step = next_step

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends because of this error."""
        return self.default_exit_code

    def __str__(self) -> str:
        """Up to three lines: where and what; node and simulated time; what to do next."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        place = [f"node {self.node}"] if self.node is not None else []
        if self.sim_time_ps is not None:
            place.append(f"simulated time {self.sim_time_ps:,} ps")
        if place:
            lines.append(f"  at: {', '.join(place)}")
        if self.next_step:
            lines.append(f"  next: {self.next_step}")
        return "\n".join(lines)

    def as_dict(self) -> ErrorEntry:
        """The entry of ``errors[]`` in result.json."""
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "node": self.node,
            "sim_time_ps": self.sim_time_ps,
            "next_step": self.next_step,
        }


class TopologyError(CosimError):
    """The topology file is wrong. ``where`` is file:line:col."""

    default_code = "topology"
    default_exit_code = 2


class UsageError(CosimError):
    """A command, option or argument is wrong."""

    default_code = "usage"
    default_exit_code = 2


class NodeError(CosimError):
    """A Python model raised, or broke a rule of the time kernel."""

    default_code = "node-raised"
    default_exit_code = 3


class DeadlockError(CosimError):
    """No node has an event, and the tests are not over. ``what`` says who waits for whom."""

    default_code = "deadlock"
    default_exit_code = 3


class PeerError(CosimError):
    """A process or a foreign node was lost, refused, stalled, or broke the protocol."""

    default_code = "worker-lost"
    default_exit_code = 4


class InternalError(CosimError):
    """cosim itself is at fault."""

    default_code = "internal"
    default_exit_code = 5


class Interrupted(CosimError):
    """The run was stopped by a signal: SIGINT (2), or SIGTERM (15) as sent by ``cosim down``."""

    default_code = "interrupted"

    def __init__(
        self,
        what: str = "",
        *,
        signum: int = 2,
        code: str = "",
        where: str = "",
        node: str | None = None,
        sim_time_ps: int | None = None,
        next_step: str = "",
    ) -> None:
        if signum not in (2, 15):
            raise ValueError(f"signum must be 2 (SIGINT) or 15 (SIGTERM), not {signum!r}")
        super().__init__(
            what or f"interrupted by {'SIGINT' if signum == 2 else 'SIGTERM'}",
            code=code,
            where=where,
            node=node,
            sim_time_ps=sim_time_ps,
            next_step=next_step,
        )
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM, as shells report them."""
        return 128 + self.signum
