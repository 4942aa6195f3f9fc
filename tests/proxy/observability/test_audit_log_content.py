"""What a running gate leaves in its audit trail, and what never stands there: keys, sessions, the text of a prompt."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from proxy.auth import key_file
from tests.contract.driver import Graph, node
from tests.harness import AUDIT_FILE, Running

SECRET_TEXT = "the duchess's secret wish"


def entries(gate: Running, event: str = "") -> list[dict[str, Any]]:
    lines = (gate.config_file.parent / AUDIT_FILE).read_bytes().splitlines()
    return [entry for entry in map(orjson.loads, lines) if event in ("", entry["event"])]


def key_id(gate: Running, who: str) -> str:
    return gate.keys[who].split("_")[1]


def telling() -> Graph:
    """A good workflow with a text of its tenant's in it."""
    return {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("SaveImage", images=["1", 0], filename_prefix="told"),
        "3": node("PrimitiveString", value=SECRET_TEXT),
    }


async def login(gate: Running, key: str, origin: str | None = None) -> int:
    headers = {"Origin": origin or gate.url}
    return await gate.status("POST", "/gate/login", None, data={"key": key}, headers=headers)


async def test_an_accepted_submission_and_its_end(gate: Running) -> None:
    async with gate.session.ws_connect(
        gate.address("/ws?clientId=me").human_repr(), headers=gate.headers("alice")
    ) as socket:
        made = await gate.json("POST", "/prompt", "alice", json={"prompt": telling(), "client_id": "me"})
        async for message in socket:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            if message.json()["type"] == "execution_success":
                break
    while gate.gate.dependencies.registry.active():
        await gate.gate.dependencies.queue_watchers.first.sync()
    (submission,) = entries(gate, "submission")
    assert {
        "decision": "accepted",
        "tenant": "alice",
        "subject": key_id(gate, "alice"),
        "route": "POST /prompt",
        "status": 200,
        "client": "127.0.0.1",
    }.items() <= submission.items()
    assert "reason" not in submission
    assert submission["prompt_id"] == made["prompt_id"]
    assert sorted(submission["classes"]) == ["EmptyImage", "PrimitiveString", "SaveImage"]
    (job,) = entries(gate, "job")
    assert {
        "prompt_id": made["prompt_id"],
        "tenant": "alice",
        "subject": key_id(gate, "alice"),
        "outcome": "completed",
    }.items() <= job.items()
    assert job["gpu_seconds"] >= 0
    assert job["workflow"]
    assert "duchess" not in str(entries(gate))
    assert "duchess" not in gate.log.getvalue().decode()


async def test_a_refused_submission_tells_each_violation_and_no_text(gate: Running) -> None:
    graph = telling() | {"4": node("LoadAudio", audio=SECRET_TEXT)}
    assert await gate.status("POST", "/prompt", "mallory", json={"prompt": graph}) in (400, 403)
    assert await gate.status("POST", "/prompt", "mallory", data=SECRET_TEXT) == 400
    assert await gate.status("POST", "/prompt", None, json={"prompt": graph}) == 401
    refused, malformed, nobodys = entries(gate, "submission")
    assert {entry["decision"] for entry in (refused, malformed, nobodys)} == {"refused"}
    assert refused["by"] == "gate"
    assert refused["violations"] == [
        {
            "node": "4",
            "class": "LoadAudio",
            "input": None,
            "reason": "class-not-permitted",
            "message": "This class is not permitted.",
            "allowed": "the classes that /object_info lists",
        }
    ]
    assert malformed["violations"][0]["reason"] == "body-malformed"
    assert all(entry["reason"] for entry in (refused, malformed, nobodys))
    assert [entry["tenant"] for entry in (refused, malformed, nobodys)] == ["mallory", "mallory", None]
    assert "duchess" not in str(entries(gate))


