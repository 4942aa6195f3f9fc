"""The pages of functions, whole requests: who gets which, and what a program gets at the same address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Running
from tests.proxy.functions.calls import TENANTS, Caller, calling
from tests.proxy.pages.test_routes import HTML, session_of
from tests.proxy.v2.assets.sdk import Standing

ALONE = '[tenants.alice]\nfunctions = ["*"]\nworkflows = "functions"\n[tenants.mallory]\nfunctions = ["paint"]\n'
NONE = TENANTS.replace('["paint"]', "[]")


async def page(gate: Running, path: str, who: str = "alice", status: int = 200) -> str:
    async with gate.call("GET", path, who, headers=HTML) as answer:
        text = await answer.text()
        assert (answer.status, answer.content_type) == (status, "text/html"), text
        assert "Accept" in answer.headers["Vary"]
        return text


async def test_a_person_gets_a_form_and_a_program_the_schema(seen: Standing) -> None:
    gate, alice = seen.gate, Caller(seen.gate)
    text = await page(gate, "/gate/run/paint")
    assert '<input id="field-width" name="width"' in text
    assert "A picture of one color." in text
    for path, same in (("/gate/run/paint", "/gate/functions/paint"), ("/gate/run", "/gate/functions")):
        for accept in ("*/*", "application/json"):
            answer = await alice.ask("GET", path, headers={"Accept": accept})
            assert answer.body == (await alice.ask("GET", same)).body
            assert answer.headers["Vary"] == "Accept"


async def test_the_list_has_what_one_may_call(seen: Standing) -> None:
    mine, hers = await page(seen.gate, "/gate/run"), await page(seen.gate, "/gate/run", "mallory")
    for name in ("paint", "copy", "slow"):
        assert f'href="../gate/run/{name}"' in mine
    assert 'href="../gate/run/paint"' in hers
    assert "copy" not in hers
    assert "Open ComfyUI" in mine


async def test_whoever_may_call_none_is_told_so(tmp_path: Path) -> None:
    async with calling(tmp_path, tenants=NONE) as world:
        assert "There is none for you yet" in await page(world.gate, "/gate/run", "mallory")


async def test_a_foreign_function_is_one_that_is_not_there(seen: Standing) -> None:
    found = [await page(seen.gate, f"/gate/run/{name}", "mallory", 404) for name in ("copy", "nothing")]
    assert "There is no such function for you" in found[0]
    numbers = [text.partition("in the log by")[0] for text in found]
    assert numbers[0] == numbers[1]


async def test_a_stranger_is_led_to_the_login_and_back(seen: Standing) -> None:
    gate = seen.gate
    async with gate.call("GET", "/gate/run/paint", None, headers=HTML) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "../../gate/login?next=/gate/run/paint")
    form = {"key": gate.keys["alice"], "next": "/gate/run/paint"}
    async with gate.call("POST", "/gate/login", None, data=form, headers={"Origin": gate.url}) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "../gate/run/paint")
    gate.session.cookie_jar.clear()
    async with gate.call("GET", "/gate/run/", None, headers=HTML) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "../../gate/run")


async def test_an_admin_is_told_that_there_is_none(seen: Standing) -> None:
    assert "use a tenant&#x27;s key" in await page(seen.gate, "/gate/run/paint", "admin", 403)


async def test_a_call_with_a_cookie_needs_an_origin_of_the_gates(seen: Standing) -> None:
    gate = seen.gate
    session = await session_of(gate)
    for headers, status in (({}, 403), ({"Origin": "https://evil.example"}, 403), ({"Origin": gate.url}, 202)):
        assert await gate.status("POST", "/gate/run/paint", None, headers=session | headers, json={}) == status


async def test_the_page_holds_no_key_and_has_the_policy_of_the_others(seen: Standing) -> None:
    gate = seen.gate
    async with gate.call("GET", "/gate/run/paint", None, headers={**await session_of(gate), **HTML}) as answer:
        text, headers = await answer.text(), answer.headers
    assert gate.keys["alice"] not in text
    policy = dict(part.partition(" ")[::2] for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert policy["style-src"].startswith("'sha256-")
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/?a=b"])
async def test_the_front_page_of_who_has_functions_alone_is_their_list(tmp_path: Path, path: str) -> None:
    async with calling(tmp_path, tenants=ALONE) as world:
        gate = world.gate
        async with gate.call("GET", path, None, headers={**await session_of(gate), **HTML}) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "./gate/run")
        gate.session.cookie_jar.clear()
        assert "Open ComfyUI" not in await page(gate, "/gate/run")
        assert "Open the functions" in await page(gate, "/gate/me")
        for headers, who in ((HTML, "mallory"), (HTML, "admin"), ({}, "alice")):
            async with gate.call("GET", path, who, headers=headers) as answer:
                assert answer.status != 303
        async with gate.call("GET", "/index.html", "alice", headers=HTML) as answer:
            assert answer.status != 303, "no other address of the web UI leads elsewhere"


async def test_other_methods_are_named(seen: Standing) -> None:
    for path, allowed in (("/gate/run/paint", "GET, HEAD, POST"), ("/gate/run", "GET, HEAD")):
        async with seen.gate.call("PUT", path, "alice") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)
