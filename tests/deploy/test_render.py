"""`cosim render k8s`: manifests that Kubernetes takes, and the keys in them."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from cosim.cli.main import group
from cosim.engines.base import Slot
from cosim.engines.k8s import (
    CREDENTIAL_PATH,
    KEYS_PATH,
    Deployment,
    K8sEngine,
    host_names,
    hub_keys_text,
    manifests,
    read_hub_keys,
    secrets,
)
from cosim.engines.registry import make_engine
from cosim.errors import CosimError, UsageError
from cosim.link.keys import RunKeys, parse_credential
from tests.support.runs import cosim, environment

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "deploy" / "k8s"
VERSIONS = ("1.29", "1.33")
IMAGE = "localhost/cosim:latest"
TINY = str(ROOT / "topologies" / "tiny.yaml")

Manifests = dict[tuple[str, str], Any]


def render(*words: str | Path | int) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(group, ["render", "k8s", *map(str, words)])


def read(text: str) -> Manifests:
    """(kind, name) -> manifest of a text with several documents."""
    documents = list(YAML(typ="safe", pure=True).load_all(text))
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def pod(found: Manifests, job: str) -> Any:
    """The pod of a Job."""
    return found["Job", job]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def rendered() -> str:
    """One rendering with everything in it."""
    options = ["--hosts", "3", "--image", IMAGE, "--namespace", "sim", "--claim", "runs", "--metrics-port", "9464"]
    done = render("tiny", *options, "--pull-secret", "pull", "--", "--set", "vcpus=2", "--seed", "7")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_pass_strict_validation(rendered: str, version: str) -> None:
    """Every manifest is valid for the version of Kubernetes, and a field that does not exist would be refused."""
    validate = pytest.importorskip("kubernetes_validate", reason="needs the package kubernetes-validate")
    found = read(rendered)
    assert [kind for kind, _name in found] == [
        "Secret",
        "Secret",
        "Service",
        "Job",
        "Job",
        "NetworkPolicy",
        "NetworkPolicy",
    ]
    for manifest in found.values():
        validate.validate(manifest, version, strict=True)
    broken = found["Job", "cosim-tiny-hosts"]
    broken["spec"]["backofLimit"] = broken["spec"].pop("backoffLimit")
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, version, strict=True)


def test_the_example_is_what_the_command_gives(tmp_path: Path) -> None:
    """deploy/k8s holds the output of the command in docs/deploy.md, file by file."""
    done = render("rdn2cfg1", "--hosts", 2, "--image", IMAGE, "--part", "manifests", "-o", tmp_path / "k8s")
    assert done.exit_code == 0, done.output
    texts = {path.name: path.read_text() for path in (tmp_path / "k8s").iterdir()}
    assert texts == {path.name: path.read_text() for path in EXAMPLE.iterdir()}


def test_hosts_and_coordinator_agree(rendered: str) -> None:
    """Number, port, lease and name of the hosts are the same on both sides, and the words after -- reach `cosim up`."""
    found = read(rendered)
    hosts, coordinator = found["Job", "cosim-tiny-hosts"]["spec"], pod(found, "cosim-tiny-coordinator")["containers"][0]
    assert (hosts["completions"], hosts["parallelism"], hosts["completionMode"]) == (3, 3, "Indexed")
    words = coordinator["args"]
    assert words[:4] == ["up", "tiny", "--hosts", "3"]
    assert words[-4:] == ["--set", "vcpus=2", "--seed", "7"]
    assert words[words.index("--listen") + 1] == "$(POD_IP):5570"
    command = pod(found, "cosim-tiny-hosts")["containers"][0]["command"][2]
    assert "cosim host tcp://cosim-tiny-coordinator.sim.svc:5570" in command
    assert found["Service", "cosim-tiny-coordinator"]["spec"]["ports"][0]["port"] == 5570
    assert words[words.index("--lease") + 1] == "10" and "--lease 10 " in command


def test_the_words_of_the_pods_are_commands_that_exist(rendered: str) -> None:
    """What coordinator and hosts execute is taken by the command line of this cosim."""
    import shlex

    import click

    found = read(rendered)
    script = pod(found, "cosim-tiny-hosts")["containers"][0]["command"][2]
    host = shlex.split(script.partition("<")[0])[2:]
    context = click.Context(group, info_name="cosim")
    for words in (pod(found, "cosim-tiny-coordinator")["containers"][0]["args"], host):
        command = group.get_command(context, words[0])
        assert command is not None, words
        command.make_context(words[0], list(words[1:]))


def test_every_container_has_no_rights(rendered: str) -> None:
    """No pod runs as root, writes to its image, keeps a capability, or gets a token for the cluster's API."""
    found = read(rendered)
    for job in ("cosim-tiny-coordinator", "cosim-tiny-hosts"):
        spec = pod(found, job)
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
        assert spec["automountServiceAccountToken"] is False and spec["restartPolicy"] == "Never"
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]} and context["readOnlyRootFilesystem"]
            assert context["allowPrivilegeEscalation"] is False


