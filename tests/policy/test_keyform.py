from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.keyform import MIN_SECRET_LENGTH, NOTHING_PRESENTED, check_document, check_names, find_place, presented
from policy.violation import Reason, Violation

KEY = "cg_0123abcd_" + "A" * 43
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
TOLD = presented([TOKEN, "short"])


def test_short_texts_are_not_searched_for() -> None:
    assert TOLD.texts == {TOKEN}
    assert not TOLD.stands_in("a short text")
    assert presented(["x" * MIN_SECRET_LENGTH]).stands_in("x" * MIN_SECRET_LENGTH)


def test_credentials_do_not_show() -> None:
    assert TOKEN not in repr(TOLD)


@pytest.mark.parametrize("text", ["cg_", "cg_0123abcd_short", "cg_0123abcd_" + "A" * 42, "a cg_ b", ""])
def test_other_texts_pass(text: str) -> None:
    check_names(TOLD, (text,), "in a name")
    raw = orjson.dumps({"a": [text]})
    assert check_document(TOLD, raw) == (raw, ())


@pytest.mark.parametrize("text", [KEY, f"x{KEY}", f"http://key:{KEY}@host/", TOKEN, f"Bearer {TOKEN}"])
def test_names_with_a_credential_are_refused(text: str) -> None:
    with pytest.raises(Violation) as caught:
        check_names(TOLD, ("a", text), "in a name")
    assert (caught.value.reason, caught.value.details) == (Reason.CREDENTIAL_MISPLACED, "found in a name")


PLACES: list[tuple[Any, str]] = [
    ({"prompt": {"6": {"inputs": {"text": f"a {KEY}"}}}}, "found at prompt.6.inputs.text"),
    ({"client_id": KEY}, "found at client_id"),
    ({"a": [1, {"b": TOKEN}]}, "found at a.1.b"),
    ({"extra_data": {"extra_pnginfo": {"workflow": {"x": KEY}}}}, "found at extra_data.extra_pnginfo.workflow.x"),
    ({"extra_data": {"api_key_comfy_org": [KEY]}}, "found at extra_data.api_key_comfy_org.0"),
    ({"extra_data": {KEY: 1}}, "found at extra_data"),
    ({"extra_data": KEY}, "found at extra_data"),
    ({KEY: 1}, "found in the document"),
    ([None, True, 1.5, KEY], "found at 3"),
    (KEY, "found in the document"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "details"), PLACES)
def test_a_credential_is_refused_and_its_place_told(document: Any, details: str) -> None:
    with pytest.raises(Violation) as caught:
        check_document(TOLD, orjson.dumps(document))
    assert (caught.value.reason, caught.value.details) == (Reason.CREDENTIAL_MISPLACED, details)
    for secret in (KEY, TOKEN):
        assert secret not in caught.value.message + caught.value.details


def test_escapes_hide_nothing() -> None:
    escaped = f'{{"a": "\\u0063{KEY[1:]}"}}'.encode()
    assert KEY.encode() not in escaped
    with pytest.raises(Violation, match="key of the gate"):
        check_document(NOTHING_PRESENTED, escaped)


def test_what_is_given_for_another_service_is_left_out() -> None:
    for name in ("api_key_comfy_org", "auth_token_comfy_org"):
        for value in (KEY, TOKEN, f"Bearer {KEY}"):
            raw, left_out = check_document(TOLD, orjson.dumps({"prompt": {}, "extra_data": {name: value, "x": 1}}))
            assert orjson.loads(raw) == {"prompt": {}, "extra_data": {"x": 1}}
            assert left_out == (f"extra_data.{name}",)


def test_the_key_of_another_service_stays() -> None:
    raw = orjson.dumps({"extra_data": {"api_key_comfy_org": "comfyui-1234567890abcdef", "note": "cg_"}})
    assert check_document(TOLD, raw) == (raw, ())


def test_what_is_no_json_is_refused_as_such() -> None:
    with pytest.raises(Violation) as caught:
        check_document(TOLD, b'{"' + KEY.encode())
    assert caught.value.reason is Reason.BODY_MALFORMED
    assert check_document(TOLD, b'{"x') == (b'{"x', ())


def test_nothing_is_found_where_nothing_is() -> None:
    assert find_place(TOLD, {"a": ["b", {"c": None}]}) is None


@pytest.mark.parametrize("told", [TOLD, presented(["pässwörd-of-some-length"]), presented(["世界-of-some-length"])])
def test_an_escaped_credential_is_found_however_few_of_its_letters_are(told: Any) -> None:
    for secret in (KEY, *told.texts):
        for at, letter in enumerate(secret):
            raw = f'{{"a": "{secret[:at]}\\u{ord(letter):04x}{secret[at + 1 :]}"}}'.encode()
            assert told.may_stand_in(raw)
            with pytest.raises(Violation):
                check_document(told, raw)


@pytest.mark.parametrize("sign", ["/", '"', "\\", "\t"])
def test_a_credential_with_a_sign_that_has_an_escape_of_its_own_is_found(sign: str) -> None:
    """RFC 8259, 7. Base64 has slashes, as Basic sends it, and PHP writes them like that."""
    told = presented([f"YWxpY2U6Y2df{sign}of+some+length=="])
    escape = {"/": "\\/", "\t": "\\t"}.get(sign, f"\\{sign}")
    raw = f'{{"a": "x YWxpY2U6Y2df{escape}of+some+length=="}}'.encode()
    assert told.may_stand_in(raw)
    with pytest.raises(Violation):
        check_document(told, raw)


def test_letters_that_a_client_escapes_are_no_reason_to_look() -> None:
    assert not TOLD.may_stand_in(b'{"a": "Gem\\u00e4lde, 95\\u00b0, \\u4e16"}')
    assert TOLD.may_stand_in(b'{"a": "Gem\\u00e4lde \\u0041"}')


def test_a_credential_that_is_no_utf_8_stands_in_no_document() -> None:
    told = presented(["\udcff" * MIN_SECRET_LENGTH])
    assert not told.may_stand_in(b'{"prompt": "a cat"}')
    assert not told.stands_in_json(b'{"prompt": "a cat"}')
