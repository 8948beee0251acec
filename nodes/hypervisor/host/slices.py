"""The host scheduler's timer on one PE: the EL2 physical timer (CNTHP, PPI 26) ends time slices.

It runs only while somebody waits for the PE, or something is due there: a lone thread has no tick. Times are ps; CNTHP_CVAL_EL2
is in ticks of CNTPCT_EL0.

Source: Arm ARM D12.2, CNTHP_CTL_EL2; Linux kernel/sched (a slice, wake-up preemption, no tick for a lone task; behaviour).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cosim.api import Instant
    from nodes.hypervisor.host.cpu import HostCpu

CTL_ENABLE: Final = 1
PS_PER_SECOND: Final = 10**12
DEFAULT_FREQUENCY: Final = 1_000_000_000


class SliceTimer:
    """CNTHP of `cpu`. `alarms`: when threads that sleep want to be woken on this PE, by name; the host's other timers."""

    def __init__(self, cpu: HostCpu) -> None:
        self.cpu = cpu
        self.alarms: dict[str, Instant] = {}
        self.end: Instant | None = None
        self._armed: int | None = None
        self._frequency: int = cpu.node.params.get("cntfrq", DEFAULT_FREQUENCY)

    def start(self, end: Instant | None, due: Instant | None = None) -> None:
        """A guest is about to be entered: its thread's slice ends at `end` (None: nobody waits); `due` is when the thread wants
        to look up itself. What is set already is not set again."""
        self.end = end
        times = [time for time in (end, due, *self.alarms.values()) if time is not None]
        if not times:
            self.cancel()
            return
        cval = -(-min(times) * self._frequency // PS_PER_SECOND)
        if cval == self._armed:
            return
        self.cpu.post_sysreg("CNTHP_CVAL_EL2", cval)
        self.cpu.post_sysreg("CNTHP_CTL_EL2", CTL_ENABLE)
        self._armed = cval

    def cancel(self) -> None:
        """The thread stops running before that."""
        if self._armed is not None:
            self._armed = None
            self.cpu.post_sysreg("CNTHP_CTL_EL2", 0)

    async def expired(self) -> None:
        """PPI 26 was taken: the timer goes off; if the slice is over, whoever waits gets the PE."""
        self.cpu.node.count["slice_irqs"] += 1
        self._armed = None
        await self.cpu.write_sysreg("CNTHP_CTL_EL2", 0)
        if self.end is not None and self.cpu.node.now >= self.end:
            self.cpu.need_resched = True
