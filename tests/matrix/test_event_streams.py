"""What tenants are told of their jobs by Comfy API v2 while they run: their own progress, pictures and results, and nothing of a neighbour's."""

from __future__ import annotations

from typing import Any

from tests.contract.driver import empty_image, node, unique
from tests.matrix.people import NUMBERS, Tenant
from tests.matrix.world import World
from tests.proxy.v2.following import Stream


def working(prefix: str, color: int) -> dict[str, Any]:
    """Saves a picture, runs for a while, and shows another one."""
    return {
        "1": empty_image(color),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
        "3": node("SlowProgress", image=["1", 0], seconds=1.5, steps=30),
        "4": node("PreviewImage", images=["3", 0]),
    }


async def told(tenant: Tenant, workflow: dict[str, Any]) -> tuple[dict[str, Any], Stream]:
    """The job when it has ended, and what its client was told."""
    answer = await tenant.post("/api/v2/jobs", json={"workflow": workflow})
    assert answer.status == 201, answer.text()
    job = answer.json()
    async with tenant.session.get(tenant.url + job["urls"]["events"]) as response:
        stream = Stream(response)
        seen = await stream.rest()
    tenant.inspect(str(seen).encode())
    return (await tenant.get(job["urls"]["self"])).json(), stream


async def test_a_job_as_it_happens(world: World) -> None:
    prefix = unique("stream")
    job, stream = await told(world.alice, working(f"sub/{prefix}", NUMBERS["alice"]))
    assert (job["status"], stream.seen[-1]) == ("succeeded", ("status", {"status": "succeeded"}))
    progress = stream.of("progress")
    values = [each["value"] for each in progress]
    assert values == sorted(values)
    assert values[-1] == 1.0
    assert {each["nodes_total"] for each in progress} == {4}
    assert any(each["current_node_class"] == "SlowProgress" and each["steps"] == 30 for each in progress)
    assert {(each["node_id"], each["content_type"]) for each in stream.of("preview")} == {("3", "image/jpeg")}
    by_node = {each["node_id"]: each for each in stream.of("output")}
    assert set(by_node) == {"2", "4"}
    assert by_node["2"]["name"].startswith(prefix)
    assert {each["type"] for each in by_node.values()} == {"image"}
    for output in job["outputs"]:
        assert by_node[output["node_id"]]["hash"] == output["hash"]
        folder = "temp" if output["node_id"] == "4" else "output"
        subfolder = "" if folder == "temp" else "sub"
        seen = await world.alice.view(output["name"], type=folder, subfolder=subfolder)
        assert (seen.status, len(seen.body)) == (200, output["size_bytes"])


async def test_what_the_cache_answers_is_done(world: World) -> None:
    workflow = working(unique("again"), NUMBERS["alice"] ^ 5)
    await told(world.alice, workflow)
    job, stream = await told(world.alice, workflow)
    assert job["status"] == "succeeded"
    assert {each["node_id"] for each in stream.of("output")} == {"2", "4"}
    assert stream.of("progress")[0]["nodes_done"] >= 2


async def test_neighbours_hear_of_their_own(world: World) -> None:
    names = {tenant.who: unique(tenant.who) for tenant in (world.alice, world.mallory)}
    heard = {
        tenant.who: await told(tenant, working(names[tenant.who], NUMBERS[tenant.who]))
        for tenant in (world.alice, world.mallory)
    }
    for who, other in (("alice", "mallory"), ("mallory", "alice")):
        job, stream = heard[who]
        assert names[other] not in str(stream.seen)
        assert heard[other][0]["id"] not in str(stream.seen)
        answer = await (world.mallory if who == "alice" else world.alice).get(job["urls"]["events"])
        assert answer.status == 404