async def test_what_comfyui_itself_refuses_has_its_reasons(gate: Running) -> None:
    graph = telling()
    graph["1"]["inputs"]["width"] = -5
    del graph["3"]["inputs"]["value"]
    for who in ("alice", "admin"):
        assert await gate.status("POST", "/prompt", who, json={"prompt": graph}) == 400
    for refused in entries(gate, "submission"):
        assert (refused["decision"], refused["by"], refused["status"]) == ("refused", "comfyui", 400)
        assert refused["reason"] == "prompt_outputs_failed_validation"
        (small,) = [item for item in refused["violations"] if item["reason"] == "value_smaller_than_min"]
        assert (small["node"], small["class"], small["input"]) == ("1", "EmptyImage", "width")
        assert (small["found"], small["allowed"]) == ("-5", "at least 1")


async def test_refused_uploads(gate: Running) -> None:
    form = aiohttp.FormData()
    form.add_field("image", b"plain words", filename="words.txt")
    assert await gate.status("POST", "/upload/image", "alice", data=form) == 403
    (refused,) = entries(gate, "refused")
    assert (refused["route"], refused["reason"], refused["by"]) == ("POST /upload/image", "file-type-refused", "gate")
    assert refused["violations"][0]["message"]


async def test_logins(gate: Running) -> None:
    assert await login(gate, gate.keys["alice"]) == 303
    gate.session.cookie_jar.clear()
    wrong = gate.keys["alice"][:-4] + "AAAA"
    assert await login(gate, wrong) >= 400
    good, bad = entries(gate, "login")
    assert (good["login"], good["tenant"], good["subject"]) == ("good", "alice", key_id(gate, "alice"))
    assert "reason" not in good
    assert (bad["login"], bad["tenant"]) == ("bad", None)
    assert bad["reason"]
    assert {good["route"], bad["route"]} == {"POST /gate/login"}
    content = (gate.config_file.parent / AUDIT_FILE).read_text()
    for key in (*gate.keys.values(), wrong):
        assert key.split("_", 2)[2][:20] not in content


async def test_keys_and_reloads(gate: Running) -> None:
    new = key_file.create_key(gate.config_file, tenant="mallory")
    key_file.revoke_key(gate.config_file, key_id(gate, "admin"))
    rotated = key_file.rotate_key(gate.config_file, key_id(gate, "alice"), grace_s=3600)
    assert await gate.gate.reload(gate.config_file)
    changes = {(entry["key"], entry["change"], entry["tenant"]) for entry in entries(gate, "key")}
    assert changes == {
        (new.id, "added", "mallory"),
        (key_id(gate, "admin"), "removed", "alice"),
        (key_id(gate, "alice"), "changed", "alice"),
        (rotated.id, "added", "alice"),
    }
    assert [entry["result"] for entry in entries(gate, "config")] == ["good"]
    with gate.config_file.open("a") as file:
        file.write("\n[sessions]\nno_such = 1\n")
    assert not await gate.gate.reload(gate.config_file)
    bad = entries(gate, "config")[1]
    assert bad["result"] == "bad"
    assert ["sessions.no_such" in mistake for mistake in bad["mistakes"]] == [True]
    assert len(entries(gate, "key")) == 4


async def test_refused_routes(gate: Running) -> None:
    calls = [("POST", "/internal/folder_paths", 405), ("GET", "/system_stats", None), ("POST", "/free", 403)]
    for method, path, expected in calls:
        status = await gate.status(method, path, "mallory")
        assert expected is None or status == expected, path
    assert await gate.status("GET", "/queue", "mallory") == 200
    foreign = {"Origin": "https://evil.example"}
    assert await gate.status("GET", "/free", "mallory") == 405
    assert await gate.status("POST", "/queue", "mallory", json={}, headers=foreign) in (200, 403)
    refused = entries(gate, "refused")
    assert {(entry["tenant"], entry["subject"]) for entry in refused} == {("mallory", key_id(gate, "mallory"))}
    assert ("POST /free", "admins-only") in {(entry["route"], entry["reason"]) for entry in refused}
    assert await gate.status("GET", "/no/such", "mallory") == 404
    refused = entries(gate, "refused")
    assert ("unlisted", "route-unlisted") in {(entry["route"], entry["reason"]) for entry in refused}
    assert "GET /queue" not in {entry["route"] for entry in refused}
