from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.call import ClientReply
from policy.left_out import MAX_TOLD, told, told_unknown

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


def test_members_that_mean_nothing_are_told_by_name() -> None:
    reply = ClientReply(201, {"a": 1})
    assert told_unknown(reply, ()) is reply
    shown = told_unknown(reply, ["priority", "x" * 1000])
    assert [notice["type"] for notice in shown.body["notices"]] == ["member-unknown"] * 2
    assert shown.body["notices"][0]["message"].startswith("`priority` means nothing here")
    assert len(shown.body["notices"][1]["message"]) < 200
    assert len(told_unknown(reply, [*map(str, range(1000))]).body["notices"]) == MAX_TOLD
