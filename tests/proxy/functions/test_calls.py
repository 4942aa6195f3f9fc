"""Calls of functions, whole requests: how a client hears of its job, and what it may ask of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.http.form_parts import MAX_PARTS
from tests.contract.driver import png
from tests.proxy.functions.calls import FORM, TENANTS, Caller, calling, form
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.asking import audited
from tests.proxy.v2.assets.sdk import Standing, picture
from tests.proxy.v2.following import Stream

FEW = TENANTS.replace('functions = ["*"]', 'functions = ["*"]\nlimits = "few"')


def caller(world: Standing, who: str = "alice") -> Caller:
    return Caller(world.gate, who)


async def test_a_call_is_answered_with_its_job_at_once(world: Standing) -> None:
    alice = caller(world)
    answer = await alice.run("paint", {"width": 64})
    assert answer.status == 202, answer.raw
    job = answer.body
    assert answer.headers["Location"] == job["urls"]["self"] == f"/gate/jobs/{job['id']}"
    assert "Preference-Applied" not in answer.headers
    assert list(job["drawn"]) == ["color"]
    done = await alice.until(job["id"], "succeeded")
    assert [(each["output"], each["type"]) for each in done["outputs"]] == [("picture", "image")]
    assert done["outputs"][0]["url"] == f"{world.gate.url}/gate/jobs/{job['id']}/outputs/picture"
    assert done["metadata"]["function"] == "paint"
    shown = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture")
    assert shown.status == 200
    assert shown.raw.startswith(png()[:8])
    for name in ("2", done["outputs"][0]["name"]):
        assert (await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/{name}")).raw == shown.raw
    # What the function does not name is no result of it; the job has it all the same.
    assert (await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/3")).status == 200
    for path in ("outputs/nothing", "outputs/picture?index=1"):
        assert (await alice.ask("GET", f"/gate/jobs/{job['id']}/{path}")).refusal == (404, "not_found")
    assert (await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture?index=x")).status == 400


async def test_who_waits_gets_the_result(world: Standing) -> None:
    answer = await caller(world).run("paint", {"color": 5}, Prefer="wait=60")
    assert answer.status == 200, answer.raw
    assert answer.headers["Preference-Applied"] == "wait=60"
    assert answer.body["status"] == "succeeded"
    assert [each["output"] for each in answer.body["outputs"]] == ["picture"]
    assert "drawn" not in answer.body


async def test_who_asks_for_a_picture_gets_its_bytes(world: Standing) -> None:
    answer = await caller(world).run("paint", Accept="image/png")
    assert answer.status == 200, answer.raw
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.raw.startswith(png()[:8])
    assert (await caller(world).ask("GET", answer.headers["Content-Location"])).raw == answer.raw


async def test_several_files_in_one_form(world: Standing) -> None:
    alice, first, second = caller(world), picture(), picture()
    body = form(("first", first, "a.png"), ("prefix", "both"), ("second", second, "b.png"))
    answer = await alice.send("copy", body, Prefer="wait=60")
    assert answer.status == 200, answer.raw
    assert answer.body["status"] == "succeeded", answer.body
    assert sorted(answer.body["assets"]) == ["first", "second"]
    for name, data in (("first", first), ("second", second)):
        content = await alice.ask("GET", f"/api/v2/assets/{answer.body['assets'][name]}/content")
        assert content.raw == data


async def test_a_file_as_a_data_url_and_one_by_its_asset(world: Standing) -> None:
    alice, first = caller(world), picture()
    second = await world.alice.stored(picture())
    url = "data:image/png;base64," + base64.b64encode(first).decode()
    answer = await alice.run("copy", {"first": url, "second": second["id"]}, Prefer="wait=60")
    assert answer.status == 200, answer.raw
    assert answer.body["status"] == "succeeded", answer.body
    assert answer.body["assets"]["second"] == second["id"]


async def test_one_asset_may_stand_in_two_parameters(world: Standing) -> None:
    stored = await world.alice.stored(picture())
    answer = await caller(world).run("copy", {"first": stored["id"], "second": stored["id"]}, Prefer="wait=60")
    assert (answer.status, answer.body.get("status")) == (200, "succeeded"), answer.raw


async def test_who_waits_too_short_is_told_where_to_look(seen: Standing) -> None:
    alice = caller(seen)
    answer = await alice.run("slow", {"seconds": 3600.0}, Prefer="respond-async, wait=1")
    assert answer.status == 202
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert answer.headers["Location"] == answer.body["urls"]["self"]
    bytes_ = await alice.run("slow", {"seconds": 3600.0}, Prefer="wait=0", Accept="image/*")
    assert (bytes_.status, bytes_.body["status"]) == (202, "queued")
    assert bytes_.body["queue_position"] == 1
    assert bytes_.body["estimated_start"] is not None
    for each in (answer, bytes_):
        canceled = await alice.ask("POST", each.body["urls"]["cancel"])
        assert canceled.body["status"] in ("canceling", "canceled")
        done = await alice.until(each.body["id"], "canceled")
        assert (await alice.ask("POST", each.body["urls"]["cancel"])).body["status"] == done["status"]


async def test_a_job_that_failed_is_no_error_of_the_request(seen: Standing) -> None:
    """But whoever asked for bytes would save the words about it as a picture."""
    alice, broken = caller(seen), png()[:50]
    answer = await alice.send("wear", form(("picture", broken, "broken.png")), Prefer="wait=60")
    assert (answer.status, answer.body["status"]) == (200, "failed")
    assert answer.body["error"]["class_type"] == "LoadImage"
    refused = await alice.send("wear", form(("picture", broken, "broken.png")), Accept="image/png")
    assert refused.refusal == (406, "not_acceptable")
    assert "The job has failed" in refused.body["error"]["message"]


async def test_what_cannot_be_given_as_bytes(seen: Standing) -> None:
    alice = caller(seen)
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    several = await alice.run("copy", {"first": url, "second": url}, Accept="image/png")
    assert several.refusal == (406, "not_acceptable")
    assert "first, second" in several.body["error"]["message"]
    none = await alice.run("paint", Accept="video/mp4")
    assert none.refusal == (406, "not_acceptable")
    here = none.body["error"]["details"]
    assert (await alice.ask("GET", here)).body["status"] == "succeeded"
    # Whatever is answered: the jobs were taken, and the trail says so.
    assert [entry["decision"] for entry in audited(seen.gate)] == ["accepted", "accepted"]


async def test_a_stream_from_the_call_to_its_end(seen: Standing) -> None:
    async with seen.gate.call(
        "POST", "/gate/run/slow", "alice", data=b'{"seconds": 0.5}', headers={"Accept": "text/event-stream"}
    ) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        stream = await Stream(response).rest()
    kinds = [kind for kind, _ in stream]
    assert kinds[0] == kinds[-1] == "status"
    assert {"progress", "output"} <= set(kinds)
    assert stream[-1][1]["status"] == "succeeded"


async def test_events_of_a_job_by_this_door(seen: Standing) -> None:
    alice = caller(seen)
    job = (await alice.run("paint")).body
    async with seen.gate.call("GET", job["urls"]["events"], "alice") as response:
        assert (await Stream(response).rest())[-1][1] == {"status": "succeeded"}
    assert (await caller(seen, "mallory").ask("GET", job["urls"]["events"])).status == 404


async def test_without_a_place_nobody_waits_or_follows(tmp_path: Path) -> None:
    async with calling(tmp_path, more="\n[limits.few]\nwebsockets = 0\n", tenants=FEW) as world:
        alice = caller(world)
        for headers in ({"Prefer": "wait=60"}, {"Accept": "text/event-stream"}, {"Accept": "image/png"}):
            answer = await alice.run("slow", {"seconds": 3600.0}, **headers)
            assert (answer.status, answer.body["status"] in ("queued", "running")) == (202, True)


@pytest.mark.parametrize("headers", [{"Prefer": "wait=90"}, {"Accept": "text/event-stream"}])
@pytest.mark.parametrize(("query", "becomes"), [("", "running"), ("?on_disconnect=cancel", "canceled")])
async def test_a_client_that_leaves(seen: Standing, headers: dict[str, str], query: str, becomes: str) -> None:
    alice = caller(seen)
    call = asyncio.create_task(alice.run("slow", {"seconds": 3600.0}, query, **headers))
    async with asyncio.timeout(GUARD_S):
        while not (jobs := (await alice.ask("GET", "/api/v2/jobs?status=running")).body["jobs"]):
            await asyncio.sleep(0.02)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    if becomes == "canceled":
        await alice.until(jobs[0]["id"], "canceled")
        return
    # Nothing tells of what does not happen: another call is answered, which was sent after the client had left.
    assert (await alice.run("paint")).status == 202
    assert (await alice.job(jobs[0]["id"]))["status"] == "running"


async def test_on_disconnect_is_one_of_two_words(seen: Standing) -> None:
    assert (await caller(seen).run("paint", query="?on_disconnect=explode")).refusal == (400, "query_malformed")
    assert (await caller(seen).run("paint", query="?on_disconnect=continue")).status == 202


async def test_a_stop_of_the_gate_answers_who_waits_and_cancels_nothing(tmp_path: Path) -> None:
    async with calling(tmp_path) as world:
        alice = caller(world)
        call = asyncio.create_task(alice.run("slow", {"seconds": 3600.0}, "?on_disconnect=cancel", Prefer="wait=90"))
        async with asyncio.timeout(GUARD_S):
            while not (await alice.ask("GET", "/api/v2/jobs?status=running")).body["jobs"]:
                await asyncio.sleep(0.02)
            await world.gate.gate.stop()
            answer = await call
    assert (answer.status, answer.body["status"]) == (202, "running")


async def test_a_key_of_a_call_is_good_for_one_job(seen: Standing) -> None:
    alice = caller(seen)
    first = await alice.run("paint", Idempotency_Key="one", Prefer="wait=60")
    again = await alice.run("paint", Idempotency_Key="one", Prefer="wait=60")
    assert (first.status, again.status) == (200, 200)
    assert again.body["id"] == first.body["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.body["drawn"] == first.body["drawn"]
    other = await alice.run("paint", {"width": 64}, Idempotency_Key="one")
    assert other.refusal == (422, "idempotency_key_reused")
    assert (await alice.run("paint", Idempotency_Key="one", Accept="image/png")).headers["Content-Type"] == "image/png"


async def test_the_same_form_twice_is_one_job_and_keeps_no_second_file(seen: Standing) -> None:
    alice, files = caller(seen), [picture(), picture()]
    body = form(("first", files[0], "a.png"), ("second", files[1], "b.png"))
    first = await alice.send("copy", body, Idempotency_Key="form")
    stored = seen.files()
    again = await alice.send("copy", body, Idempotency_Key="form")
    assert (first.status, again.status) == (202, 202)
    assert again.body["id"] == first.body["id"]
    assert seen.files() == stored
    other = form(("first", files[1], "a.png"), ("second", picture(), "b.png"))
    assert (await alice.send("copy", other, Idempotency_Key="form")).refusal == (422, "idempotency_key_reused")
    assert seen.files() == stored


REFUSED_FORMS = {
    "an unknown part after a file": form(("first", picture(), "a.png"), ("nothing", "x")),
    "a file that is none of its kind": form(("first", picture(), "a.png"), ("second", b"#!/bin/sh", "b.png")),
    "a file for a text": form(("first", picture(), "a.png"), ("prefix", b"x", "b.png")),
    "a name out of the folder": form(("first", picture(), "a.png"), ("second", picture(), "../b.png")),
    "no end": form(("first", picture(), "a.png"), ("second", picture(), "b.png"), end=False),
    "one file too few": form(("first", picture(), "a.png")),
    "a part twice": form(("first", picture(), "a.png"), ("first", picture(), "b.png")),
    "an asset of nobody's": form(("first", picture(), "a.png"), ("second", "00000000-0000-4000-8000-000000000000")),
    "a text too long": form(("first", picture(), "a.png"), ("second", picture(), "b.png"), ("prefix", "x" * 200_000)),
}


@pytest.mark.parametrize("body", REFUSED_FORMS.values(), ids=REFUSED_FORMS)
async def test_a_refused_call_leaves_nothing(seen: Standing, body: bytes) -> None:
    alice = caller(seen)
    answer = await alice.send("copy", body)
    assert 400 <= answer.status < 500, answer.raw
    assert answer.body["error"]["message"]
    assert seen.files() == []
    assert (await alice.ask("GET", "/api/v2/jobs")).body["jobs"] == []


@pytest.mark.parametrize("empty", [("first", ""), ("first", "", "")], ids=["texts", "files"])
async def test_a_form_of_countless_empty_parts_is_not_read_to_its_end(seen: Standing, empty: tuple[str, str]) -> None:
    """SECURITY: each costs far more than its bytes, and one key's form of a few MiB held up everybody for seconds."""
    alice = caller(seen)
    body = form(*[empty] * (MAX_PARTS - 2), ("first", picture(), "a.png"), ("second", picture(), "b.png"))
    assert (await alice.send("copy", body)).status == 202
    answer = await alice.send("copy", form(*[empty] * (MAX_PARTS + 1), end=False))
    assert answer.refusal == (400, "body_malformed")
    assert f"at most {MAX_PARTS} parts" in answer.body["error"]["message"]


