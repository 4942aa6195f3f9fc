"""Names that come back: a temp file that was deleted, a job id that somebody has beside the gate. Who made it last owns it, nobody else."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

from policy.principal import TenantId
from tests.contract.driver import images_of, previewing, saving, slow
from tests.matrix.people import COLORS, NUMBERS, is_color, picture_in, told, unique
from tests.matrix.world import World, open_world

DAY = '\n[limits.alices]\nrequests = "100000/minute"\nprompts = "100000/minute"\nretention = "1ms"\n'


async def test_a_temp_name_that_comes_back_is_its_makers(standing: World, tmp_path: Path) -> None:
    """ComfyUI numbers on from what lies in the folder: alice's file is deleted, and mallory's gets its name."""
    alice, mallory = standing.alice, standing.mallory
    old = images_of(await alice.run(previewing(NUMBERS["alice"])))[0]
    assert (await alice.file(old)).status == 200
    (tmp_path / "comfyui" / "temp" / old["filename"]).unlink()
    new = images_of(await mallory.run(previewing(NUMBERS["mallory"])))[0]
    assert new == old, "else this test tries nothing"
    picture = picture_in((await mallory.file(new)).body)
    assert picture is not None
    assert is_color(picture, COLORS["mallory"])
    assert (await alice.file(old)).status == 404


async def test_a_name_is_nobodys_as_soon_as_the_gate_deletes_the_file(tmp_path: Path) -> None:
    base = tmp_path / "comfyui"
    async with open_world(tmp_path, upstream_more=f'directory = "{base}"', more=DAY) as world:
        old = images_of(await world.alice.run(previewing(NUMBERS["alice"])))[0]
        services = world.running.gate.services
        while services.ledger.active():
            await asyncio.sleep(0)
        names = services.ledger.old_temp_files(TenantId("alice"), -1.0)
        assert names == {old["filename"]}
        services.ledger.forget_temp_files(names)
        assert (await world.alice.file(old)).status == 404, "before it is gone from the disk"
        assert (base / "temp" / old["filename"]).exists()


async def test_the_id_of_a_job_beside_the_gate_is_not_claimed(world: World) -> None:
    """Else two jobs had one id: mallory would read, stop and overwrite the other one by it."""
    ended, waiting = str(uuid.uuid4()), str(uuid.uuid4())
    note = unique("note")
    world.mallory.secrets.add(note.encode())
    extra = {"extra_pnginfo": {"workflow": {"id": note, "note": note}}}
    await world.direct.run(saving("direct", NUMBERS["direct"]), prompt_id=ended, extra_data=extra)
    async with world.direct.blocked() as running:
        await world.direct.queue(slow(), prompt_id=waiting, extra_data=extra)
        await world.running.gate.services.observer.sync()
        for wish in (ended, running, waiting):
            world.mallory.own_words.add(wish.encode())
            answer = await world.mallory.submit(previewing(NUMBERS["mallory"]), prompt_id=wish)
            assert answer.status == 200, told(answer)
            assert answer.json()["prompt_id"] != wish
            assert (await world.mallory.get(f"/history/{wish}")).json() == {}
            assert (await world.mallory.get(f"/api/jobs/{wish}")).status == 404
            await world.mallory.post(f"/api/jobs/{wish}/cancel")
            await world.mallory.post("/interrupt", json={"prompt_id": wish})
        queue = (await world.direct.get("/queue")).json()
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert waiting in [item[1] for item in queue["queue_pending"]]
        await world.direct.post("/queue", json={"delete": [waiting]})


async def test_a_deleted_job_is_counted_no_more(world: World) -> None:
    """A page of the history is as long as if what was deleted had never been."""
    jobs = [(await world.alice.run(saving("page", color)))["prompt"][1] for color in range(4)]
    await world.alice.post("/history", json={"delete": jobs[2:]})
    newest = (await world.alice.get("/history?max_items=1")).json()
    assert list(newest) == [jobs[1]]
    async with world.alice.socket() as socket:
        running = await world.alice.queue(slow(), client_id=socket.sid)
        await socket.event("progress", running)
        waiting = await world.alice.queue(saving("page", 9), client_id=socket.sid)
        await world.alice.post("/queue", json={"delete": [waiting]})
        await world.running.gate.services.observer.sync()
        assert list((await world.alice.get("/history?max_items=1")).json()) == [jobs[1]]
        await world.alice.post("/interrupt", json={})
        await socket.end_of(running)
