"""Mallory reaches for alice's jobs: her ids, her client ids, what acts on everybody, what tells how busy others are."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.driver import Graph, empty_image, node, previewing, saving, slow
from tests.matrix.people import GREEN, NUMBERS, Listener, is_color, picture_in, seen, told, unique
from tests.matrix.world import World


@dataclass
class Busy:
    """Alice's jobs: one that ended, one that runs until it is stopped, two that wait."""

    world: World
    ear: Listener
    spy: Listener
    ended: str
    running: str
    pending: list[str]

    async def is_untouched(self) -> None:
        queue = (await self.world.alice.get("/queue")).json()
        assert [item[1] for item in queue["queue_running"]] == [self.running]
        assert [item[1] for item in queue["queue_pending"]] == self.pending
        assert self.ended in (await self.world.alice.get("/history")).json()
        await self.ear.event("progress", self.running)


@pytest.fixture
async def busy(world: World) -> AsyncIterator[Busy]:
    sid = unique("sid")
    ear, spy = await world.alice.connect(sid), await world.mallory.connect(sid)
    ended = await world.alice.queue(saving("shot", NUMBERS["alice"]), client_id=sid)
    await ear.end_of(ended)
    running = await world.alice.queue(slow(60.0, 6000), client_id=sid)
    await ear.event("progress", running)
    pending = [await world.alice.queue(slow(), client_id=sid) for _ in range(2)]
    world.mallory.secrets |= {each.encode() for each in (ended, running, *pending)}
    yield Busy(world, ear, spy, ended, running, pending)
    await world.alice.post("/queue", json={"clear": True})
    await world.mallory.post("/queue", json={"clear": True})
    await world.alice.post("/interrupt", json={"prompt_id": running})
    await ear.end_of(running)
    for listener in (ear, spy):
        await listener.close()


NAMELESS: tuple[Any, ...] = ({}, None, [], {"prompt_id": None}, {"prompt_id": ""})


def calls(ids: list[str]) -> list[tuple[str, str, Any]]:
    """What would stop, delete or show jobs."""
    one = ids[0]
    return [
        *(("POST", "/interrupt", each) for each in NAMELESS),
        *(("POST", "/interrupt", {"prompt_id": each}) for each in (*ids, [one], {"a": one}, 5)),
        ("POST", "/interrupt", "not an object"),
        ("POST", "/queue", {"clear": True}),
        ("POST", "/queue", {"clear": "yes", "delete": ids}),
        ("POST", "/queue", {"delete": ids}),
        ("POST", "/queue", {"delete": one}),
        ("POST", "/queue", {"delete": {one: 1}}),
        ("POST", "/queue", {"delete": [ids, [one], {"prompt_id": one}, None, 5]}),
        ("POST", "/queue", [{"delete": ids}]),
        ("POST", "/history", {"clear": True}),
        ("POST", "/history", {"delete": ids}),
        ("POST", "/history", {"delete": [ids, None, 5, {}]}),
        ("POST", "/api/history", {"clear": 1, "delete": ids}),
        ("POST", "/api/jobs/cancel", {"job_ids": ids}),
        ("POST", "/api/jobs/cancel", {"job_ids": [*ids, str(uuid.uuid4())]}),
        ("POST", "/api/jobs/cancel", {"job_ids": [[one]]}),
        ("POST", "/api/jobs/cancel", {"job_ids": one}),
        ("POST", "/api/jobs/cancel", {"job_ids": [each.upper() for each in ids]}),
        ("POST", "/api/api/jobs/cancel", {"job_ids": ids}),
        *(("POST", f"/api/jobs/{each}/cancel", None) for each in ids),
        *(("POST", f"/api/api/jobs/{each}/cancel", {}) for each in ids),
        *(("GET", f"/history/{each}", None) for each in (*ids, one.upper(), one.replace("-", ""), f"%7B{one}%7D")),
        *(("GET", f"/api/jobs/{each}", None) for each in (*ids, one.upper(), f"{one}%20", f"{one}%00")),
        ("GET", f"/history?prompt_id={one}", None),
        ("GET", "/history?max_items=1000&offset=0", None),
        ("GET", "/history?max_items=-1", None),
        ("GET", "/history?offset=-5", None),
        ("GET", "/queue?all=true", None),
        ("GET", "/prompt", None),
        ("GET", "/api/jobs?limit=1000&offset=-3", None),
        ("GET", f"/api/jobs?workflow_id={one}", None),
        ("GET", "/api/jobs?status=pending,in_progress,completed,failed,cancelled&sort_by=execution_duration", None),
        ("POST", "/free", {"unload_models": True, "free_memory": True}),
    ]


