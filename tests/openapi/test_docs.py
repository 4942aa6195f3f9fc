"""What a tenant is told that it may call: its own functions, at its address, kept until they change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from policy.principal import Scope
from policy.rule_context import RuleContext
from policy.v2.links import Links
from proxy.auth import key_file
from proxy.limits.heavy_work import HeavyWork
from proxy.pages import tenant_docs
from proxy.pages.docs import docs_page
from proxy.pages.tenant_docs import TenantDocs
from tests.openapi.world import document_of, documented
from tests.policy.tenants import caller_of
from tests.proxy.functions.calls import Caller
from tests.proxy.v2.assets.sdk import Standing

PAGE = {"Accept": "text/html", "Accept-Encoding": "identity"}


def undocumented(value: Any, schema: Any, document: Any, place: str = "") -> Iterator[str]:
    """Members of a value that its schema does not name."""
    schemas = [schema]
    if "$ref" in schema:
        schemas = [document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]]
    schemas += schema.get("allOf", [])
    if "allOf" in schema:
        schemas += [
            document["components"]["schemas"][each["$ref"].rpartition("/")[2]]
            for each in schema["allOf"]
            if "$ref" in each
        ]
    named: dict[str, Any] = {}
    for each in schemas:
        named = each.get("properties", {}) | named
    if isinstance(value, dict):
        more = next((each["additionalProperties"] for each in schemas if "additionalProperties" in each), None)
        for name, inner in value.items():
            if name in named:
                yield from undocumented(inner, named[name], document, f"{place}.{name}")
            elif more is None and named:
                yield f"{place}.{name}"
    elif isinstance(value, list):
        items: Any = next((each["items"] for each in schemas if "items" in each), {})
        for inner in value:
            yield from undocumented(inner, items, document, f"{place}[]")


async def test_answers_have_no_member_that_is_not_documented(world: Standing) -> None:
    alice, document = Caller(world.gate), (await document_of(world)).body
    called = await alice.run("every", {"words": "a", "color": None}, Prefer="wait=60")
    failed = await alice.run("every", {"words": "a", "nothing": 1})
    job = await alice.job(called.body["id"])
    functions = await alice.ask("GET", "/gate/functions")
    assert called.body["status"] == "succeeded", called.body
    assert {"drawn", "outputs"} <= {name for name, value in called.body.items() if value}
    for name, value in (
        ("CalledJob", called.body),
        ("Job", job),
        ("Error", failed.body),
        ("Functions", functions.body),
    ):
        assert list(undocumented(value, {"$ref": f"#/{name}"}, document)) == []
    assert list(undocumented({"id": 1, "other": 2}, {"$ref": "#/Job"}, document)) == [".other"]


async def test_a_tenant_is_told_of_its_own_functions_alone(world: Standing) -> None:
    mallory = (await document_of(world, "mallory")).body
    assert [path for path in mallory["paths"] if path.startswith("/gate/run/")] == ["/gate/run/paint"]
    page = await Caller(world.gate, "mallory").ask("GET", "/gate/docs", headers=PAGE)
    for raw in (orjson.dumps(mallory), page.raw):
        assert b"paint" in raw
        assert b"run/every" not in raw
        assert b"wear" not in raw
    assert world.gate.keys["mallory"].encode() not in page.raw


async def test_a_document_of_the_api_v2(world: Standing) -> None:
    document = (await document_of(world, api="v2")).body
    assert document["info"]["title"] == "Comfy API v2 of comfygate"
    assert set(document["paths"]["/api/v2/jobs"]) == {"get", "post"}
    assert (await Caller(world.gate).ask("GET", "/gate/openapi.json?api=v3")).refusal == (400, "query_malformed")
    config = world.gate.config_file
    only = config.read_text("utf-8").replace("[tenants.alice]", '[tenants.alice]\nworkflows = "functions"')
    config.write_text(only, "utf-8")
    assert await world.gate.gate.reload(config)
    assert set((await document_of(world, api="v2")).body["paths"]["/api/v2/jobs"]) == {"get"}


async def test_the_page_says_it_for_people(world: Standing) -> None:
    answer = await Caller(world.gate).ask("GET", "/gate/docs", headers=PAGE)
    text = answer.raw.decode()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "<script" not in text
    assert "<kind>" not in text
    assert "Every &lt;kind&gt; of &#x27;argument&#x27;" in text
    assert f"{world.gate.url}/gate/run/every" in text
    assert "a multiple of 8" in text
    assert '<a href="run/every">' in text
    for name in ("words", "size", "share", "flag", "color", "height"):
        assert f"<code>{name}</code>" in text


@pytest.mark.parametrize(
    ("accept", "query", "kind"),
    [
        ("*/*", "", "application/json"),
        ("application/json", "", "application/json"),
        ("text/html", "?format=json", "application/json"),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "", "text/html; charset=utf-8"),
    ],
)
async def test_programs_get_the_document_where_people_get_a_page(
    world: Standing, accept: str, query: str, kind: str
) -> None:
    answer = await Caller(world.gate).ask("GET", f"/gate/docs{query}", headers={"Accept": accept})
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert "Accept" in answer.headers["Vary"]


async def test_who_has_it_is_not_sent_it_again(world: Standing) -> None:
    first = await document_of(world)
    tag = first.headers["ETag"]
    assert tag.startswith('"')
    again = await document_of(world, If_None_Match=tag)
    assert (again.status, again.raw, again.headers["ETag"]) == (304, b"", tag)
    page = await Caller(world.gate).ask("GET", "/gate/docs", headers=PAGE | {"If-None-Match": tag})
    assert page.status == 200, "the page is another document"
    packed = await document_of(world, Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["ETag"] != tag
    folder = world.gate.config_file.parent / "functions"
    (folder / "paint.toml").write_text((folder / "paint.toml").read_text("utf-8").replace("Paint", "Dye"), "utf-8")
    assert await world.gate.gate.reload(world.gate.config_file)
    changed = await document_of(world, If_None_Match=tag)
    assert changed.status == 200
    assert changed.body["paths"]["/gate/run/paint"]["post"]["summary"] == "Dye"


async def test_who_may_read_it(world: Standing) -> None:
    admin = Caller(world.gate, "admin")
    narrow = key_file.create_key(world.gate.config_file, tenant="alice", scopes=frozenset({Scope.JOBS_SUBMIT}))
    assert await world.gate.gate.reload(world.gate.config_file)
    for path in ("/gate/docs", "/gate/openapi.json"):
        assert await world.gate.status("GET", path, None) == 401
        assert (await admin.ask("GET", path)).refusal == (403, "route_refused")
        refused = await Caller(world.gate).ask("GET", path, headers={"Authorization": f"Bearer {narrow.text}"})
        assert refused.refusal == (403, "scope_missing")
        assert (await Caller(world.gate).ask("POST", path)).status == 405
        async with world.gate.call("GET", path, None, headers={"Accept": "text/html"}) as response:
            assert response.status == 303, "a person is led to the login"
            assert response.headers["Location"].endswith(f"/gate/login?next={path}")


async def test_the_address_is_the_configured_one(tmp_path: Path) -> None:
    server = 'public_url = "https://comfy.example.com"\npublic_path = "/art"'
    async with documented(tmp_path, server=server) as world:
        document = (await document_of(world)).body
        page = await Caller(world.gate).ask("GET", "/gate/docs", headers=PAGE)
    assert document["servers"] == [{"url": "https://comfy.example.com/art"}]
    assert b"https://comfy.example.com/art/gate/run/paint" in page.raw


async def test_a_tenant_has_one_place_however_many_addresses_it_says(world: Standing) -> None:
    kept = world.gate.gate.dependencies.docs
    for number in range(5):
        answer = await document_of(world, Host=f"host{number}.example.com")
        assert answer.body["servers"] == [{"url": f"http://host{number}.example.com"}]
    await document_of(world, "mallory")
    assert set(kept._kept) == {"alice", "mallory"}


def context_of(tenant: str) -> RuleContext:
    return replace(caller_of(tenant), links=Links("http://a"))


async def test_places_and_bytes_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_docs, "MAX_KEPT", 3)
    docs, heavy = TenantDocs(), HeavyWork()
    for number in range(5):
        await docs.of(context_of(f"t{number}"), heavy)
    await docs.of(context_of("t2"), heavy)
    assert list(docs._kept) == ["t3", "t4", "t2"]
    monkeypatch.setattr(tenant_docs, "MAX_BYTES", 1)
    last = await docs.of(context_of("large"), heavy)
    assert list(docs._kept) == ["large"]
    assert await docs.of(context_of("large"), heavy) is last


def test_the_page_names_no_server_but_the_gate() -> None:
    """It works offline: nothing in it is loaded from elsewhere."""
    page = docs_page("a", {}, Links("http://gate")).body.decode()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[a-z]+:', page)
    assert "whoever runs this gate gives them" in page
