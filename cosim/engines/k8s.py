"""Engine `k8s`: a run over hosts on Kubernetes, as plain manifests; and what the coordinator does there.

Kubernetes places the pods, nothing else: no operator, no chart, no access to its API from the run. `manifests` gives

==============  ====================================================================================================
Secrets         the hub's own keys with the allow-list, and each host's credential; made for one run
ConfigMap       the topology, when it is a file of the user's
Service         headless: the name at which the hosts find the coordinator
Job             the coordinator: ``cosim up --engine k8s``, the root hub
Indexed Job     one pod per host hub; its completion index is its name
NetworkPolicy   two: who may reach the coordinator, and that nobody reaches a host
==============  ====================================================================================================

Keys are made when the manifests are: a pod that made them would need the right to write Secrets, and the hosts a way to get
them that is not yet protected. So a rendering is one run; the next run needs new Secrets (``--part secrets``).

A pod sees its own credential only: it is mounted by subPathExpr. Kubernetes gives a Secret's files to the group when fsGroup is
set (mode 0440, whatever defaultMode says), and a process that is not root can read them in no other way; cosim refuses a
credential file that a group can read, so the pod's shell hands it over on stdin.

Source: Kubernetes API reference v1.29 (batch/v1 Job, networking.k8s.io/v1 NetworkPolicy, core/v1 Secret and Pod).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosim.engines.base import Exit, Slot
from cosim.engines.options import read_options
from cosim.errors import UsageError

if TYPE_CHECKING:
    from cosim.link.keys import RunKeys

USER = 10001
"""Of the image of deploy/Containerfile."""
PORT = 5570
KEYS_PATH = "/run/cosim/hub/keys.json"
CREDENTIAL_PATH = "/run/cosim/credential.json"
TOPOLOGY_FOLDER = "/run/cosim/topology"
JOIN_LIMIT_S = 600
"""For nodes to be found and images to be pulled."""
MAX_CONFIG_BYTES = 1_000_000
"""Kubernetes refuses a ConfigMap of more than 1 MiB."""

Manifest = dict[str, Any]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


@dataclass(frozen=True)
class Deployment:
    """What manifests are made from; `checked` gives one that Kubernetes takes."""

    topology: str
    """Name of a shipped topology, or the file name of `topology_text`."""
    hosts: int
    image: str
    name: str = ""
    """Of the Jobs and all else, a label of DNS (RFC 1123) of at most 40 characters; "" is made from the topology's."""
    namespace: str = ""
    """ "" is what kubectl is set to."""
    up: tuple[str, ...] = ()
    """More words for ``cosim up`` in the coordinator."""
    topology_text: str | None = None
    """Content of a topology file that the image does not hold."""
    lease_s: float = 10.0
    cpu: str = "1"
    memory: str = "1Gi"
    """Requested for each host's pod; memory is its limit too."""
    deadline_s: int = 86_400
    """Wall-clock limit of the Jobs."""
    keep_s: int = 86_400
    """How long finished Jobs are kept."""
    claim: str = ""
    """PersistentVolumeClaim for run directories; "" keeps them no longer than the pod."""
    pull_secret: str = ""
    """Secret with which the image is pulled."""
    metrics_port: int = 0
    """Where the coordinator serves metrics to the cluster; 0 is nowhere."""

    def checked(self) -> Deployment:
        """The same with a name; UsageError for what Kubernetes or cosim would refuse."""
        name = self.name or re.sub(r"[^a-z0-9]+", "-", f"cosim-{Path(self.topology).stem.lower()}").strip("-")[
            :40
        ].strip("-")
        for option, text, pattern, wanted in (
            (
                "--name",
                name,
                _LABEL,
                "a label of DNS: at most 40 of a-z, 0-9 and -, with a letter or digit at both ends",
            ),
            ("--namespace", self.namespace or "x", _LABEL, "the name of a namespace"),
            ("--cpu", self.cpu, _QUANTITY, "a quantity such as 2 or 500m"),
            ("--memory", self.memory, _QUANTITY, "a quantity such as 2Gi"),
            ("--image", self.image, re.compile(r"[^\s]+"), "a reference without blanks"),
        ):
            if not pattern.fullmatch(text):
                raise UsageError(
                    f"{option} must be {wanted}, not {text!r}", code="k8s", where=option, next_step="change it"
                )
        if not 1 <= self.hosts <= 1000:
            raise UsageError(
                f"--hosts must be 1 to 1000, not {self.hosts}", code="k8s", where="--hosts", next_step="change it"
            )
        if self.topology_text is not None and len(self.topology_text.encode()) > MAX_CONFIG_BYTES:
            raise UsageError(
                f"a topology file must have at most {MAX_CONFIG_BYTES:,} bytes to fit into a ConfigMap",
                code="k8s",
                where=self.topology,
                next_step="put it into the image, below its folder of topologies, and give its name",
            )
        return replace(self, name=name)

    @property
    def coordinator(self) -> str:
        """Name of the coordinator's Job and Service."""
        return f"{self.name}-coordinator"

    @property
    def endpoint(self) -> str:
        """Where the hosts reach the coordinator."""
        domain = f".{self.namespace}.svc" if self.namespace else ""
        return f"tcp://{self.coordinator}{domain}:{PORT}"


