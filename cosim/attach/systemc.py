"""Compile a SystemC model and become it: ``python -m cosim.attach.systemc [--build] [--cxx CXX] SOURCE... [-- ARGUMENT...]``.

For the `argv` of an external node: the program is compiled at its first start and kept under COSIM_BUILD_DIR (default
~/.cache/cosim/systemc), in a folder for each combination of compiler, flags and contents of the sources, of the headers beside
them and of cosim's. CXX in the environment chooses the compiler when no option does (default: the first of g++ and clang++),
CXXFLAGS adds flags; SYSTEMC_HOME is a SystemC installation other than the system's. docs/attach-systemc.md is the tutorial.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
WARNINGS = ("-Wall", "-Wextra", "-Werror")
COMPILERS = ("g++", "clang++")
HEADERS = ("*.h", "*.hpp", "*.hh")


class BuildError(Exception):
    """The program can't be built; the text says what is missing or what the compiler printed."""


def build(sources: Sequence[Path], cxx: str | None = None, environment: Mapping[str, str] | None = None) -> Path:
    """The program made of C++ `sources`, compiled unless it is there already.

    Raises:
        BuildError: no such source, no compiler, no SystemC or libzmq, or the compiler refused the sources.
    """
    env = os.environ if environment is None else environment
    for source in sources:
        if not source.is_file():
            raise BuildError(f"{source} must be a C++ source; there is no such file")
    compiler = _compiler(cxx or env.get("CXX"))
    flags = ["-std=c++17", "-O2", *WARNINGS, f"-I{HERE}", *_systemc(env), *shlex.split(env.get("CXXFLAGS", ""))]
    root = Path(
        env.get("COSIM_BUILD_DIR") or Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cosim" / "systemc"
    )
    root = root.expanduser().resolve()
    root.mkdir(parents=True, exist_ok=True)
    program = root / f"{sources[0].stem}-{_fingerprint(sources, compiler, flags)}"
    with program.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _compile(compiler, [*flags, *map(str, sources)], _libraries(env), program)
    return program


def _compile(compiler: str, arguments: list[str], libraries: list[str], program: Path) -> None:
    part = program.with_suffix(".part")
    command = [compiler, *arguments, "-o", str(part), *libraries]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        hint = ""
        if "systemc" in done.stderr and (
            "No such file" in done.stderr or "not found" in done.stderr or "cannot find" in done.stderr
        ):
            hint = "\nnext: apt-get install libsystemc-dev libzmq3-dev, or set SYSTEMC_HOME"
        raise BuildError(f"{shlex.join(command)} failed:\n{done.stderr}{hint}")
    part.rename(program)


def _compiler(name: str | None) -> str:
    for candidate in [name] if name else COMPILERS:
        if shutil.which(candidate):
            return candidate
    raise BuildError(f"a C++17 compiler is needed, {name or ' or '.join(COMPILERS)}; next: apt-get install g++")


def _systemc(env: Mapping[str, str]) -> list[str]:
    home = env.get("SYSTEMC_HOME")
    return ["-isystem", f"{home}/include"] if home else []


def _libraries(env: Mapping[str, str]) -> list[str]:
    home = env.get("SYSTEMC_HOME")
    folders = [folder for name in ("lib", "lib-linux64") if home and (folder := Path(home, name)).is_dir()]
    return [*(option for folder in folders for option in (f"-L{folder}", f"-Wl,-rpath,{folder}")), "-lsystemc", "-lzmq"]


def _fingerprint(sources: Sequence[Path], compiler: str, flags: list[str]) -> str:
    """Of everything that the program is made of, as far as it is known."""
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    digest = hashlib.sha256("\0".join([said, *flags]).encode())
    folders = dict.fromkeys([HERE, *(source.resolve().parent for source in sources)])
    headers = [path for folder in folders for pattern in HEADERS for path in sorted(folder.glob(pattern))]
    for path in [*sources, *headers]:
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; then this process becomes the program. The exit status is 1 when it can't be built."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, rest = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(
        prog="python -m cosim.attach.systemc", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE")
    parser.add_argument("--cxx", help="the compiler (default: CXX, g++ or clang++)")
    parser.add_argument("--build", action="store_true", help="build, print the program's path, and no more")
    options = parser.parse_args(own)
    try:
        program = build(options.sources, options.cxx)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.build:
        sys.stdout.write(f"{program}\n")
        return 0
    sys.stdout.flush()
    os.execv(program, [str(program), *rest])


if __name__ == "__main__":
    sys.exit(main())