def test_the_image_runs_as_the_user_of_the_pods() -> None:
    """The Containerfile and the manifests name the same user."""
    assert "USER 10001:10001" in (ROOT / "deploy" / "Containerfile").read_text()


def test_secrets_hold_a_key_pair_for_each_host(rendered: str) -> None:
    """Each host has a credential with the hub's public key; the coordinator knows their public keys and no secret of theirs."""
    found = read(rendered)
    files = {
        name: base64.b64decode(text)
        for secret in ("cosim-tiny-hub", "cosim-tiny-hosts")
        for name, text in found["Secret", secret]["data"].items()
    }
    assert sorted(files) == ["h0.json", "h1.json", "h2.json", "keys.json"]
    hub = json.loads(files.pop("keys.json"))
    for name, text in files.items():
        credential = parse_credential(text, name)
        assert credential.name == name.removesuffix(".json")
        assert credential.server_key == hub["public"]
        assert hub["peers"][credential.name] == credential.public_key
        assert credential.secret_key not in json.dumps(hub)


def test_a_host_is_given_its_own_credential_only(rendered: str) -> None:
    """The hosts' Secret is mounted by the file of the pod's index, never as a folder, and the hub's not at all."""
    spec = pod(read(rendered), "cosim-tiny-hosts")
    volumes = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
    assert volumes == {"credentials": "cosim-tiny-hosts"}
    mounts = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "credentials"]
    assert [mount["subPathExpr"] for mount in mounts] == ["h$(JOB_COMPLETION_INDEX).json"]
    assert not any(mount["name"] == "credentials" for mount in spec["initContainers"][0].get("volumeMounts", []))
    for volume in spec["volumes"]:
        assert "secret" not in volume or volume["secret"]["defaultMode"] == 0o400


def test_no_secret_is_anywhere_but_in_secrets(rendered: str) -> None:
    """No manifest but the Secrets holds a key, so that they can be kept with the sources."""
    assert render("tiny", "--hosts", 1, "--image", IMAGE, "--part", "secrets").output.count("kind: Secret") == 2
    public = render("tiny", "--hosts", 1, "--image", IMAGE, "--part", "manifests").output
    assert "kind: Secret" not in public
    again = render("tiny", "--hosts", 1, "--image", IMAGE, "--part", "manifests").output
    assert public == again, "without keys, equal commands give equal manifests"


def test_every_rendering_has_new_keys(rendered: str) -> None:
    """Two renderings share no key."""
    keys = [
        set(
            read(render("tiny", "--hosts", 1, "--image", IMAGE, "--part", "secrets").output)["Secret", name][
                "data"
            ].values()
        )
        for name in ("cosim-tiny-hub", "cosim-tiny-hosts", "cosim-tiny-hub", "cosim-tiny-hosts")
    ]
    assert not keys[0] & keys[2] and not keys[1] & keys[3]