async def test_each_file_of_a_call_counts_as_an_upload(tmp_path: Path) -> None:
    """SECURITY: else calls would go round the limit."""
    async with calling(tmp_path, tenants=FEW, more='\n[limits.few]\nuploads = "3/hour"\n') as world:
        alice = caller(world)
        data_url = "data:image/png;base64," + base64.b64encode(picture()).decode()
        assert (
            await alice.send("copy", form(("first", picture(), "a.png"), ("second", picture(), "b.png")))
        ).status == 202
        stored = world.files()
        answers = [
            await alice.send("copy", form(("first", picture(), "a.png"), ("second", picture(), "b.png"))),
            await alice.run("copy", {"first": data_url, "second": data_url}),
        ]
        assert [each.status for each in answers] == [429, 429]
        assert world.files() == stored


async def test_what_is_no_id_is_no_asset(seen: Standing) -> None:
    """Of a text that no database takes too."""
    alice, bad = caller(seen), "00000000-0000-4000\0"
    asked = [
        await alice.run("copy", {"first": bad, "second": bad}),
        await alice.send("copy", form(("first", bad), ("second", bad))),
        await alice.run("copy", {"first": "x" * 65, "second": "x" * 65}),
    ]
    assert [each.refusal for each in asked] == [(422, "argument_refused")] * 3


