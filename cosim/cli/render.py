"""``cosim render``: what another system needs to start a run, as files for it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cosim.errors import UsageError

if TYPE_CHECKING:
    from cosim.engines.k8s import Deployment, Manifest

PARTS = ("all", "manifests", "secrets")
SECRETS_FILE = "0-secrets.yaml"


@click.command()
@click.argument("system", type=click.Choice(["k8s"]))
@click.argument("topology")
@click.argument("up_words", nargs=-1, metavar="[-- UP-OPTIONS]")
@click.option(
    "--hosts", type=click.IntRange(1, 1000), required=True, help="Number of host hubs: pods of the Indexed Job."
)
@click.option("--image", required=True, metavar="REF", help="Image of cosim, see deploy/Containerfile.")
@click.option("--namespace", default="", help="Namespace of everything (default: what kubectl is set to).")
@click.option("--name", default="", help="Of the Jobs and all else (default: cosim- and the topology's name).")
@click.option(
    "--lease", default=10.0, show_default=True, metavar="SECONDS", help="A host that hears nothing so long ends."
)
@click.option("--cpu", default="1", show_default=True, help="Requested for each host, as a Kubernetes quantity.")
@click.option("--memory", default="1Gi", show_default=True, help="Request and limit of each host.")
@click.option("--deadline", default=86_400, show_default=True, metavar="SECONDS", help="Wall-clock limit of the Jobs.")
@click.option("--keep", default=86_400, show_default=True, metavar="SECONDS", help="How long finished Jobs are kept.")
@click.option(
    "--claim",
    default="",
    metavar="PVC",
    help="PersistentVolumeClaim for the run directory (default: lost with the pod).",
)
@click.option("--pull-secret", default="", metavar="NAME", help="Secret with which the image is pulled.")
@click.option("--metrics-port", default=0, metavar="PORT", help="Serve metrics to the cluster here (default: nowhere).")
@click.option(
    "--part",
    type=click.Choice(PARTS),
    default="all",
    show_default=True,
    help="secrets: new keys for another run of manifests that are there already; manifests: all else, without any key.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the files (default: stdout)."
)
def render(system: str, topology: str, up_words: tuple[str, ...], part: str, out: Path | None, **options: Any) -> None:
    """Write the Kubernetes manifests of a run of TOPOLOGY over several hosts. What follows -- goes to `cosim up`.

    The Secrets hold keys that are made now and are good for one run.

    \b
    Examples:  cosim render k8s rdn2cfg1 --hosts 2 --image registry.example/cosim:1 | kubectl create -f -
               cosim render k8s rdn2cfg1 --hosts 2 --image cosim:1 -o run1 -- --test vsgi.ipi --set vcpus=4
    """
    from cosim.engines.k8s import host_names, manifests, secrets

    one = _deployment(topology, up_words, options)
    files: dict[str, list[Manifest]] = {}
    if part != "manifests":
        from cosim.link.keys import RunKeys

        files[SECRETS_FILE] = secrets(one, RunKeys.generate(host_names(one.hosts)))
    if part != "secrets":
        files |= {f"{place}-{_file_name(one, m)}": [m] for place, m in enumerate(manifests(one), 1)}
    if out is None:
        click.echo(yaml_text([manifest for group in files.values() for manifest in group]), nl=False)
        return
    _write(out, {name: yaml_text(group) for name, group in files.items()})
    for name in files:
        click.echo(out / name)


def _deployment(topology: str, up_words: tuple[str, ...], options: dict[str, Any]) -> Deployment:
    """Everything checked: the topology with its parameters, the words for `cosim up`, names and quantities."""
    from cosim.cli.common import parse_sets
    from cosim.cli.up import up
    from cosim.engines.k8s import Deployment
    from cosim.topo.find import find_topology, shipped_topologies
    from cosim.topo.load import load
    from cosim.topo.resolve import resolve

    given = up.make_context("cosim up", [topology, *up_words]).params
    taken = [
        name
        for name in ("run_dir", "detach", "listen", "metrics", "hosts", "engine", "engine_options")
        if given.get(name)
    ]
    if taken:
        raise UsageError(
            f"what follows -- must leave {', '.join(f'--{name}'.replace('_', '-') for name in taken)} to the manifests",
            code="k8s",
            where="command line",
            next_step="leave it out; --claim keeps run directories, --metrics-port serves metrics",
        )
    path = find_topology(topology)
    resolve(
        load(path),
        sets=parse_sets(given["sets"]),
        tests=given["tests"],
        until=given["until"],
        seed=given["seed"],
        allow_models=given["allow_models"],
        hosts=str(options["hosts"]),
    )
    shipped = shipped_topologies()
    inside = shipped is not None and path.resolve().parent == shipped.resolve()
    return Deployment(
        topology=path.stem if inside else path.name,
        topology_text=None if inside else path.read_text(),
        up=up_words,
        hosts=options["hosts"],
        image=options["image"],
        name=options["name"],
        namespace=options["namespace"],
        lease_s=options["lease"],
        cpu=options["cpu"],
        memory=options["memory"],
        deadline_s=options["deadline"],
        keep_s=options["keep"],
        claim=options["claim"],
        pull_secret=options["pull_secret"],
        metrics_port=options["metrics_port"],
    ).checked()


def _file_name(one: Deployment, manifest: Manifest) -> str:
    """``service.yaml``, or with what the name has more than the run's: ``job-hosts.yaml``."""
    more = str(manifest["metadata"]["name"]).removeprefix(one.name)
    kind = str(manifest["kind"]).lower()
    return f"{kind}{more if kind in ('job', 'networkpolicy') else ''}.yaml"


def _write(out: Path, texts: dict[str, str]) -> None:
    """Write new files; that with the Secrets is its owner's alone."""
    out.mkdir(parents=True, exist_ok=True)
    there = [name for name in texts if (out / name).exists()]
    if there:
        raise UsageError(
            f"the folder must not hold an earlier rendering, and {out} has {', '.join(there)}",
            code="out",
            where=str(out),
            next_step="name another folder, or remove these files: keys must not be used twice",
        )
    for name, text in texts.items():
        mode = 0o600 if name == SECRETS_FILE else 0o644
        with open(out / name, "x", opener=_opener(mode)) as file:
            file.write(text)


def _opener(mode: int) -> Callable[[str, int], int]:
    return lambda path, flags: os.open(path, flags, mode)


def yaml_text(documents: Iterable[Any]) -> str:
    """YAML of several documents, each after a ``---``; strings are quoted where YAML 1.1 would take them for something else."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 4096
    texts = []
    for document in documents:
        stream = io.StringIO()
        yaml.dump(document, stream)
        texts.append(stream.getvalue().removeprefix("%YAML 1.1\n---\n"))
    return "".join(f"---\n{text}" for text in texts)