def host_names(count: int) -> list[str]:
    """Names of the host hubs: ``h`` and the completion index."""
    return [f"h{index}" for index in range(count)]


# -- manifests ---------------------------------------------------------------------------------------------------------


def manifests(deployment: Deployment) -> list[Manifest]:
    """All but the Secrets, in the order in which they are to be created; equal for equal arguments."""
    one = deployment.checked()
    found = [_service(one), _coordinator(one), _hosts(one), *_policies(one)]
    return [_config(one), *found] if one.topology_text is not None else found


def secrets(deployment: Deployment, keys: RunKeys) -> list[Manifest]:
    """The hub's Secret and the hosts'.

    Args:
        deployment: names and number of hosts.
        keys: of `host_names`, new for this run.
    """
    one = deployment.checked()
    credentials = {f"{name}.json": keys.credential(name) for name in host_names(one.hosts)}
    return [
        _secret(one, f"{one.name}-hub", {"keys.json": hub_keys_text(keys)}),
        _secret(one, f"{one.name}-hosts", credentials),
    ]


def _secret(one: Deployment, name: str, files: Mapping[str, bytes]) -> Manifest:
    data = {file: base64.b64encode(content).decode() for file, content in files.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(one, name),
        "type": "Opaque",
        "immutable": True,
        "data": data,
    }


def _config(one: Deployment) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(one, f"{one.name}-topology"),
        "immutable": True,
        "data": {Path(one.topology).name: one.topology_text},
    }


def _service(one: Deployment) -> Manifest:
    # Only a pod that is ready has its name in DNS: the hosts wait for the name, and then the hub is there.
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(one, one.coordinator),
        "spec": {
            "clusterIP": "None",
            "selector": _labels(one, "coordinator"),
            "ports": [{"name": "hub", "port": PORT, "protocol": "TCP"}],
        },
    }


def _coordinator(one: Deployment) -> Manifest:
    topology = one.topology if one.topology_text is None else f"{TOPOLOGY_FOLDER}/{Path(one.topology).name}"
    words = ["up", topology, "--hosts", str(one.hosts), "--engine", "k8s", "--engine-option", f"keys={KEYS_PATH}"]
    words += ["--listen", f"$(POD_IP):{PORT}", "--lease", f"{one.lease_s:g}"]
    words += ["--join-limit", str(JOIN_LIMIT_S)]
    words += ["--metrics", f"$(POD_IP):{one.metrics_port}"] if one.metrics_port else []
    container = {
        **_container(one, "coordinator", [*words, *one.up]),
        "env": [_field("POD_IP", "status.podIP")],
        "ports": _ports(one),
        # It looks for the listening socket and does not connect: a connection that says nothing is refused and counted.
        "readinessProbe": {
            "exec": {"command": ["/bin/sh", "-c", f"grep -q ':{PORT:04X} 0*:0000 0A' /proc/net/tcp /proc/net/tcp6"]},
            "periodSeconds": 1,
        },
    }
    volumes = [_volume("hub", {"secret": {"secretName": f"{one.name}-hub", "defaultMode": 0o400}})]
    mounts = [_mount("hub", str(Path(KEYS_PATH).parent))]
    if one.topology_text is not None:
        volumes.append(_volume("topology", {"configMap": {"name": f"{one.name}-topology"}}))
        mounts.append(_mount("topology", TOPOLOGY_FOLDER))
    container["volumeMounts"] += mounts
    spec = _pod(one, container, volumes)
    runs = {"persistentVolumeClaim": {"claimName": one.claim}} if one.claim else {"emptyDir": {}}
    spec["volumes"] = [_volume("runs", runs), *spec["volumes"][1:]]
    return _job(one, "coordinator", one.coordinator, spec, {})


