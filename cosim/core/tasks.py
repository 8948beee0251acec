"""Deterministic coroutines: `await` means simulated time.

A node's tasks are run by its `Scheduler`, in the order in which they became ready, within the event that woke them. There is
no event loop, no thread and no clock: a task that waits for a `Future` continues when the node sets that future while it
handles a message or a timer.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MAX_STEPS_AT_ONE_INSTANT = 100_000
"""A node that takes more steps without simulated time is taken to be in a loop."""

Label = str | tuple[Any, ...] | None
"""What a future waits for: a text, or a format tuple (text, *args) that is only put together when somebody asks."""


class TaskError(Exception):
    """A coroutine awaited something that is not simulated time (for example an asyncio future)."""


class Cancelled(BaseException):
    """Thrown into a task by `Task.cancel`."""


@types.coroutine
def _suspend(future: Future[T]) -> Generator[Future[T], None, None]:
    yield future


class Future(Generic[T]):
    """A value that arrives later in simulated time; any number of tasks may await it."""

    __slots__ = ("_error", "_first", "_value", "callbacks", "done", "label")

    def __init__(self, label: Label = None) -> None:
        self.done = False
        self.label = label
        self._value: T | None = None
        self._error: BaseException | None = None
        self._first: Task | None = None  # the usual case: one task waits, and nothing else
        self.callbacks: list[Callable[[], None]] | None = None

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the value or error comes (at once if it is there), after those who asked before."""
        if self.done:
            callback()
        elif self.callbacks is None:
            self.callbacks = [callback]
        else:
            self.callbacks.append(callback)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for it."""
        return self._first is not None or bool(self.callbacks)

    def set(self, value: T) -> None:
        """Give the value; tasks that wait become ready in the order in which they began to wait."""
        if self.done:
            raise TaskError(f"future must be set once, not twice ({self.describe()})")
        self.done = True
        self._value = value
        task, callbacks = self._first, self.callbacks
        if task is not None:
            self._first = None
            if task.waiting is self:
                task.waiting = None
                task.ready.append(task)
        if callbacks is not None:
            self.callbacks = None
            for callback in callbacks:
                callback()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in those who await."""
        if self.done:
            raise TaskError(f"future must be set once, not twice ({self.describe()})")
        self._error = error
        self.set(None)  # type: ignore[arg-type]

    def result(self) -> T:
        """The value, or raises the error; only when `done`."""
        if not self.done:
            raise TaskError(f"future has no result yet ({self.describe()})")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    async def wait(self) -> T:
        """Wait for the value; the same as ``await future``."""
        if not self.done:
            await _suspend(self)
        return self.result()

    def __await__(self) -> Generator[Future[T], None, T]:
        if not self.done:
            yield self
        if self._error is None and self.done:
            return self._value  # type: ignore[return-value]
        return self.result()

    def describe(self) -> str:
        """The label as text."""
        if isinstance(self.label, tuple):
            return str(self.label[0].format(*self.label[1:]))
        return self.label or "an event"


class Task:
    """A running coroutine of a node. `daemon` tasks may wait for ever without the run being a deadlock."""

    __slots__ = ("_scheduler", "cancelled", "coroutine", "daemon", "finished", "name", "ready", "resume", "waiting")

    def __init__(self, scheduler: Scheduler, coroutine: Coroutine[Any, Any, Any], name: str, daemon: bool) -> None:
        self._scheduler = scheduler
        self.ready = scheduler.ready
        self.coroutine = coroutine
        self.resume: Callable[[None], Any] | None = coroutine.send
        self.name = name
        self.daemon = daemon
        self.cancelled = False
        self.waiting: Future[Any] | None = None
        self.finished: Future[Any] = Future(("task {} to finish", name))

    def resume_from(self, future: Future[Any]) -> None:
        """The future has come: ready, if that is what the task still waits for."""
        if self.waiting is future:
            self.waiting = None
            self.ready.append(self)

    def cancel(self) -> None:
        """End the task at its current await; its `finally` clauses run now. No effect on a finished task."""
        if self.finished.done or self.cancelled:
            return
        self.cancelled = True
        if self in self.ready:
            self.ready.remove(self)
        self.resume = self._throw
        self.ready.append(self)
        self._scheduler.drain()

    def _throw(self, _: None) -> Any:
        """In place of a resumption: the task ends, and is not resumed once more should its clean-up await something."""
        self.resume = self.waiting = None
        return self.coroutine.throw(Cancelled())

    def __await__(self) -> Generator[Any, None, Any]:
        return self.finished.__await__()


