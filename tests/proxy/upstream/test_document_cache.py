"""The shelf: a document is made once, kept within bounds, and sent as its client can take it."""

from __future__ import annotations

import asyncio
import gzip
import sys
import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import brotli
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
from proxy.upstream.compressor import CompressionFailed, Compressor
from proxy.upstream.document_cache import MAX_KEPT, CachedDocument, DocumentCache
from tests.policy.tenants import NOW

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Describe = Callable[[RuleInput], Any]
CATALOGUE = Catalogue()


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
        assert self.go_on.wait(240)
        self.made += 1
        if self.made <= self.failures:
            raise LookupError("not yet")
        return {"number": self.made}.items()


async def kept(size: int = 2000) -> CachedDocument:
    document_cache = DocumentCache(Compressor())
    try:
        return await document_cache.get(request(), lambda _: [("text", {"is": "x" * size})])
    finally:
        await document_cache.stop()


def etag(document: CachedDocument, accepted: str = "") -> str:
    return dict(document.answer(CIMultiDict({"Accept-Encoding": accepted})).headers)["ETag"]


UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": zstd.decompress,
    "": bytes,
}


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("br", ""),
        ("", ""),
        ("deflate", ""),
        ("gzip;q=0", ""),
    ],
)
async def test_sent_at_once_in_the_quickest_coding_where_the_client_takes_it(accepted: str, coding: str) -> None:
    reply = (await kept()).answer(CIMultiDict({"Accept-Encoding": accepted}))
    assert reply.status == 200
    assert isinstance(reply.body, bytes)
    assert dict(reply.headers).get("Content-Encoding", "") == coding
    assert orjson.loads(UNPACK[coding](reply.body)) == {"text": {"is": "x" * 2000}}
    assert [value for name, value in reply.headers if name == "Vary"] == [
        "Accept-Encoding, Authorization, Cookie, X-API-Key"
    ]


async def test_what_is_small_is_not_compressed() -> None:
    reply = (await kept(5)).answer(CIMultiDict({"Accept-Encoding": "gzip"}))
    assert reply.body == b'{"text":{"is":"xxxxx"}}'


@pytest.mark.parametrize(("tags", "status"), [("{}", 304), ("W/{}", 304), ('"a", {}', 304), ('"a"', 200), ("", 200)])
async def test_not_sent_again_to_who_has_it(tags: str, status: int) -> None:
    document = await kept()
    reply = document.answer(CIMultiDict({"If-None-Match": tags.format(etag(document))}))
    assert (reply.status, dict(reply.headers)["ETag"]) == (status, etag(document))
    assert (reply.body == b"") is (status == 304)


async def test_the_validator_is_of_the_content_and_of_its_coding() -> None:
    assert etag(await kept()) == etag(await kept())
    assert etag(await kept()) != etag(await kept(2001))
    assert etag(await kept()) != etag(await kept(), "gzip")


