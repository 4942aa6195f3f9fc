"""Calls whose files stand at addresses outside, whole requests: through the gate, to a web of the tests' own and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.contract.conftest import REAL_URL
from tests.harness import Running, running_gate
from tests.proxy.functions.calls import FUNCTIONS, Caller, calling, form, write_functions
from tests.proxy.outside.web import FOREIGN, NAME, OTHER, Web, a_web, giving, leading, pouring, silent_after
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.asking import audited
from tests.proxy.v2.assets.sdk import Standing, picture

TENANTS = (
    '[tenants.alice]\nfunctions = ["*"]\nfetch = {hosts}\nlimits = "{limits}"\n[tenants.mallory]\nfunctions = ["*"]\n'
)
SMALL = '\n[limits.small]\nstorage = "4KiB"\n[limits.few]\nuploads = "2/minute"\n[limits.bytes]\nupload_bytes = "3MB/minute"\n[limits.none]\nqueued_jobs = 0\n'


@dataclass(frozen=True)
class Place:
    world: Standing
    outside: Web

    @property
    def alice(self) -> Caller:
        return Caller(self.world.gate)

    def opened(self, **more: Any) -> None:
        """As the gate would do it in earnest, but that loopback may be asked."""
        fetches = self.world.gate.gate.dependencies.fetches
        assert fetches.fetcher is None
        fetches.fetcher = self.outside.fetcher(**more)

    def told(self) -> list[dict[str, Any]]:
        return audited(self.world.gate, "fetch")


@asynccontextmanager
async def placed(
    folder: Path, *, limits: str = "default", server: str = "", is_opened: bool = True, **opened: Any
) -> AsyncIterator[Place]:
    async with a_web(folder) as outside:
        tenants = TENANTS.format(hosts=outside.hosts, limits=limits)
        async with calling(folder, tenants=tenants, more=SMALL, server=server) as world:
            place = Place(world, outside)
            if is_opened:
                place.opened(**opened)
            yield place


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as made:
        yield made


async def metric(gate: Running, line: str) -> bool:
    async with gate.session.get(f"{gate.ops_url}/metrics") as response:
        return line in (await response.text())


async def test_a_file_is_fetched_and_is_an_asset_of_its_tenants(place: Place) -> None:
    file = picture()
    place.outside.answer = giving(file, Content_Type="text/html", Content_Disposition="attachment; filename=../x.exe")
    url = place.outside.url("/secret/path?token=CANARY")
    answer = await place.alice.run("wear", {"picture": url}, Prefer="wait=60")
    assert answer.body["status"] == "succeeded", answer.raw
    asset = answer.body["assets"]["picture"]
    shown = (await place.alice.ask("GET", f"/api/v2/assets/{asset}")).body
    assert (shown["file_path"], shown["size_bytes"]) == ("picture.png", len(file))
    assert (await place.alice.ask("GET", f"/api/v2/assets/{asset}/content")).raw == file
    assert (await Caller(place.world.gate, "mallory").ask("GET", f"/api/v2/assets/{asset}")).status == 404
    [told] = place.told()
    assert (told["tenant"], told["origin"], told["result"]) == ("alice", place.outside.url(""), "fetched")
    assert b"CANARY" not in place.world.gate.log.getvalue()
    assert b"CANARY" not in (place.world.gate.config_file.parent / "audit.jsonl").read_bytes()
    assert await metric(place.world.gate, 'comfygate_fetches_total{result="fetched",tenant="alice"} 1.0')
    # The same bytes from elsewhere are no second file.
    again = await place.alice.run("wear", {"picture": place.outside.url("/other", OTHER)}, Prefer="wait=60")
    assert again.body["assets"]["picture"] == asset
    assert len(place.world.files()) == 1


async def test_addresses_beside_other_files_in_json_and_in_a_form(place: Place) -> None:
    place.outside.answer = giving(picture())
    both = {"first": place.outside.url("/1"), "second": place.outside.url("/2")}
    assert (await place.alice.run("copy", both, Prefer="wait=60")).body["status"] == "succeeded"
    sent = form(("first", picture(), "a.png"), ("second", place.outside.url("/2")))
    answer = await place.alice.send("copy", sent, Prefer="wait=60")
    assert answer.body["status"] == "succeeded", answer.raw
    assert len(place.outside.asked) == 3


async def test_what_is_not_configured_is_not_fetched(place: Place) -> None:
    place.outside.answer = giving(picture())
    mallory = Caller(place.world.gate, "mallory")
    answer = await mallory.run("wear", {"picture": place.outside.url("/a")})
    assert answer.refusal == (422, "argument_refused")
    for url in (
        place.outside.url("/a", FOREIGN),
        f"https://{NAME}/a",
        place.outside.url("/a").replace("https", "http"),
    ):
        assert (await place.alice.run("wear", {"picture": url})).refusal == (422, "argument_refused")
    assert (place.outside.asked, place.outside.names.asked, place.told()) == ([], [], [])


async def test_what_is_refused_and_what_does_not_answer_are_told_in_the_same_words(tmp_path: Path) -> None:
    """Or a tenant would learn what there is in the gate's network."""
    async with placed(tmp_path, allows_private=False) as place:
        answers = []
        for address in ("127.0.0.1", "10.255.255.254", "169.254.1.1", "::1", None):
            place.outside.names.answers[NAME] = [address] if address else []
            answers.append(await place.alice.run("wear", {"picture": place.outside.url("/a")}, X_Request_Id="same"))
        assert {answer.refusal for answer in answers} == {(422, "argument_refused")}
        assert len({answer.raw for answer in answers}) == 1
        assert not place.outside.asked
        told = place.told()
        assert [each["result"] for each in told] == ["unreachable"] * 5
        assert told[0]["note"] == "127.0.0.1 is not a public address", "the operator may know"
        me = (await place.alice.ask("GET", "/gate/me?format=json")).raw
        assert b"10.255" not in me


