"""A call of a function that names who is to be told of its job: through the whole gate, to a receiver that verifies what comes, over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator, ValidationError

from proxy.config import ConfigError, Mistake, load_config
from proxy.outside.door import OutsideDoor
from proxy.outside.target import Answer, Target, Unreachable
from proxy.webhooks.endpoint import CallWebhooks, make_call_webhooks, new_secret
from tests.contract.driver import saving, unique
from tests.harness import AUDIT_FILE
from tests.openapi.test_docs import undocumented
from tests.openapi.world import document_of
from tests.proxy.functions.calls import Caller, calling, form
from tests.proxy.outside.web import FOREIGN, NAME, OTHER, Web, a_web
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.asking import audited, submitted
from tests.proxy.v2.assets.sdk import Standing
from tests.proxy.webhooks.receiver import Receiver, receiving

TENANTS = """\
[tenants.alice]
functions = ["*"]
call_webhooks = {hosts}
call_webhooks_secret_file = "alice.secret"
[tenants.mallory]
functions = ["*"]
"""
PATHS = ("/a", "/b", "/gone")


class Loopback:
    """The way out, that leads to this machine too: where the test's receiver is."""

    def __init__(self, door: OutsideDoor) -> None:
        self._door = door

    async def post(self, target: Target, body: bytes, headers: Mapping[str, str], time_limit_s: float) -> Answer:
        return await self._door.post(replace(target, allows_private=True), body, headers, time_limit_s)

    async def stop(self) -> None:
        await self._door.stop()


