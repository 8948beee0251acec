"""What holds for every test: printed seeds, hypothesis profiles, and nothing left behind.

- Seeds: the report header names the seed and the hypothesis profile. `COSIM_TEST_SEED=n` repeats a
  run; tests that draw at random take the fixture `seed`.
- Hypothesis: profile "ci" draws the same examples each time; "dev", the default, draws new ones.
  `HYPOTHESIS_PROFILE` chooses. No deadlines: a loaded machine must not fail a test.
- Side by side (`pytest -n 2 --dist loadgroup`): tests that share a fixture of their module, or the network and the daemons
  of `tests/hosts`, go to one process, in their order; all others to whichever is free.
- Leaks: a test that leaves a child process, a grandchild or an open socket fails, and what it left is
  killed so that it can't disturb the next one.
"""

import gc
import os
import random
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.processes import Process, end, mark_descendants, marked_processes, open_sockets

_GRACE_S = float(os.environ.get("COSIM_TEST_GRACE_S", "5"))
"""How long a process or socket that is already on its way out may take; nothing waits when none is."""

_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
_SEED = int(os.environ.get("COSIM_TEST_SEED") or (1 if _PROFILE == "ci" else random.SystemRandom().getrandbits(31)))

os.environ["COSIM_TEST_SEED"] = str(_SEED)  # the processes of pytest-xdist draw as the one that prints it

settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("dev", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(_PROFILE)

_forks = 0
_seen: tuple[int, set[Process]] = (0, set())


def _count_forks(event: str, _args: object) -> None:
    """Note that a process was started: only then need /proc be searched."""
    global _forks
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"):
        _forks += 1


sys.addaudithook(_count_forks)
mark_descendants()


def pytest_report_header() -> list[str]:
    """The seeds, for whoever has to repeat this run."""
    return [f"cosim: COSIM_TEST_SEED={_SEED} HYPOTHESIS_PROFILE={_PROFILE}"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the tests that have to be in one process, before pytest-xdist looks at the names."""
    for item in items:
        if (group := _group(item)) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str | None:
    """What a test shares with others: the network of all hosts, a fixture made once for its module, or nothing."""
    module = item.nodeid.partition("::")[0]
    if module.startswith("tests/hosts/"):
        return "hosts"
    info = getattr(item, "_fixtureinfo", None)
    found = (definition for every in info.name2fixturedefs.values() for definition in every) if info else ()
    return module if any(d.scope != "function" and d.baseid == module for d in found) else None


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run, for tests that draw at random."""
    return _SEED


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the test that leaves a process running or a socket open."""
    forks_before = _forks
    sockets_before = open_sockets()
    processes_before = _processes_before()
    yield
    leaks = []
    if _forks != forks_before:
        left = _processes_left(processes_before)
        end(left)
        leaks += [f"process {process.pid} ({command})" for process, command in left.items()]
    leaks += [f"an open {name}" for name in sorted(_sockets_left(sockets_before))]
    if leaks:
        pytest.fail(f"the test must leave no process and no socket, not {', '.join(leaks)}", pytrace=False)


def _processes_before() -> set[Process]:
    """The processes that live before a test: searched for only if one was started since the last search."""
    global _seen
    if _seen[0] != _forks:
        _seen = (_forks, set(marked_processes()))
    return _seen[1]


def _processes_left(before: set[Process]) -> dict[Process, str]:
    """New processes that are still there after the grace period."""
    deadline = time.monotonic() + _GRACE_S
    while True:
        left = {process: command for process, command in marked_processes().items() if process not in before}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _sockets_left(before: set[str]) -> set[str]:
    """New sockets that are still open after a garbage collection and the grace period."""
    left = open_sockets() - before
    if left:
        gc.collect()
        deadline = time.monotonic() + _GRACE_S
        while (left := open_sockets() - before) and time.monotonic() < deadline:
            time.sleep(0.02)
    return left
