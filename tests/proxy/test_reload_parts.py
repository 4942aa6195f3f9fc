"""What a reload comes to in each part of the gate: policies, weights, files it names, token issuers, keys that end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType

from policy.principal import TenantId
from proxy import app
from proxy.auth import key_file
from proxy.config import Config, ConfigError
from proxy.config.restart import AT_START
from proxy.persistence.sqlite_file import DAMAGED, STATE_FILE
from standin import StandIn
from tests.contract.driver import saving, slow
from tests.harness import Running, running_gate
from tests.proxy.jwks_server import JwksServer, signer
from tests.proxy.token_tables import hmac_sign
from tests.proxy.upstreams import GUARD_S

PLAIN = {"Accept-Encoding": "identity"}


def change(gate: Running, *changes: tuple[str, str]) -> None:
    text = gate.config_file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    gate.config_file.write_text(text, encoding="utf-8")


async def prompt(gate: Running, who: str, graph: dict[str, object]) -> int:
    return await gate.status("POST", "/prompt", who, json={"prompt": graph})


async def test_a_policy_is_in_force_for_the_next_prompt(gate: Running) -> None:
    assert await prompt(gate, "alice", slow(0.0, 1)) == 200
    seen = await gate.json("GET", "/object_info", "alice", headers=PLAIN)
    assert "SlowProgress" in seen
    change(gate, (', "SlowProgress"', ""), ("[policies.default]", '[policies.default]\ndeny = ["PreviewImage"]'))
    assert await gate.gate.reload(gate.config_file)
    assert await prompt(gate, "alice", slow(0.0, 1)) == 403
    assert await prompt(gate, "alice", saving("still")) == 200
    seen = await gate.json("GET", "/object_info", "alice", headers=PLAIN)
    assert not {"SlowProgress", "PreviewImage"} & seen.keys()
    assert "SaveImage" in seen


async def test_a_request_goes_by_the_configuration_that_it_began_with(
    gate: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter, waiting, go_on = gate.gate.dependencies.limiter, asyncio.Event(), asyncio.Event()
    acquire = limiter.acquire

    async def slow_acquire(*arguments: Any) -> Any:
        waiting.set()
        await go_on.wait()
        return await acquire(*arguments)

    monkeypatch.setattr(limiter, "acquire", slow_acquire)
    monkeypatch.setattr(limiter, "acquire_at_once", lambda *_: None)
    async with asyncio.timeout(GUARD_S):
        old = asyncio.ensure_future(prompt(gate, "alice", slow(0.0, 1)))
        await waiting.wait()
        change(gate, (', "SlowProgress"', ""))
        assert await gate.gate.reload(gate.config_file)
        new = asyncio.ensure_future(prompt(gate, "alice", slow(0.0, 1)))
        go_on.set()
        assert (await old, await new) == (200, 403)


async def test_a_workflow_that_a_policy_pins_is_read_anew(gate: Running, caplog: pytest.LogCaptureFixture) -> None:
    """SIGHUP reloads an unchanged file for the sake of the files that it names."""
    pinned = gate.config_file.parent / "flow.json"
    pinned.write_bytes(orjson.dumps(saving("pinned")))
    change(gate, ("[policies.default]", '[policies.default]\nworkflows = [{ file = "flow.json" }]'))
    assert await gate.gate.reload(gate.config_file)
    assert await prompt(gate, "alice", saving("pinned")) == 200
    assert await prompt(gate, "alice", slow(0.0, 1)) == 403
    pinned.write_bytes(b"{")
    assert not await gate.gate.reload(gate.config_file)
    assert "policies.default.workflows: flow.json cannot be read" in caplog.text
    assert await prompt(gate, "alice", saving("pinned")) == 200
    pinned.write_bytes(orjson.dumps(slow(0.0, 1)))
    assert await gate.gate.reload(gate.config_file)
    assert await prompt(gate, "alice", slow(0.0, 1)) == 200


async def test_weights_change(gate: Running) -> None:
    change(gate, ("[limits.default]", "[limits.default]\nweight = 4.0"))
    assert await gate.gate.reload(gate.config_file)
    assert gate.gate.dependencies.jobs.records._weights()["alice"] == 4.0


async def test_a_tenant_that_is_new_works_and_one_that_is_gone_does_not(gate: Running) -> None:
    change(gate, ("[tenants.mallory]", "[tenants.carol]"), ('tenant = "mallory"', 'tenant = "carol"'))
    assert await gate.gate.reload(gate.config_file)
    assert (await gate.json("GET", "/gate/me", "mallory"))["tenant"] == "carol"
    assert TenantId("mallory") not in gate.gate.dependencies.compiled.policies
    async with gate.session.get(f"{gate.ops_url}/metrics") as answer:
        text = await answer.text()
    assert 'comfygate_jobs{state="queued",tenant="carol"} 0.0' in text
    assert 'tenant="mallory"' not in "".join(line for line in text.splitlines() if line.startswith("comfygate_jobs{"))


async def test_what_is_kept_of_a_tenant_that_is_gone_is_bounded_as_before(gate: Running) -> None:
    """Whoever is given its name later finds no more than it would have found itself."""
    kept = gate.gate.dependencies.registry.of(TenantId("mallory"))
    async with asyncio.timeout(GUARD_S):
        for number in range(3):
            assert await prompt(gate, "mallory", saving(f"p{number}")) == 200
        while len(kept.finished()) < 3:
            await asyncio.sleep(0.01)
    change(gate, ("[tenants.mallory]", "[jobs]\nhistory_jobs = 1"), ('tenant = "mallory"', 'tenant = "alice"'))
    assert await gate.gate.reload(gate.config_file)
    await gate.gate._followers._housekeeping.retain_all()
    assert len(kept.finished()) == 1


async def test_the_days_of_a_key_count_down_though_nothing_is_reloaded(
    gate: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = datetime.now(UTC) + timedelta(days=20)
    new = key_file.create_key(gate.config_file, tenant="alice", expires=ends)
    assert await gate.gate.reload(gate.config_file)
    monkeypatch.setattr("proxy.observability.metrics.time.time", lambda: (ends - timedelta(days=5)).timestamp())
    async with gate.session.get(f"{gate.ops_url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    (days,) = [line.split()[1] for line in lines if line.startswith(f'comfygate_key_expiry_days{{key="{new.id}"')]
    (moment,) = [line.split()[1] for line in lines if line.startswith("comfygate_key_expiry_timestamp_seconds{")]
    assert float(days) == pytest.approx(5, abs=0.01)
    assert float(moment) == pytest.approx(ends.timestamp(), abs=1)


async def test_whether_the_file_is_in_force_is_told(gate: Running) -> None:
    read = gate.gate.metrics.registry.get_sample_value
    good = gate.config_file.read_text()
    assert read("comfygate_config_last_reload_successful") == 1
    gate.config_file.write_text(good + "\n[sessions]\nno_such = 1\n")
    assert not await gate.gate.reload(gate.config_file)
    assert read("comfygate_config_last_reload_successful") == 0
    gate.config_file.write_text(good)
    assert await gate.gate.reload(gate.config_file)
    assert read("comfygate_config_last_reload_successful") == 1


async def test_the_end_of_keys_is_told_in_days(gate: Running) -> None:
    new = key_file.create_key(gate.config_file, tenant="alice", expires=datetime.now(UTC) + timedelta(days=10))
    assert await gate.gate.reload(gate.config_file)
    labels = {"key": new.id, "tenant": "alice"}
    read = gate.gate.metrics.registry.get_sample_value
    async with gate.session.get(f"{gate.ops_url}/metrics"):
        assert read("comfygate_key_expiry_days", labels) == pytest.approx(10, abs=0.1)
    key_file.revoke_key(gate.config_file, new.id)
    assert await gate.gate.reload(gate.config_file)
    assert read("comfygate_key_expiry_days", labels) is None


async def test_a_socket_dies_with_its_keys_time(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reload: the key's own end."""
    new = key_file.create_key(gate.config_file, tenant="alice", expires=datetime.now(UTC) + timedelta(days=1))
    assert await gate.gate.reload(gate.config_file)
    headers = {"X-API-Key": new.text}
    async with (
        gate.session.ws_connect(gate.address("/ws"), headers=headers) as ends,
        gate.session.ws_connect(gate.address("/ws"), headers=gate.headers("mallory")) as stays,
        asyncio.timeout(GUARD_S),
    ):
        tomorrow_s = (datetime.now(UTC) + timedelta(days=1, seconds=1)).timestamp()
        monkeypatch.setattr(app, "time", SimpleNamespace(time=lambda: tomorrow_s))
        while (message := await ends.receive()).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4401)
        assert not stays.closed