def test_network_policies_let_in_hosts_and_scrapes_only(rendered: str) -> None:
    """The coordinator is reached by the hosts at the hub's port, and at the metrics port; a host by nobody."""
    found = read(rendered)
    hub, host = (found["NetworkPolicy", f"cosim-tiny-{role}"]["spec"] for role in ("coordinator", "host"))
    assert hub["policyTypes"] == host["policyTypes"] == ["Ingress", "Egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in hub["ingress"]] == [[5570], [9464]]
    assert hub["ingress"][0]["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "host"
    assert hub["egress"] == [] and host["ingress"] == []
    plain = read(render("tiny", "--hosts", 1, "--image", IMAGE).output)
    assert len(plain["NetworkPolicy", "cosim-tiny-coordinator"]["spec"]["ingress"]) == 1


def test_files_are_new_and_secrets_their_owners_alone(tmp_path: Path) -> None:
    """-o writes the Secrets with mode 0600, and refuses a folder that holds an earlier rendering."""
    old = os.umask(0o022)
    try:
        first = render("tiny", "--hosts", 1, "--image", IMAGE, "-o", tmp_path / "out")
    finally:
        os.umask(old)
    assert first.exit_code == 0, first.output
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes.pop("0-secrets.yaml") == 0o600
    assert set(modes.values()) == {0o644}
    second = render("tiny", "--hosts", 1, "--image", IMAGE, "-o", tmp_path / "out")
    assert isinstance(second.exception, UsageError) and "0-secrets.yaml" in second.exception.what


def test_a_topology_of_ones_own_goes_along(tmp_path: Path) -> None:
    """A file that is not in the image is a ConfigMap, mounted where `cosim up` is told to look."""
    (tmp_path / "mine.yaml").write_text(Path(TINY).read_text().replace("name: tiny", "name: mine", 1))
    found = read(render(tmp_path / "mine.yaml", "--hosts", 1, "--image", IMAGE).output)
    assert found["ConfigMap", "cosim-mine-topology"]["data"]["mine.yaml"] == (tmp_path / "mine.yaml").read_text()
    container = pod(found, "cosim-mine-coordinator")["containers"][0]
    path = Path(container["args"][1])
    assert path.name == "mine.yaml"
    assert str(path.parent) in [mount["mountPath"] for mount in container["volumeMounts"]]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["tiny", "--name", "Upper"], "--name must be a label of DNS"),
        (["tiny", "--memory", "1 GB"], "--memory must be a quantity"),
        (["tiny", "--", "--listen", "0.0.0.0:1"], "must leave --listen to the manifests"),
        (["tiny", "--", "--engine", "ssh"], "must leave --engine to the manifests"),
        (["tiny", "--hosts", "500"], "hosts"),
        (["tiny", "--", "--run-dir", "x"], "must leave --run-dir to the manifests"),
        (["tiny", "--", "--no-such-option"], "--no-such-option"),
        (["tiny", "--", "--set", "nosuch=1"], "nosuch"),
        (["nosuch"], "not 'nosuch'"),
    ],
)
def test_what_would_fail_in_the_cluster_fails_here(words: list[str], text: str) -> None:
    """A wrong name, quantity, option, parameter or topology is refused when the manifests are made."""
    done = render(words[0], "--hosts", "2", "--image", IMAGE, *words[1:])
    assert done.exit_code != 0
    shown = str(done.exception) if isinstance(done.exception, CosimError) else done.output
    assert text in shown


_STEM = st.text("abcXYZ019_-. ", min_size=1, max_size=60).filter(lambda text: any(c.isalnum() for c in text))


