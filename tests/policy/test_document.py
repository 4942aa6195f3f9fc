from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policy.document import MAX_DEPTH, is_deeper, parse_json
from policy.violation import Reason, Violation

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, 2.5, null, true]} ', {"a": [1, 2.5, None, True]}),
        (b'{"a": "b: c"}', {"a": "b: c"}),
        (b'{"a": "\\u003a \\u003A \\\\u003a"}', {"a": ": : \\u003a"}),
        (b'{"\\u003a": 1, ":a": 2}', {":": 1, ":a": 2}),
        (b"18446744073709551615", 2**64 - 1),
        ('{"é": "日本"}'.encode(), {"é": "日本"}),
    ],
)
def test_documents_with_one_meaning_are_read(body: bytes, value: object) -> None:
    assert parse_json(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":1,"b":{"c":[{"d":1,"d":1}]}}',
        b'{"a":1,"a":2,"c":"\\u003a"}',
        b'{"a":":","a":2,"c":"\\u003A\\u003a"}',
        b'{"a":1,"a":"\\u003a"}',
    ],
)
def test_duplicate_keys_are_refused(body: bytes) -> None:
    with pytest.raises(Violation, match="duplicate"):
        parse_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"[-1e999]",
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32-le"),
        '{"é":1}'.encode("latin-1"),
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\x00"',
        b"{'a':1}",
        b"{a:1}",
        b"[1,]",
        b"{} {}",
        b"// c\n{}",
        b"0x10",
        b"01",
        b"\x1f\x8b\x08\x00",
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Violation) as caught:
        parse_json(body)
    assert caught.value.reason is Reason.BODY_MALFORMED


def nest(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_depth_is_bounded() -> None:
    parse_json(nest(MAX_DEPTH))
    for body in (nest(MAX_DEPTH + 1), nest(1025), nest(100_000), b'{"a":' * 300 + b"1" + b"}" * 300):
        with pytest.raises(Violation) as caught:
            parse_json(body)
        assert caught.value.reason is Reason.BODY_MALFORMED


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_lower_depth_can_be_asked_for(limit: int) -> None:
    parse_json(nest(limit), limit)
    parse_json(b"1", limit)
    with pytest.raises(Violation, match="deeply"):
        parse_json(nest(limit + 1), limit)
    with pytest.raises(Violation, match="deeply"):
        parse_json(b'[1,{"a":' + nest(limit) + b"}]", limit)


def test_documents_of_too_many_parts_are_refused() -> None:
    with pytest.raises(Violation, match="parts"):
        parse_json(b"[" + b"1," * 250_001 + b"1]")
    assert len(parse_json(b'"' + b"," * 240_000 + b'"')) == 240_000
    assert len(parse_json(b'"' + b"x" * 300_000 + b'"')) == 300_000


M = 8 << 20


@pytest.mark.parametrize(
    "body",
    [
        nest(100_000),
        b"{" + b'"a":1,' * (M // 6) + b'"b":1}',
        b'{"' + b"a" * M + b'":1',
        b"[" + b"[]," * (M // 3) + b"1]",
        b"[" + (nest(254) + b",") * (M // 509) + b"1]",
        b'"' + b"\\\\" * (M // 2) + b"\\u003a",
        b" " * M + b"x",
        b"[" + b"1" * M + b"]",
    ],
    ids=["nested", "one-key", "long-key", "lists", "deep-lists", "backslashes", "space", "digits"],
)
def test_large_bad_documents_are_refused(body: bytes) -> None:
    """Each is over within milliseconds; python -m bench says how many."""
    with pytest.raises(Violation) as caught:
        parse_json(body)
    assert caught.value.reason is Reason.BODY_MALFORMED


@given(JSON)
@example({"a": ":"})
def test_every_value_survives_and_is_read_as_json_reads_it(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False, indent=2).encode()) == value


@given(JSON, JSON)
def test_a_repeated_key_never_passes(one: object, other: object) -> None:
    body = b'{"k":%s,"k":%s}' % (json.dumps(one).encode(), json.dumps(other).encode())
    with pytest.raises(Violation):
        parse_json(body)


@given(st.binary() | st.text(alphabet='{}[]":,\\u003a1e').map(str.encode))
def test_reading_is_total(body: bytes) -> None:
    try:
        value = parse_json(body)
    except Violation:
        return
    assert value == json.loads(body)


@given(JSON, st.integers(0, 6))
def test_depth_is_that_of_arrays_and_objects(value: object, limit: int) -> None:
    def depth(item: object) -> int:
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else None
        return 0 if inner is None else 1 + max((depth(part) for part in inner), default=0)

    assert is_deeper(value, limit) == (depth(value) > limit)
