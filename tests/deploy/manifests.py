"""The Kubernetes manifests of deploy/, and what follows from them: which pods there are, and which of them may talk to which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.deploy.files import DEPLOY

FOLDER: Final = DEPLOY / "kubernetes"
Manifest = dict[str, Any]
Labels = Mapping[str, str]
KUSTOMIZATION: Final[Manifest] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))


class Workload(NamedTuple):
    """spec: of its pods. labels: theirs. claims: names of the claims that each of its pods has of its own."""

    name: str
    kind: str
    replicas: int
    labels: Labels
    spec: Manifest
    claims: frozenset[str]

    @property
    def ports(self) -> dict[str, int]:
        """Of its containers, by name."""
        return {port["name"]: port["containerPort"] for container in self.containers for port in container["ports"]}

    @property
    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


class Connection(NamedTuple):
    """port: of its end, as a number."""

    begin: str
    end: str
    port: int


def files() -> list[Path]:
    return [file for file in sorted(FOLDER.glob("*.yaml")) if file.name != "kustomization.yaml"]


def manifests(kind: str = "") -> list[Manifest]:
    """Of one kind, or of all. Nobody changes them: they are read once."""
    return [document for document in _documents() if document["kind"] == kind or not kind]


@cache
def _documents() -> list[Manifest]:
    return [document for file in files() for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def workloads() -> dict[str, Workload]:
    """By name."""
    found = {}
    for document in manifests("Deployment") + manifests("StatefulSet"):
        spec, name = document["spec"], document["metadata"]["name"]
        template = spec["template"]
        assert selects(spec["selector"], template["metadata"]["labels"]), f"{name} does not know its own pods"
        claims = frozenset(claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ()))
        labels = template["metadata"]["labels"]
        found[name] = Workload(name, document["kind"], spec["replicas"], labels, template["spec"], claims)
    return found


def selects(selector: Manifest, labels: Labels) -> bool:
    """What a LabelSelector says of the labels; an empty one selects all."""
    matches = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In", "another operator is not read here"
        matches = matches and labels.get(expression["key"]) in expression["values"]
    return matches


def permitted(direction: str, pod: Workload, other: Workload, port: int) -> bool:
    """Whether a NetworkPolicy lets the pod talk with the other one. direction: `ingress` or `egress`, as the pod sees it. port: of who is asked."""
    policies = [
        policy["spec"]
        for policy in manifests("NetworkPolicy")
        if direction.title() in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    rules = [rule for spec in policies for rule in spec.get(direction, ())]
    return not policies or any(_is_meant(rule, direction, other, port) for rule in rules)


def _is_meant(rule: Manifest, direction: str, other: Workload, port: int) -> bool:
    peers = rule["from" if direction == "ingress" else "to"]
    ports = {named["port"] for named in rule["ports"]}
    return port in ports and any("podSelector" in peer and selects(peer["podSelector"], other.labels) for peer in peers)


def connections() -> Iterator[Connection]:
    """All that the policies let through, to ports that somebody listens at."""
    pods = list(workloads().values())
    for begin in pods:
        for end in pods:
            for port in end.ports.values():
                if permitted("egress", begin, end, port) and permitted("ingress", end, begin, port):
                    yield Connection(begin.name, end.name, port)
