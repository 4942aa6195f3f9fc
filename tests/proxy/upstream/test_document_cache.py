"""The shelf: a document is made once, kept within bounds, and sent as its client can take it."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from policy.call import ClientCall
from policy.catalogue import Catalogue
from policy.judge import ADMIN_POLICY
from policy.namespace import Namespace
from policy.principal import Principal, TenantId
from policy.rule_context import OwnFiles, RuleContext, RuleInput
from proxy.jobs.registry import JobRegistry
from proxy.upstream.document_cache import MAX_KEPT, CachedDocument, DocumentCache, _make
from tests.policy.tenants import NOW

Describe = Callable[[RuleInput], Any]
CATALOGUE = Catalogue({})


def request(tenant: str = "alice", files: OwnFiles | None = None, catalogue: Catalogue = CATALOGUE) -> RuleInput:
    name = TenantId(tenant)
    context = RuleContext(
        Principal("k", name), Namespace(name), JobRegistry().of(name), ADMIN_POLICY, catalogue, NOW, files or OwnFiles()
    )
    return RuleInput(ClientCall("GET", ("object_info",)), context)


class Maker:
    """Describes the same document each time, and counts how often."""

    def __init__(self, failures: int = 0) -> None:
        self.made = 0
        self.failures = failures
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, request: RuleInput) -> Any:
        assert self.go_on.wait(60)
        self.made += 1
        if self.made <= self.failures:
            raise LookupError("not yet")
        return {"number": self.made}


def kept(size: int = 2000) -> CachedDocument:
    return _make(lambda _: MappingProxyType({"text": "x" * size}), request())


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", True), ("deflate, GZIP;q=0.5", True), ("*", True), ("br, gzip; q=1.0", True),
        ("", False), ("br", False), ("gzip;q=0", False), ("gzip; q=0.0", False), ("*;q=0.000", False), ("xgzip", False),
    ],
)  # fmt: skip
def test_compressed_when_the_client_takes_that(accepted: str, expected: bool) -> None:
    document = kept()
    reply = document.answer(CIMultiDict({"Accept-Encoding": accepted}))
    assert reply.status == 200
    assert isinstance(reply.body, bytes)
    assert (dict(reply.headers).get("Content-Encoding") == "gzip") is expected
    body = gzip.decompress(reply.body) if expected else reply.body
    assert orjson.loads(body) == {"text": "x" * 2000}
    assert "Accept-Encoding" in dict(reply.headers)["Vary"]


def test_what_is_small_is_not_compressed() -> None:
    reply = kept(5).answer(CIMultiDict({"Accept-Encoding": "gzip"}))
    assert reply.body == b'{"text":"xxxxx"}'


@pytest.mark.parametrize(("tags", "status"), [("{}", 304), ("W/{}", 304), ('"a", {}', 304), ('"a"', 200), ("", 200)])
def test_not_sent_again_to_who_has_it(tags: str, status: int) -> None:
    document = kept()
    reply = document.answer(CIMultiDict({"If-None-Match": tags.format(document.etag)}))
    assert (reply.status, dict(reply.headers)["ETag"]) == (status, document.etag)
    assert (reply.body == b"") is (status == 304)


def test_the_validator_is_of_the_content() -> None:
    assert kept().etag == kept().etag
    assert kept().etag != kept(2001).etag


async def test_two_at_once_make_it_once() -> None:
    document_cache, maker = DocumentCache(), Maker()
    maker.go_on.clear()
    asking = [asyncio.ensure_future(document_cache.get(request(), maker)) for _ in range(5)]
    while not document_cache._kept:
        await asyncio.sleep(0)
    maker.go_on.set()
    documents = await asyncio.gather(*asking)
    assert maker.made == 1
    assert len({id(document) for document in documents}) == 1
    assert await document_cache.get(request(), maker) is documents[0]


async def test_made_anew_for_whom_it_differs() -> None:
    document_cache, maker = DocumentCache(), Maker()
    requests = [request(), request("bob"), request(files=OwnFiles(("a.png",))), request(catalogue=Catalogue({}))]
    for each in requests:
        await document_cache.get(each, maker)
    assert maker.made == 4


async def test_one_member_comes_from_the_whole_document() -> None:
    document_cache, made = DocumentCache(), list[str]()

    def describe(request: RuleInput) -> Any:
        made.append("once")
        return {"A": {"text": "é,:"}, 'B"': MappingProxyType({"b": 1}), "C": [1]}

    for name, expected in (("A", {"A": {"text": "é,:"}}), ('B"', {'B"': {"b": 1}}), ("C", {"C": [1]}), ("D", {})):
        document = await document_cache.get(request(), describe, name)
        assert orjson.loads(document.body) == expected
        assert document.answer(CIMultiDict({"If-None-Match": document.etag})).status == 304
    assert (made, len(document_cache._kept)) == (["once"], 1)


async def test_a_tenant_has_one_place_however_many_documents_it_asks_for() -> None:
    document_cache, maker = DocumentCache(), Maker()
    await document_cache.get(request("neighbour"), maker)
    for number in range(2 * MAX_KEPT):
        await document_cache.get(request("wild", OwnFiles((f"{number}.png",))), maker, f"class-{number}")
    made = maker.made
    await document_cache.get(request("neighbour"), maker)
    assert (maker.made, len(document_cache._kept)) == (made, 2)


async def test_a_finished_picture_changes_no_document() -> None:
    document_cache, maker = DocumentCache(), Maker()
    await document_cache.get(request(files=OwnFiles(("a.png",), ("1.png",))), maker)
    await document_cache.get(request(files=OwnFiles(("a.png",), ("1.png", "2.png"))), maker)
    assert maker.made == 1


async def test_a_failing_maker_is_tried_again() -> None:
    document_cache, maker = DocumentCache(), Maker(failures=1)
    with pytest.raises(LookupError):
        await document_cache.get(request(), maker)
    assert (await document_cache.get(request(), maker)).body == b'{"number":2}'


async def test_who_leaves_takes_nothing_from_others() -> None:
    document_cache, maker = DocumentCache(), Maker()
    maker.go_on.clear()
    first, second = (asyncio.ensure_future(document_cache.get(request(), maker)) for _ in range(2))
    while not document_cache._kept:
        await asyncio.sleep(0)
    first.cancel()
    maker.go_on.set()
    assert (await second).body == b'{"number":1}'
    assert maker.made == 1


async def test_the_least_recently_used_goes() -> None:
    document_cache, maker = DocumentCache(), Maker()
    for number in range(MAX_KEPT):
        await document_cache.get(request(f"t{number}"), maker)
    await document_cache.get(request("t0"), maker)
    assert maker.made == MAX_KEPT
    await document_cache.get(request("one-more"), maker)
    assert len(document_cache._kept) == MAX_KEPT
    await document_cache.get(request("t0"), maker)
    assert maker.made == MAX_KEPT + 1
    await document_cache.get(request("t1"), maker)
    assert maker.made == MAX_KEPT + 2
