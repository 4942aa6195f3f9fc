"""A ComfyUI that does not take files, is away, or is stopped in the middle; and what a client is told when the gate's database fails."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from policy.principal import Principal, Role, TenantId
from proxy.http.websocket import Close
from proxy.persistence.operations import DatabaseUnavailable
from proxy.v2.event_stream import Piece
from proxy.v2.job_end import JobEnd
from proxy.v2.left_jobs import LeftJobs
from tests.harness import running_gate
from tests.proxy.functions.calls import BOUNDARY, TENANTS, Caller, calling, form, write_functions
from tests.proxy.upstreams import comfy_like
from tests.proxy.v2.assets.sdk import Standing, picture


@pytest.mark.parametrize(("status", "told"), [(413, (413, "body_too_large")), (500, (502, "upstream_unavailable"))])
@pytest.mark.parametrize("size", [100, 30_000_000])
async def test_a_comfyui_that_does_not_take_a_file(
    tmp_path: Path, status: int, told: tuple[int, str], size: int
) -> None:
    """Also one that answers while the file still comes."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({})
        if size < 1000:
            await request.read()
        return web.Response(status=status, headers={"Connection": "close"})

    write_functions(tmp_path)
    async with comfy_like(answer) as url, running_gate(tmp_path, url, tenants=TENANTS) as gate:
        alice = Caller(gate)
        body = form(("picture", picture() + b"x" * size, "a.png"))
        assert (await alice.send("wear", body)).refusal == told
        small = "data:image/png;base64," + base64.b64encode(picture()).decode()
        assert (await alice.run("wear", {"picture": small})).refusal == told
        assert (await alice.ask("GET", "/api/v2/jobs")).body["jobs"] == []


async def test_while_comfyui_is_away_nothing_stays_of_a_call(tmp_path: Path) -> None:
    async with calling(tmp_path) as world:
        alice = Caller(world.gate)
        assert (await alice.run("paint", Prefer="wait=60")).status == 200
        assert world.comfy is not None
        port = world.comfy.port
        await world.comfy.stop()
        answer = await alice.send("wear", form(("picture", picture(), "a.png")))
        assert answer.refusal == (502, "upstream_unavailable")
        assert world.files() == []
        assert (await alice.ask("GET", "/gate/functions")).status == 200
        await world.comfy.start(port=port)
        assert (await alice.send("wear", form(("picture", picture(), "a.png")))).status == 202


async def test_a_full_storage_takes_no_data_url(tmp_path: Path) -> None:
    small = '[tenants.alice]\nfunctions = ["*"]\nlimits = "small"\n[tenants.mallory]\n'
    async with calling(tmp_path, tenants=small, more='\n[limits.small]\nstorage = "1KiB"\n') as world:
        large = "data:image/png;base64," + base64.b64encode(picture() + b"x" * 2000).decode()
        assert (await Caller(world.gate).run("wear", {"picture": large})).refusal == (507, "storage_full")
        sent = await Caller(world.gate).send("wear", form(("picture", picture() + b"x" * 2000, "a.png")))
        assert sent.refusal == (507, "storage_full")
        assert world.files() == []


async def test_a_large_data_url_is_refused(seen: Standing) -> None:
    url = "data:image/png;base64," + base64.b64encode(b"x" * (8 * 1024**2)).decode()
    answer = await Caller(seen.gate).run("wear", {"picture": url})
    assert answer.refusal == (413, "body_too_large"), "by max_prompt_bytes, which is as much"


MALFORMED = {
    "not a form": b"nothing",
    "a part without a name": f"--{BOUNDARY}\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(),
    "a text that is none": form(("prefix", b"\xff")),
    "an encoded part": f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="prefix"\r\nContent-Encoding: gzip\r\n\r\nx\r\n--{BOUNDARY}--\r\n'.encode(),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_form(seen: Standing, body: bytes) -> None:
    assert (await Caller(seen.gate).send("wear", body)).refusal == (400, "body_malformed")


async def test_texts_of_a_form_are_bounded_together(seen: Standing) -> None:
    answer = await Caller(seen.gate).send("wear", form(("prefix", "x" * 500_000)))
    assert answer.refusal == (413, "body_too_large")


async def test_files_that_are_named_as_fields_of_uploads(tmp_path: Path) -> None:
    """ComfyUI's uploads have fields of these names; a function's parameters may have them too."""
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    settings = '[parameters.type]\ntype = "image"\nfills = ["1.image"]\n'
    async with calling(tmp_path, functions={"paint": (settings, graph)}) as world:
        answer = await Caller(world.gate).send("paint", form(("type", picture(), "a.png")), Prefer="wait=60")
        assert answer.body["status"] == "succeeded"


async def test_a_form_in_small_pieces(seen: Standing) -> None:
    body = form(("picture", picture() * 30, "a.png"), ("prefix", "small"))

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    answer = await Caller(seen.gate).ask(
        "POST",
        "/gate/run/wear",
        data=pieces(),
        headers={"Content-Type": f'multipart/form-data; boundary="{BOUNDARY}"', "Prefer": "wait=60"},
    )
    assert answer.body["status"] == "succeeded", answer.body
    assert answer.body["outputs"][0]["name"].startswith("small")


async def test_who_waits_is_told_once() -> None:
    end = JobEnd()
    left: list[int] = []
    end.at_end(lambda: left.append(1))
    end.send(Piece(b"x"))
    end.offer("progress", Piece(b"x"))
    assert end.is_open
    end.finish()
    end.close(Close(1001, ""))
    assert (end.is_open, await end.has_come) == (False, True)
    end.leave()
    end.leave()
    assert left == [1]


async def test_a_job_that_cannot_be_canceled_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Away:
        async def perform(self, principal: Principal, step: object) -> None:
            raise DatabaseUnavailable("it is away")

    left = LeftJobs(Away())  # type: ignore[arg-type]
    left.cancel(Principal("key", TenantId("alice"), Role.USER), "a-job")
    await left.stop()
    assert "a-job, whose client has left, goes on" in caplog.text
