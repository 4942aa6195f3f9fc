"""A running gate in front of a running stand-in, for tests: real sockets, real files, one line to start."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import tomlkit
from yarl import URL

from policy.principal import Role
from proxy.app import Gate
from proxy.auth import key_file
from proxy.auth.api_keys import hash_key
from proxy.config import load_config
from proxy.observability.access_log import RequestLog
from standin import StandIn
from tests.secrecy import watched

AUDIT_FILE = "audit.jsonl"
CONFIG = """\
[server]
port = 0
shutdown_grace = "{shutdown_grace}"
{server}
[ops]
port = 0

[upstream]
{url}{upstream_more}
[log]
audit_file = "{audit_file}"

{tenants}
[policies.default]
allow = ["@core-image", "SlowProgress", "PrimitiveString", "StringConcatenate", "GatePack*", "Recorded*"]

[limits.default]
requests = "100000/minute"
prompts = "100000/minute"
uploads = "100000/minute"
polls = "1000000/minute"
previews = "100000/minute"
queued_jobs = 1000
websockets = 100
{more}
"""
TENANTS = "[tenants.alice]\n[tenants.mallory]\n"


@dataclass
class Running:
    """A gate, what it stands in front of, and a key for each of: alice, mallory, admin."""

    gate: Gate
    url: str
    ops_url: str
    keys: Mapping[str, str]
    config_file: Path
    log: io.BytesIO
    session: aiohttp.ClientSession
    comfy: StandIn | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def headers(self, who: str | None) -> dict[str, str]:
        return {} if who is None else {"Authorization": f"Bearer {self.keys[who]}"}

    def address(self, path: str) -> URL:
        return URL(self.url + path, encoded=True)

    @asynccontextmanager
    async def call(
        self, method: str, path: str, who: str | None = "admin", **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**self.headers(who), **more.pop("headers", {})}
        async with self.session.request(
            method, self.address(path), headers=headers, allow_redirects=False, **more
        ) as response:
            yield response

    async def json(self, method: str, path: str, who: str | None = "admin", **more: Any) -> Any:
        async with self.call(method, path, who, **more) as response:
            return await response.json(content_type=None)

    async def status(self, method: str, path: str, who: str | None = "admin", **more: Any) -> int:
        async with self.call(method, path, who, **more) as response:
            await response.read()
            return response.status


def write_config(
    folder: Path,
    upstream: str,
    *,
    server: str = "",
    upstream_more: str = "",
    more: str = "",
    shutdown_grace: str = "2s",
    tenants: str = TENANTS,
) -> tuple[Path, dict[str, str]]:
    """A configuration file with two tenants, and a key for each of: alice, mallory, admin. upstream: "" where `more` has [[comfyui]]. more: appended."""
    config = CONFIG.format(
        url=f'url = "{upstream}"\n' if upstream else "",
        server=server,
        upstream_more=upstream_more,
        more=more,
        tenants=tenants,
        shutdown_grace=shutdown_grace,
        audit_file=AUDIT_FILE,
    )
    made = {"alice": new_key("alice"), "mallory": new_key("mallory"), "admin": new_key("alice", Role.ADMIN)}
    file = folder / "config.toml"
    file.write_text(config + "".join(table for _, table in made.values()), encoding="utf-8")
    return file, {who: text for who, (text, _) in made.items()}


def new_key(tenant: str, role: Role = Role.USER) -> tuple[str, str]:
    """A key, and its table as `key_file.create_key` writes it: that checks and syncs the file for each, which takes longer than a gate's whole start."""
    key_id, text = vars(key_file)["generate_key"]()  # where `watched` learns of it
    table = {"id": key_id, "hash": hash_key(text), "tenant": tenant, "role": role.value}
    return text, tomlkit.dumps({"keys": [table]}) + "\n"


@asynccontextmanager
async def running_gate(folder: Path, upstream: str, *, wait: bool = True, **options: str) -> AsyncIterator[Running]:
    """Starts a gate with two tenants and an admin; options: of `write_config`.

    When it has stopped, its log, its audit trail and everything that was logged meanwhile are searched for credentials.
    """
    with watched(folder / AUDIT_FILE) as secrecy:
        file, keys = write_config(folder, upstream, **options)
        log = io.BytesIO()
        gate = Gate(load_config(file, {}), RequestLog(log, "json"))
        await gate.start()
        try:
            if wait:
                await gate.dependencies.queue_watchers.first.is_settled.wait()
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                yield Running(gate, gate.public.url, gate.ops.url, keys, file, log, session)
        finally:
            assert await gate.stop()
        secrecy.places["the request log"] = log.getvalue()
    secrecy.check()