async def test_sockets_are_closed_by_the_reload_itself(gate: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "comfygate")
    async with gate.session.ws_connect(gate.address("/ws"), headers=gate.headers("alice")):
        key_file.revoke_key(gate.config_file, gate.keys["alice"].split("_")[1])
        assert await gate.gate.reload(gate.config_file)
        assert "configuration reloaded, 1 sockets closed" in caplog.text


async def test_where_redis_is_said_to_be_in_a_file(
    tmp_path: Path, comfy: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing one is a mistake, at the start and at a reload; another address needs a restart."""
    named = '[limits]\nstorage_file = "redis-url"'
    with pytest.raises(ConfigError, match=r"limits.storage: .*redis-url"):
        await running_gate(tmp_path, comfy.url, more=named).__aenter__()
    async with running_gate(tmp_path, comfy.url) as gate:
        change(gate, ("[limits.default]", f"{named}\n[limits.default]"))
        assert not await gate.gate.reload(gate.config_file)
        assert "limits.storage_file" in caplog.text
        assert await gate.status("GET", "/queue", "alice") == 200
        (tmp_path / "redis-url").write_text("redis://user:secret@127.0.0.1:1/0", encoding="utf-8")
        assert await gate.gate.reload(gate.config_file)
        assert "restart the gate to use it" in caplog.text
        assert "secret" not in caplog.text
        assert await gate.status("GET", "/queue", "alice") == 200


async def test_a_state_folder_that_cannot_be_used_is_told_at_the_start(tmp_path: Path, comfy: StandIn) -> None:
    (tmp_path / "state" / STATE_FILE).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"server.state_dir: cannot be used: state.sqlite3: "):
        await running_gate(tmp_path, comfy.url).__aenter__()


async def test_a_damaged_database_is_moved_and_the_gate_starts(
    tmp_path: Path, comfy: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "usage.sqlite3").write_bytes(b"this is no database" * 100)
    async with running_gate(tmp_path, comfy.url) as gate:
        assert await gate.status("GET", "/queue", "alice") == 200
        (moved,) = (tmp_path / "state").glob(f"{STATE_FILE}{DAMAGED}*")
        assert moved.read_bytes() == b"this is no database" * 100
    assert "GPU budgets count from zero" in caplog.text


@pytest.fixture
async def issuer() -> AsyncIterator[JwksServer]:
    async with JwksServer(signer("one", "ES256")) as server:
        yield server


def renewals() -> int:
    """Background tasks that ask an issuer for its keys."""
    return sum(task.get_name() == "jwks renewal" for task in asyncio.all_tasks())


async def test_issuers_of_earlier_configurations_are_asked_no_more(
    tmp_path: Path, comfy: StandIn, issuer: JwksServer
) -> None:
    section = (
        '[jwt.company]\nissuer = "https://issuer.example"\naudience = "comfygate"\nalgorithms = ["ES256"]\n'
        f'jwks_url = "{issuer.url}"\ntenant_claim = "tenant"\n'
    )
    claims = {"iss": "https://issuer.example", "aud": "comfygate", "sub": "u", "tenant": "alice", "exp": 4_000_000_000}
    token = {"Authorization": f"Bearer {signer('one', 'ES256').sign({**claims, 'iat': 1_700_000_000})}"}
    async with running_gate(tmp_path, comfy.url) as gate:
        good = gate.config_file.read_text(encoding="utf-8")
        assert renewals() == 0
        gate.config_file.write_text(f"{good}\n{section}", encoding="utf-8")
        for _ in range(3):
            assert await gate.gate.reload(gate.config_file)
            assert await gate.status("GET", "/queue", None, headers=token) == 200
            assert renewals() == 1
        assert len(issuer.paths) == 1, "the keys were taken over"
        socket = await gate.session.ws_connect(gate.address("/ws"), headers=token)
        gate.config_file.write_text(good, encoding="utf-8")
        assert await gate.gate.reload(gate.config_file)
        assert renewals() == 0
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4401)
        assert await gate.status("GET", "/queue", None, headers=token) == 401


async def test_a_token_that_is_mapped_no_more_loses_its_socket_and_its_colleague_does_not(
    tmp_path: Path, comfy: StandIn
) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 32)
    mapped = '"one" = "alice"\n"two" = "alice"\n'
    section = (
        '[jwt.company]\nissuer = "https://issuer.example"\naudience = "comfygate"\nalgorithms = ["HS256"]\n'
        f'secret_file = "secret"\ntenant_claim = "team"\n[jwt.company.tenants]\n{mapped}'
    )

    def token(team: str) -> dict[str, str]:
        claims = {"iss": "https://issuer.example", "aud": "comfygate", "sub": team, "team": team, "exp": 4_000_000_000}
        return {"Authorization": f"Bearer {hmac_sign(claims, b's' * 32)}"}

    async with running_gate(tmp_path, comfy.url, more=section) as gate:
        leaves, stays = [
            await gate.session.ws_connect(gate.address("/ws"), headers=token(team)) for team in ("one", "two")
        ]
        change(gate, (mapped, '"two" = "alice"\n'))
        assert await gate.gate.reload(gate.config_file)
        async with asyncio.timeout(GUARD_S):
            while (message := await leaves.receive()).type is WSMsgType.TEXT:
                pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4401)
        assert await gate.status("GET", "/queue", None, headers=token("one")) == 401
        assert await gate.status("GET", "/queue", None, headers=token("two")) == 200
        assert not stays.closed


async def test_a_change_that_needs_a_restart_is_named(gate: Running, caplog: pytest.LogCaptureFixture) -> None:
    change(gate, ("[ops]", '[ops]\nhost = "127.0.0.2"'), ('audit_file = "audit.jsonl"', 'level = "debug"'))
    assert await gate.gate.reload(gate.config_file)
    told = [record.getMessage() for record in caplog.records if "restarted" in record.getMessage()]
    assert told == ["not taken up until the gate is restarted: ops.host, log.audit_file, log.level"]
    assert await gate.gate.reload(gate.config_file)
    assert len([record for record in caplog.records if "restarted" in record.getMessage()]) == 1


def test_settings_that_need_a_restart_exist() -> None:
    for section, names in AT_START.items():
        assert names <= set(type(getattr(Config(), section)).model_fields), section
