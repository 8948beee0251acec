"""From draws to steps that software may take.

A draw is a kind and four small numbers. `Author` turns it into a step with the machine's state at hand (ours, which the
oracle's must equal): it fills in what software would know, such as the INTID that was acknowledged, and drops what the
architecture leaves UNPREDICTABLE, for then there is nothing to compare. Each rule says which section it rests on.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.differential.author_cpu import CpuSteps
from tests.differential.author_its import ItsSteps, VpeSteps
from tests.differential.book import SPURIOUS, Draw, View
from tests.differential.layout import LPI_BASE
from tests.differential.steps import Action, Mrs, Step


class Author(CpuSteps, ItsSteps, VpeSteps):
    """Makes steps for one machine; remembers what each CPU acknowledged."""

    def step(self, draw: Draw, view: View) -> Step:
        """The step, or () if it may not be taken now."""
        return tuple(KINDS[draw.kind](self, draw, view))

    def done(self, step: Step, result: int) -> None:
        """Note what a step gave."""
        last = step[-1]
        if isinstance(last, Mrs) and "_IAR" in last.register and not SPURIOUS <= result < LPI_BASE:
            self.acked.setdefault((last.cpu, last.el), []).append((int(last.register[7]), result))


def _nothing(author: Author, draw: Draw, view: View) -> list[Action]:
    return []


KINDS: dict[str, Callable[[Author, Draw, View], list[Action]]] = {
    "nothing": _nothing,
    "acknowledge": Author.acknowledge,
    "end": Author.end,
    "deactivate": Author.deactivate,
    "interface": Author.interface,
    "sgi": Author.sgi,
    "gicd": Author.gicd,
    "gicr": Author.gicr,
    "parts": Author.parts,
    "line": Author.line,
    "active_priorities": Author.active_priorities,
    "enable_lpis": Author.enable_lpis,
    "rewind": Author.rewind,
    "invalidate": Author.invalidate,
    "its_ctlr": Author.its_ctlr,
    "frozen": Author.frozen,
    "hypervisor": Author.hypervisor,
    "list_register": Author.list_register,
    "configure": Author.configure,
    "msi": Author.msi,
    "event_command": Author.event_command,
    "mapd": Author.mapd,
    "mapc": Author.mapc,
    "mapti": Author.mapti,
    "movi": Author.movi,
    "movall": Author.movall,
    "invall": Author.invall,
    "configure_virtual": Author.configure_virtual,
    "vmapp": Author.vmapp,
    "vmapti": Author.vmapti,
    "vmovi": Author.vmovi,
    "vmovp": Author.vmovp,
    "vsync": Author.vsync,
    "schedule": Author.schedule,
}
V4_KINDS = ("configure_virtual", "vmapp", "vmapti", "vmovi", "vmovp", "vsync", "schedule")
_OFTEN = (
    "acknowledge",
    "acknowledge",
    "end",
    "end",
    "end",
    "end",
    "deactivate",
    "deactivate",
    "msi",
    "msi",
    "event_command",
    "gicr",
    "gicd",
    "interface",
    "list_register",
)
_OFTEN_V4 = ("schedule", "schedule", "vmapti", "vmovi")


def kinds(version: str) -> list[str]:
    """Kinds of steps to draw from, with repetitions for what should be frequent; the first does nothing."""
    found = [kind for kind in KINDS if version != "3" or kind not in V4_KINDS]
    return found + list(_OFTEN) + (list(_OFTEN_V4) if version != "3" else [])
