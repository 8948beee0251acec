"""What a worker does with a node that never lets time pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cosim.core.kernel import Kernel, ModelFault
from cosim.core.tasks import Queue, Scheduler
from cosim.core.time import NEVER


class Bare:
    """The least that the kernel accepts as a node; its tasks are run by a real scheduler."""

    id, name, now, reaction, promising = 0, "looper", 0, 0, False

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.ready = self.scheduler.ready

    def receiver(self, link: int, kind: int) -> Callable[..., Any]:
        """There are no links."""
        raise AssertionError(link, kind)

    def accept(self, result: Any) -> None:
        """There are no handlers."""

    def settle(self) -> int:
        """Run ready tasks."""
        return self.scheduler.drain()

    def promise(self) -> int | None:
        """No promise."""
        return None


def loop_by_tasks(kernel: Kernel, node: Bare) -> None:
    """Two tasks that wake each other for ever within one event."""
    there: Queue[int] = Queue()
    back: Queue[int] = Queue()

    async def ping() -> None:
        while True:
            there.put(1)
            await back.get()

    async def pong() -> None:
        while True:
            back.put(await there.get())

    def start() -> None:
        node.scheduler.spawn(ping(), "ping")
        node.scheduler.spawn(pong(), "pong")

    kernel.at(0, 7, start)


def loop_by_timers(kernel: Kernel, node: Bare) -> None:
    """A timer that sets itself again for the same instant."""

    def fire() -> None:
        kernel.at(0, node.now, fire)

    kernel.at(0, 7, fire)


@pytest.mark.parametrize("loop", [loop_by_tasks, loop_by_timers])
def test_loop_without_simulated_time_is_an_error(loop: Callable[[Kernel, Bare], None]) -> None:
    """A node that takes more than 100,000 steps at one instant is stopped, by name and time; the worker never hangs."""
    node = Bare()
    kernel = Kernel(0, [node], {}, {}, {})
    loop(kernel, node)
    with pytest.raises(ModelFault, match="more than 100,000 steps at one instant") as caught:
        while kernel.grant(NEVER).next_event < NEVER:
            pass
    assert (caught.value.node, caught.value.sim_time_ps, caught.value.rule) == ("looper", 7, "zero-time-loop")
    node.scheduler.stop()
