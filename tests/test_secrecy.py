"""The search for credentials finds them: in the request log, in what the gate says, in the audit trail; keys, sessions, and what looks like them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from proxy.auth import key_file
from standin import StandIn
from tests.harness import AUDIT_FILE, Running, running_gate
from tests.secrecy import CredentialWritten, watched


def secret_of(key: str) -> str:
    return key.split("_", 2)[2]


async def write_in_request_log(gate: Running, text: str) -> None:
    gate.log.write(text.encode())


async def say(gate: Running, text: str) -> None:
    logging.getLogger("comfygate").warning("a line with %s in it", text)


async def say_with_a_stack(gate: Running, text: str) -> None:
    try:
        raise LookupError(text)
    except LookupError:
        logging.getLogger("aiohttp.server").exception("it failed")


async def write_in_audit_trail(gate: Running, text: str) -> None:
    gate.gate.audit.write("login", note=text)


@pytest.mark.parametrize("leak", [write_in_request_log, say, say_with_a_stack, write_in_audit_trail])
@pytest.mark.parametrize("what", ["key", "secret", "new key", "session", "unknown key", "token"])
async def test_a_gate_that_tells_a_credential_is_found_out(
    tmp_path: Path, comfy: StandIn, leak: object, what: str
) -> None:
    assert callable(leak)
    with pytest.raises(CredentialWritten):
        async with running_gate(tmp_path, comfy.url, wait=False) as gate:
            await leak(gate, await credential(gate, what))


async def credential(gate: Running, what: str) -> str:
    match what:
        case "key":
            return gate.keys["mallory"]
        case "secret":
            return f"x{secret_of(gate.keys['admin'])}y"
        case "new key":
            return secret_of(key_file.create_key(gate.config_file, tenant="alice").text)
        case "session":
            return await log_in(gate)
        case "unknown key":
            return "cg_00000000_" + "b" * 43
        case _:
            return "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0xyz.c2lnbmF0dXJl"


async def log_in(gate: Running) -> str:
    """The session's cookie."""
    origin = {"Origin": gate.url}
    async with gate.call("POST", "/gate/login", None, data={"key": gate.keys["alice"]}, headers=origin) as response:
        assert response.status == 303
        return response.cookies["comfygate_session"].value


async def outer_gate_outlives_inner(folder: Path, upstream: str) -> None:
    async with running_gate(folder / "a", upstream, wait=False):
        async with running_gate(folder / "b", upstream, wait=False) as inner:
            key = inner.keys["alice"]
        await say(inner, secret_of(key))


async def test_two_gates_of_one_test_are_both_watched(tmp_path: Path, comfy: StandIn) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(CredentialWritten, match="the log"):
        await outer_gate_outlives_inner(tmp_path, comfy.url)


def test_rotated_trails_are_searched(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[tenants.alice]\n", encoding="utf-8")
    with watched(tmp_path / AUDIT_FILE) as secrecy:
        key = key_file.create_key(tmp_path / "config.toml", tenant="alice")
        (tmp_path / f"{AUDIT_FILE}.3").write_text(secret_of(key.text), encoding="utf-8")
    with pytest.raises(CredentialWritten, match="the audit trail"):
        secrecy.check()


async def test_a_gate_that_tells_nothing_passes(gate: Running) -> None:
    assert await gate.status("GET", "/queue", "alice") == 200
    cookie = await log_in(gate)
    assert await gate.status("GET", "/queue", None, headers={"Cookie": f"comfygate_session={cookie}"}) == 200
    assert await gate.status("GET", f"/queue?token={gate.keys['mallory']}", None) == 200
    assert await gate.status("GET", f"/queue?token={gate.keys['mallory']}x", None) == 401
    assert b'"event":"login"' in (gate.config_file.parent / AUDIT_FILE).read_bytes()
