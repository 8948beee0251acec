"""Coroutines in simulated time: order, errors, cancellation, and the small primitives."""

import pytest

from cosim.core.tasks import Future, Lock, Queue, Scheduler, Signal, TaskError


def test_tasks_run_in_the_order_in_which_they_became_ready() -> None:
    """Two tasks that wait for one future continue in the order in which they began to wait."""
    scheduler, order, gate = Scheduler(), [], Future[int]("the gate")

    async def waiter(name: str) -> None:
        order.append(f"{name} waits")
        order.append(f"{name} got {await gate}")

    for name in "ab":
        scheduler.spawn(waiter(name), name)
    scheduler.drain()
    assert scheduler.waits() == [("a", "the gate", False), ("b", "the gate", False)]
    gate.set(7)
    scheduler.drain()
    assert order == ["a waits", "b waits", "a got 7", "b got 7"]
    assert scheduler.waits() == []


def test_a_finished_future_does_not_wait() -> None:
    """Awaiting a future that has its value gives it at once, by await and by wait()."""
    scheduler, seen = Scheduler(), []
    done: Future[str] = Future()
    done.set("x")

    async def body() -> None:
        seen.append((await done, await done.wait()))

    scheduler.spawn(body(), "t")
    scheduler.drain()
    assert seen == [("x", "x")]


def test_a_future_is_set_once() -> None:
    """A second set or fail, and a result that is not there yet, are errors that name the future."""
    future: Future[int] = Future(("completion of {:#x}", 16))
    with pytest.raises(TaskError, match="no result yet .completion of 0x10"):
        future.result()
    future.set(1)
    with pytest.raises(TaskError, match="set once"):
        future.set(2)
    with pytest.raises(TaskError, match="set once"):
        future.fail(ValueError())
    assert Future().describe() == "an event"


def test_an_error_passes_to_whoever_awaits_the_task() -> None:
    """A task's exception is raised in the task that awaits it; without one it surfaces from drain."""
    scheduler, seen, gate = Scheduler(), [], Future[None]()

    async def bad() -> None:
        await gate.wait()
        raise KeyError("x")

    async def parent() -> None:
        try:
            await scheduler.spawn(bad(), "bad")
        except KeyError as error:
            seen.append(str(error))

    scheduler.spawn(parent(), "parent")
    scheduler.drain()
    gate.set(None)
    scheduler.drain()
    assert seen == ["'x'"]

    async def alone() -> None:
        raise KeyError("nobody listens")

    scheduler.spawn(alone(), "alone")
    with pytest.raises(KeyError):
        scheduler.drain()


def test_a_failed_future_raises_in_the_waiter() -> None:
    """`fail` raises the error where the future is awaited."""
    scheduler, seen, gate = Scheduler(), [], Future[None]()

    async def body() -> None:
        try:
            await gate
        except OSError:
            seen.append("failed")

    scheduler.spawn(body(), "t")
    scheduler.drain()
    gate.fail(OSError())
    scheduler.drain()
    assert seen == ["failed"]


def test_cancel_runs_finally_clauses_and_wakes_who_awaits() -> None:
    """A cancelled task runs its finally clause at once, does not run on when its future comes, and counts as finished."""
    scheduler, seen, gate = Scheduler(), [], Future[None]()

    async def body() -> None:
        try:
            await gate
            seen.append("ran on")
        finally:
            seen.append("finally")

    async def parent() -> None:
        await task
        seen.append("parent")

    task = scheduler.spawn(body(), "t")
    scheduler.spawn(parent(), "p")
    scheduler.drain()
    task.cancel()
    task.cancel()
    assert seen == ["finally", "parent"]
    gate.set(None)
    scheduler.drain()
    task.cancel()
    assert seen == ["finally", "parent"]


def test_a_ready_task_that_is_cancelled_does_not_run_on() -> None:
    """When the value comes and the cancel before the task ran, the cancel wins."""
    scheduler, seen, gate = Scheduler(), [], Future[None]()

    async def victim() -> None:
        await gate
        seen.append("ran on")

    async def killer() -> None:
        await gate
        task.cancel()

    scheduler.spawn(killer(), "killer")
    task = scheduler.spawn(victim(), "victim")
    scheduler.drain()
    gate.set(None)
    scheduler.drain()
    assert seen == []
    assert task.finished.done


def test_a_value_that_comes_after_the_cancel_changes_nothing() -> None:
    """A task cancelled and then woken within one event ends once."""
    scheduler, seen, gate, start = Scheduler(), [], Future[None](), Future[None]()

    async def victim() -> None:
        await gate
        seen.append("ran on")

    async def killer() -> None:
        await start
        task.cancel()
        gate.set(None)

    task = scheduler.spawn(victim(), "victim")
    scheduler.spawn(killer(), "killer")
    scheduler.drain()
    start.set(None)
    scheduler.drain()
    assert seen == []
    assert list(scheduler.tasks) == []


