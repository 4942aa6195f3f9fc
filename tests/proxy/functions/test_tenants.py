"""Who may call what: tenants apart, policies of functions, tenants that call functions alone, narrow keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from policy.principal import Scope
from proxy.auth import key_file
from tests.proxy.functions.calls import PAINT, PAINT_TOML, Caller, calling, form
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.assets.sdk import Standing, picture

ONLY = """\
[tenants.alice]
policy = "nothing"
functions = ["paint"]
workflows = "functions"
[tenants.mallory]
policy = "nothing"
functions = ["paint"]
"""
POLICIES = '\n[policies.nothing]\nallow = []\n[policies.painting]\nallow = ["@core-image"]\n'
PAINT_BY_ITSELF = {"paint": ('policy = "painting"\n' + PAINT_TOML, PAINT)}


async def test_what_is_anothers_answers_as_what_is_not_there(seen: Standing) -> None:
    alice, mallory = Caller(seen.gate), Caller(seen.gate, "mallory")
    job = (await alice.run("paint", Prefer="wait=60")).body
    same = {"X-Request-Id": "same"}
    for path in ("", "/events", "/outputs/picture", "/outputs/2"):
        foreign = await mallory.ask("GET", f"/gate/jobs/{job['id']}{path}", headers=same)
        nothing = await mallory.ask("GET", f"/gate/jobs/00000000-0000-4000-8000-000000000000{path}", headers=same)
        assert (foreign.status, foreign.raw) == (404, nothing.raw)
    assert (await mallory.ask("POST", f"/gate/jobs/{job['id']}/cancel")).status == 404
    # She may not call it, and learns no more than of one that nobody has.
    closed = await mallory.run("copy", X_Request_Id="same")
    nothing = await mallory.run("none", X_Request_Id="same")
    assert (closed.status, closed.raw) == (404, nothing.raw)
    assert [each["name"] for each in (await mallory.ask("GET", "/gate/functions")).body["functions"]] == ["paint"]
    asset = await seen.alice.stored(picture())
    taken = await Caller(seen.gate).run("wear", {"picture": asset["id"]}, Prefer="wait=60")
    assert taken.body["status"] == "succeeded"


async def test_an_asset_of_a_neighbours_is_none(tmp_path: Path) -> None:
    both = '[tenants.alice]\nfunctions = ["*"]\n[tenants.mallory]\nfunctions = ["*"]\n'
    async with calling(tmp_path, tenants=both) as world:
        asset = await world.alice.stored(picture())
        mallory = Caller(world.gate, "mallory")
        foreign = await mallory.run("wear", {"picture": asset["id"]}, X_Request_Id="same")
        nothing = await mallory.run("wear", {"picture": "00000000-0000-4000-8000-000000000000"}, X_Request_Id="same")
        assert foreign.refusal == (422, "argument_refused")
        assert foreign.raw == nothing.raw


async def test_a_function_runs_by_its_own_policy_and_its_classes_nowhere_else(tmp_path: Path) -> None:
    async with calling(tmp_path, tenants=ONLY, functions=PAINT_BY_ITSELF, more=POLICIES) as world:
        alice, mallory = Caller(world.gate), Caller(world.gate, "mallory")
        for who in (alice, mallory):
            assert (await who.run("paint", Prefer="wait=60")).body["status"] == "succeeded"
        native = orjson.dumps({"prompt": PAINT})
        for path, body in (
            ("/prompt", native),
            ("/api/prompt", native),
            ("/api/v2/jobs", orjson.dumps({"workflow": PAINT})),
        ):
            refused = await alice.ask("POST", path, data=body)
            assert refused.status == 403
            assert "/gate/functions" in refused.body["error"]["message"]
            # Who may send workflows is judged by the own policy, which permits nothing.
            assert (await mallory.ask("POST", path, data=body)).status == 403
        # Arguments are no way around it.
        assert (await alice.run("paint", {"class_type": "LoadImage"})).refusal == (422, "argument_refused")
        assert (await alice.ask("GET", "/object_info")).body == {}
        me = await alice.ask("GET", "/gate/me")
        assert me.body["functions"] == ["paint"]


async def test_the_web_ui_loads_for_who_sends_no_workflows(tmp_path: Path) -> None:
    """What a page asks for when it is opened; what it then sends is refused with a sentence."""
    async with calling(tmp_path, tenants=ONLY, functions=PAINT_BY_ITSELF, more=POLICIES) as world:
        alice = Caller(world.gate)
        paths = (
            "object_info",
            "settings",
            "users",
            "system_stats",
            "queue",
            "history",
            "extensions",
            "features",
            "i18n",
        )
        statuses = {path: (await alice.ask("GET", f"/api/{path}")).status for path in paths}
        assert statuses == dict.fromkeys(paths, 200)
        async with world.gate.session.ws_connect(f"{world.gate.url}/ws", headers=world.gate.headers("alice")) as socket:
            assert (await socket.receive_json())["type"] == "status"


async def test_admins_call_none(seen: Standing) -> None:
    admin = Caller(seen.gate, "admin")
    assert (await admin.run("paint")).refusal == (403, "route_refused")
    assert (await admin.ask("GET", "/gate/functions")).status == 403


@pytest.mark.parametrize(
    ("scopes", "headers", "status"),
    [
        ({Scope.JOBS_SUBMIT}, {}, 202),
        ({Scope.JOBS_READ}, {}, 403),
        ({Scope.JOBS_SUBMIT}, {"Prefer": "wait=5"}, 403),
        ({Scope.JOBS_SUBMIT}, {"Accept": "text/event-stream"}, 403),
        ({Scope.JOBS_SUBMIT, Scope.JOBS_READ}, {"Accept": "image/png"}, 403),
        ({Scope.JOBS_SUBMIT, Scope.JOBS_READ, Scope.FILES_READ}, {"Accept": "image/png"}, 200),
    ],
)
async def test_a_narrow_key(seen: Standing, scopes: set[Scope], headers: dict[str, str], status: int) -> None:
    narrow = key_file.create_key(seen.gate.config_file, tenant="alice", scopes=frozenset(scopes))
    assert await seen.gate.gate.reload(seen.gate.config_file)
    caller = Caller(seen.gate)
    answer = await caller.run("paint", Authorization=f"Bearer {narrow.text}", **headers)
    assert answer.status == status, answer.raw
    if status == 403:
        assert answer.refusal == (403, "scope_missing")
        assert (await caller.ask("GET", "/api/v2/jobs")).body["jobs"] == []


async def test_who_may_not_write_files_sends_none(seen: Standing) -> None:
    scopes = frozenset({Scope.JOBS_SUBMIT, Scope.JOBS_READ})
    narrow = key_file.create_key(seen.gate.config_file, tenant="alice", scopes=scopes)
    assert await seen.gate.gate.reload(seen.gate.config_file)
    body = form(("picture", picture(), "a.png"))
    answer = await Caller(seen.gate).send("wear", body, Authorization=f"Bearer {narrow.text}")
    assert answer.refusal == (403, "scope_missing")
    assert seen.files() == []


async def test_a_credential_is_no_argument(seen: Standing) -> None:
    alice, key = Caller(seen.gate), seen.gate.keys["alice"]
    assert (await alice.run("paint", {"prefix": key})).refusal == (400, "credential_misplaced")
    assert (await alice.send("paint", form(("prefix", key)))).refusal == (400, "credential_misplaced")
    assert (await alice.send("wear", form(("picture", picture(), f"{key}.png")))).refusal == (
        400,
        "credential_misplaced",
    )
    assert seen.files() == []


async def test_a_changed_function_is_taken_up_and_a_broken_one_leaves_the_old_in_force(seen: Standing) -> None:
    alice = Caller(seen.gate)
    folder = seen.gate.config_file.parent / "functions"
    before = (await alice.ask("GET", "/gate/functions/paint")).body
    (folder / "paint.toml").write_text(PAINT_TOML + "nonsense")
    assert not await seen.gate.gate.reload(seen.gate.config_file)
    assert (await alice.ask("GET", "/gate/functions/paint")).body == before
    (folder / "paint.toml").write_text(PAINT_TOML.replace('"Paint"', '"Painted"'))
    assert await seen.gate.gate.reload(seen.gate.config_file)
    after = (await alice.ask("GET", "/gate/functions/paint")).body
    assert (after["title"], after["version"] == before["version"]) == ("Painted", False)
    # A job of before is told of all the same.
    (folder / "paint.toml").unlink()
    job = (await alice.run("paint", Prefer="wait=60")).body
    assert not await seen.gate.gate.reload(seen.gate.config_file), "mallory is given one that is not there"
    assert (await alice.job(job["id"]))["status"] == "succeeded"


async def test_the_rate_of_prompts_bounds_calls(tmp_path: Path) -> None:
    tight = '[tenants.alice]\nfunctions = ["*"]\nlimits = "tight"\n[tenants.mallory]\n'
    async with calling(tmp_path, tenants=tight, more='\n[limits.tight]\nprompts = "2/minute"\n') as world:
        answers = [await Caller(world.gate).run("paint") for _ in range(3)]
    assert [answer.status for answer in answers] == [202, 202, 429]
    assert "Retry-After" in answers[2].headers


async def test_copies_of_one_call_at_once_are_one_job(seen: Standing) -> None:
    """Which of them is first nobody knows; each is answered, with the job or with the word to come again."""
    alice = Caller(seen.gate)
    answers = await asyncio.gather(*(alice.run("paint", Idempotency_Key="k") for _ in range(8)))
    assert {answer.status for answer in answers} <= {202, 409}
    assert len({answer.body["id"] for answer in answers if answer.status == 202}) == 1
    async with asyncio.timeout(GUARD_S):
        while (await alice.run("paint", Idempotency_Key="k")).status != 202:
            pass
    assert len((await alice.ask("GET", "/api/v2/jobs")).body["jobs"]) == 1
