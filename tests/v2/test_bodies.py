"""That the check of bodies finds what the SDKs do not take: it would be of no use if it took everything."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.v2.bodies import Body, Judges, bodies_of, header_mistakes, kind_of
from tests.v2.conversation import Exchange

TIME = "2026-01-02T03:04:05Z"
OUTPUT: dict[str, Any] = {
    "node_id": "2",
    "name": "a.png",
    "type": "image",
    "content_type": "image/png",
    "size_bytes": 1,
    "id": "i",
    "hash": None,
    "url": "http://127.0.0.1/api/v2/assets/i/content",
    "url_expires_at": TIME,
}
JOB: dict[str, Any] = {
    "id": "j",
    "status": "succeeded",
    "created_at": TIME,
    "started_at": None,
    "completed_at": None,
    "expires_at": TIME,
    "queue_position": None,
    "progress": {"value": 1, "nodes_done": 1, "nodes_total": 1},
    "outputs": [OUTPUT],
    "error": None,
    "urls": {"self": "/api/v2/jobs/j", "events": "/api/v2/jobs/j/events", "cancel": "/api/v2/jobs/j/cancel"},
}
ASSET: dict[str, Any] = {
    "id": "i",
    "hash": "blake3:00",
    "size_bytes": 1,
    "content_type": "image/png",
    "created_at": TIME,
    "url": "http://127.0.0.1/api/v2/assets/i/content",
    "url_expires_at": TIME,
}
PAGE: dict[str, Any] = {"jobs": [{"id": "j", "status": "queued", "create_time": TIME}], "next_cursor": None}
GOOD = {
    "job": JOB,
    "asset": ASSET,
    "page": PAGE,
    "output": OUTPUT,
    "error": {"error": {"code": "not_found", "message": "No", "details": None}},
    "workflow": {"workflow": {}, "format": "api"},
    "status": {"status": "queued", "queue_position": 1},
    "progress": {"value": 0.5, "nodes_done": 0, "nodes_total": 2},
    "preview": {"node_id": "1", "content_type": "image/jpeg", "data_base64": ""},
}
# kind, the change, how many judges refuse it: both, or one of them alone
BAD: list[tuple[str, dict[str, Any], int]] = [
    ("job", {"created_at": "2026-01-02T03:04:05"}, 2),
    ("job", {"created_at": "2026-01-02T03:04:05+00:00"}, 1),
    ("job", {"status": "cancelled"}, 2),
    ("job", {"metrics": None}, 1),
    ("job", {"metrics": {"execution_ms": 1.5}}, 2),
    ("job", {"outputs": [OUTPUT | {"type": "3d"}]}, 2),
    ("job", {"outputs": [OUTPUT | {"url": "/api/v2/assets/i/content"}]}, 2),
    ("job", {"queue_position": ...}, 2),
    ("asset", {"created_new": None}, 1),
    ("asset", {"hash": ...}, 2),
    ("page", {"next_cursor": 5}, 1),
    ("page", {"jobs": [{"id": "j", "status": "queued", "created_at": TIME}]}, 1),
    ("error", {"error": {"message": "No"}}, 2),
    ("error", {"error": {"code": "a", "message": "No", "details": "text"}}, 2),
    ("status", {"status": "cancelled"}, 1),
    ("progress", {"value": 1.5}, 2),
    ("progress", {"message": "a\u2028b"}, 1),
    ("preview", {"data_base64": ...}, 1),
    ("workflow", {"format": "ui"}, 2),
]


def changed(kind: str, change: dict[str, Any]) -> str:
    whole = {**GOOD[kind], **change}
    return orjson.dumps({name: value for name, value in whole.items() if value is not ...}).decode()


def test_good_bodies_are_taken(judges: Judges) -> None:
    assert judges.mistakes_in([Body(kind, orjson.dumps(value).decode(), "") for kind, value in GOOD.items()]) == []


def test_each_mistake_is_found(judges: Judges) -> None:
    bodies = [Body(kind, changed(kind, change), f"<{n}>") for n, (kind, change, _) in enumerate(BAD)]
    found = judges.mistakes_in(bodies)
    counts = [sum(each.startswith(f"<{n}>") for each in found) for n in range(len(BAD))]
    assert counts == [count for *_, count in BAD]


def answered(method: str, path: str, status: int, body: bytes, **headers: str) -> Exchange:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange(method, path, {}, b"", status, names, body, is_whole=True)


@pytest.mark.parametrize(
    ("method", "path", "status", "kinds"),
    [
        ("POST", "/api/v2/jobs", 201, ["job"]),
        ("GET", "/prefix/api/v2/jobs/1", 200, ["job"]),
        ("GET", "/api/v2/jobs?limit=5", 200, ["page"]),
        ("GET", "/api/v2/jobs/1/workflow", 200, ["workflow"]),
        ("POST", "/api/v2/assets/from-hash", 201, ["asset"]),
        ("HEAD", "/api/v2/assets/by-hash/blake3:0", 404, []),
        ("DELETE", "/api/v2/assets/1", 204, []),
        ("GET", "/api/v2/assets/1/content", 200, []),
        ("GET", "/api/v2/assets/1/content", 404, ["error"]),
        ("GET", "/api/v2/health", 200, [""]),
        ("GET", "/queue", 200, []),
    ],
)
def test_an_answer_has_the_kind_of_its_operation(method: str, path: str, status: int, kinds: list[str]) -> None:
    exchange = answered(method, path, status, b"{}")
    assert [body.kind for body in bodies_of([exchange])] == kinds
    if kinds and status < 400:
        assert kind_of(exchange) == kinds[0]


def test_the_frames_of_a_stream_are_bodies_of_their_own() -> None:
    body = b'event: status\ndata: {"status":"queued"}\n\nevent: output\ndata: {}\n\n'
    stream = answered("GET", "/api/v2/jobs/1/events", 200, body, content_type="text/event-stream")
    assert [(each.kind, each.text) for each in bodies_of([stream])] == [
        ("status", '{"status":"queued"}'),
        ("output", "{}"),
    ]


def test_what_is_no_json_is_a_mistake_and_the_judges_go_on(judges: Judges) -> None:
    for text in ("<html>", "", "null", "[]"):
        assert len(judges.mistakes_in([Body("job", text, "")])) == 2
    assert judges.mistakes_in([Body("job", changed("job", {}), "")]) == []


def test_an_answer_of_no_operation_is_a_mistake(judges: Judges) -> None:
    assert len(judges.mistakes_in([Body("", "{}", "GET /api/v2/health")])) == 1


def test_headers_are_held_against_the_contract() -> None:
    named = {"x_comfy_request_id": "r"}
    good = [
        answered("GET", "/api/v2/jobs/1", 200, b"", **named),
        answered("GET", "/api/v2/jobs/1", 429, b"", content_type="application/json", retry_after="5", **named),
        answered("GET", "/queue", 200, b""),
    ]
    stream = {"content_type": "text/event-stream", **named}
    bad = [
        answered("GET", "/api/v2/jobs/1", 200, b""),
        answered("GET", "/api/v2/jobs/1", 429, b"", content_type="application/json", **named),
        answered("GET", "/api/v2/jobs/1", 404, b"", content_type="text/plain", **named),
        answered("GET", "/api/v2/jobs/1/events", 200, b"", **stream),
        answered("GET", "/api/v2/jobs/1/events", 200, b"", cache_control="no-store", content_encoding="br", **stream),
    ]
    assert header_mistakes(good) == []
    assert len(header_mistakes(bad)) == len(bad)
