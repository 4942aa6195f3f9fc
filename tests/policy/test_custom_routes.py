"""What may be said of a route of a custom node, and what of it is a mistake."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from policy.custom_routes import Kind, RouteSettings
from tests.policy.custom_rows import row

ID = {"inputs": ["Load.id"]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "/p", "kind": "static", "methods": ["POST"]}, "kind static has GET, not POST"),
        ({"path": "/p", "kind": "own-job", "methods": ["GET"]}, "kind own-job has POST, not GET"),
        ({"path": "/p/{id}", "kind": "own-id", "methods": ["DELETE"], **ID}, "kind own-id has GET or PUT, not DELETE"),
        ({"path": "/p", "kind": "static", "methods": []}, "at least 1"),
        ({"path": "/p", "kind": "static", "methods": ["GET", "GET"]}, "named twice"),
        ({"path": "/p", "kind": "static", "methods": ["HEAD"]}, "HEAD comes with GET"),
        ({"path": "/p", "kind": "static", "methods": ["get"]}, 'in capitals: "GET"'),
        ({"path": "/p", "kind": "admin", "methods": ["BREW"]}, "'GET', 'POST'"),
        ({"path": "/p", "kind": "public", "methods": ["GET"]}, "'static', 'shared-read'"),
        ({"path": "p", "kind": "static", "methods": ["GET"]}, "from the root"),
        ({"path": "/p/*", "kind": "static", "methods": ["GET"]}, "{name...}"),
        ({"path": "/p", "kind": "static", "methods": ["GET"], "glob": True}, "Extra inputs"),
        (
            {"path": "/p", "kind": "shared-read", "methods": ["GET"], "query": ["a"]},
            "query is for routes of kind static",
        ),
        (
            {"path": "/p", "kind": "static", "methods": ["GET"], "heavy": True},
            "heavy is for routes of kind shared-read or",
        ),
        ({"path": "/p", "kind": "own-id", "methods": ["GET"], **ID}, "one {id}"),
        ({"path": "/p/{id}", "kind": "own-id", "methods": ["GET"]}, "one {id}"),
        ({"path": "/p/{id...}", "kind": "own-id", "methods": ["GET"], **ID}, "one {id}"),
        ({"path": "/p/{id}", "kind": "own-id", "methods": ["GET"], "inputs": ["id"]}, '"LoadFromCache.id"'),
        ({"path": "/p", "kind": "own-job", "methods": ["POST"]}, 'classes = ["Chooser"]'),
        ({"path": "/p", "kind": "own-job", "methods": ["POST"], "classes": ["C"], "document": "x"}, 'body = "form"'),
        ({"path": "/p", "kind": "admin", "methods": ["GET"], "instead": "[]"}, "instead is for routes of kind never"),
        ({"path": "/p", "kind": "static", "methods": ["GET"], "note": "x" * 201}, "at most 200"),
    ],
)
def test_a_mistake_is_told(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        RouteSettings.model_validate(given)
    assert words in str(refused.value)


def test_the_first_segment_says_whose_a_route_is() -> None:
    assert row("/pack/list", "static").first == "pack"
    assert row("/api/pack/list", "static").first == "pack"


def test_a_route_stands_twice_unless_it_is_said_that_comfyui_serves_it_once() -> None:
    assert row("/pack/a", "static").patterns == (("pack", "a"), ("api", "pack", "a"))
    assert row("/pack/a", "static", doubled=False).patterns == (("pack", "a"),)


def test_every_kind_may_be_named() -> None:
    made = {
        row("/p", "static").kind,
        row("/p", "shared-read").kind,
        row("/p", "own-file").kind,
        row("/p/{id}", "own-id", "GET", "PUT", **ID).kind,
        row("/p", "own-job", "POST", classes=["C"]).kind,
        row("/p", "admin", "GET", "POST", "PUT", "PATCH", "DELETE").kind,
        row("/p", "never", "DELETE").kind,
    }
    assert made == set(Kind)