@settings(max_examples=60)
@given(_STEM, st.integers(1, 1000))
def test_any_topology_name_gives_names_that_kubernetes_takes(stem: str, hosts: int) -> None:
    """Whatever a topology file is called, every object's name is a label of DNS of at most 63 characters."""
    for manifest in manifests(Deployment(f"{stem}.yaml", hosts, IMAGE, topology_text="name: x")):
        name = manifest["metadata"]["name"]
        assert len(name) <= 63 and name.strip("-") == name
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_the_readiness_probe_sees_a_listening_socket(rendered: str) -> None:
    """The probe's command fails while nothing listens at the port and passes once something does, without connecting."""
    probe = pod(read(rendered), "cosim-tiny-coordinator")["containers"][0]["readinessProbe"]["exec"]["command"]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        command = [word.replace(":15C2 ", f":{listener.getsockname()[1]:04X} ") for word in probe]
        assert command != probe, "the probe must name the hub's port"
        assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0
        listener.listen()
        assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_what_the_pods_execute_is_a_run_over_hosts(tmp_path: Path) -> None:
    """Coordinator and hosts, executed as the manifests say but on this machine, pass with the digest of a run without hosts; hosts
    are what its metrics count."""
    options = ["--hosts", "2", "--image", IMAGE, "--metrics-port", "9464", "--", "--json", "--join-limit", "60"]
    found = read(render("tiny", *options).output)
    for secret in ("cosim-tiny-hub", "cosim-tiny-hosts"):
        for name, text in found["Secret", secret]["data"].items():
            (tmp_path / name).write_bytes(base64.b64decode(text))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cosim").write_text(f'#!/bin/sh\nexec {sys.executable} -m cosim "$@"\n')
    (tmp_path / "bin" / "cosim").chmod(0o755)
    port = free_port()

    def here(word: str, index: int = 0) -> str:
        """A word of a manifest, with the cluster's addresses and mounts replaced by this machine's."""
        for there, mine in {
            "$(POD_IP)": "127.0.0.1",
            "tcp://cosim-tiny-coordinator:": "tcp://127.0.0.1:",
            ":5570": f":{port}",
            ":9464": ":0",
            KEYS_PATH: str(tmp_path / "keys.json"),
            CREDENTIAL_PATH: str(tmp_path / f"h{index}.json"),
            "/runs/": f"{tmp_path}/",
        }.items():
            word = word.replace(there, mine)
        return word

    shell = pod(found, "cosim-tiny-hosts")["containers"][0]["command"]
    words = pod(found, "cosim-tiny-coordinator")["containers"][0]["args"]
    commands = [
        ["cosim", *map(here, words), "--run-dir", str(tmp_path / "run")],
        *([here(word, index) for word in shell] for index in range(2)),
    ]
    processes = []
    try:
        for index, command in enumerate(commands):
            own = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index - 1)}
            processes.append(
                subprocess.Popen(
                    command, env={**environment(), **own}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
            )
        ends = [(process.communicate(timeout=60), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [status for _texts, status in ends] == [0, 0, 0], ends
    got = json.loads(ends[0][0][0])
    plain = json.loads(cosim("up", "tiny", "--workers", "0", "--json", "--run-dir", tmp_path / "plain").stdout)
    assert (got["status"], got["digest"], got["refused_peers"]) == ("passed", plain["digest"], 0)
    figures = (tmp_path / "run" / "metrics.prom").read_text().splitlines()
    assert {"cosim_hosts 2.0", "cosim_hosts_joined 2.0", f"cosim_workers {got['workers']:.1f}"} <= set(figures)
    assert [host["name"] for host in got["over_hosts"]["hosts"]] == ["h0", "h1"]


def engine_with(folder: Path, keys: RunKeys) -> K8sEngine:
    """The engine as the coordinator makes it."""
    (folder / "keys.json").write_bytes(hub_keys_text(keys))
    engine = make_engine("k8s", folder / "engine", {"keys": str(folder / "keys.json")})
    assert isinstance(engine, K8sEngine)
    return engine


def test_the_engine_takes_the_keys_of_the_secret(tmp_path: Path) -> None:
    """The coordinator's keys are those of the rendering, and can give no host's credential away."""
    keys = RunKeys.generate(host_names(2))
    engine = engine_with(tmp_path, keys)
    assert engine.keys.for_hub() == keys.for_hub()
    with pytest.raises(KeyError):
        engine.keys.credential("h0")
    anyio.run(engine.start, [Slot("h0", "", ("cosim",), b""), Slot("h1", "", ("cosim",), b"")])
    assert anyio.run(engine.poll) == [] and engine.logs("h0") is None


def test_a_host_without_keys_is_a_usage_error(tmp_path: Path) -> None:
    """More hosts than were rendered are named before anything waits for them."""
    engine = engine_with(tmp_path, RunKeys.generate(host_names(1)))
    with pytest.raises(UsageError, match="none for h1"):
        anyio.run(engine.start, [Slot(name, "", ("cosim",), b"") for name in host_names(2)])


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"public": 1, "secret": "topsecret", "peers": {}}'])
def test_keys_that_are_none_are_refused_without_showing_them(tmp_path: Path, content: bytes | None) -> None:
    """A missing or foreign file of keys is a usage error that does not show its content."""
    if content is not None:
        (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(UsageError, match="option keys of engine k8s") as caught:
        read_hub_keys(tmp_path / "keys.json")
    assert "topsecret" not in str(caught.value)


def test_secrets_need_keys_of_all_hosts() -> None:
    """Keys that were made for fewer hosts can't be rendered."""
    with pytest.raises(KeyError):
        secrets(Deployment("tiny", 2, IMAGE), RunKeys.generate(host_names(1)))
