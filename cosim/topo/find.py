"""Where topology files are: the path given, else the ones shipped with cosim.

A wheel carries `topologies/` as `cosim/_topologies`; in a checkout or an editable install it lies
beside the package.
"""

from difflib import get_close_matches
from pathlib import Path

from cosim.errors import TopologyError

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_topologies() -> Path | None:
    """The directory of the topologies shipped with this installation, or None if it has none."""
    for candidate in (_PACKAGE / "_topologies", _PACKAGE.parent / "topologies"):
        if candidate.is_dir():
            return candidate
    return None


def find_topology(name: str) -> Path:
    """The file that `name` means: a path, or the name of a shipped topology with or without .yaml.

    "my/machine.yaml", "topologies/rdn2cfg1.yaml" (from any directory) and "rdn2cfg1" all work; a file that
    exists under the path as given wins. Raises TopologyError (code "topology-not-found") with the
    nearest shipped name if there is no such file.
    """
    given = Path(name)
    try:
        if given.is_file():
            return given
    except OSError as error:
        raise TopologyError(
            f"topology must be a readable file: {error.strerror}",
            code="topology-unreadable",
            where=name if len(name) < 200 else f"{name[:200]}...",
            next_step="check the path and the rights of its folders",
        ) from None
    shipped = shipped_topologies()
    if shipped is not None and given.parent in (Path("."), Path("topologies")):
        inside = shipped / (given.name if given.suffix in (".yaml", ".yml") else f"{given.name}.yaml")
        if inside.is_file():
            return inside
    raise TopologyError(
        f"topology must be a YAML file or the name of a shipped topology, not {name!r}",
        code="topology-not-found",
        where=name,
        next_step=_suggestion(given, shipped),
    )


def _suggestion(given: Path, shipped: Path | None) -> str:
    """What to type instead of `given`."""
    names = sorted(path.stem for path in shipped.glob("*.yaml")) if shipped is not None else []
    if not names:
        return "give the path of a topology file"
    near = get_close_matches(given.stem, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"give the path of a topology file, or one of: {', '.join(names)}"
