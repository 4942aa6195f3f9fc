"""Every kind of route of a custom node, for alice, mallory, an admin and nobody: with a pack in the stand-in, and in a real ComfyUI that has it
(tests/pack/comfyui linked into its custom_nodes)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from policy.principal import TenantId
from tests.contract.conftest import REAL_URL, TARGETS
from tests.contract.driver import Answer, Comfy, Graph, Socket, empty_image, node, png, unique
from tests.matrix.people import BLUE, GREEN, NUMBERS, RED, Leak, is_color, picture_in, told
from tests.matrix.settlers import PATIENT
from tests.matrix.world import World, open_world
from tests.pack.rows import ROWS
from tests.pack.standin import make_pack

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = ("files/a.js", "models", "view", "probe", "bytes/x")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TARGETS)
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    real_url = REAL_URL if request.param == "real" else ""
    folder = tmp_path_factory.mktemp("custom")
    async with open_world(folder, real_url=real_url, more=ROWS + PATIENT, pack=make_pack()) as opened:
        if (await opened.direct.get("/gate-pack/files/a.js")).status != 200:
            pytest.skip("this ComfyUI has not the pack: link tests/pack/comfyui into its custom_nodes")
        yield opened


def waiting(node_id: str) -> Graph:
    return {"1": empty_image(NUMBERS["alice"]), node_id: node("GatePackWait", image=["1", 0])}


async def at_node(socket: Socket, prompt_id: str, node_id: str) -> None:
    await socket.event("executing", prompt_id, node=node_id)


async def put(who: Comfy, key: str, data: bytes) -> Answer:
    return await who.call("PUT", f"/api/gate-pack/bytes/{key}", data=data, headers={"Content-Type": "image/png"})


async def test_nobody_gets_anything(world: World) -> None:
    for who in (world.nobody, world.revoked):
        for path in (*OPEN, "restart", "disk"):
            assert (await who.get(f"/gate-pack/{path}")).status == 401
        assert (await put(who, "x", png(RED))).status == 401
        assert (await who.post("/gate-pack/answer", json={"node": "7", "answer": "a"})).status == 401


async def test_a_file_is_the_same_for_all_and_hears_no_secret(world: World) -> None:
    for who in (world.alice, world.mallory):
        answer = await who.get("/gate-pack/files/a.js?v=3&password=secret")
        assert answer.text() == "export const file = 'a.js', query = 'v=3';\n"
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert "Content-Security-Policy" not in answer.headers, "it is a script of the page's"
    assert (await world.alice.get("/api/gate-pack/files/a.js")).status == 200
    assert "secret" in (await world.admin.get("/gate-pack/files/a.js?password=secret")).text(), "as it is"


async def test_facts_are_told_without_the_server_and_the_neighbour(world: World) -> None:
    await world.alice.put(mine := f"{unique()}-alice.png", png(RED))
    await world.mallory.put(f"{unique()}-mallory.png", png(GREEN))
    facts = (await world.alice.get("/gate-pack/models?folder=loras")).json()
    assert (facts["folder"], facts["path"]) == ("loras", "loras")
    assert mine in facts["names"]
    assert mine in facts["inputs"]
    assert facts["count"] >= 2
    assert not [name for name in (*facts["names"], *facts["inputs"]) if "mallory" in name]
    seen_by_an_admin = await world.admin.get("/gate-pack/models?folder=loras")
    with pytest.raises(Leak):
        world.alice.inspect(seen_by_an_admin.body)


async def test_a_head_tells_no_length_that_its_answer_has_not(world: World) -> None:
    """RFC 9110, 9.3.2: it may be left out, and ComfyUI's is that of the answer with the server's paths in it."""
    for path in ("models?folder=loras", "probe?filename=nothing.png"):
        head, answer = [await world.alice.call(method, f"/gate-pack/{path}") for method in ("HEAD", "GET")]
        assert head.status == answer.status == 200
        assert head.headers.get("Content-Length") in (None, str(len(answer.body)))
    picture = await world.alice.photo(f"{unique()}.png")
    asked = f"/gate-pack/view?filename={picture['name']}&type=input"
    head, answer = [await world.alice.call(method, asked) for method in ("HEAD", "GET")]
    assert (head.body, head.headers["Content-Length"]) == (b"", str(len(answer.body)))


@pytest.mark.parametrize(
    "folder", ["../output", "/", "custom_nodes", "configs", "http%3A%2F%2Flocalhost%2F", "%252e%252e%252f"]
)
async def test_facts_are_of_shared_folders_alone(world: World, folder: str) -> None:
    assert (await world.alice.get(f"/gate-pack/models?folder={folder}")).status in (400, 404)
    assert (await world.alice.get(f"/gate-pack/picture/{folder}%2Fa.png".replace("/a", "%2Fa"))).status in (400, 404)


async def test_an_error_names_no_folder_of_the_server(world: World) -> None:
    answer = await world.alice.get("/gate-pack/picture/loras%2Fnothing.png")
    assert (answer.status, answer.json()) == (404, {"error": "[Errno 2] No such file: 'nothing.png'"})
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert (await world.alice.get("/gate-pack/picture/loras%2Fnothing.safetensors")).status == 404


async def test_a_file_is_ones_own(world: World) -> None:
    name = f"{unique()}.png"
    await world.alice.put(name, png(RED))
    for path in (
        f"?filename={name}&type=input",
        f"?filename={name}%20%5Binput%5D",
        f"?filename={name}&type=input&rate=8",
    ):
        answer = await world.alice.get(f"/gate-pack/view{path}")
        picture = picture_in(answer.body)
        assert picture is not None, told(answer)
        assert is_color(picture, RED)
    probed = (await world.alice.get(f"/gate-pack/probe?filename={name}&type=input")).json()
    assert probed == {"path": name, "size": len(png(RED))}


async def test_a_neighbours_file_is_one_that_is_not_there(world: World) -> None:
    name = f"{unique()}.png"
    await world.alice.put(name, png(RED))
    for query in (
        "filename={}&type=input",
        "filename={}&type=input&subfolder=tenants/alice",
        "filename={}%20%5Binput%5D",
    ):
        foreign = await world.mallory.get("/gate-pack/view?" + query.format(name))
        absent = await world.mallory.get("/gate-pack/view?" + query.format("nothing.png"))
        assert (foreign.status, foreign.body) == (absent.status, absent.body) == (204, b"")
        assert (await world.mallory.get("/gate-pack/probe?" + query.format(name))).json() == {}


@pytest.mark.parametrize(
    "query",
    [
        "filename=hosts&type=path&subfolder=etc",
        "filename=http%3A%2F%2Fhost%2Fa.png",
        "filename=a.png&rate=1%2Ca%3Db",
    ],
)
async def test_nothing_else_of_the_disk_is_read(world: World, query: str) -> None:
    assert (await world.alice.get(f"/gate-pack/view?{query}")).status == 400


async def test_bytes_under_an_id_are_ones_own(world: World) -> None:
    """The pack keeps the first bytes that are put under an id, and serves them to all."""
    key = unique()
    assert (await put(world.mallory, key, png(GREEN))).status == 201
    assert (await put(world.alice, key, png(RED))).status == 201, "the neighbour's are under another id"
    assert (await put(world.alice, key, png(BLUE))).json() == {"status": "cached"}
    assert (await world.alice.get(f"/gate-pack/bytes/{key}")).body == png(RED)
    assert (await world.mallory.get(f"/gate-pack/bytes/{key}")).body == png(GREEN)
    assert (await world.direct.get(f"/gate-pack/bytes/{key}")).status == 404


async def test_a_neighbours_id_is_one_that_is_not_there(world: World) -> None:
    key = unique()
    assert (await put(world.alice, key, png(RED))).status == 201
    for foreign in (key, f"tenants%5Calice%5C{key}"):
        answer = await world.mallory.get(f"/gate-pack/bytes/{foreign}")
        assert answer.status in (400, 404)
        assert (await world.mallory.get(f"/gate-pack/bytes/tenants%2Falice%2F{key}")).status == 404
    foreign_answer, absent = [(await world.mallory.get(f"/gate-pack/bytes/{each}")).json() for each in (key, "nothing")]
    assert (foreign_answer, absent) == ({"error": f"Nothing under {key}"}, {"error": "Nothing under nothing"})


async def test_a_node_reads_the_tenants_own_bytes_and_its_results_are_the_tenants(world: World) -> None:
    key = unique()
    for who, color in ((world.mallory, GREEN), (world.alice, RED)):
        await put(who, key, png(color))
    graph: Graph = {"1": node("GatePackLoad", id=key), "2": node("GatePackKeep", images=["1", 0])}
    made: dict[str, str] = {}
    for who, color in ((world.alice, RED), (world.mallory, GREEN)):
        entry = await who.run(graph)
        assert entry["prompt"][2]["1"]["inputs"]["id"] == key, "in the client's words"
        made[who.who] = entry["outputs"]["2"]["images"][0]["id"]
        picture = picture_in((await who.get(f"/gate-pack/bytes/{made[who.who]}")).body)
        assert picture is not None
        assert is_color(picture, color)
    assert made["alice"] != made["mallory"]
    assert (await world.mallory.get(f"/gate-pack/bytes/{made['alice']}")).status == 404
    again = await world.alice.run(
        {"1": node("GatePackLoad", id=made["alice"]), "2": node("GatePackKeep", images=["1", 0])}
    )
    assert again["status"]["completed"]
    stolen = await world.mallory.run(
        {"1": node("GatePackLoad", id=made["alice"]), "2": node("GatePackKeep", images=["1", 0])}
    )
    assert not stolen["status"]["completed"]
    assert "tenants" not in str(stolen)


async def test_bytes_that_are_no_picture_or_too_many_are_refused(world: World) -> None:
    key = unique()
    assert (await put(world.alice, key, b"<svg onload='x'/>")).status == 403
    assert (await put(world.alice, key, png(RED) + bytes(512 * 1024))).status == 413

    async def chunks() -> AsyncIterator[bytes]:
        yield png(RED)
        for _ in range(64):
            yield bytes(64 * 1024)

    sent = await world.alice.call("PUT", f"/gate-pack/bytes/{key}", data=chunks())
    assert sent.status == 413
    assert (await world.alice.get(f"/gate-pack/bytes/{key}")).status == 404, "nothing of it was kept"


async def test_bytes_are_what_was_judged(world: World) -> None:
    """ComfyUI would unpack them: other bytes than the judged ones, and as many as it takes, whatever was counted."""
    for coding in ("gzip", "deflate", "identity, gzip"):
        path = f"/gate-pack/bytes/{unique()}"
        head = {"Content-Type": "image/png", "Content-Encoding": coding}
        answer = await world.alice.call("PUT", path, data=png(RED), headers=head)
        assert (answer.status, answer.json()["error"]["type"]) == (400, "body_malformed")


async def test_a_node_that_waits_is_answered_by_its_tenant(world: World) -> None:
    async with world.alice.socket() as socket:
        prompt_id = await world.alice.queue(waiting("7"), client_id=socket.sid)
        await at_node(socket, prompt_id, "7")
        body = {"node": "7", "answer": "of mallory's"}
        assert (await world.mallory.post("/gate-pack/answer", json=body)).status == 404
        assert (
            await world.mallory.post("/gate-pack/answer-form", data={"id": "7", "message": "of mallory's"})
        ).status == 404
        assert (await world.alice.post("/gate-pack/answer", json={"node": "8", "answer": "x"})).status == 404
        assert (await world.alice.post("/gate-pack/answer", json={"node": "7", "answer": "of alice's"})).json() == {
            "heard": "of alice's"
        }
        await socket.end_of(prompt_id)
    assert (await world.alice.history(prompt_id))["outputs"]["7"]["text"] == ["of alice's"]
    assert (await world.alice.post("/gate-pack/answer", json={"node": "7", "answer": "late"})).status == 404


async def test_an_answer_in_a_form_is_heard(world: World) -> None:
    async with world.alice.socket() as socket:
        prompt_id = await world.alice.queue(waiting("a b"), client_id=socket.sid)
        await at_node(socket, prompt_id, "a b")
        form = aiohttp.FormData()
        form.add_field("id", "a b", content_type="text/plain")
        form.add_field("message", "ü", content_type="text/plain")
        assert (await world.alice.post("/gate-pack/answer-form", data=form)).status == 200
        await socket.end_of(prompt_id)
    assert (await world.alice.history(prompt_id))["outputs"]["a b"]["text"] == ["ü"]


async def test_nothing_waits_for_the_neighbours_next_job(world: World) -> None:
    """What came for alice's node was hers: mallory's, of the same id, waits for mallory."""
    async with world.alice.socket() as ears, world.mallory.socket() as socket:
        first = await world.alice.queue(waiting("7"), client_id=ears.sid)
        second = await world.mallory.queue(waiting("7"), client_id=socket.sid)
        await at_node(ears, first, "7")
        assert (await world.mallory.post("/gate-pack/answer", json={"node": "7", "answer": "early"})).status == 404
        await world.alice.post("/gate-pack/answer", json={"node": "7", "answer": "a"})
        await at_node(socket, second, "7")
        assert (await world.alice.post("/gate-pack/answer", json={"node": "7", "answer": "late"})).status == 404
        assert (await world.mallory.post("/gate-pack/answer", json={"node": "7", "answer": "m"})).status == 200
        await socket.end_of(second)
    assert (await world.mallory.history(second))["outputs"]["7"]["text"] == ["m"]


async def test_a_second_answer_waits_for_nobody(world: World) -> None:
    """A node is still at work for a moment when it has taken its answer: what comes then, the neighbour's next node would find."""
    async with world.mallory.socket() as socket:
        prompt_id = await world.mallory.queue(waiting("7"), client_id=socket.sid)
        await at_node(socket, prompt_id, "7")
        body = {"node": "7", "answer": "of mallory's"}
        answers = await asyncio.gather(*(world.mallory.post("/gate-pack/answer", json=body) for _ in range(4)))
        await socket.end_of(prompt_id)
    assert sorted(answer.status for answer in answers) == [200, 404, 404, 404]


