"""The images and the compose file, by parsing: no engine is needed. Ports, paths, users and networks fit together and fit the configuration."""

from __future__ import annotations

import ipaddress
import json
import re
import tomllib
from typing import Any
from urllib.parse import urlsplit

from typer.testing import CliRunner

from proxy.commands.command_line import app
from proxy.compiled_config import compile_policies
from proxy.config import load_config
from proxy.config.units import parse_duration
from tests.deploy.files import DEPLOY, ROOT, shipped
from tests.deploy.plainyaml import read_yaml

DOCKER = DEPLOY / "docker"
COMPOSE: dict[str, Any] = read_yaml(DOCKER / "compose.yml")
SERVICES: dict[str, Any] = COMPOSE["services"]
GATE = load_config(DOCKER / "config.toml", {})
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
README = (DOCKER / "README.md").read_text(encoding="utf-8")


def instructions(text: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def test_the_image_runs_as_nobody_in_particular() -> None:
    last_stage = instructions(DOCKERFILE)[[word for word, _ in instructions(DOCKERFILE)].index("USER") :]

    assert ("USER", "comfygate") in last_stage
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
    assert all(word not in ("ADD", "ENV_FILE") for word, _ in instructions(DOCKERFILE))


def test_the_image_copies_what_is_there() -> None:
    for word, rest in instructions(DOCKERFILE):
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert not {"policy", "proxy", "standin", "requirements.lock", "pyproject.toml"} & set(ignored)


def test_what_is_taken_out_of_the_image_is_nothing_that_the_gate_needs() -> None:
    removed = set(re.search(r"uninstall --yes (.*)", DOCKERFILE)[1].split())  # type: ignore[index]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {re.split(r"[<>=\[; ]", item)[0] for item in project["project"]["dependencies"]}
    build = {re.split(r"[<>=\[; ]", item)[0] for item in project["dependency-groups"]["build"]}

    assert not removed & needed
    assert removed == build | {"pip"}


def test_no_tool_of_the_tests_is_in_the_image() -> None:
    locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8")))
    installs = re.findall(r"pip install (.*)", DOCKERFILE)

    assert not {"pytest", "mypy", "ruff", "hypothesis", "coverage", "playwright", "uv"} & locked
    assert all("--no-deps" in arguments for arguments in installs)
    assert "requirements-dev.lock" not in DOCKERFILE


def test_the_image_is_alive_where_the_gate_says_so() -> None:
    health = next(rest for word, rest in instructions(DOCKERFILE) if word == "HEALTHCHECK")
    exposed = next(rest for word, rest in instructions(DOCKERFILE) if word == "EXPOSE").split()

    assert f"http://127.0.0.1:{GATE.ops.port}/healthz" in health
    assert exposed == [str(GATE.server.port), str(GATE.ops.port)]
    assert (GATE.server.port, GATE.ops.port) == (shipped().server.port, shipped().ops.port)
    compile(json.loads(health[health.index("[") :])[2], "HEALTHCHECK", "exec")


def test_the_image_starts_a_command_that_exists() -> None:
    entry = json.loads(next(rest for word, rest in instructions(DOCKERFILE) if word == "ENTRYPOINT"))
    command = json.loads(next(rest for word, rest in instructions(DOCKERFILE) if word == "CMD"))

    assert entry == ["comfygate"]
    assert CliRunner().invoke(app, [command[0], "--help"]).exit_code == 0
    mounts = {target for _, target, *_ in (volume.split(":") for volume in SERVICES["gate"]["volumes"])}
    assert command[command.index("--config") + 1].rpartition("/")[0] in mounts
    assert str(GATE.server.state_dir) in mounts
    assert f"VOLUME {GATE.server.state_dir}" in DOCKERFILE


def test_the_gates_configuration_is_sound() -> None:
    assert compile_policies(GATE)
    assert urlsplit(GATE.upstream.url).hostname in SERVICES
    assert urlsplit(GATE.limits.storage).hostname in SERVICES
    assert GATE.audit_file is not None
    assert GATE.audit_file.is_relative_to(GATE.server.state_dir)


def test_only_the_gate_reaches_comfyui() -> None:
    network = SERVICES["comfyui"]["networks"]

    assert network == ["comfyui"]
    assert {name for name, service in SERVICES.items() if "comfyui" in service["networks"]} == {"comfyui", "gate"}
    assert COMPOSE["networks"]["comfyui"] == {"internal": True}
    assert "ports" not in SERVICES["comfyui"]
    command = SERVICES["comfyui"]["command"]
    assert command[command.index("--port") + 1] == str(urlsplit(GATE.upstream.url).port)
    assert not {"--enable-manager", "--enable-cors-header", "--enable-assets"} & set(command)


def test_nothing_is_published_but_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert set(published) == {"gate", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert published["gate"] == [f"127.0.0.1:{GATE.server.port}:{GATE.server.port}"]


def test_the_tunnel_reaches_the_gate_and_nothing_else() -> None:
    assert SERVICES["cloudflared"]["networks"] == ["edge"]
    assert {name for name, service in SERVICES.items() if "edge" in service["networks"]} == {"cloudflared", "gate"}
    subnet = ipaddress.ip_network(COMPOSE["networks"]["edge"]["ipam"]["config"][0]["subnet"])
    assert GATE.server.trusted_proxies == (subnet,)


def test_every_container_is_held_back() -> None:
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == "unless-stopped", name


def test_the_gate_has_the_time_that_it_drains() -> None:
    assert parse_duration(SERVICES["gate"]["stop_grace_period"]) > GATE.server.shutdown_grace


def test_networks_volumes_and_files_are_there() -> None:
    named = {network for service in SERVICES.values() for network in service["networks"]}
    assert named == set(COMPOSE["networks"])
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source in ("./gate", "./state"):
                assert "mkdir -p gate state" in README
                continue
            exists = (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
            assert exists, volume


def test_secrets_come_from_outside() -> None:
    environment = {key: value for service in SERVICES.values() for key, value in service.get("environment", {}).items()}

    assert environment["TUNNEL_TOKEN"].startswith("${TUNNEL_TOKEN:?")
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert (DOCKER / ".gitignore").read_text(encoding="utf-8").split() == [".env", "gate/", "state/"]
    assert all(f"{name}=" in README for name in ("COMFYUI_IMAGE", "TUNNEL_TOKEN", "GRAFANA_PASSWORD", "GATE_USER"))
    assert "chmod 600 .env" in README


def test_the_gate_runs_as_the_owner_of_its_folders() -> None:
    assert SERVICES["gate"]["user"].startswith("${GATE_USER:?")
    assert {volume.split(":")[0] for volume in SERVICES["gate"]["volumes"]} == {"./gate", "./state"}


def test_no_log_grows_without_end() -> None:
    for name, service in SERVICES.items():
        assert service["logging"]["driver"] == "local", name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
