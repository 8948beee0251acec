"""The commands that README and docs show exist, with the options shown."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cosim.cli.main import group

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_SHOWN = re.compile(r"^    (?:\$ )?(cosim .+?)(?:  +#.*)?$|`(cosim [^`]+)`", re.MULTILINE)


def shown() -> list[tuple[str, str]]:
    """(page, command) of every command line in an indented block, a fenced block or a code span."""
    found = []
    for page in PAGES:
        text = re.sub(
            r"^```.*\n((?:.*\n)*?)```$", lambda m: re.sub("^", "    ", m[1], flags=re.M), page.read_text(), flags=re.M
        )
        found += [(page.name, (match[1] or match[2]).strip()) for match in _SHOWN.finditer(text)]
    return found


def test_the_pages_show_commands() -> None:
    """The search below finds what it is about, in the README at least."""
    assert ("README.md", "cosim up rdn2cfg1 --set break=vsgi") in shown()


@pytest.mark.parametrize(("page", "command"), sorted(set(shown())))
def test_a_command_shown_is_a_command_that_exists(page: str, command: str) -> None:
    """Each command line shown names a command, and options that this command has."""
    words = shlex.split(command)[1:]
    context = click.Context(group, info_name="cosim")
    while words and words[0].startswith("-"):
        assert words[0] in options(group), f"{page}: cosim has no option {words[0]}"
        words = words[1:]
    if not words:
        return
    found = group.get_command(context, words[0])
    assert found is not None, f"{page}: cosim has no command {words[0]!r}"
    own = words[: words.index("--")] if "--" in words else words  # what follows is somebody else's command
    for word in own[1:]:
        if word.startswith("-"):
            once = re.sub(r"^-(\w)\1+$", r"-\1", word)  # -vv is -v twice
            assert once.split("=")[0] in options(found), f"{page}: cosim {words[0]} has no option {word}"


def options(command: click.Command) -> set[str]:
    """All option names of a command, --help included."""
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return names | {"--help"}
