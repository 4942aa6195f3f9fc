"""The manifests: a cluster takes them, everything that they name is there, pods are held back, and the gates alone reach ComfyUI."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from proxy.compiled_config import compile_policies
from proxy.config import load_config
from tests.deploy.files import shipped
from tests.deploy.manifests import (
    FOLDER,
    KUSTOMIZATION,
    Manifest,
    Workload,
    connections,
    files,
    manifests,
    selects,
    workloads,
)
from tests.programs import needs

WORKLOADS = workloads()
GATE = WORKLOADS["gate"]
CONFIG = load_config(FOLDER / "config.toml", {})
README = (FOLDER / "README.md").read_text(encoding="utf-8")
OLDEST, NEWEST = "1.30", "1.37"
GENERATED = {"configMap": "configMapGenerator", "secret": "secretGenerator"}


def seconds_of(probe: Manifest) -> float:
    return float(probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3))


def container_of(workload: Workload) -> Manifest:
    (container,) = workload.containers
    return container


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_a_cluster_takes_them(version: str) -> None:
    for manifest in manifests():
        # strict: a field that is not known is a mistake, and not left out.
        kubernetes_validate.validate(manifest, version, strict=True)
    assert f"Kubernetes {OLDEST} or newer" in README


def test_a_mistake_would_be_seen() -> None:
    broken = yaml.safe_load((FOLDER / "namespace.yaml").read_text(encoding="utf-8")) | {"specs": {}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, NEWEST, strict=True)


def test_every_file_is_applied() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == [file.name for file in files()]
    assert KUSTOMIZATION["namespace"] == manifests("Namespace")[0]["metadata"]["name"]
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests()]
    assert len(set(names)) == len(names)


def secrets_in(folder: Path) -> None:
    for generator in KUSTOMIZATION["secretGenerator"]:
        for line in generator["files"]:
            _, _, file = line.partition("=")
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text("x", encoding="utf-8")


@needs("kubectl")
def test_kubectl_puts_them_together(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "mine"))
    secrets_in(folder)

    said = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=240, check=False
    )

    assert said.returncode == 0, said.stderr
    whole = list(yaml.safe_load_all(said.stdout))
    made = [manifest for manifest in whole if manifest["kind"] in ("ConfigMap", "Secret")]
    assert len(whole) == len(manifests()) + len(made)
    assert {manifest["metadata"].get("namespace", "comfygate") for manifest in whole} == {"comfygate"}
    (config,) = (manifest["data"] for manifest in made if manifest["metadata"]["name"] == "gate-config")
    assert config == {"config.toml": (FOLDER / "config.toml").read_text(encoding="utf-8")}
    images = re.findall(r"image: (\S+)", said.stdout)
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_the_configuration_is_sound() -> None:
    assert compile_policies(CONFIG)
    assert CONFIG.audit_file is not None
    assert CONFIG.audit_file.is_relative_to(CONFIG.server.state_dir)
    assert (CONFIG.server.port, CONFIG.ops.port) == (shipped().server.port, shipped().ops.port)


def test_the_gates_ports_and_probes_are_the_configurations() -> None:
    container = container_of(GATE)

    assert GATE.ports == {"http": CONFIG.server.port, "ops": CONFIG.ops.port}
    for name in ("startupProbe", "livenessProbe"):
        assert container[name]["httpGet"] == {"path": "/healthz", "port": "ops"}
    # One that waits for ComfyUI still answers: tests/proxy/observability/test_ops_server.py has what /readyz says then.
    assert container["readinessProbe"]["httpGet"] == {"path": "/gate/health", "port": "http"}


def test_every_probe_asks_a_port_that_is_there() -> None:
    for workload in WORKLOADS.values():
        for name, probe in container_of(workload).items():
            if name.endswith("Probe") and "exec" not in probe:
                (asked,) = (probe[how]["port"] for how in ("httpGet", "tcpSocket") if how in probe)
                assert asked in workload.ports, (workload.name, name)


def test_who_starts_slowly_is_not_killed() -> None:
    for workload in (GATE, WORKLOADS["comfyui"], WORKLOADS["postgres"]):
        container = container_of(workload)
        assert seconds_of(container["startupProbe"]) >= 60, workload.name
        assert seconds_of(container["livenessProbe"]) >= 30, workload.name
    assert seconds_of(container_of(WORKLOADS["comfyui"])["livenessProbe"]) >= 300


def test_the_gate_has_the_time_that_it_drains() -> None:
    before_s = container_of(GATE)["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert GATE.spec["terminationGracePeriodSeconds"] > before_s + CONFIG.server.shutdown_grace


def sources_of(volume: Manifest) -> list[tuple[str, Manifest]]:
    """What a volume is made of: kind and description."""
    parts = volume["projected"]["sources"] if "projected" in volume else [volume]
    return [(kind, of) for part in parts for kind, of in part.items() if kind != "name"]


def test_what_the_pods_mount_is_there() -> None:
    keys = {
        (field, made["name"]): {line.partition("=")[0] for line in made["files"]}
        for field, generator in GENERATED.items()
        for made in KUSTOMIZATION[generator]
    }
    for workload in WORKLOADS.values():
        volumes = {volume["name"]: volume for volume in workload.spec.get("volumes", ())}
        mounts = container_of(workload).get("volumeMounts", ())
        assert {mount["name"] for mount in mounts} == volumes.keys() | workload.claims, workload.name
        for source, of in (found for volume in volumes.values() for found in sources_of(volume)):
            if source in GENERATED:
                assert (source, of.get("name") or of["secretName"]) in keys, (workload.name, of)
            else:
                assert source == "emptyDir"
                assert "sizeLimit" in of, f"{workload.name} fills the node's disk"
        for mount in mounts:
            assert "subPath" not in mount or ("configMap", "balancer-config") in keys


def test_what_the_maps_are_made_of_is_there_and_secrets_are_not() -> None:
    for made in KUSTOMIZATION["configMapGenerator"]:
        assert all((FOLDER / file).exists() for file in made["files"])
    for made in KUSTOMIZATION["secretGenerator"]:
        for line in made["files"]:
            key, _, file = line.partition("=")
            assert file == f"secrets/{key}"
            assert f"> {file}" in README or f"`{file}`" in README
    assert (FOLDER / ".gitignore").read_text(encoding="utf-8").split() == ["secrets/"]
    assert not manifests("Secret")


def test_secrets_are_read_where_they_are_mounted() -> None:
    mounted = {mount["name"]: mount["mountPath"] for mount in container_of(GATE)["volumeMounts"]}
    keys = {line.partition("=")[0] for made in KUSTOMIZATION["secretGenerator"] for line in made["files"]}

    read = [CONFIG.jobs.database_file, CONFIG.sessions.secret_file]
    for file in read:
        assert file is not None
        assert (str(file.parent), file.name in keys) == (mounted["secrets"], True)
    assert str(CONFIG.file.name) == "config.toml"
    assert mounted["config"] == "/etc/comfygate"
    assert mounted["state"] == str(CONFIG.server.state_dir)
    password = next(
        env for env in container_of(WORKLOADS["postgres"])["env"] if env["name"] == "POSTGRES_PASSWORD_FILE"
    )
    assert password["value"] == "/run/secrets/postgres/postgres_password"


def services() -> dict[str, Manifest]:
    return {service["metadata"]["name"]: service["spec"] for service in manifests("Service")}


def selected_by(service: Manifest) -> Workload:
    """Whose pods it leads to."""
    found = []
    for workload in WORKLOADS.values():
        names = [f"{workload.name}-{number}" for number in range(workload.replicas)]
        pods = [{**workload.labels, "statefulset.kubernetes.io/pod-name": name} for name in names]
        found += [workload] if any(selects({"matchLabels": service["selector"]}, pod) for pod in pods) else []
    (workload,) = found
    return workload


def test_every_service_leads_to_pods_and_their_ports() -> None:
    for name, service in services().items():
        ports = selected_by(service).ports
        assert all(port["targetPort"] in ports for port in service["ports"]), name
    for workload in manifests("StatefulSet"):
        assert (
            services()[workload["spec"]["serviceName"]].get("clusterIP", "None") == "None"
            or workload["spec"]["replicas"] == 1
        )


def reached(host: str | None) -> Workload:
    """The pods behind a name: of a service, or of one pod of a StatefulSet."""
    first, _, service = (host or "").partition(".")
    workload = selected_by(services()[service or first])
    if service:
        assert first in {f"{workload.name}-{number}" for number in range(workload.replicas)}, host
    return workload


def test_the_gates_find_what_they_ask() -> None:
    asked = [urlsplit(comfyui.url) for comfyui in CONFIG.comfyuis]
    assert [(reached(url.hostname).name, url.port) for url in asked] == [("comfyui", 8188)] * WORKLOADS[
        "comfyui"
    ].replicas
    assert len({url.hostname for url in asked}) == len(asked)
    assert reached(urlsplit(CONFIG.limits.storage).hostname).name == "redis"
    (address,) = re.findall(r"postgresql://comfygate:%s@(\w+)/comfygate", README)
    assert reached(address).name == "postgres"


def test_the_balancer_knows_every_gate() -> None:
    text = (FOLDER / "nginx.conf").read_text(encoding="utf-8")
    named = re.findall(r"^ +server (\S+):(\d+) ", text, re.MULTILINE)

    assert named == [(f"gate-{number}", str(CONFIG.server.port)) for number in range(GATE.replicas)]
    for name, _ in named:
        assert services()[name]["selector"]["statefulset.kubernetes.io/pod-name"] == name
        assert reached(name).name == "gate"
    assert re.findall(r"^ +listen (\d+);", text, re.MULTILINE) == [
        str(port) for port in WORKLOADS["balancer"].ports.values()
    ]


def test_who_reaches_whom() -> None:
    assert {tuple(connection) for connection in connections()} == {
        ("cloudflared", "balancer", 8080),
        ("balancer", "gate", 8190),
        ("gate", "comfyui", 8188),
        ("gate", "postgres", 5432),
        ("gate", "redis", 6379),
    }


def test_nobody_else_is_let_in_or_out() -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in manifests("NetworkPolicy")}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    peers = {
        name: [
            peer
            for rule in (*spec.get("ingress", ()), *spec.get("egress", ()))
            for peer in _peers(rule)
            if "podSelector" not in peer
        ]
        for name, spec in policies.items()
    }
    outside: dict[str, Any] = {name: found for name, found in peers.items() if found}
    assert outside.keys() == {"gate", "cloudflared", "names"}
    assert outside["gate"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert not selects(policies["names"]["podSelector"], WORKLOADS["comfyui"].labels)
    (internet,) = outside["cloudflared"]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} == set(internet["ipBlock"]["except"])


def _peers(rule: Manifest) -> list[Manifest]:
    """SECURITY: a rule without peers, or without ports, is one for everybody."""
    assert rule.get("ports")
    peers: list[Manifest] = rule.get("from") or rule["to"]
    assert peers
    return peers


def test_policies_and_budgets_name_pods_that_there_are() -> None:
    for policy in manifests("NetworkPolicy"):
        assert any(selects(policy["spec"]["podSelector"], workload.labels) for workload in WORKLOADS.values())
    for budget in manifests("PodDisruptionBudget"):
        spec = budget["spec"]
        (workload,) = (one for one in WORKLOADS.values() if selects(spec["selector"], one.labels))
        assert workload.replicas > spec["minAvailable"], "it would never let a node go"
    for workload in WORKLOADS.values():
        for spread in workload.spec.get("topologySpreadConstraints", ()):
            assert selects(spread["labelSelector"], workload.labels)


def test_every_pod_is_held_back() -> None:
    """As the namespace's label asks of it: Pod Security Standards, "restricted"."""
    (namespace,) = manifests("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, workload in WORKLOADS.items():
        pod = workload.spec["securityContext"]
        assert (pod["runAsNonRoot"], pod["runAsUser"] > 0) == (True, True), name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & workload.spec.keys(), name
        assert (workload.spec["automountServiceAccountToken"], workload.spec["enableServiceLinks"]) == (False, False), (
            name
        )
        context = container_of(workload)["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context.get("readOnlyRootFilesystem", False) is (name != "comfyui"), name
        assert "memory" in container_of(workload)["resources"]["limits"], name


def test_the_stranger_of_the_words_is_let_in_and_reaches_nobody() -> None:
    """It must fail for the policies, and not since the namespace refuses it."""
    (text,) = re.findall(r"--overrides='(\{.*\})'", README)
    pod = json.loads(text) | {"kind": "Pod", "metadata": {"name": "stranger"}}

    kubernetes_validate.validate(pod, OLDEST, strict=True)
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert urlsplit(container["command"][-1]).netloc == urlsplit(CONFIG.comfyuis[0].url).netloc


def test_nothing_is_published() -> None:
    assert all(service.get("type", "ClusterIP") == "ClusterIP" for service in services().values())
    assert not manifests("Ingress")


def test_each_comfyui_has_a_card_and_a_disk_of_its_own() -> None:
    container = container_of(WORKLOADS["comfyui"])

    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert WORKLOADS["comfyui"].claims == {"data"}
    arguments = container["args"]
    assert arguments[arguments.index("--port") + 1] == str(WORKLOADS["comfyui"].ports["http"])
    assert not {"--enable-manager", "--enable-cors-header", "--enable-assets"} & set(arguments)