def _hosts(one: Deployment) -> Manifest:
    host = one.endpoint.removeprefix("tcp://").rpartition(":")[0]
    options = f'--credential - --lease {one.lease_s:g} --run-dir "/runs/h$JOB_COMPLETION_INDEX"'
    script = f'exec cosim host {one.endpoint} "h$JOB_COMPLETION_INDEX" {options} <{CREDENTIAL_PATH}'
    container = {
        **_container(one, "host", []),
        "command": ["/bin/sh", "-c", script],
        "resources": {"requests": {"cpu": one.cpu, "memory": one.memory}, "limits": {"memory": one.memory}},
    }
    del container["args"]
    # JOB_COMPLETION_INDEX is put into the environment of each container by the controller of Indexed Jobs.
    own = {"name": "credentials", "mountPath": CREDENTIAL_PATH, "subPathExpr": "h$(JOB_COMPLETION_INDEX).json"}
    container["volumeMounts"].append({**own, "readOnly": True})
    wait = {
        **_container(one, "wait-for-coordinator", []),
        "command": ["/bin/sh", "-c", f"until getent hosts {host} >/dev/null; do sleep 0.5; done"],
    }
    del wait["args"], wait["volumeMounts"]
    spec = _pod(
        one,
        container,
        [_volume("credentials", {"secret": {"secretName": f"{one.name}-hosts", "defaultMode": 0o400}})],
    )
    spec["initContainers"] = [wait]
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": _labels(one, "host")},
        }
    ]
    sizes = {"completions": one.hosts, "parallelism": one.hosts, "completionMode": "Indexed"}
    return _job(one, "host", f"{one.name}-hosts", spec, sizes)


def _job(one: Deployment, role: str, name: str, pod: Manifest, sizes: Manifest) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(one, name, role),
        "spec": {
            **sizes,
            # A hub is never started again: the run that it was of is over, and a second one of its name would be refused.
            "backoffLimit": 0,
            "activeDeadlineSeconds": one.deadline_s,
            "ttlSecondsAfterFinished": one.keep_s,
            "template": {"metadata": {"labels": _labels(one, role)}, "spec": pod},
        },
    }


def _pod(one: Deployment, container: Manifest, volumes: list[Manifest]) -> Manifest:
    spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [_volume("runs", {"emptyDir": {}}), _volume("tmp", {"emptyDir": {"medium": "Memory"}}), *volumes],
    }
    if one.pull_secret:
        spec["imagePullSecrets"] = [{"name": one.pull_secret}]
    return spec


def _container(one: Deployment, name: str, arguments: Sequence[str]) -> Manifest:
    return {
        "name": name,
        "image": one.image,
        "args": list(arguments),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "runs", "mountPath": "/runs"}, {"name": "tmp", "mountPath": "/tmp"}],
    }


def _policies(one: Deployment) -> list[Manifest]:
    hub = {"protocol": "TCP", "port": PORT}
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    ingress: list[Manifest] = [{"from": [_pods(one, "host")], "ports": [hub]}]
    if one.metrics_port:  # from any namespace: Prometheus mostly has one of its own
        metrics = {"protocol": "TCP", "port": one.metrics_port}
        ingress.append({"from": [{"namespaceSelector": {}}], "ports": [metrics]})
    rules = {
        "coordinator": {"ingress": ingress, "egress": []},
        "host": {"ingress": [], "egress": [{"to": [_pods(one, "coordinator")], "ports": [hub]}, {"ports": dns}]},
    }
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": _metadata(one, f"{one.name}-{role}", role),
            "spec": {
                "podSelector": {"matchLabels": _labels(one, role)},
                "policyTypes": ["Ingress", "Egress"],
                **rule,
            },
        }
        for role, rule in rules.items()
    ]


