"""The tunnel leads to the gate's public port and nowhere else, with what the gate's own timeouts ask of it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from proxy.config.units import parse_duration
from tests.deploy.files import DEPLOY, shipped
from tests.deploy.plainyaml import read_yaml
from tests.harness import Running

TUNNEL: dict[str, Any] = read_yaml(DEPLOY / "cloudflared" / "config.yml")
TEXT = (DEPLOY / "cloudflared" / "config.yml").read_text(encoding="utf-8")
WORDS = (DEPLOY / "cloudflared" / "README.md").read_text(encoding="utf-8")


def test_leads_to_the_public_listener_only() -> None:
    server = shipped().server
    dependencies = [rule["service"] for rule in TUNNEL["ingress"]]

    assert dependencies == [f"http://{server.host}:{server.port}", "http_status:404"]
    assert "hostname" not in TUNNEL["ingress"][-1]


def test_everything_else_is_404() -> None:
    assert TUNNEL["ingress"][-1] == {"service": "http_status:404"}


def test_cloudflared_gives_up_idle_connections_first() -> None:
    settings = TUNNEL["ingress"][0]["originRequest"]

    assert parse_duration(settings["keepAliveTimeout"]) < shipped().server.keepalive_timeout
    assert settings["disableChunkedEncoding"] is False


def test_the_host_name_is_that_of_the_example_configuration() -> None:
    example = re.search(r'# public_url = "([^"]+)"', (DEPLOY.parent / "config.toml").read_text(encoding="utf-8"))

    assert example is not None
    assert TUNNEL["ingress"][0]["hostname"] == urlsplit(example[1]).hostname


def test_both_places_name_one_tunnel() -> None:
    assert TUNNEL["credentials-file"] == f"/etc/cloudflared/{TUNNEL['tunnel']}.json"


def test_access_is_offered_as_cloudflared_reads_it() -> None:
    lines = [
        line.split("# ", 1)[1]
        for line in TEXT.splitlines()
        if re.match(r"\s+# +(access:|required|teamName|audTag|- )", line)
    ]

    assert [line.strip() for line in lines] == [
        "access:",
        "required: true",
        "teamName: team",
        "audTag:",
        "- AUD-TAG-OF-THE-APPLICATION",
    ]


def test_the_words_name_the_ports_of_the_configuration() -> None:
    config = shipped()

    assert f"cloudflared tunnel --url http://{config.server.host}:{config.server.port}\n" in WORDS
    assert f"({config.ops.port})" in WORDS
    assert f"({urlsplit(config.upstream.url).port})" in WORDS


def test_the_last_check_asks_what_anybody_may_and_what_nobody_may() -> None:
    """Through the public address: the two paths, with what the gate answers to them without a key."""
    check = WORDS.partition("## The last check\n")[2].partition("\n## ")[0]

    assert re.findall(r"https://comfy\.example\.com(/\S+)\n", check) == ["/gate/health", "/queue"]
    assert "The first says 200" in check
    assert "The second says 401" in check


async def test_the_gate_answers_the_last_check_so(gate: Running) -> None:
    assert [await gate.status("GET", path, None) for path in ("/gate/health", "/queue")] == [200, 401]


def test_no_command_puts_a_token_where_other_users_see_it() -> None:
    assert not re.search(r"--token(?!-file)\b", WORDS)
    assert not re.search(r"service install [A-Za-z0-9]", WORDS)
