"""The gate's own paths through a running gate: login, logout, who am I, alive; all else there is unlisted."""

from __future__ import annotations

import time

import pytest

from policy.principal import Principal, TenantId
from policy.settings import PolicySettings
from proxy.auth import key_file
from proxy.config.presets import NAMES, describe_presets
from proxy.pages.words import limit_in_words, policy_in_words, scopes_in_words, size_in_words
from tests.harness import Running

HTML = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


async def session_of(gate: Running, who: str = "alice") -> dict[str, str]:
    form, headers = {"key": gate.keys[who]}, {"Origin": gate.url}
    async with gate.call("POST", "/gate/login", None, data=form, headers=headers) as answer:
        assert answer.status == 303
        cookie = answer.cookies["comfygate_session"].value
    gate.session.cookie_jar.clear()
    return {"Cookie": f"comfygate_session={cookie}"}


async def test_health_needs_no_key(gate: Running) -> None:
    assert await gate.json("GET", "/gate/health", None) == {"status": "ok"}


async def test_the_login_page(gate: Running) -> None:
    async with gate.call("GET", "/gate/login?next=/queue", None) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")


async def test_me_as_json_and_as_a_page(gate: Running) -> None:
    for who, role in (("alice", "user"), ("admin", "admin")):
        me = await gate.json("GET", "/gate/me", who)
        assert (me["tenant"], me["role"]) == ("alice", role)
    async with gate.call("GET", "/gate/me", None, headers={**await session_of(gate), **HTML}) as answer:
        text = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/html")
    assert "alice" in text
    assert "core-image" in text


async def test_me_without_a_key(gate: Running) -> None:
    assert await gate.status("GET", "/gate/me", None) == 401
    async with gate.call("GET", "/gate/me", None, headers=HTML) as answer:
        assert answer.status in (302, 303)
        assert answer.headers["Location"] == "../gate/login?next=/gate/me"


async def test_logout_ends_the_session(gate: Running) -> None:
    session = await session_of(gate)
    assert await gate.status("GET", "/queue", None, headers=session) == 200
    status = await gate.status("POST", "/gate/logout", None, headers={**session, "Origin": gate.url})
    assert status == 200
    assert await gate.status("GET", "/queue", None, headers=session) == 401


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("PUT", "/gate/login", "GET, HEAD, POST"), ("GET", "/gate/logout", "POST"), ("POST", "/gate/me", "GET, HEAD"), ("DELETE", "/gate/health", "GET, HEAD")],
)  # fmt: skip
async def test_other_methods(gate: Running, method: str, path: str, allow: str) -> None:
    async with gate.call(method, path, None) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/gate/none", "/gate/me/x", "/gate/login/x"])
async def test_what_is_unlisted_is_told_to_nobody_without_a_key(gate: Running, path: str) -> None:
    assert [await gate.status("GET", path, who) for who in (None, "alice", "admin")] == [401, 404, 404]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/gate", "./gate/me"),
        ("/gate/", "../gate/me"),
        ("/gate/?token=cg_00000000_x", "../gate/me"),
        ("/gate/me/", "../../gate/me"),
        ("/login", "./gate/login"),
        ("/login/", "../gate/login"),
    ],
)
async def test_addresses_as_they_come_to_mind_lead_to_the_pages(gate: Running, path: str, expected: str) -> None:
    for who in (None, "alice"):
        async with gate.call("GET", path, who) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, expected)
    assert await gate.status("POST", path, None) in (400, 401)


async def test_me_as_json_for_a_browser_that_asks_for_it(gate: Running) -> None:
    async with gate.call("GET", "/gate/me?format=json", "alice", headers=HTML) as answer:
        assert answer.content_type == "application/json"


async def test_me_shows_what_was_refused_and_to_its_own_tenant_alone(gate: Running) -> None:
    graph = {"7": {"class_type": "LoadAudio", "inputs": {}}}
    async with gate.call("POST", "/prompt", "alice", json={"prompt": graph}) as answer:
        assert answer.status == 403
        request_id = answer.headers["X-Request-Id"]
    (refusal,) = (await gate.json("GET", "/gate/me", "alice"))["refusals"]
    assert (refusal["request_id"], refusal["route"], refusal["status"]) == (request_id, "POST /prompt", 403)
    assert [(item["node"], item["class"], item["reason"]) for item in refusal["violations"]] == [
        ("7", "LoadAudio", "class-not-permitted")
    ]
    assert (await gate.json("GET", "/gate/me", "mallory"))["refusals"] == []
    async with gate.call("GET", "/gate/me", None, headers={**await session_of(gate), **HTML}) as answer:
        text = await answer.text()
    assert "Node 7 LoadAudio: allowed: the classes that /object_info lists." in text
    assert request_id in text


async def test_me_names_a_key_by_its_note(gate: Running) -> None:
    key = key_file.create_key(gate.config_file, tenant="alice", note="Ann's <laptop>").text
    assert await gate.gate.reload(gate.config_file)
    headers = {"X-API-Key": key}
    assert (await gate.json("GET", "/gate/me", None, headers=headers))["note"] == "Ann's <laptop>"
    async with gate.call("GET", "/gate/me", None, headers={**headers, **HTML}) as answer:
        assert "Ann&#x27;s &lt;laptop&gt;" in await answer.text()


