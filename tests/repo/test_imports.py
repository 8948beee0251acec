"""What is loaded when: the worker's import budget, the lazy package, the floors."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cosim.api import Node

ROOT = Path(__file__).resolve().parents[2]

GROUPS: dict[str, dict[str, str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]

WORKER_BUDGET = 73
"""Modules that a worker may load before its model's own, the standard library's included."""

NOT_IN_A_WORKER = {
    "anyio",
    "asyncio",
    "click",
    "hypothesis",
    "jinja2",
    "pydantic",
    "rich",
    "ruamel",
    "sqlite3",
    "structlog",
    "textual",
    "yaml",
}


def modules_loaded_by(statement: str) -> list[str]:
    """The modules that an isolated interpreter loads for `statement`, beyond those of its own start."""

    def loaded(code: str) -> list[str]:
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
        return [line.rsplit("|", 1)[1].strip() for line in lines[1:]]

    at_start = set(loaded("pass"))
    return [name for name in loaded(statement) if name not in at_start]


def test_importing_cosim_loads_nothing_else() -> None:
    """`import cosim` costs one module: everything else is looked up on first use."""
    assert modules_loaded_by("import cosim") == ["cosim"]


NOT_FOR_NOTHING = {"cosim.core.bounds", "dataclasses", "hashlib", "importlib", "inspect", "random", "traceback", "zmq"}
"""Loaded only where they are used: by the hub, over libzmq, by a model that draws random numbers, for an error."""


def test_a_worker_stays_within_its_import_budget() -> None:
    """A worker of the fast link loads at most 73 modules, msgpack, and no other library."""
    loaded = modules_loaded_by("import cosim.node.worker, cosim.link.unix_link, cosim.node.death, cosim.api")
    assert "msgpack" in loaded, "the measurement must see what it is about"
    too_much = sorted((NOT_IN_A_WORKER | NOT_FOR_NOTHING) & {*loaded, *(name.split(".")[0] for name in loaded)})
    assert not too_much, f"a worker must not load {too_much}"
    assert len(loaded) <= WORKER_BUDGET, f"{len(loaded)} modules: {loaded}"


def test_a_fork_server_loads_what_a_worker_loads() -> None:
    """Nothing of the supervisor comes with it: only `cosim.run`, which is empty, and itself."""
    worker = modules_loaded_by("import cosim.node.worker, cosim.link.unix_link, cosim.node.death")
    server = modules_loaded_by("import cosim.run.forkserver")
    assert {name for name in set(server) - set(worker) if name.startswith("cosim")} == {
        "cosim.run",
        "cosim.run.forkserver",
    }
    assert not (NOT_IN_A_WORKER | {"zmq"}) & {name.split(".")[0] for name in server}


def test_over_libzmq_a_worker_loads_zmq_and_no_more() -> None:
    """The other link costs one library."""
    loaded = modules_loaded_by("import cosim.node.worker, cosim.link.zmq_link, cosim.node.death, cosim.api")
    assert "zmq" in loaded
    assert not NOT_IN_A_WORKER & {name.split(".")[0] for name in loaded}


def test_models_and_programs_load_without_the_supervisors_libraries() -> None:
    """No model or program pulls in what workers must not load."""
    homes = sorted({target.split(":")[0] for group in GROUPS.values() for target in group.values()})
    loaded = modules_loaded_by("import " + ", ".join(homes))
    assert set(homes) <= set(loaded)
    assert not sorted(NOT_IN_A_WORKER & {name.split(".")[0] for name in loaded})


@pytest.mark.parametrize("group", GROUPS)
def test_every_entry_point_leads_to_something(group: str) -> None:
    """Each kind names a class of that module, each program a coroutine function."""
    for name, target in GROUPS[group].items():
        module, attribute = target.split(":")
        found = getattr(importlib.import_module(module), attribute)
        if group == "cosim.nodes":
            assert isinstance(found, type) and issubclass(found, Node), f"{name} -> {target}"
        else:
            assert callable(found), f"{name} -> {target}"


def test_the_public_names_resolve_in_any_order() -> None:
    """`cosim.run` is callable even after the package of that name was imported, and unknown names are errors."""
    code = (
        "import cosim.run.api, cosim\n"
        "assert callable(cosim.run) and cosim.run.api.run is not None\n"
        "for name in cosim.__all__: getattr(cosim, name)\n"
        "assert callable(cosim.run) and callable(cosim.launch)\n"
        "try: cosim.nonsense\n"
        "except AttributeError as error: assert 'nonsense' in str(error)\n"
        "else: raise SystemExit('cosim.nonsense must not exist')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=100)


def test_the_floors_hold() -> None:
    """import-linter keeps every contract of pyproject.toml."""
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