async def test_no_call_reaches_a_foreign_job_or_tells_of_it(busy: Busy) -> None:
    """Each call once with alice's ids and once with ids that nobody has: the same answers, and alice's jobs go on."""
    theirs = [busy.running, busy.ended, *busy.pending]
    nobodys = [str(uuid.uuid4()) for _ in theirs]
    for foreign, absent in zip(calls(theirs), calls(nobodys), strict=True):
        shown = []
        for method, path, document in (foreign, absent):
            body: dict[str, Any] = {} if document is None else {"json": document}
            if isinstance(document, str):
                body = {"data": document}
            answer = await busy.world.mallory.call(method, path, **body)
            status, fields, content = seen(answer)
            for one, other in zip(nobodys, theirs, strict=True):
                content = content.replace(one.encode(), other.encode()).replace(
                    one.upper().encode(), other.upper().encode()
                )
            shown.append((status, fields, content))
        assert shown[0] == shown[1], foreign
        assert shown[0][0] < 500, foreign
        await busy.is_untouched()


@pytest.mark.parametrize("place", ["client_id", "extra_data", "both"])
async def test_a_foreign_client_id_is_ones_own(world: World, place: str) -> None:
    """Mallory's job under alice's id, as the client writes it and as ComfyUI knows it: alice's socket hears nothing."""
    sid = unique("sid")
    ear = await world.alice.connect(sid)
    for name in (sid, f"alice.{sid}", f"mallory.{sid}", f"alice.{sid}.x"):
        world.mallory.own_words |= {name.encode()}
        fields: dict[str, Any] = {"extra_data": {"client_id": name}} if place == "extra_data" else {"client_id": name}
        if place == "both":
            fields["extra_data"] = {"client_id": f"alice.{sid}"}
        spy = await world.mallory.connect(name)
        prompt_id = await world.mallory.queue(previewing(NUMBERS["mallory"]), **fields)
        await spy.end_of(prompt_id)
        assert "executed" in spy.types(prompt_id)
        await spy.close()
    own = await world.alice.queue(previewing(NUMBERS["alice"]), client_id=sid)
    await ear.end_of(own)
    assert {message["data"].get("prompt_id", own) for message in ear.seen} == {own}
    await ear.close()


async def test_a_foreign_prompt_id_is_not_taken_over(busy: Busy) -> None:
    """An id that alice has makes a job with another id: hers is as it was."""
    world = busy.world
    for wish in (busy.ended, busy.running, busy.pending[0]):
        world.mallory.own_words.add(wish.encode())
        answer = await world.mallory.submit(previewing(NUMBERS["mallory"]), prompt_id=wish)
        assert answer.status == 200, told(answer)
        minted = answer.json()["prompt_id"]
        assert minted != wish
        assert (await world.mallory.get(f"/history/{wish}")).json() == {}
        await world.mallory.post("/queue", json={"delete": [minted]})
        await busy.is_untouched()


async def test_a_place_in_the_queue_is_not_chosen(busy: Busy) -> None:
    """`number` and `front` would put mallory's jobs before alice's; what she reads are her own numbers."""
    world = busy.world
    places: list[dict[str, Any]] = [{"number": -1e9}, {"front": True}, {"number": "-5"}, {"number": 0, "front": "yes"}]
    numbers = []
    for place in places:
        answer = await world.mallory.submit(slow(), **place)
        numbers.append(answer.json()["number"])
    assert numbers == list(range(numbers[0], numbers[0] + len(places))), "her own jobs are counted"
    items = (await world.mallory.get("/queue")).json()["queue_pending"]
    assert [item[0] for item in items] == numbers
    assert (await world.mallory.get("/prompt")).json() == {"exec_info": {"queue_remaining": len(places)}}
    upstream = sorted((await world.direct.get("/queue")).json()["queue_pending"])
    assert not {item[0] for item in upstream} & {-1e9, -5.0, 0.0}
    assert len({item[0] for item in upstream}) == len(upstream), "no two have one number"
    await world.mallory.post("/queue", json={"clear": True})
    await busy.is_untouched()


async def test_the_status_counts_ones_own_jobs(world: World) -> None:
    spy = await world.mallory.connect(unique("sid"))
    assert spy.seen[0]["data"]["status"]["exec_info"]["queue_remaining"] == 0
    ear = await world.alice.connect(unique("sid"))
    alices = [await world.alice.queue(previewing(color), client_id=ear.sid) for color in range(5)]
    await ear.ended(alices)
    own = await world.mallory.queue(previewing(NUMBERS["mallory"]), client_id=spy.sid)
    await spy.end_of(own)
    counts = [m["data"]["status"]["exec_info"]["queue_remaining"] for m in spy.seen if m["type"] == "status"]
    assert set(counts) <= {0, 1}
    await spy.close()
    await ear.close()