def test_a_policy_in_words() -> None:
    policy = PolicySettings.model_validate(
        {
            "extend": "default",
            "allow": ["@core-image", "MyNode"],
            "deny": ["LoadImage", "@api-nodes"],
            "max_nodes": 7,
            "inputs": {"KSampler.steps": {"max": 30}, "*.ckpt_name": {"allow": ["a*", "b"]}},
            "budgets": {"pixels": {"of": "width*height*batch_size?", "max": 16777216}},
            "workflows": [{"file": "portrait.json"}],
        }
    )
    assert policy_in_words(policy, Principal("k", TenantId("alice")), {"core-image": "Pictures"}) == [
        "Everything that the policy default says, and:",
        "May run Pictures (@core-image).",
        "May run: MyNode.",
        "Never: LoadImage, @api-nodes.",
        "At most 7 nodes in a workflow.",
        "steps of KSampler: at most 30.",
        "ckpt_name of every node: one of a*, b.",
        "width by height by batch_size of a node: at most 16,777,216.",
        "Only these workflows: portrait.json.",
    ]
    nothing = policy_in_words(PolicySettings(), Principal("k", TenantId("alice")), {})
    assert nothing[0] == "May run: nothing."
    for more in ({"workflows": [{"file": "portrait.json"}]}, {"extend": "default"}):
        told = policy_in_words(PolicySettings.model_validate(more), Principal("k", TenantId("alice")), {})
        assert not any(sentence.startswith("May run") for sentence in told), told


def test_every_preset_is_described() -> None:
    described = describe_presets()
    assert set(described) == set(NAMES)
    assert described["core-image"] == "ComfyUI's own nodes for making and saving pictures"
    assert all(20 < len(text) < 120 and "\n" not in text for text in described.values())


def test_limits_and_scopes_in_words() -> None:
    assert size_in_words("30/minute; 500/day") == "30 a minute; 500 a day"
    assert size_in_words("10 per 5 minute") == "10 per 5 minute"
    assert limit_in_words("queued-jobs") == "jobs waiting or running"
    assert limit_in_words("prompts-per-minute") == "workflows submitted"
    assert limit_in_words("GPU seconds") == "GPU seconds"
    assert limit_in_words("new-limit") == "new limit"
    assert scopes_in_words(("jobs:read", "new:scope")) == "see jobs, new:scope"


async def test_a_dead_cookie_is_taken_from_the_browser_with_the_first_refusal(gate: Running) -> None:
    """What a browser adds by itself would else shut it out for as long as it keeps the cookie, whatever else it brings."""
    session = await session_of(gate)
    await gate.status("POST", "/gate/logout", None, headers={**session, "Origin": gate.url})
    buried = ""
    for more in ({}, HTML, gate.headers("alice")):
        async with gate.call("GET", "/queue", None, headers={**session, **more}) as answer:
            assert answer.status == (303 if more is HTML else 401)
            buried = answer.cookies["comfygate_session"].value
        gate.session.cookie_jar.clear()
    left = {"Cookie": f"comfygate_session={buried}"}
    assert await gate.status("GET", "/queue", None, headers={**left, **gate.headers("alice")}) == 200
    async with gate.call("GET", "/queue", None, headers=left) as answer:
        assert (answer.status, (await answer.json())["error"]["type"]) == (401, "session_ended")
        assert "Set-Cookie" not in answer.headers


async def test_use_renews_a_session(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await session_of(gate)
    sessions = gate.gate.dependencies.compiled.authenticator.sessions
    async with gate.call("GET", "/queue", None, headers=session) as answer:
        assert "Set-Cookie" not in answer.headers
    now_s = time.time() + 86400
    monkeypatch.setattr(sessions, "_now", lambda: now_s)
    renewed = ""
    for path in ("/queue", "/gate/me"):
        async with gate.call("GET", path, None, headers=session) as answer:
            assert answer.status == 200
            renewed = answer.cookies["comfygate_session"].value
        gate.session.cookie_jar.clear()
    now_s += 6.5 * 86400
    assert await gate.status("GET", "/queue", None, headers=session) == 401
    assert await gate.status("GET", "/queue", None, headers={"Cookie": f"comfygate_session={renewed}"}) == 200


async def test_a_browser_with_another_tenants_storage_empties_it_before_it_gets_the_web_ui(gate: Running) -> None:
    form = {"next": "/?a=b"}
    mark = "other=cookie"
    for who, is_other in (("alice", True), ("alice", False), ("mallory", True)):
        session = await session_of(gate, who)
        headers = {"Cookie": f"{session['Cookie']}; {mark}", **HTML}
        async with gate.call("GET", "/?a=b", None, headers=headers) as answer:
            assert ("gate/storage" in await answer.text()) is is_other
        async with gate.call(
            "POST", "/gate/storage", None, headers={**headers, "Origin": gate.url}, data=form
        ) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "../?a=b")
            mark = f"comfygate_storage={answer.cookies['comfygate_storage'].value}"
        gate.session.cookie_jar.clear()
    async with gate.call("GET", "/", "mallory", headers=HTML) as answer:
        assert "gate/storage" not in await answer.text(), "a program has no storage"


async def test_the_storage_is_not_marked_for_strangers_and_foreign_pages(gate: Running) -> None:
    async with gate.call("POST", "/gate/storage", None, headers={"Origin": gate.url}) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "../gate/login")
    session = await session_of(gate)
    foreign = {**session, "Origin": "https://evil.example"}
    assert await gate.status("POST", "/gate/storage", None, headers=foreign) == 403


async def test_who_came_without_a_session_is_told_why_there_is_no_signing_out(gate: Running) -> None:
    async with gate.call("GET", "/gate/me", "alice", headers={"Accept": "text/html"} | gate.headers("alice")) as answer:
        text = await answer.text()
    assert "there is nothing to sign out of here" in text
    assert "Sign out" not in text
