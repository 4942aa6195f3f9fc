"""A.0: how paths are matched, which routes exist twice, and what errors look like."""

from __future__ import annotations

import io

import pytest

from .driver import Comfy, unique

TWICE = ("/prompt", "/queue", "/history", "/object_info/SaveImage", "/users", "/settings", "/models", "/features")
NEW_TWICE = ("/api/jobs", "/node_replacements", "/global_subgraphs")
ONCE = ("/internal/folder_paths", "/internal/logs", "/internal/files/input")


@pytest.mark.parametrize("path", TWICE)
async def test_route_exists_with_and_without_api_prefix(comfy: Comfy, path: str) -> None:
    assert (await comfy.get(path)).status == 200
    assert (await comfy.get(f"/api{path}")).status == 200


@pytest.mark.parametrize("path", NEW_TWICE)
async def test_newer_route_is_doubled_too(comfy: Comfy, path: str) -> None:
    expected = 200 if comfy.is_current else 404
    assert (await comfy.get(path)).status == expected
    assert (await comfy.get(f"/api{path}")).status == expected


async def test_jobs_without_prefix_does_not_exist(comfy: Comfy) -> None:
    assert (await comfy.get("/jobs")).status == 404


@pytest.mark.parametrize("path", ONCE)
async def test_internal_route_is_not_doubled(comfy: Comfy, path: str) -> None:
    assert (await comfy.get(path)).status == 200
    assert (await comfy.get(f"/api{path}")).status == 404


async def test_index_page_exists_under_both_roots(comfy: Comfy) -> None:
    root, api = await comfy.get("/"), await comfy.get("/api/")
    assert root.status == api.status == 200
    assert root.body == api.body
    assert root.headers["Content-Type"] == "text/html"
    assert "no-store" in root.headers["Cache-Control"] or not comfy.is_current


@pytest.mark.parametrize("path", ["/%70rompt", "/internal/%6cogs", "/api/%70rompt"])
async def test_percent_encoded_letter_matches(comfy: Comfy, path: str) -> None:
    assert (await comfy.raw(path)).status == 200


@pytest.mark.parametrize("path", ["//prompt", "/prompt/", "/PROMPT", "/./prompt", "/api/../prompt", "/prompt;x"])
async def test_spelling_that_does_not_match_is_not_found(comfy: Comfy, path: str) -> None:
    assert (await comfy.raw(path)).status in (403, 404)


async def test_absolute_form_target_matches(comfy: Comfy) -> None:
    assert (await comfy.raw(f"{comfy.url}/prompt")).status == 200


async def test_encoded_slash_is_data_and_real_slash_is_not(comfy: Comfy) -> None:
    name = unique()
    assert (await comfy.post(f"/userdata/{name}%2Fa.json", data=b"{}")).status == 200
    assert (await comfy.get(f"/userdata/{name}%2Fa.json")).status == 200
    assert (await comfy.get(f"/userdata/{name}/a.json")).status == 404
    assert (await comfy.post(f"/userdata/{name}/a.json", data=b"{}")).status == 405
    await comfy.call("DELETE", f"/userdata/{name}%2Fa.json")


@pytest.mark.parametrize("path", ["/prompt", "/object_info/SaveImage", "/"])
async def test_head_answers_like_get_without_body(comfy: Comfy, path: str) -> None:
    answer = await comfy.call("HEAD", path)
    assert answer.status == 200
    assert answer.body == b""
    assert answer.headers["Content-Type"] == (await comfy.get(path)).headers["Content-Type"]


@pytest.mark.parametrize("path", ["/prompt", "/no/such/path", "/api/queue"])
async def test_options_is_empty_200_everywhere(comfy: Comfy, path: str) -> None:
    answer = await comfy.call("OPTIONS", path)
    assert (answer.status, answer.body) == (200, b"")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_unknown_path_is_404_and_other_methods_are_405(comfy: Comfy) -> None:
    assert (await comfy.get(f"/{unique()}")).status == 404
    assert (await comfy.post(f"/{unique()}")).status == 405
    assert (await comfy.call("DELETE", "/prompt")).status == 405


async def test_uncaught_error_is_plain_text_500(comfy: Comfy) -> None:
    answer = await comfy.post("/prompt", data=b"not json")
    assert answer.status == 500
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.text() == "500 Internal Server Error\n\nServer got itself in trouble"


async def test_server_header_names_versions(comfy: Comfy) -> None:
    assert (await comfy.get("/prompt")).headers["Server"].startswith("Python/3.")


async def test_first_of_repeated_query_keys_wins(comfy: Comfy) -> None:
    name = unique() + ".txt"
    await comfy.put(name, b"first", type="input")
    answer = await comfy.get(f"/view?filename={name}&filename=other.txt&type=input&type=output")
    assert (answer.status, answer.body) == (200, b"first")


async def test_body_over_the_limit_is_413(local: Comfy) -> None:
    # Not sent to a real server: it spools a hundred megabytes for nothing that the stand-in does not show.
    answer = await local.post("/userdata/big.bin", data=io.BytesIO(bytes(100 * 1024 * 1024 + 1)))
    assert answer.status == 413


async def test_api_calls_of_assets_are_switched_off(comfy: Comfy) -> None:
    if not comfy.is_current:
        assert (await comfy.get("/api/assets")).status == 404
        return
    calls = [("GET", "/api/assets"), ("POST", "/api/assets"), ("GET", "/api/tags"), ("POST", "/api/assets/seed")]
    calls += [("GET", "/api/assets/0d6a3b1e-0000-4000-8000-000000000000"), ("POST", "/api/assets/from-hash")]
    for method, path in calls:
        answer = await comfy.call(method, path)
        assert answer.status == 503
        assert answer.json()["error"]["code"] == "SERVICE_DISABLED"
    assert (await comfy.get("/assets")).status in (403, 404)


async def test_websocket_upgrade_exists_under_both_paths(comfy: Comfy) -> None:
    for path in ("/ws", "/api/ws"):
        async with comfy.socket(path=path) as socket:
            assert socket.seen[0]["type"] == "status"