async def test_what_comfyui_refuses_leaves_nothing(seen: Standing) -> None:
    """The policy of the tenant has no such class."""
    alice = caller(seen)
    refused = await alice.send("forbidden", form(("picture", picture(), "a.png")))
    assert refused.refusal == (403, "policy_violation")
    assert seen.files() == []


async def test_a_client_that_leaves_in_the_middle_of_a_file_leaves_nothing(seen: Standing) -> None:
    body = form(("first", picture(), "a.png"), ("second", picture() * 20, "b.png"))

    async def half() -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]
        await asyncio.sleep(3600)

    call = asyncio.create_task(caller(seen).ask("POST", "/gate/run/copy", data=half(), headers=FORM))
    async with asyncio.timeout(GUARD_S):
        while not seen.files():
            await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        while seen.files():
            await asyncio.sleep(0.02)


async def test_a_field_of_a_page_in_which_nobody_chose_a_file(seen: Standing) -> None:
    alice = caller(seen)
    answer = await alice.send("wear", form(("picture", b"", ""), ("prefix", "own")), Prefer="wait=60")
    assert answer.refusal[0] in (400, 422), answer.raw  # the workflow's own file is not there


async def test_bytes_that_are_there_are_not_stored_again(seen: Standing) -> None:
    alice, data = caller(seen), picture()
    known = await seen.alice.stored(data, "a.png")
    answer = await alice.send("copy", form(("first", data, "a.png"), ("second", picture(), "b.png")), Prefer="wait=60")
    assert answer.body["assets"]["first"] == known["id"]
    assert len(seen.files()) == 2