async def test_a_node_that_does_not_wait_is_sent_nothing(world: World) -> None:
    """The pack would keep it for the neighbour's node of the same id."""
    graph: Graph = {
        "1": empty_image(NUMBERS["alice"]),
        "2": node("GatePackWait", image=["1", 0]),
        "7": node("PreviewImage", images=["1", 0]),
    }
    async with world.alice.socket() as ears:
        first = await world.alice.queue(graph, client_id=ears.sid)
        await at_node(ears, first, "2")
        world.running.gate.dependencies.registry.of(TenantId("alice")).is_at(first, frozenset({"7"}))
        assert (await world.alice.post("/gate-pack/answer", json={"node": "7", "answer": "kept"})).status == 404
        world.running.gate.dependencies.registry.of(TenantId("alice")).is_at(first, frozenset({"2"}))
        assert (await world.alice.post("/gate-pack/answer", json={"node": "2", "answer": "a"})).status == 200
        await ears.end_of(first)


async def test_admins_see_comfyui_as_it_is(world: World) -> None:
    for path in OPEN[:-1]:
        assert (await world.admin.get(f"/gate-pack/{path}")).status in (200, 204)
    key = unique()
    assert (await put(world.admin, key, png(BLUE))).status == 201
    assert (await world.direct.get(f"/gate-pack/bytes/{key}")).body == png(BLUE)
    assert (await world.alice.get(f"/gate-pack/bytes/{key}")).status == 404
    assert (await world.admin.post("/gate-pack/restart", data=b"now")).json() == {"restarted": "now"}


async def test_what_is_for_admins_or_nobody_is_refused_with_a_sentence(world: World) -> None:
    for method in ("GET", "POST"):
        answer = await world.alice.call(method, "/gate-pack/restart")
        assert (answer.status, answer.json()["error"]["message"]) == (
            403,
            "This route is for admins: it starts ComfyUI anew.",
        )
    for who in (world.alice, world.admin):
        answer = await who.get("/gate-pack/disk")
        assert (answer.status, answer.json()["error"]["message"]) == (403, "This route is refused: it lists the disk.")


async def test_what_takes_work_runs_a_few_at_a_time(world: World) -> None:
    answers = await asyncio.gather(*(world.alice.get("/gate-pack/probe?filename=nothing.mp4") for _ in range(12)))
    statuses: list[Any] = [answer.status for answer in answers]
    assert statuses == [200] * 12
    assert answers[0].headers["RateLimit-Policy"]
