"""Described documents: made once, kept for those who may have them, compressed, validated."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from policy.call import ClientCall
from policy.caller import Request
from policy.judge import OPEN
from policy.principal import TenantId
from policy.routes import Match
from policy.table import TABLE
from proxy import shelf
from proxy.shelf import Kept, Shelf
from tests.harness import Running
from tests.policy.tenants import caller_of

LARGE = {"words": "again " * 1000}


def match_of(path: str) -> Match:
    match = TABLE.match("GET", tuple(path.strip("/").split("/")))
    assert match is not None
    return match


OBJECT_INFO = match_of("/object_info")


def asked(**more: Any) -> Request:
    return Request(ClientCall("GET", ("object_info",), ()), replace(caller_of("alice"), **more))


class Describe:
    """Counts how often it is asked."""

    def __init__(self, value: Any = LARGE) -> None:
        self.value = value
        self.calls = 0

    def __call__(self, request: Request) -> Any:
        self.calls += 1
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


async def test_the_same_question_is_answered_from_the_shelf() -> None:
    kept, describe = Shelf(), Describe()
    request = asked()
    first = await kept.get(OBJECT_INFO, request, describe)
    assert await kept.get(OBJECT_INFO, request, describe) is first
    assert describe.calls == 1
    assert orjson.loads(first.body) == LARGE
    assert first.gzipped is not None
    assert gzip.decompress(first.gzipped) == first.body


@pytest.mark.parametrize("what", ["tenant", "policy", "files", "shared inputs", "row", "segments", "catalogue"])
async def test_another_question_has_another_answer(what: str) -> None:
    kept, describe = Shelf(), Describe()
    request = asked()
    await kept.get(OBJECT_INFO, request, describe)
    caller, match = request.caller, OBJECT_INFO
    match what:
        case "tenant":
            principal = replace(caller.principal, tenant=TenantId("mallory"))
            request = asked(principal=principal)
        case "policy":
            request = asked(policy=replace(OPEN))
        case "files":
            request = asked(files=replace(caller.files, input=("other.png",)) if caller.files else caller.files)
        case "shared inputs":
            request = asked(shared_inputs=("shared.png",))
        case "catalogue":
            request = asked(catalogue=type(caller.catalogue)(dict(caller.catalogue)))
        case "row":
            match = match_of("/system_stats")
        case _:
            match = match_of("/object_info/KSampler")
    await kept.get(match, request, describe)
    assert describe.calls == 2


async def test_two_at_once_make_it_once() -> None:
    kept, describe, go_on = Shelf(), Describe(), threading.Event()

    def slowly(request: Request) -> Any:
        go_on.wait()
        return describe(request)

    request = asked()
    asking = [asyncio.ensure_future(kept.get(OBJECT_INFO, request, slowly)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    go_on.set()
    found = await asyncio.gather(*asking[1:])
    assert len({id(each) for each in found}) == 1
    assert describe.calls == 1


async def test_a_failure_is_not_kept() -> None:
    kept = Shelf()
    request = asked()
    with pytest.raises(LookupError):
        await kept.get(OBJECT_INFO, request, Describe(LookupError("broken")))
    assert (await kept.get(OBJECT_INFO, request, Describe({}))).body == b"{}"


async def test_the_least_recently_used_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_KEPT", 3)
    kept, describe = Shelf(), Describe({})
    requests = [asked(shared_inputs=(str(number),)) for number in range(4)]
    for number in (0, 1, 2, 0, 3, 0, 1):
        await kept.get(OBJECT_INFO, requests[number], describe)
    assert describe.calls == 5, "1 was the oldest when 3 came"
    assert len(kept._kept) == 3


async def test_read_only_views_are_written_as_objects() -> None:
    kept = await Shelf().get(OBJECT_INFO, asked(), Describe(MappingProxyType({"a": MappingProxyType({})})))
    assert kept.body == b'{"a":{}}'
    assert kept.gzipped is None, "small documents are not worth it"


def answered(headers: Mapping[str, str]) -> Callable[[Kept], tuple[int, str | None]]:
    def answer(kept: Kept) -> tuple[int, str | None]:
        reply = kept.answer(CIMultiDict(headers))
        fields = dict(reply.headers)
        assert fields["ETag"] == kept.etag
        assert fields["Vary"] == "Accept-Encoding, Authorization, Cookie, X-API-Key"
        assert fields["Cache-Control"] == "private, no-cache"
        assert reply.body == {200: kept.gzipped if "Content-Encoding" in fields else kept.body, 304: b""}[reply.status]
        return reply.status, fields.get("Content-Encoding")

    return answer


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (200, None)),
        ({"Accept-Encoding": "gzip"}, (200, "gzip")),
        ({"Accept-Encoding": "br;q=1.0, GZIP;q=0.5"}, (200, "gzip")),
        ({"Accept-Encoding": "*"}, (200, "gzip")),
        ({"Accept-Encoding": "gzip;q=0"}, (200, None)),
        ({"Accept-Encoding": "gzip; q=0.000, *"}, (200, None)),
        ({"Accept-Encoding": "identity, br"}, (200, None)),
        ({"Accept-Encoding": ""}, (200, None)),
        ({"If-None-Match": "ETAG"}, (304, None)),
        ({"If-None-Match": "W/ETAG"}, (304, None)),
        ({"If-None-Match": '"other" , ETAG', "Accept-Encoding": "gzip"}, (304, None)),
        ({"If-None-Match": '"other"'}, (200, None)),
        ({"If-None-Match": "ETAG-not"}, (200, None)),
    ],
)
def test_answers(headers: dict[str, str], expected: tuple[int, str | None]) -> None:
    body = orjson.dumps(LARGE)
    kept = Kept(body, gzip.compress(body), '"0123"')
    sent = {name: value.replace("ETAG-not", '"012"').replace("ETAG", kept.etag) for name, value in headers.items()}
    assert answered(sent)(kept) == expected


async def test_a_document_changes_its_tag_when_it_changes() -> None:
    request = asked()
    one, other = [await Shelf().get(OBJECT_INFO, request, Describe({"a": value})) for value in (1, 2)]
    assert one.etag != other.etag
    assert (await Shelf().get(OBJECT_INFO, request, Describe({"a": 1}))).etag == one.etag


async def test_a_gate_keeps_each_tenants_own(gate: Running) -> None:
    async with gate.call("GET", "/object_info", "alice", headers={"Accept-Encoding": "gzip"}) as first:
        body = await first.read()
        assert first.headers["Content-Encoding"] == "gzip"
    etag = first.headers["ETag"]
    assert "SaveImage" in orjson.loads(gzip.decompress(body))
    assert await gate.status("GET", "/object_info", "alice", headers={"If-None-Match": etag}) == 304
    assert await gate.status("GET", "/object_info", None, headers={"If-None-Match": etag}) == 401
