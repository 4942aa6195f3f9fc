"""A world in which alice has one of everything, and mallory had looked around before alice came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from policy.routes import Route
from policy.table import ROUTES
from tests.contract.driver import Answer, Comfy, Graph, empty_image, node, slow
from tests.matrix.calls import Call, Entry
from tests.matrix.entries import ENTRIES, PICTURE, asset_form
from tests.matrix.people import Listener, Tenant, seen
from tests.matrix.things import NOTHING, SECRET, Things, things_of
from tests.matrix.world import World, open_world

SAME_REQUEST = {"X-Request-Id": "matrix"}
# Bad credentials are not counted here: the matrix sends hundreds.
PATIENT = '[limits.logins]\nfailures = "100000/minute"\ndelay = "0s"\nmax_delay = "0s"\n'
NOTE = f"{SECRET} writes this"
LOOKS = (
    "GET /queue",
    "GET /history",
    "GET /api/jobs",
    "GET /view",
    "GET /settings",
    "GET /settings/{id}",
    "GET /userdata",
    "GET /v2/userdata",
    "GET /userdata/{file}",
)


@dataclass
class Settled:
    """before: what mallory was told of nothing, by row, prefix and call, when there was no alice."""

    world: World
    alices: Things
    nothing: Things
    ear: Listener
    spy: Listener
    before: dict[tuple[str, str, int], tuple[object, ...]] = field(default_factory=dict)

    async def look(self) -> list[tuple[object, ...]]:
        """All that alice sees of her things."""
        calls = [call for name in LOOKS for call in ENTRIES[name].calls(self.alices)]
        prefixes = ["/api" if call.path.startswith("/jobs") else "" for call in calls]
        return [
            seen(await send(self.world.alice, "GET", prefix, call))
            for prefix, call in zip(prefixes, calls, strict=True)
        ]


async def send(who: Comfy, method: str, prefix: str, call: Call) -> Answer:
    options = call.options()
    if not isinstance(who, Tenant):
        options.pop("said", None)
    return await who.call(method, prefix + call.path, headers=SAME_REQUEST, **options)


def rows() -> list[tuple[Route, Entry]]:
    return [(route, ENTRIES[route.name]) for route in ROUTES if route.name in ENTRIES]


def finished_graph(things: Things) -> Graph:
    return {
        "1": node("LoadImage", image=f"{things.folder}/{things.upload}"),
        "2": node("SaveImage", images=["1", 0], filename_prefix=f"{things.output_folder}/{SECRET}-saved"),
        "3": node("PreviewImage", images=["1", 0]),
    }


def endless_graph() -> Graph:
    return slow(3600.0, 10_000)


@asynccontextmanager
async def settle(folder: Path, real_url: str) -> AsyncIterator[Settled]:
    async with open_world(folder, real_url=real_url, more=PATIENT) as world:
        alices, nothing = things_of(SECRET), things_of(NOTHING)
        world.mallory.own_words.add(alices.client_id.encode())  # her socket is told its id
        spy = await world.mallory.connect(alices.client_id)
        settled = Settled(world, alices, nothing, spy, spy)
        await look_around(settled)
        settled.ear = await world.alice.connect(alices.client_id)
        settled.alices = await settle_alice(settled)
        words = [word for word in settled.alices.words() if word != settled.alices.userdata]
        world.mallory.secrets |= {word.encode() for word in [*words, f"{SECRET}.json", NOTE]}
        yield settled
        for listener in (settled.ear, spy):
            await listener.close()


async def look_around(settled: Settled) -> None:
    """Mallory makes every call of the matrix twice while she is alone: what she stores by that is there before she compares."""
    mallory = settled.world.mallory
    await mallory.photo("own.png")
    await mallory.run({"1": empty_image(0x0AC80A), "2": node("SaveImage", images=["1", 0], filename_prefix="own")})
    for things in (settled.alices, settled.nothing, settled.nothing):
        for route, entry in rows():
            for prefix in route.prefix.value:
                for index, call in enumerate(entry.calls(things)):
                    answer = await send(mallory, route.method, prefix, call)
                    settled.before[route.name, prefix, index] = seen(answer)


async def settle_alice(settled: Settled) -> Things:
    alice, things = settled.world.alice, settled.alices
    for fields in ({}, {"subfolder": things.folder}):
        await alice.photo(things.upload, **fields)
    for fields in ({}, {"subfolder": things.folder}, {"type": "output"}):
        await alice.photo(things.copied_upload, **fields)
    answer = await alice.post(f"/settings/{things.setting}", json=f"of {things.client_id}: {NOTE}")
    assert answer.status == 200, answer.text()
    for name in (things.userdata, things.copied_userdata):
        answer = await alice.post(f"/userdata/{name}", data=f"of {things.client_id}: {NOTE}".encode())
        assert answer.status == 200, answer.text()
    await alice.post("/settings", json={things.copied_setting: f"of {things.client_id}"})
    workflow = {"id": f"{SECRET}-workflow", "note": NOTE}
    sent: dict[str, Any] = {"client_id": things.client_id, "extra_data": {"extra_pnginfo": {"workflow": workflow}}}
    assert await alice.queue(finished_graph(things), prompt_id=things.finished, **sent) == things.finished
    await settled.ear.end_of(things.finished)
    outputs = (await alice.history(things.finished))["outputs"]
    saved, shown = outputs["2"]["images"][0]["filename"], outputs["3"]["images"][0]["filename"]
    assert (len(saved), len(shown)) == (len(things.output), len(things.temp)), "what is compared is equally long"
    things = replace(things, output=saved, temp=shown)
    things = await settle_assets(alice, things)
    for prompt_id in (things.running, things.pending):
        assert await alice.queue(endless_graph(), prompt_id=prompt_id, **sent) == prompt_id
    await settled.ear.event("progress", things.running)
    return things


async def settle_assets(alice: Tenant, things: Things) -> Things:
    """Two records over the same bytes."""
    data = PICTURE + SECRET.encode()
    answer = await alice.post("/api/v2/assets", data=asset_form(things.upload, data)())
    assert answer.status == 201, answer.text()
    asset = answer.json()
    answer = await alice.post("/api/v2/assets/from-hash", json={"hash": asset["hash"], "file_path": "kept.png"})
    assert answer.status == 201, answer.text()
    return replace(things, asset=asset["id"], kept_asset=answer.json()["id"], hash=asset["hash"])