async def test_a_gate_as_it_is_in_earnest_asks_nobody_on_this_machine(tmp_path: Path) -> None:
    async with placed(tmp_path, is_opened=False) as place:
        file = place.world.gate.config_file
        file.write_text(file.read_text().replace(f"{NAME}:", "localhost:"))
        assert await place.world.gate.gate.reload(file)
        answer = await place.alice.run("wear", {"picture": place.outside.url("/a", "localhost")})
        assert answer.refusal == (422, "argument_refused")
        assert not place.outside.asked
        assert place.told()[0]["note"].endswith("is not a public address")


REFUSALS: dict[str, tuple[Callable[[Web], Any], str, tuple[int, str]]] = {
    "too large": (lambda web: giving(picture() + bytes(200_000)), "too-large", (422, "argument_refused")),
    "without end": (lambda web: pouring(picture(), asyncio.Event()), "too-large", (422, "argument_refused")),
    "no picture": (lambda web: giving(b"<html>", Content_Type="image/png"), "refused", (422, "argument_refused")),
    "a sound": (lambda web: giving(b"RIFF\0\0\0\0WAVEfmt "), "refused", (422, "argument_refused")),
    "a hundred gigapixels": (
        lambda web: giving(picture()[:16] + b"\0\1\0\0\0\1\0\0" + picture()[24:]),
        "refused",
        (413, "picture_too_large"),
    ),
    "nothing": (lambda web: giving(b""), "empty", (422, "argument_refused")),
    "a redirect": (
        lambda web: leading({"/a": web.url("/", FOREIGN)}, giving(picture())),
        "redirect",
        (422, "argument_refused"),
    ),
    "a coding": (lambda web: giving(picture(), Content_Encoding="gzip"), "encoded", (422, "argument_refused")),
    "silence": (lambda web: silent_after(picture(), asyncio.Event()), "too-slow", (422, "argument_refused")),
}


@pytest.mark.parametrize(("answer", "result", "refusal"), REFUSALS.values(), ids=REFUSALS)
async def test_what_is_refused_leaves_nothing(
    tmp_path: Path, answer: Callable[[Web], Any], result: str, refusal: tuple[int, str]
) -> None:
    slow: dict[str, Any] = {"time_limit_s": 1.0} if result == "too-slow" else {}
    async with placed(tmp_path, server='max_upload_bytes = "100KB"', **slow) as place:
        place.outside.answer = answer(place.outside)
        sent = form(("first", picture(), "a.png"), ("second", place.outside.url("/a")))
        got = await place.alice.send("copy", sent)
        assert got.refusal == refusal, got.raw
        assert [each["result"] for each in place.told()] == [result]
        assert place.world.files() == []
        assert (await place.alice.ask("GET", "/api/v2/jobs")).body["jobs"] == []


async def test_a_file_has_the_quota_of_an_upload(tmp_path: Path) -> None:
    async with placed(tmp_path, limits="small") as place:
        place.outside.answer = giving(picture() + bytes(5000))
        assert (await place.alice.run("wear", {"picture": place.outside.url("/a")})).refusal == (507, "storage_full")
        place.outside.answer = pouring(picture(), asyncio.Event())
        assert (await place.alice.run("wear", {"picture": place.outside.url("/a")})).refusal == (507, "storage_full")
        assert place.world.files() == []
        place.outside.answer = giving(picture())
        assert (await place.alice.run("wear", {"picture": place.outside.url("/a")})).status == 202


async def test_bytes_are_paid_for_as_those_of_an_upload(tmp_path: Path) -> None:
    async with placed(tmp_path, limits="bytes") as place:
        place.outside.answer = giving(picture() + bytes(2_000_000))
        url = place.outside.url("/a")
        assert (await place.alice.run("wear", {"picture": url}, Prefer="wait=60")).body["status"] == "succeeded"
        place.outside.answer = giving(picture() + bytes(2_000_001))
        assert (await place.alice.run("wear", {"picture": url})).refusal == (429, "rate_limited")
        assert len(place.world.files()) == 1
        assert [each["result"] for each in place.told()] == ["fetched", "refused"]