class Scheduler:
    """Runs one node's tasks."""

    __slots__ = ("_draining", "ready", "tasks")

    def __init__(self) -> None:
        self.ready: deque[Task] = deque()
        self.tasks: dict[Task, None] = {}
        self._draining = False

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str, *, daemon: bool = False) -> Task:
        """Start a coroutine; it runs up to its first wait before the current event ends."""
        task = Task(self, coroutine, name, daemon)
        self.tasks[task] = None
        self.ready.append(task)
        return task

    def drain(self) -> int:
        """Run every ready task until all wait; returns the steps taken. Errors of a task pass to whoever awaits it, else they
        are raised here.

        Returns with tasks still ready after more than `MAX_STEPS_AT_ONE_INSTANT` steps: tasks that wake each other
        without simulated time would never end, and the kernel, which counts the steps, stops the node.
        """
        if self._draining:
            return 0
        self._draining = True
        ready, steps = self.ready, 0
        try:
            while ready and steps <= MAX_STEPS_AT_ONE_INSTANT:
                task = ready.popleft()
                resume = task.resume
                if resume is None:
                    continue
                steps += 1
                try:
                    awaited = resume(None)
                except BaseException as outcome:
                    self._end(task, outcome)
                    continue
                if type(awaited) is not Future and not isinstance(awaited, Future):
                    raise TaskError(
                        f"task {task.name!r} must await simulated time (a Future of its node), not {type(awaited).__name__}; "
                        "asyncio, threads and other loops have no place in a model"
                    )
                task.waiting = awaited
                if awaited.done:
                    ready.append(task)
                elif awaited._first is None and awaited.callbacks is None:
                    awaited._first = task
                else:
                    awaited.when_done(partial(task.resume_from, awaited))
        finally:
            self._draining = False
        return steps

    def _end(self, task: Task, outcome: BaseException) -> None:
        """A task has returned, was cancelled or raised; what it raised goes on if nobody awaits the task."""
        del self.tasks[task]
        task.resume = None
        if isinstance(outcome, StopIteration):
            task.finished.set(outcome.value)
        elif isinstance(outcome, Cancelled):
            task.finished.set(None)
        elif isinstance(outcome, Exception) and task.finished.awaited:
            task.finished.fail(outcome)
        else:
            raise outcome

    def stop(self) -> None:
        """Close every task without running it further (power-off, end of the run)."""
        tasks, self.tasks = list(self.tasks), {}
        self.ready.clear()
        for task in tasks:
            task.coroutine.close()

    def waits(self) -> list[tuple[str, str, bool]]:
        """(task, what it waits for, daemon) of every task that waits, in order of their start."""
        return [(t.name, t.waiting.describe(), t.daemon) for t in self.tasks if t.waiting is not None]


class Signal:
    """A condition that tasks wait for again and again: `notify` wakes all who wait now."""

    __slots__ = ("_future", "label")

    def __init__(self, label: Label = None) -> None:
        self.label = label
        self._future: Future[None] | None = None

    def notify(self) -> None:
        """Wake every task that waits."""
        future, self._future = self._future, None
        if future is not None:
            future.set(None)

    async def wait(self) -> None:
        """Wait for the next `notify`."""
        if self._future is None:
            self._future = Future(self.label)
        await self._future


class Queue(Generic[T]):
    """An unbounded first-in first-out queue between handlers and tasks of one node."""

    __slots__ = ("_items", "_signal")

    def __init__(self, label: Label = None) -> None:
        self._items: deque[T] = deque()
        self._signal = Signal(label)

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Append an item and wake a task that waits."""
        self._items.append(item)
        self._signal.notify()

    async def get(self) -> T:
        """The oldest item; waits for one."""
        while not self._items:
            await self._signal.wait()
        return self._items.popleft()


class Lock:
    """Mutual exclusion between tasks of one node, first come first served: ``async with lock:``."""

    __slots__ = ("_held", "_label", "_waiters")

    def __init__(self, label: Label = None) -> None:
        self._held = False
        self._label = label
        self._waiters: deque[Future[None]] = deque()

    @property
    def held(self) -> bool:
        """Whether a task holds the lock."""
        return self._held

    async def __aenter__(self) -> None:
        if not self._held:
            self._held = True
            return
        turn: Future[None] = Future(self._label)
        self._waiters.append(turn)
        try:
            await turn
        except BaseException:  # cancelled: the lock is not to be given to a task that is gone
            if turn.done:
                self._release()
            else:
                self._waiters.remove(turn)
            raise

    async def __aexit__(self, *_exc: object) -> None:
        self._release()

    def _release(self) -> None:
        if self._waiters:
            self._waiters.popleft().set(None)
        else:
            self._held = False
