from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.call import ClientReply
from policy.left_out import told

FIELD = "extra_data.api_key_comfy_org"


def test_where_nothing_was_left_out_nothing_is_told() -> None:
    reply = ClientReply(body={"a": 1})
    assert told(reply, ()) is reply


@pytest.mark.parametrize("body", [{"a": 1}, b'{"a": 1}'])
def test_what_was_left_out_is_told(body: Any) -> None:
    shown = told(ClientReply(201, body), (FIELD,))
    assert (shown.status, shown.body["a"]) == (201, 1)
    ((notice),) = shown.body["notices"]
    assert notice["type"] == "credential-left-out"
    assert notice["message"].startswith(FIELD)


def test_it_is_told_after_other_notices() -> None:
    shown = told(ClientReply(body={"notices": [{"type": "x"}]}), (FIELD,))
    assert [notice["type"] for notice in shown.body["notices"]] == ["x", "credential-left-out"]


@pytest.mark.parametrize("body", [b"", b"no JSON", orjson.dumps([1])])
def test_an_answer_that_is_no_object_stays_as_it_is(body: bytes) -> None:
    assert told(ClientReply(body=body), (FIELD,)).body == body
