from __future__ import annotations

import json
from typing import Any

import pytest

from policy.call import ClientReply, UpstreamReply
from policy.rule_context import RuleInput
from policy.rules import settings as rules
from policy.rules.jobs import EMPTY
from policy.rules.settings import MAX_SETTINGS_BYTES
from policy.violation import Reason
from tests.policy.tenants import caller_of, drive, is_refused, refusal, reply_of, request_of, sent

FILE = "/userdata/tenants%2Falice%2Fcomfy.settings.json"
MISSING = UpstreamReply(404, None, b"")
BROKEN = UpstreamReply(500, None, b"broken", "text/plain")
TOLD_BROKEN = ClientReply(500, b"broken", "text/plain")


def ask(document: Any = None, setting: str = "Comfy.A") -> RuleInput:
    raw = json.dumps(document).encode()
    return request_of(caller_of("alice"), document=document, parameters={"id": setting}, raw=raw)


@pytest.mark.parametrize(
    ("reply", "settings"),
    [(reply_of({"Comfy.A": 1}), {"Comfy.A": 1}), (MISSING, {}), (reply_of([1]), {}), (UpstreamReply(200, None, b"not JSON"), {})],
)  # fmt: skip
def test_settings_are_read_from_the_tenants_file(reply: UpstreamReply, settings: dict[str, Any]) -> None:
    steps, answer = drive(rules.get_all(ask()), reply)
    assert [(step.method, step.target) for step in steps] == [("GET", FILE)]
    assert answer == ClientReply(body=settings)


@pytest.mark.parametrize(
    ("setting", "body"), [("Comfy.A", b"1"), ("Comfy.B", b"null"), ("Comfy.C", b'"text"'), ("Comfy.D", b"false"), ("none", b"null")]
)  # fmt: skip
def test_one_setting_is_its_value_or_null(setting: str, body: bytes) -> None:
    settings = {"Comfy.A": 1, "Comfy.B": None, "Comfy.C": "text", "Comfy.D": False}
    assert drive(rules.get_one(ask(setting=setting)), reply_of(settings))[1] == ClientReply(body=body)


def test_settings_are_merged() -> None:
    steps, answer = drive(rules.set_all(ask({"b": 2, "c": 3})), reply_of({"a": 1, "b": 1}), reply_of("path"))
    assert [(step.method, step.target) for step in steps] == [("GET", FILE), ("POST", FILE)]
    assert sent(steps[1]) == {"a": 1, "b": 2, "c": 3}
    assert steps[1].content_type == "application/json"
    assert answer == EMPTY


@pytest.mark.parametrize("value", [5, None, False, "text", [1], {"a": 1}])
def test_one_setting_takes_any_value(value: Any) -> None:
    steps, answer = drive(rules.set_one(ask(value)), MISSING, reply_of("path"))
    assert sent(steps[1]) == {"Comfy.A": value}
    assert answer == EMPTY


def test_one_setting_is_not_set_to_nothing() -> None:
    request = request_of(caller_of("alice"), parameters={"id": "Comfy.A"})
    assert is_refused(lambda asked: drive(rules.set_one(asked)), request, reason=Reason.BODY_MALFORMED)


@pytest.mark.parametrize("document", [None, [], "x", 5])
def test_settings_are_an_object(document: Any) -> None:
    assert is_refused(rules.set_all, ask(document), reason=Reason.BODY_MALFORMED)


def test_settings_are_bounded() -> None:
    def change() -> Any:
        return drive(rules.set_one(ask("x" * MAX_SETTINGS_BYTES)), reply_of({"a": 1}))

    assert refusal(change).reason is Reason.BODY_TOO_LARGE
    kept = {"Comfy.A": "x" * (MAX_SETTINGS_BYTES - len(json.dumps({"Comfy.A": ""}, indent=4)))}
    assert drive(rules.set_all(ask(kept)), MISSING, reply_of("path"))[1] == EMPTY


def test_failures_of_comfyui_are_told_and_lose_nothing() -> None:
    for dialogue in (rules.get_all(ask()), rules.get_one(ask()), rules.set_all(ask({})), rules.set_one(ask(1))):
        assert drive(dialogue, BROKEN)[1] == TOLD_BROKEN
    assert drive(rules.set_one(ask(1)), MISSING, BROKEN)[1] == TOLD_BROKEN
