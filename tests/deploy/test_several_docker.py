"""The compose file of several gates and ComfyUIs, by parsing: what it names is there, only the gates reach ComfyUI, and secrets are files."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

import yaml

from proxy.compiled_config import compile_policies
from proxy.config import load_config
from proxy.config.units import parse_duration
from tests.deploy.files import DEPLOY
from tests.deploy.plainyaml import read_yaml

FOLDER = DEPLOY / "docker" / "several"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
CONFIG = load_config(FOLDER / "config.toml", {})
NGINX = (FOLDER / "nginx.conf").read_text(encoding="utf-8")
README = (DEPLOY / "docker" / "README.md").read_text(encoding="utf-8")
GATES, COMFYUIS = ("gate-1", "gate-2"), ("comfyui-1", "comfyui-2")


def in_network(network: str) -> set[str]:
    return {name for name, service in SERVICES.items() if network in service["networks"]}


def address_of(service: str, network: str) -> str:
    return str(SERVICES[service]["networks"][network]["ipv4_address"])


def test_the_configuration_is_sound() -> None:
    assert compile_policies(CONFIG)
    assert [urlsplit(comfyui.url).hostname for comfyui in CONFIG.comfyuis] == list(COMFYUIS)
    assert urlsplit(CONFIG.limits.storage).hostname in in_network("stores")
    assert CONFIG.audit_file is not None
    assert CONFIG.audit_file.is_relative_to(CONFIG.server.state_dir)


def test_only_the_gates_reach_a_comfyui() -> None:
    for number, (comfyui, url) in enumerate(zip(COMFYUIS, CONFIG.comfyuis, strict=True), 1):
        network = f"comfyui-{number}"
        assert SERVICES[comfyui]["networks"] == [network]
        assert in_network(network) == {comfyui, *GATES}
        assert COMPOSE["networks"][network] == {"internal": True}
        assert "ports" not in SERVICES[comfyui]
        command = SERVICES[comfyui]["command"]
        assert command[command.index("--port") + 1] == str(urlsplit(url.url).port)
        assert not {"--enable-manager", "--enable-cors-header", "--enable-assets"} & set(command)


def test_each_comfyui_has_a_card_and_a_volume_of_its_own() -> None:
    devices = [SERVICES[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for name in COMFYUIS]
    data = [SERVICES[name]["volumes"][0] for name in COMFYUIS]

    assert devices == [["0"], ["1"]]
    assert data == ["comfyui-1:/data", "comfyui-2:/data"]


def test_the_balancer_alone_leads_to_the_gates() -> None:
    assert in_network("gates") == {"balancer", *GATES}
    assert in_network("edge") == {"balancer", "cloudflared"}
    (subnet,) = (ipaddress.ip_network(part["subnet"]) for part in COMPOSE["networks"]["gates"]["ipam"]["config"])
    addresses = {name: address_of(name, "gates") for name in in_network("gates")}
    assert all(ipaddress.ip_address(address) in subnet for address in addresses.values())
    assert CONFIG.server.trusted_proxies == (ipaddress.ip_network(addresses["balancer"]),)
    named = re.findall(r"^ +server (\S+):(\d+) ", NGINX, re.MULTILINE)
    assert named == [(addresses[gate], str(CONFIG.server.port)) for gate in GATES]


def test_the_gates_are_alike() -> None:
    first, second = (
        {
            key: value
            for key, value in SERVICES[gate].items()
            if key not in ("build", "pull_policy", "networks", "volumes")
        }
        for gate in GATES
    )
    assert first == second
    assert SERVICES["gate-1"]["networks"].keys() == SERVICES["gate-2"]["networks"].keys()
    folders = [
        {volume.partition(":")[2]: volume.partition(":")[0] for volume in SERVICES[gate]["volumes"]} for gate in GATES
    ]
    assert folders[0]["/etc/comfygate"] == folders[1]["/etc/comfygate"]
    assert folders[0][str(CONFIG.server.state_dir)] != folders[1][str(CONFIG.server.state_dir)]
    assert parse_duration(first["stop_grace_period"]) > CONFIG.server.shutdown_grace


def test_nothing_is_published_but_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"balancer": ["127.0.0.1:8190:8190"], "grafana": ["127.0.0.1:3000:3000"]}
    # Networks without a way out, but for what must have one.
    closed = {name for name, network in COMPOSE["networks"].items() if network and network.get("internal")}
    assert COMPOSE["networks"].keys() - closed == {"edge", "gates", "screen"}


def test_every_container_is_held_back() -> None:
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == "unless-stopped", name
        assert (service["logging"]["driver"], service["logging"]["options"].keys()) == (
            "local",
            {"max-size", "max-file"},
        )


def test_who_is_asked_how_it_is() -> None:
    """A gate by its image, cloudflared by the dashboard."""
    asked = {name for name, service in SERVICES.items() if "healthcheck" in service}
    waited_for = {
        name
        for service in SERVICES.values()
        if isinstance(service.get("depends_on"), dict)
        for name, how in service["depends_on"].items()
        if how["condition"] == "service_healthy"
    }

    assert SERVICES.keys() - asked == {"cloudflared", *GATES}
    assert waited_for == {"postgres", "redis"}


def test_secrets_are_files_and_reach_who_needs_them() -> None:
    given = {name: service["secrets"] for name, service in SERVICES.items() if "secrets" in service}
    environment = {key: value for service in SERVICES.values() for key, value in service.get("environment", {}).items()}

    assert given == {
        "gate-1": ["postgres_url", "session_secret"],
        "gate-2": ["postgres_url", "session_secret"],
        "postgres": ["postgres_password"],
        "cloudflared": ["tunnel_token"],
        "grafana": ["grafana_password"],
    }
    # A file of mode 600 is read by its owner.
    assert all(SERVICES[name]["user"].startswith("${GATE_USER:?") for name in given)
    assert {str(CONFIG.jobs.database_file), str(CONFIG.sessions.secret_file)} == {
        f"/run/secrets/{name}" for name in given["gate-1"]
    }
    assert {value for key, value in environment.items() if "PASSWORD" in key} == {
        "/run/secrets/postgres_password",
        "/run/secrets/grafana_password",
    }
    assert COMPOSE["secrets"] == {name: {"file": f"./secrets/{name}"} for names in given.values() for name in names}
    assert all(f"secrets/{name}" in README for name in COMPOSE["secrets"])


def test_networks_volumes_and_files_are_there() -> None:
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(COMPOSE["networks"])
    ignored = (FOLDER / ".gitignore").read_text(encoding="utf-8").split()
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            own = source.removeprefix("./")
            if f"{own}/" in ignored:
                assert re.search(rf"mkdir -p (?:-m 755 )?(?:[\w-]+ )*{own}\b", README), volume
            else:
                exists = (FOLDER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
                assert exists, volume
    assert {".env", "secrets/"} < set(ignored)
    assert (FOLDER / SERVICES["gate-1"]["build"]["context"] / SERVICES["gate-1"]["build"]["dockerfile"]).exists()


def test_images_have_versions() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}

    assert {images[gate] for gate in GATES} == {"comfygate:local"}
    for name, image in images.items():
        if name not in COMFYUIS:
            assert re.search(r":(?!latest$)[\w.-]+$", image), name


def test_prometheus_asks_both_gates() -> None:
    (scrape,) = read_yaml(FOLDER / "prometheus.yml")["scrape_configs"]

    assert scrape["job_name"] == "comfygate"
    assert scrape["static_configs"] == [{"targets": [f"{gate}:{CONFIG.ops.port}" for gate in GATES]}]
    assert {*GATES, "prometheus"} <= in_network("monitoring")