async def test_ones_rate_is_ones_own(standing: World) -> None:
    """What RateLimit says to mallory does not depend on what alice does."""

    async def left() -> tuple[str, ...]:
        answer = await standing.mallory.get("/queue")
        return tuple(part.partition("r=")[2].partition(";")[0] for part in answer.headers["RateLimit"].split(","))

    before = [int(each) for each in await left()]
    for _ in range(20):
        await standing.alice.get("/queue")
        await standing.alice.submit(previewing(1))
    after = [int(each) for each in await left()]
    assert [one - other for one, other in zip(before, after, strict=True)] == [1] * len(before)


def same_graph(*, has_text: bool) -> Graph:
    graph = {
        "1": empty_image(0x336699, width=40, height=40),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix="same"),
        "4": node("PreviewImage", images=["2", 0]),
    }
    if has_text:
        graph["5"] = node("SaveText", text="same", filename_prefix="same", format="txt")
    return graph


async def test_the_same_graph_makes_each_tenants_own_files(world: World) -> None:
    """ComfyUI's cache would give mallory alice's names, and pictures with alice's workflow in them."""
    words = {"alice": unique("note"), "mallory": unique("note")}
    world.mallory.secrets.add(words["alice"].encode())
    world.alice.secrets.add(words["mallory"].encode())
    found: dict[str, list[tuple[str, str]]] = {}
    for tenant in (world.alice, world.mallory, world.mallory):  # ComfyUI's cache keeps the results of the last job
        workflow = {"id": words[tenant.who], "note": words[tenant.who]}
        entry = await tenant.run(
            same_graph(has_text=tenant.is_current), extra_data={"extra_pnginfo": {"workflow": workflow}}
        )
        cached = next(data["nodes"] for kind, data in entry["status"]["messages"] if kind == "execution_cached")
        assert not cached or tenant.who in found, "nothing is cached for who comes first"
        files = []
        for item in [
            *entry["outputs"]["3"]["images"],
            *entry["outputs"]["4"]["images"],
            *entry["outputs"].get("5", {}).get("files", ()),
        ]:
            answer = await tenant.file(item)
            assert answer.status == 200, told(answer)
            if item["filename"].endswith(".png"):
                assert words[tenant.who].encode() in answer.body, "its own workflow stands in the picture"
                assert b"tenants/" not in answer.body
            files.append((item["type"], item["filename"]))
        assert found.setdefault(tenant.who, files) == files, "one's own result is cached for oneself"
        assert not [item for item in json.dumps(entry).split() if "tenants" in item or "comfygate" in item]
    assert not {each for each in found["alice"] if each[0] == "temp"} & set(found["mallory"])


async def test_no_temp_name_of_a_neighbour_can_be_guessed(world: World) -> None:
    """The letters are the same for both as long as both run a node of one id and class: names can be counted."""
    names = {}
    for tenant in (world.alice, world.mallory):
        entry = await tenant.run(previewing(NUMBERS[tenant.who]))
        names[tenant.who] = entry["outputs"]["2"]["images"][0]["filename"]
    stem, number = names["mallory"].rsplit("_", 2)[:2]
    assert names["alice"].startswith(stem), "else this test tries nothing"
    for count in range(int(number) + 3):
        name = f"{stem}_{count:05}_.png"
        for query in ({}, {"subfolder": "."}, {"subfolder": "../temp"}, {"subfolder": "x/.."}):
            answer = await world.mallory.view(name, type="temp", **query)
            assert (answer.status == 200) == (name == names["mallory"] and query in ({}, {"subfolder": "."})), (
                f"{name} {query}"
            )
        for value in (f"{name} [temp]", f"../temp/{name} [temp]"):
            # Another id than above, so that what this one shows has another stem.
            graph = {"1": node("LoadImage", image=value), "9": node("PreviewImage", images=["1", 0])}
            answer = await world.mallory.submit(graph)
            assert (answer.status == 200) == (value == f"{names['mallory']} [temp]"), value
    picture = picture_in((await world.mallory.view(names["mallory"], type="temp")).body)
    assert picture is not None
    assert is_color(picture, GREEN)


async def test_errors_of_a_job_tell_of_no_folder_and_no_neighbour(world: World) -> None:
    """An empty name passes ComfyUI's check and fails with the absolute folder in the message, the traceback and the event."""
    listener = await world.mallory.connect(unique("sid"))
    graph = {"1": node("LoadImage", image=""), "2": node("PreviewImage", images=["1", 0])}
    answer = await world.mallory.submit(graph, client_id=listener.sid)
    prompt_id = answer.json()["prompt_id"]
    await listener.end_of(prompt_id)
    history, heard = (await world.mallory.get(f"/history/{prompt_id}")).text(), json.dumps(listener.seen)
    for text in (history, heard):
        assert "execution_error" in text
        assert "traceback" in text
        assert "tenants" not in text
        assert "/input" not in text
    await listener.close()