class Recording(Compressor):
    """Remembers what it was given; some codings it cannot do."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.packed: list[str] = []
        self._failing = failing

    async def best(self, coding: str, data: bytes) -> bytes:
        self.packed.append(coding)
        if coding in self._failing:
            raise CompressionFailed
        return await super().best(coding, data)


async def settled(compressor: Recording, size: int = 2000) -> CachedDocument:
    document_cache = DocumentCache(compressor)
    document = await document_cache.get(request(), lambda _: [("text", {"is": "x" * size})])
    await document_cache._tasks.finish()
    await compressor.stop()
    return document


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstream.document_cache.SETTLED_S", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_a_document_that_stays_gets_its_smallest_forms() -> None:
    before = etag(await kept(), "gzip")
    compressor = Recording()
    document = await settled(compressor)
    assert sorted(compressor.packed) == ["br", "gzip", "zstd"]
    for accepted, coding in (("gzip", "gzip"), ("gzip, br", "br"), ("gzip, deflate, br, zstd", "zstd"), ("", "")):
        reply = document.answer(CIMultiDict({"Accept-Encoding": accepted}))
        assert isinstance(reply.body, bytes)
        assert dict(reply.headers).get("Content-Encoding", "") == coding
        assert orjson.loads(UNPACK[coding](reply.body)) == {"text": {"is": "x" * 2000}}
    assert len({etag(document, accepted) for accepted in ("", "gzip", "br", "zstd")}) == 4
    reply = document.answer(CIMultiDict({"Accept-Encoding": "gzip", "If-None-Match": before}))
    assert reply.status == 304


@pytest.mark.usefixtures("at_once")
async def test_where_compressing_fails_the_quick_form_stays() -> None:
    compressor = Recording(failing=("zstd", "gzip"))
    document = await settled(compressor)
    assert etag(document, "gzip") == etag(await kept(), "gzip")
    assert dict(document.answer(CIMultiDict({"Accept-Encoding": "zstd, br"})).headers)["Content-Encoding"] == "br"


@pytest.mark.usefixtures("at_once")
async def test_what_is_small_gets_no_other_form() -> None:
    compressor = Recording()
    await settled(compressor, 5)
    assert compressor.packed == []


@pytest.mark.usefixtures("at_once")
async def test_a_document_that_was_replaced_is_packed_no_further() -> None:
    class Replacing(Recording):
        async def best(self, coding: str, data: bytes) -> bytes:
            document_cache._kept.clear()
            return await super().best(coding, data)

    compressor = Replacing()
    document_cache = DocumentCache(compressor)
    await document_cache.get(request(), lambda _: [("text", {"is": "x" * 2000})])
    await document_cache._tasks.finish()
    await compressor.stop()
    assert compressor.packed == ["zstd"]


async def test_two_at_once_make_it_once() -> None:
    document_cache, maker = DocumentCache(Compressor()), Maker()
    maker.go_on.clear()
    asking = [asyncio.ensure_future(document_cache.get(request(), maker)) for _ in range(5)]
    while not document_cache._kept:
        await asyncio.sleep(0)
    maker.go_on.set()
    documents = await asyncio.gather(*asking)
    assert maker.made == 1
    assert len({id(document) for document in documents}) == 1
    assert await document_cache.get(request(), maker) is documents[0]


@pytest.mark.usefixtures("at_once")
async def test_what_several_tenants_see_alike_is_held_and_compressed_once() -> None:
    compressor = Recording()
    document_cache = DocumentCache(compressor)
    first = await document_cache.get(request(), lambda _: [("text", {"is": "x" * 2000})])
    second = await document_cache.get(request("bob"), lambda _: [("text", {"is": "x" * 2000})])
    other = await document_cache.get(request("carol"), lambda _: [("text", {"is": "y" * 2000})])
    assert first is second
    assert first is not other
    await document_cache._tasks.finish()
    await compressor.stop()
    assert sorted(compressor.packed) == ["br", "br", "gzip", "gzip", "zstd", "zstd"]


async def test_who_has_the_files_of_a_neighbour_gets_a_document_of_its_own() -> None:
    """Else its smallest form were there at once, and said so."""
    document_cache = DocumentCache(Compressor())
    files = OwnFiles(("a.png",))
    neighbours, own = [
        await document_cache.get(request(tenant, files), lambda _: [("text", {"is": "x" * 2000})])
        for tenant in ("alice", "mallory")
    ]
    neighbours.coded.add("zstd", b"smallest")
    assert neighbours.body == own.body
    assert "zstd" not in own.coded
    await document_cache.stop()


async def test_large_documents_leave_room_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstream.document_cache.MAX_BYTES", 5000)
    document_cache = DocumentCache(Compressor())

    async def ask(tenant: str, size: int) -> CachedDocument:
        return await document_cache.get(request(tenant), lambda _: [("text", {"is": tenant * size})])

    await ask("a", 2000)
    await ask("b", 2000)
    assert list(document_cache._kept) == ["a", "b"]
    await ask("c", 2000)
    assert list(document_cache._kept) == ["b", "c"]
    assert len((await ask("d", 9000)).body) > 9000
    assert list(document_cache._kept) == ["d"], "held however large it is"
    await document_cache.stop()


async def test_made_anew_for_whom_it_differs() -> None:
    document_cache, maker = DocumentCache(Compressor()), Maker()
    requests = [request(), request("bob"), request(files=OwnFiles(("a.png",))), request(catalogue=Catalogue())]
    for each in requests:
        await document_cache.get(each, maker)
    assert maker.made == 4


async def test_one_member_comes_from_the_whole_document() -> None:
    document_cache, made = DocumentCache(Compressor()), list[str]()

    def describe(request: RuleInput) -> Any:
        made.append("once")
        return {"A": {"text": "é,:"}, 'B"': MappingProxyType({"b": 1}), "C": [1]}.items()

    for name, expected in (("A", {"A": {"text": "é,:"}}), ('B"', {'B"': {"b": 1}}), ("C", {"C": [1]}), ("D", {})):
        document = await document_cache.get(request(), describe, name)
        assert orjson.loads(document.body) == expected
        assert document.answer(CIMultiDict({"If-None-Match": etag(document)})).status == 304
    assert (made, len(document_cache._kept)) == (["once"], 1)


async def test_a_tenant_has_one_place_however_many_documents_it_asks_for() -> None:
    document_cache, maker = DocumentCache(Compressor()), Maker()
    await document_cache.get(request("neighbour"), maker)
    for number in range(2 * MAX_KEPT):
        await document_cache.get(request("wild", OwnFiles((f"{number}.png",))), maker, f"class-{number}")
    made = maker.made
    await document_cache.get(request("neighbour"), maker)
    assert (maker.made, len(document_cache._kept)) == (made, 2)


async def test_a_finished_picture_changes_no_document() -> None:
    document_cache, maker = DocumentCache(Compressor()), Maker()
    await document_cache.get(request(files=OwnFiles(("a.png",), ("1.png",))), maker)
    await document_cache.get(request(files=OwnFiles(("a.png",), ("1.png", "2.png"))), maker)
    assert maker.made == 1


async def test_a_failing_maker_is_tried_again() -> None:
    document_cache, maker = DocumentCache(Compressor()), Maker(failures=1)
    with pytest.raises(LookupError):
        await document_cache.get(request(), maker)
    assert (await document_cache.get(request(), maker)).body == b'{"number":2}'


async def test_who_leaves_takes_nothing_from_others() -> None:
    document_cache, maker = DocumentCache(Compressor()), Maker()
    maker.go_on.clear()
    first, second = (asyncio.ensure_future(document_cache.get(request(), maker)) for _ in range(2))
    while not document_cache._kept:
        await asyncio.sleep(0)
    first.cancel()
    maker.go_on.set()
    assert (await second).body == b'{"number":1}'
    assert maker.made == 1


async def test_the_least_recently_used_goes() -> None:
    document_cache, maker = DocumentCache(Compressor()), Maker()
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