def _pods(one: Deployment, role: str) -> Manifest:
    return {"podSelector": {"matchLabels": _labels(one, role)}}


def _labels(one: Deployment, role: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "cosim",
        "app.kubernetes.io/instance": one.name,
        "app.kubernetes.io/component": role,
    }


def _metadata(one: Deployment, name: str, role: str = "coordinator") -> Manifest:
    place = {"namespace": one.namespace} if one.namespace else {}
    return {"name": name, **place, "labels": _labels(one, role)}


def _ports(one: Deployment) -> list[Manifest]:
    metrics = [{"name": "metrics", "containerPort": one.metrics_port, "protocol": "TCP"}] if one.metrics_port else []
    return [{"name": "hub", "containerPort": PORT, "protocol": "TCP"}, *metrics]


def _volume(name: str, source: Manifest) -> Manifest:
    return {"name": name, **source}


def _mount(name: str, path: str) -> Manifest:
    return {"name": name, "mountPath": path, "readOnly": True}


def _field(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


# -- keys --------------------------------------------------------------------------------------------------------------


def hub_keys_text(keys: RunKeys) -> bytes:
    """What the coordinator reads: the hub's pair and the allow-list as JSON text, keys as Z85 text. No secret of a host's."""
    return json.dumps(keys.for_hub(), default=lambda key: key.decode()).encode() + b"\n"


def read_hub_keys(path: Path) -> RunKeys:
    """The inverse of `hub_keys_text`, from a file; the result can give no credentials.

    Raises:
        UsageError: the file can't be read, or holds something else. The text never shows the content.
    """
    from cosim.link.keys import RunKeys

    try:
        data = json.loads(path.read_bytes())
        peers = {name: key.encode() for name, key in data["peers"].items()}
        return RunKeys.from_order(
            {"public": data["public"].encode(), "secret": data["secret"].encode(), "peers": peers}
        )
    except OSError as error:
        reason = error.strerror
    except (ValueError, LookupError, TypeError, AttributeError):
        reason = "it holds something else"
    raise UsageError(
        f"option keys of engine k8s must name the hub's keys, not {path}: {reason}",
        code="engine-option",
        where="--engine-option keys",
        next_step="`cosim render k8s` puts them into the Secret that the coordinator's Job mounts",
    )


# -- engine ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class K8sOptions:
    """What ``--engine-option`` may set."""

    keys: str = ""
    """File with the hub's keys, from the Secret; required."""


class K8sEngine:
    """What places the slots when the coordinator runs in a pod: nothing, for the Indexed Job has.

    The hosts come by themselves, with credentials that they have; a pod that ends is seen by the hubs' own protocol. Attribute
    `keys`: the run's keys, which are not to be made anew.
    """

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self._options = read_options("k8s", K8sOptions, options)
        self.keys = read_hub_keys(Path(self._options.keys))

    async def start(self, slots: Sequence[Slot]) -> None:
        """Check that each slot has keys; see `Engine.start`."""
        known = set(self.keys.allowed.values())
        missing = [slot.name for slot in slots if slot.name not in known]
        if missing:
            raise UsageError(
                f"the Secret must hold keys for every host, and has none for {', '.join(missing)}",
                code="engine-host",
                where=missing[0],
                next_step="render the manifests again with --hosts of the same number as `cosim up`",
            )

    async def poll(self) -> list[Exit]:
        """Nothing: Kubernetes' API is not asked."""
        return []

    async def stop(self) -> None:
        """Nothing: the hosts' hubs are told by the root hub, or end by their lease."""

    def logs(self, name: str) -> str | None:
        """None: ``kubectl logs`` has them."""
        return None
