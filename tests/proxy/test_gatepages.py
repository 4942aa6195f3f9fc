"""The gate's own paths, over the wire: what is open without a credential, and that it is nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy import keyfile
from tests.harness import Running, running_gate

BROWSER = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
OWN = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}


async def login(gate: Running, key: str, **more: Any) -> tuple[int, dict[str, str], str]:
    form = {"key": key, "next": more.pop("next", "/")}
    async with gate.call("POST", "/gate/login", None, data=form, **more) as response:
        return response.status, dict(response.headers), await response.text()


async def test_health_tells_nothing_but_that(gate: Running) -> None:
    async with gate.call("GET", "/gate/health", None) as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    async with gate.call("HEAD", "/gate/health", None) as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/gate/health", "GET, HEAD"),
        ("DELETE", "/gate/me", "GET, HEAD"),
        ("GET", "/gate/logout", "POST"),
        ("PUT", "/gate/login", "GET, HEAD, POST"),
        ("OPTIONS", "/gate/login", "GET, HEAD, POST"),
        ("TRACE", "/gate/me", "GET, HEAD"),
    ],
)
async def test_other_methods_are_not_allowed(gate: Running, method: str, path: str, allowed: str) -> None:
    async with gate.call(method, path, None) as response:
        assert (response.status, response.headers["Allow"], await response.read()) == (405, allowed, b"")


@pytest.mark.parametrize(
    "path", ["/gate", "/gate/x", "/gate/health/x", "/gate/login/..%2fme", "/api/gate/health", "/gate/Login"]
)
async def test_nothing_else_is_there(gate: Running, path: str) -> None:
    assert await gate.status("GET", path, None) == 401
    assert await gate.status("GET", path, "alice") == 404
    assert gate.comfy is not None
    assert not [call for call in gate.comfy.received if "/gate" in call.raw_path.lower()]


async def test_the_login_page_is_for_everybody(gate: Running) -> None:
    async with gate.call("GET", "/gate/login?next=/view%3Fa", None) as response:
        text = await response.text()
        assert (response.status, response.content_type) == (200, "text/html")
        assert "no-store" in response.headers["Cache-Control"]
        assert 'value="/view?a"' in text
    async with gate.call("GET", "/gate/login?next=//evil.example", None) as response:
        assert "evil" not in await response.text()


async def test_a_key_becomes_a_session(gate: Running) -> None:
    status, headers, _ = await login(gate, gate.keys["alice"], headers=OWN)
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert gate.keys["alice"] not in cookie
    session = {"Cookie": cookie.split(";")[0]}
    me = await gate.json("GET", "/gate/me", None, headers=session)
    assert (me["tenant"], me["role"]) == ("alice", "user")
    assert await gate.status("GET", "/features", None, headers=session) == 200
    async with gate.call("POST", "/gate/logout", None, headers={**session, **OWN}) as response:
        assert response.status == 303
    assert await gate.status("GET", "/features", None, headers=session) == 401


@pytest.mark.parametrize("key", ["", "x", "cg_00000000_" + "a" * 43])
async def test_a_bad_key_becomes_none(gate: Running, key: str) -> None:
    status, headers, text = await login(gate, key, headers=OWN)
    assert status in (400, 401)
    assert "Set-Cookie" not in headers
    assert not key.startswith("cg_") or key not in text
    record = orjson.loads(gate.log.getvalue().splitlines()[-1])
    assert (record["route"], record["tenant"]) == ("POST /gate/login", None)
    assert not key.startswith("cg_") or key.encode() not in gate.log.getvalue()


async def test_a_foreign_page_logs_nobody_in_or_out(gate: Running) -> None:
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert (await login(gate, gate.keys["alice"], headers=foreign))[0] == 403
    assert await gate.status("POST", "/gate/logout", None, headers=foreign) == 403


async def test_a_form_is_bounded(gate: Running) -> None:
    status, _, _ = await login(gate, "x" * 5000, headers=OWN)
    assert status == 413


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), (BROWSER, 302), ({"Accept": "text/html", "Sec-Fetch-Mode": "cors"}, 401)]
)
async def test_me_is_for_who_is_somebody(gate: Running, headers: dict[str, str], status: int) -> None:
    async with gate.call("GET", f"/gate/me?token=cg_00000000_{'a' * 43}", None, headers=headers) as response:
        assert response.status in ({302, 303} if status == 302 else {status})
        assert "token" not in response.headers.get("Location", "")
    assert await gate.status("GET", "/gate/me", "alice") == 200


async def test_me_tells_what_one_may(tmp_path: Path) -> None:
    policies = (
        '[policies.wide]\nextend = "default"\nallow = ["Load*"]\ndeny = ["LoadEvil"]\n'
        '[policies.wide.inputs]\n"*.steps" = { max = 20, allow = [1, 2] }\n[tenants.bob]\npolicy = "wide"\n'
    )
    async with running_gate(tmp_path, "http://127.0.0.1:9", more=policies, wait=False) as gate:
        key = keyfile.create_key(gate.config_file, tenant="bob").text
        assert await gate.gate.reload(gate.config_file)
        me = await gate.json("GET", "/gate/me", None, headers={"X-API-Key": key})
        assert (me["tenant"], me["role"]) == ("bob", "user")
        told = " ".join(me["policy"])
        for words in (
            "the policy default says",
            "May run: Load*.",
            "Never: LoadEvil.",
            "200 nodes",
            "*.steps: ",
            "max 20",
            "allow 1, 2",
        ):
            assert words in told
        admin = await gate.json("GET", "/gate/me", "admin")
        assert admin["policy"] == ["An admin may run every workflow and use every route of ComfyUI."]
        async with gate.call("GET", "/gate/me", "alice", headers=BROWSER) as response:
            text = await response.text()
        assert "alice" in text
        assert gate.keys["alice"] not in text


async def test_a_session_ends_with_its_key(gate: Running) -> None:
    _, headers, _ = await login(gate, gate.keys["alice"], headers=OWN)
    session = {"Cookie": headers["Set-Cookie"].split(";")[0]}
    me = await gate.json("GET", "/gate/me", None, headers=session)
    assert me["session_ends"] is not None
    assert me["key_expires"] is None
    keyfile.revoke_key(gate.config_file, gate.keys["alice"].split("_")[1])
    assert await gate.gate.reload(gate.config_file)
    assert await gate.status("GET", "/gate/me", None, headers=session) == 401
