"""A HEAD answers with the head of its GET (RFC 9110, 9.3.2), also where the gate makes the answer or rewrites it."""

from __future__ import annotations

import pytest

from tests.harness import Running

PATHS = [
    "/prompt",
    "/queue",
    "/history",
    "/api/jobs",
    "/system_stats",
    "/features",
    "/models",
    "/models/checkpoints",
    "/experiment/models",
    "/internal/files/input",
    "/internal/folder_paths",
    "/object_info",
    "/object_info/SaveImage",
    "/settings",
    "/users",
    "/embeddings",
    "/extensions",
    "/gate/me",
    "/gate/login",
]


@pytest.mark.parametrize("path", PATHS)
async def test_the_length_is_that_of_the_get(gate: Running, path: str) -> None:
    heads = {}
    for method in ("GET", "HEAD"):
        async with gate.call(method, path, "alice", headers={"Accept-Encoding": "identity"}) as answer:
            body = await answer.read()
            heads[method] = (answer.status, answer.headers.get("Content-Type"), answer.headers.get("Content-Length"))
            if method == "GET":
                assert answer.headers.get("Content-Length") == str(len(body))
            else:
                assert body == b""
    assert heads["HEAD"] == heads["GET"]