@dataclass
class Place:
    world: Standing
    outside: Web
    receiver: Receiver

    @property
    def alice(self) -> Caller:
        return Caller(self.world.gate)

    async def told(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(GUARD_S):
            while len(found := audited(self.world.gate, "webhook")) < count:
                await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def placed(folder: Path, *, is_open: bool = True) -> AsyncIterator[Place]:
    receiver = Receiver(dict.fromkeys(PATHS, new_secret()))
    (folder / "alice.secret").write_text(receiver.secrets["/a"], "ascii")
    async with a_web(folder, receiver) as outside:
        receiver.url = outside.url("")
        tenants = TENANTS.format(hosts=outside.hosts)
        async with calling(folder, tenants=tenants, server='public_url = "https://comfy.example.com"') as world:
            door = OutsideDoor(lambda: (), outside.trust)
            door._resolver = outside.names
            if is_open:
                world.gate.gate._followers.webhooks._door = Loopback(door)
            yield Place(world, outside, receiver)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as made:
        yield made


async def test_who_a_call_names_is_told_of_its_job_alone(place: Place) -> None:
    named = await place.alice.run("paint", Webhook_URL=place.outside.url("/a?order=CANARY"))
    assert named.status == 202
    sent = await place.alice.send("paint", form(("width", "64")), Webhook_URL=place.outside.url("/b", OTHER))
    assert (await place.alice.run("paint", Prefer="wait=60")).body["status"] == "succeeded"
    got = await place.receiver.until(lambda got: len(got) == 2)
    assert {each.path: each.job for each in got} == {"/a": named.body["id"], "/b": sent.body["id"]}
    assert {each.event["type"] for each in got} == {"job.succeeded"}
    assert got[0].event["data"]["urls"]["self"].startswith("https://comfy.example.com/")
    told = await place.told(2)
    assert {each["origin"] for each in told} == {place.outside.url(""), place.outside.url("", OTHER)}
    assert {each["endpoint"] for each in told} == {"(calls)"}
    assert b"CANARY" not in (place.world.gate.config_file.parent / AUDIT_FILE).read_bytes()
    assert b"CANARY" not in place.world.gate.log.getvalue()


async def test_what_comes_is_what_the_document_says(place: Place) -> None:
    document = (await document_of(place.world)).body
    [callback] = document["components"]["callbacks"]["job_ended"].values()
    schema = callback["post"]["requestBody"]["content"]["application/json"]["schema"]
    await place.alice.run("paint", Webhook_URL=place.outside.url("/a"))
    slow = await place.alice.run("slow", {"seconds": 60}, Webhook_URL=place.outside.url("/a"))
    await place.alice.ask("POST", f"/gate/jobs/{slow.body['id']}/cancel")
    validator = Draft202012Validator({**schema, "components": document["components"]})
    for told in await place.receiver.until(lambda got: len(got) == 2):
        validator.validate(told.event)
        assert list(undocumented(told.event, schema, document)) == []
        assert {each["name"] for each in callback["post"]["parameters"]} <= told.headers.keys()
        with pytest.raises(ValidationError):
            validator.validate({**told.event, "type": "job.stored"})


async def test_a_job_that_fails_or_is_canceled_is_told_of_too(place: Place) -> None:
    url = place.outside.url("/a")
    slow = [(await place.alice.run("slow", {"seconds": 60}, Webhook_URL=url)).body["id"] for _ in range(2)]
    for job in reversed(slow):
        await place.alice.ask("POST", f"/gate/jobs/{job}/cancel")
    got = await place.receiver.until(lambda got: len(got) == 2)
    assert {each.job: each.event["type"] for each in got} == dict.fromkeys(slow, "job.canceled")


async def test_what_may_not_be_named_is_refused_and_nothing_runs(place: Place) -> None:
    urls = (
        place.outside.url("/a", FOREIGN),
        f"https://{NAME}/a",
        place.outside.url("/a").replace("https", "http"),
        "https://127.0.0.1/",
        f"https://{place.world.gate.keys['alice']}@{NAME}/",
        "nothing",
    )
    for url in urls:
        answer = await place.alice.run("paint", Webhook_URL=url)
        assert answer.status == 400, url
        assert answer.refusal[1] in ("header_malformed", "credential_misplaced")
    answer = await Caller(place.world.gate, "mallory").run("paint", Webhook_URL=place.outside.url("/a"))
    assert answer.refusal == (400, "header_malformed")
    assert "call_webhooks" in answer.body["error"]["message"]
    key = place.world.gate.keys["alice"]
    answer = await place.alice.run("paint", Webhook_URL=place.outside.url(f"/a?key={key}"))
    assert answer.refusal == (400, "credential_misplaced")
    assert (await place.alice.ask("GET", "/api/v2/jobs")).body["jobs"] == []
    assert not place.outside.asked


async def test_the_same_key_with_another_address_is_another_call(place: Place) -> None:
    first = await place.alice.run("paint", Idempotency_Key="k", Webhook_URL=place.outside.url("/a"))
    again = await place.alice.run("paint", Idempotency_Key="k", Webhook_URL=place.outside.url("/a"))
    assert first.body["id"] == again.body["id"]
    for fields in ({}, {"Webhook_URL": place.outside.url("/b")}):
        other = await place.alice.run("paint", Idempotency_Key="k", **fields)
        assert other.refusal == (422, "idempotency_key_reused")
    await place.receiver.until(lambda got: len(got) == 1)
    assert len(await place.told(1)) == 1


async def test_one_that_wants_no_more_is_no_word_for_the_others(place: Place) -> None:
    place.receiver.answer = lambda received: web.Response(status=410 if received.path == "/gone" else 204)
    await place.alice.run("paint", Webhook_URL=place.outside.url("/gone"))
    await place.receiver.until(lambda got: len(got) == 1)
    assert [each["result"] for each in await place.told(1)] == ["gone"]
    await place.alice.run("paint", Webhook_URL=place.outside.url("/a"))
    await place.alice.run("paint", Webhook_URL=place.outside.url("/gone"))
    got = await place.receiver.until(lambda got: len(got) == 3)
    assert sorted(each.path for each in got) == ["/a", "/gone", "/gone"]


async def test_a_gate_as_it_is_in_earnest_tells_nobody_on_this_machine(tmp_path: Path) -> None:
    async with placed(tmp_path, is_open=False) as place:
        file = place.world.gate.config_file
        file.write_text(file.read_text().replace(f'"{NAME}:', '"localhost:'))
        assert await place.world.gate.gate.reload(file)
        assert (await place.alice.run("paint", Webhook_URL=place.outside.url("/a", "localhost"))).status == 202
        [told] = await place.told(1)
        assert (told["result"], told["note"].endswith("is not a public address")) == ("failed", True)
        assert not place.outside.asked


async def test_an_address_that_is_permitted_no_more_is_not_told(place: Place) -> None:
    place.receiver.held.clear()
    running = (await place.alice.run("slow", {"seconds": 60}, Webhook_URL=place.outside.url("/a"))).body["id"]
    file = place.world.gate.config_file
    text = file.read_text()
    file.write_text(text.replace(place.outside.hosts, '["elsewhere.test"]', 1))
    assert await place.world.gate.gate.reload(file)
    await place.alice.ask("POST", f"/gate/jobs/{running}/cancel")
    [told] = await place.told(1)
    assert (told["result"], told["note"]) == ("failed", "its host is permitted no more")
    assert not place.outside.asked


async def test_it_does_not_matter_which_door_a_job_came_in_by(tmp_path: Path) -> None:
    """An endpoint of the configuration is told of all of them: ComfyUI's own route, Comfy API v2, functions."""
    async with receiving() as receiver, calling(tmp_path, more=receiver.endpoint(tmp_path, "shop")) as world:
        alice = Caller(world.gate)
        native = await alice.ask("POST", "/prompt", data=orjson.dumps({"prompt": saving(unique())}))
        by_v2 = await submitted(world.gate, saving(unique()))
        called = await alice.run("paint")
        jobs = {native.body["prompt_id"], by_v2, called.body["id"]}
        got = await receiver.until(lambda got: len(got) == 3)
        assert {each.job for each in got} == jobs
        assert {each.event["type"] for each in got} == {"job.succeeded"}


def _config(folder: Path, lines: str) -> Any:
    (folder / "config.toml").write_text(f"[tenants.alice]\n{lines}", "utf-8")
    return load_config(folder / "config.toml", {})


def test_addresses_of_calls_are_signed_with_the_tenants_secrets(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / f"{name}.secret").write_text(new_secret(), "ascii")
    lines = 'call_webhooks = ["hooks.example.com", "*:8443"]\ncall_webhooks_secret_file = "new.secret"\n'
    mistakes: list[Mistake] = []
    [made] = make_call_webhooks(
        _config(tmp_path, f'{lines}call_webhooks_previous_secret_file = "old.secret"\n'), mistakes
    )
    assert not mistakes
    assert len(made.headers("msg_1", 1.0, b"{}")["webhook-signature"].split(" ")) == 2
    assert made.target_of("https://a.test:8443/x") == Target("https://a.test:8443/x", frozenset({8443}), tenant="alice")
    assert not made.target_of("https://hooks.example.com/").allows_private
    with pytest.raises(Unreachable, match="permitted no more"):
        made.target_of("https://a.test/x")
    assert "whsec" not in repr(made)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('call_webhooks = ["a.test"]\n', "needs call_webhooks_secret_file"),
        ('call_webhooks = ["https://a.test"]\ncall_webhooks_secret_file = "x"\n', "is no host"),
        ('call_webhooks = ["10.0.0.1"]\ncall_webhooks_secret_file = "x"\n', "is no host"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, lines: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _config(tmp_path, lines)


def test_a_secret_that_is_none_is_told_with_its_place(tmp_path: Path) -> None:
    mistakes: list[Mistake] = []
    lines = 'call_webhooks = ["a.test"]\ncall_webhooks_secret_file = "no.secret"\n'
    [made] = make_call_webhooks(_config(tmp_path, lines), mistakes)
    assert isinstance(made, CallWebhooks)
    assert [mistake.path for mistake in mistakes] == ["tenants.alice.call_webhooks_secret_file"]