def test_a_value_that_comes_after_the_cancel_of_one_of_two_wakes_the_other() -> None:
    """Whoever of two waits first: the one that is gone is not woken."""
    for gone in (0, 1):
        scheduler, gate = Scheduler(), Future[None]()
        seen: list[int] = []

        async def wait(number: int, gate: Future[None] = gate, seen: list[int] = seen) -> None:
            await gate
            seen.append(number)

        tasks = [scheduler.spawn(wait(number), "waiter") for number in (0, 1)]
        scheduler.drain()
        tasks[gone].cancel()
        gate.set(None)
        scheduler.drain()
        assert seen == [1 - gone]


def test_a_foreign_awaitable_is_refused() -> None:
    """Awaiting something that is not simulated time is an error that names task and type."""
    scheduler = Scheduler()

    class Foreign:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield 42

    async def body() -> None:
        await Foreign()

    scheduler.spawn(body(), "reader")
    with pytest.raises(TaskError, match="task 'reader' must await simulated time .* not int"):
        scheduler.drain()


def test_a_future_set_between_suspension_and_registration_is_not_lost() -> None:
    """A future that is done by the time the scheduler sees it makes its task ready again."""
    scheduler, seen = Scheduler(), []

    class Race(Future[int]):
        def __await__(self):  # type: ignore[no-untyped-def]
            self.set(5)
            yield self
            return self.result()

    async def body() -> None:
        seen.append(await Race())

    scheduler.spawn(body(), "t")
    scheduler.drain()
    assert seen == [5]


def test_stop_closes_what_waits() -> None:
    """After stop no task waits, and their finally clauses have run."""
    scheduler, seen = Scheduler(), []

    async def body() -> None:
        try:
            await Future[None]()
        finally:
            seen.append("closed")

    scheduler.spawn(body(), "t", daemon=True)
    scheduler.drain()
    scheduler.stop()
    assert seen == ["closed"]
    assert scheduler.waits() == []


def test_signal_wakes_those_who_wait_now() -> None:
    """notify wakes every present waiter once, and is lost when nobody waits."""
    scheduler, seen, signal = Scheduler(), [], Signal("work")

    async def body(n: int) -> None:
        await signal.wait()
        seen.append(n)

    signal.notify()
    for n in range(2):
        scheduler.spawn(body(n), "t")
    scheduler.drain()
    assert seen == []
    signal.notify()
    scheduler.drain()
    assert seen == [0, 1]


def test_queue_is_first_in_first_out() -> None:
    """get gives items in the order of put and waits for one when there is none."""
    scheduler, seen = Scheduler(), []
    queue: Queue[int] = Queue("items")

    async def body() -> None:
        for _ in range(3):
            seen.append(await queue.get())

    queue.put(1)
    scheduler.spawn(body(), "t")
    scheduler.drain()
    assert len(queue) == 0
    queue.put(2)
    queue.put(3)
    assert len(queue) == 2
    scheduler.drain()
    assert seen == [1, 2, 3]


def test_lock_is_first_come_first_served() -> None:
    """Tasks that wait for a lock get it in the order of asking; it is free after the last."""
    scheduler, seen, lock = Scheduler(), [], Lock("the lock")
    gates = [Future[None]() for _ in range(3)]

    async def body(n: int) -> None:
        async with lock:
            seen.append(n)
            await gates[n]

    for n in range(3):
        scheduler.spawn(body(n), "t")
    scheduler.drain()
    for n in range(3):
        assert seen == list(range(n + 1))
        assert lock.held
        gates[n].set(None)
        scheduler.drain()
    assert not lock.held


def test_a_cancelled_task_does_not_keep_a_lock() -> None:
    """A task that is cancelled while it waits for a lock, or when it has just been given it, leaves it to the next."""
    scheduler, seen, lock, gate = Scheduler(), [], Lock("the lock"), Future[None]()

    async def holder() -> None:
        async with lock:
            await gate
        given.cancel()

    async def body(name: str) -> None:
        async with lock:
            seen.append(name)

    scheduler.spawn(holder(), "holder")
    given = scheduler.spawn(body("given"), "given")
    waits = scheduler.spawn(body("waits"), "waits")
    scheduler.spawn(body("next"), "next")
    scheduler.drain()
    waits.cancel()
    gate.set(None)
    scheduler.drain()
    assert seen == ["next"]
    assert not lock.held


def test_callbacks_come_in_order_and_at_once_when_it_is_done() -> None:
    """when_done calls in the order of asking; on a future that has its value, at once."""
    seen: list[int] = []
    future: Future[int] = Future()
    future.when_done(lambda: seen.append(1))
    future.when_done(lambda: seen.append(2))
    assert future.awaited
    future.set(0)
    future.when_done(lambda: seen.append(3))
    assert seen == [1, 2, 3]
