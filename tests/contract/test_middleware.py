"""G.1 and G.3: the origin check and the cache headers."""

from __future__ import annotations

import pytest
from yarl import URL

from .driver import Comfy, unique


def _port(comfy: Comfy) -> int:
    port = URL(comfy.url).port
    assert port is not None
    return port


@pytest.mark.parametrize("path", ["/", "/prompt", "/api/queue"])
async def test_cross_site_is_refused_even_for_a_page(comfy: Comfy, path: str) -> None:
    answer = await comfy.raw(path, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status == (403 if comfy.is_current else 200)


@pytest.mark.parametrize("site", ["same-site", "same-origin", "none", "bogus"])
async def test_other_fetch_sites_pass(comfy: Comfy, site: str) -> None:
    assert (await comfy.raw("/prompt", headers={"Sec-Fetch-Site": site})).status == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 200),
        ("127.0.0.1:{port}", "null", 200),
        ("127.0.0.1:{port}", "http://127.0.0.1", 200),
        ("127.0.0.1:{port}", "http://localhost:{port}", 403),
        ("127.0.0.1:{port}", "http://127.0.0.1:9", 403),
        ("127.0.0.1:{port}", "https://evil.example", 403),
        ("127.0.0.1", "http://127.0.0.1:{port}", 200),
        ("localhost:{port}", "http://localhost:{port}", 200),
        ("LOCALHOST:{port}", "http://localhost:{port}", 200),
        ("localhost:{port}", "http://other:{port}", 403),
        ("[::1]:{port}", "http://[::1]:{port}", 200),
        ("[::1]:{port}", "http://[::2]:{port}", 403),
        ("192.0.2.7", "https://evil.example", 200),
        ("comfy.invalid", "https://evil.example", 200),
        ("127.0.0.1:abc", "http://127.0.0.1", 500),
        ("127.0.0.1:{port}", "http://127.0.0.1:abc", 500),
    ],
)
async def test_origin_is_checked_on_loopback_hosts_only(comfy: Comfy, host: str, origin: str, status: int) -> None:
    port = _port(comfy)
    headers = {"Host": host.format(port=port), "Origin": origin.format(port=port)}
    assert (await comfy.raw("/prompt", headers=headers)).status == status


async def test_host_without_origin_is_not_checked(comfy: Comfy) -> None:
    assert (await comfy.raw("/prompt", headers={"Host": "evil.example"})).status == 200


async def test_json_has_no_cache_header(comfy: Comfy) -> None:
    for path in ("/prompt", "/object_info/SaveImage", "/history", "/system_stats"):
        assert "Cache-Control" not in (await comfy.get(path)).headers


async def test_image_names_are_public_for_a_day_and_missing_ones_for_an_hour(comfy: Comfy) -> None:
    name = unique() + ".png"
    path = f"/userdata/{name}"
    missing = await comfy.get(path)
    assert (missing.status, missing.headers["Cache-Control"]) == (404, "public, max-age=3600")
    await comfy.post(path, data=b"x")
    assert (await comfy.get(path)).headers["Cache-Control"] == "public, max-age=86400"
    await comfy.call("DELETE", path)


async def test_missing_static_image_is_public(comfy: Comfy) -> None:
    answer = await comfy.get(f"/{unique()}.PNG")
    assert answer.status == 404
    # A static file's 404 is raised, not returned, in some versions of aiohttp: then the header is not set at all.
    assert answer.headers.get("Cache-Control") in ("public, max-age=86400", "public, max-age=3600", None)


@pytest.mark.parametrize("name", ["a.js", "a.css", "index.json", "index.extra.json"])
async def test_scripts_and_indexes_are_not_stored(comfy: Comfy, name: str) -> None:
    path = f"/userdata/{name.replace('a.', unique() + '.')}"
    if name.startswith("index"):
        path = f"/userdata/index{unique()}.json"
    await comfy.post(path, data=b"x")
    assert (await comfy.get(path)).headers["Cache-Control"] == ("no-store" if comfy.is_current else "no-cache")
    await comfy.call("DELETE", path)


async def test_view_has_no_cache_header(comfy: Comfy) -> None:
    folder = unique()
    await comfy.put("a.png", b"x", subfolder=folder)
    assert "Cache-Control" not in (await comfy.view("a.png", subfolder=folder, type="input")).headers


async def test_nothing_is_compressed(comfy: Comfy) -> None:
    answer = await comfy.get("/object_info/KSampler", headers={"Accept-Encoding": "gzip, deflate, br"})
    assert "Content-Encoding" not in answer.headers