async def test_the_rate_of_uploads_bounds_what_is_asked_outside(tmp_path: Path) -> None:
    async with placed(tmp_path, limits="few") as place:
        place.outside.answer = giving(picture())
        answers = [await place.alice.run("wear", {"picture": place.outside.url("/a")}) for _ in range(4)]
        assert [answer.status for answer in answers] == [202, 202, 429, 429]
        assert len(place.outside.asked) == 2


async def test_nobody_is_asked_for_a_call_that_would_be_refused(tmp_path: Path) -> None:
    async with placed(tmp_path, limits="none") as place:
        place.outside.answer = giving(picture())
        url = place.outside.url("/a")
        assert (await place.alice.run("wear", {"picture": url})).status == 429
        assert (await place.alice.run("forbidden", {"picture": url})).status == 403
        assert (await place.alice.run("wear", {"picture": url, "prefix": "../x"})).status in (400, 403)
        assert (await place.alice.run("wear", {"picture": url, "nothing": 1})).status == 422
        assert (place.outside.asked, place.told()) == ([], [])


async def test_one_key_fetches_once_whatever_the_address_gives_later(place: Place) -> None:
    place.outside.answer = giving(picture())
    url = place.outside.url("/a")
    first = await place.alice.run("wear", {"picture": url}, Idempotency_Key="k")
    place.outside.answer = giving(b"gone")
    again = await place.alice.run("wear", {"picture": url}, Idempotency_Key="k")
    assert (first.status, again.status) == (202, 202)
    assert again.body["id"] == first.body["id"]
    assert len(place.outside.asked) == 1
    other = await place.alice.run("wear", {"picture": place.outside.url("/b")}, Idempotency_Key="k")
    assert other.refusal == (422, "idempotency_key_reused")


async def test_a_key_whose_file_could_not_be_fetched_is_free_again(place: Place) -> None:
    place.outside.answer = giving(b"gone")
    url = place.outside.url("/a")
    assert (await place.alice.run("wear", {"picture": url}, Idempotency_Key="k")).status == 422
    place.outside.answer = giving(picture())
    assert (await place.alice.run("wear", {"picture": url}, Idempotency_Key="k")).status == 202


async def test_a_few_at_once_are_fetched_for_a_tenant(tmp_path: Path) -> None:
    may_go_on, open_now, most = asyncio.Event(), 0, 0
    enough = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if open_now == 4:
            enough.set()
        await may_go_on.wait()
        open_now -= 1
        return web.Response(body=picture())

    async with placed(tmp_path) as place:
        place.outside.answer = answer
        calls = [asyncio.ensure_future(place.alice.run("wear", {"picture": place.outside.url("/a")})) for _ in range(9)]
        async with asyncio.timeout(GUARD_S):
            await enough.wait()
        # Others are served meanwhile.
        assert (await Caller(place.world.gate, "mallory").run("paint", Prefer="wait=60")).body["status"] == "succeeded"
        may_go_on.set()
        assert {(await call).status for call in calls} == {202}
        assert most == 4


async def test_who_waits_too_long_for_a_place_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.outside.fetches.WAIT_S", 0.2)
    async with placed(tmp_path, time_limit_s=5.0) as place:
        is_over = asyncio.Event()
        place.outside.answer = silent_after(picture(), is_over)
        calls = [asyncio.ensure_future(place.alice.run("wear", {"picture": place.outside.url("/a")})) for _ in range(5)]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert [call.result().refusal for call in done] == [(429, "too_many_fetches")]
        assert {(await call).status for call in calls} == {422, 429}


async def test_a_gate_stops_while_a_file_comes(tmp_path: Path) -> None:
    async with placed(tmp_path, server="") as place:
        is_over = asyncio.Event()
        place.outside.answer = silent_after(picture(), is_over)
        call = asyncio.ensure_future(place.alice.run("wear", {"picture": place.outside.url("/a")}))
        async with asyncio.timeout(GUARD_S):
            while not place.outside.asked:
                await asyncio.sleep(0.01)
            await place.world.gate.gate.stop()
            await is_over.wait()
            await asyncio.wait([call])
        call.exception()
        assert place.world.files() == []


@pytest.mark.live
@pytest.mark.skipif(not REAL_URL, reason="needs a ComfyUI: COMFYUI_URL")
async def test_a_real_comfyui_gets_what_is_fetched(tmp_path: Path) -> None:
    async with a_web(tmp_path, giving(picture())) as outside:
        write_functions(tmp_path, FUNCTIONS)
        tenants = TENANTS.format(hosts=outside.hosts, limits="default")
        async with running_gate(tmp_path, REAL_URL, tenants=tenants) as gate:
            gate.gate.dependencies.fetches.fetcher = outside.fetcher()
            answer = await Caller(gate).run("wear", {"picture": outside.url("/a")}, Accept="image/png")
            assert (answer.status, answer.raw[:4]) == (200, b"\x89PNG")
