"""What holds for every file of the repository."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600
"""Lines of a module: the house rule is 500, and a file that is split is split at a topic."""

# Written in halves, so that this file does not contain what it forbids.
REGISTRIES = ["py" + "pi.org", "python" + "hosted.org", "crates" + ".io", "npm" + "js.org", "proxy.go" + "lang.org"]
PLACES = ["/wo" + "rk/", "/ro" + "ot/", "/tmp/ve" + "nv", "/tmp/br" + "ief", "/opt/py" + "pi", "/opt/whe" + "els"]
FORBIDDEN = re.compile("|".join(re.escape(text) for text in REGISTRIES + PLACES) + "|/home/[a-z]")


def files() -> list[Path]:
    """All files that are, or would be, in the repository: tracked, or untracked and not ignored."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=False) if shutil.which("git") else None
    if listed is not None and listed.returncode == 0:
        found = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    else:  # an unpacked archive, or no git: no history, but the same files
        found = [path for path in ROOT.rglob("*") if not any(part in SKIPPED for part in path.parts)]
    return sorted(path for path in found if path.is_file())


SKIPPED = {
    ".git",
    ".venv",
    "__pycache__",
    "runs",
    "_build",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".import_linter_cache",
}
FILES = files()
MODULES = [path for path in FILES if path.suffix == ".py"]


def relative(path: Path) -> str:
    """The path as the reader of a failure wants it."""
    return str(path.relative_to(ROOT))


def test_the_listing_sees_the_tree() -> None:
    """The tests below look at something."""
    assert {"pyproject.toml", "cosim/errors.py", "nodes/__init__.py"} <= {relative(path) for path in FILES}


def test_no_file_names_a_registry_or_a_place_of_one_machine() -> None:
    """The tree works anywhere: no registry's host name, no path of the machine that it was written on."""
    found = []
    for path in FILES:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if FORBIDDEN.search(line):
                found.append(f"{relative(path)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_every_module_says_what_it_is() -> None:
    """Each Python file starts with a docstring."""
    assert not [relative(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_bytes()))]


def test_modules_are_short() -> None:
    """No module is too long to be read in one sitting."""
    sizes = {relative(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {path: lines for path, lines in sizes.items() if lines > LIMIT}


def test_every_test_says_what_it_proves() -> None:
    """Each test function of each test module has a docstring."""
    silent = []
    for path in MODULES:
        if path.name.startswith("test_"):
            for item in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test_"):
                    if not ast.get_docstring(item):
                        silent.append(f"{relative(path)}:{item.lineno}: {item.name}")
    assert not silent, "\n".join(silent)


def test_nothing_is_left_to_do() -> None:
    """No module ships a stub: what is not modelled answers with an error that is counted."""
    left = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|NotImplemented" + "Error")
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in MODULES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if left.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_docs_mention_every_command() -> None:
    """Each command of the command line has its place in the README or in docs/."""
    from cosim.cli import main as cli

    text = "\n".join(path.read_text() for path in FILES if path.suffix == ".md")
    commands = cli.group.list_commands(click.Context(cli.group))
    assert commands
    assert not [name for name in commands if f"cosim {name}" not in text]


def test_the_pins_have_hashes_and_name_no_index() -> None:
    """Every pinned requirement has at least one sha256, and no option of pip's is in the files."""
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        pins = re.findall(r"^[a-z0-9][^\n]*==[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.M)
        assert pins and len(pins) == len(re.findall(r"^[a-z0-9]", text, re.M)), relative(path)
        assert not re.search(r"^--|https?:|file:", text, re.M), relative(path)
