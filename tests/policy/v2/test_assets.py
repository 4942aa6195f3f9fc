"""Assets as clients see them, and what stands for them in a workflow."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.document import MAX_DEPTH
from policy.namespace import Folder
from policy.v2.assets import (
    MAX_REFERENCES,
    REFERENCE,
    CopiedForm,
    SignedLink,
    asset_to_client,
    find_references,
    is_reference,
    may_have_references,
    name_in_workflow,
    output_to_client,
    resolve,
)
from policy.violation import Reason
from tests.policy.tenants import refusal, uuid_of
from tests.policy.v2.examples import ASSET, HASH, JOB, LINKS, output, reference, upload

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
KEYS = st.text(max_size=5) | st.sampled_from(["__type", "info", "id", "inputs"])
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
REFERENCES = st.integers(1, 5).map(lambda number: reference(uuid_of(number)))
MIXED = st.recursive(
    SCALARS | REFERENCES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
NAMES = {uuid_of(number): f"file {number}.png" for number in range(1, 6)}


def is_missing(function: Any, *arguments: Any) -> bool:
    return refusal(function, *arguments).reason is Reason.MISSING_ASSET


def graph(value: Any) -> dict[str, Any]:
    return {"1": {"class_type": "LoadImage", "inputs": {"image": value}}, "2": {"class_type": "X", "inputs": {}}}


def nested(value: Any, levels: int) -> Any:
    for level in range(levels):
        value = [value] if level % 2 else {"x": value}
    return value


def naive(value: Any) -> Any:
    """Resolved in the shortest way that there is."""
    if isinstance(value, dict) and value.get("__type") == "core/ASSET":
        return NAMES[value["info"]["id"]]
    if isinstance(value, dict):
        return {key: naive(inner) for key, inner in value.items()}
    return [naive(inner) for inner in value] if isinstance(value, list) else value


def test_an_upload_is_shown_as_the_contract_has_it() -> None:
    assert asset_to_client(upload(expires_at_s=2000.0, tags=("b", "a")), LINKS, 5000.0, is_new=True) == {
        "id": ASSET,
        "hash": HASH,
        "size_bytes": 12,
        "content_type": "image/png",
        "file_path": "photo.png",
        "created_at": "1970-01-01T00:16:40.500Z",
        "expires_at": "1970-01-01T00:33:20.000Z",
        "url": f"https://gate.example/p/api/v2/assets/{ASSET}/content",
        "url_expires_at": "1970-01-01T01:23:20.000Z",
        "job_id": None,
        "tags": ["b", "a"],
        "created_new": True,
    }


def test_whether_bytes_are_new_is_told_where_it_is_known() -> None:
    assert asset_to_client(upload(), LINKS, 0.0, is_new=False)["created_new"] is False
    assert "created_new" not in asset_to_client(upload(), LINKS, 0.0)
    shown = asset_to_client(output(hash=None), LINKS, 0.0)
    assert (shown["hash"], shown["expires_at"], shown["job_id"]) == (None, None, JOB)


def test_where_a_file_lies_is_nobodys_business() -> None:
    for shown in (asset_to_client(upload(), LINKS, 0.0), output_to_client(output(), LINKS, 0.0)):
        assert "sub/" not in str(shown)
        assert "out/" not in str(shown)


def test_an_output_is_shown_as_the_contract_has_it() -> None:
    assert output_to_client(output(), LINKS, 5000.0) == {
        "id": uuid_of(200),
        "node_id": "9",
        "name": "x_00001_.png",
        "type": "image",
        "content_type": "image/png",
        "size_bytes": 34,
        "hash": None,
        "url": f"https://gate.example/p/api/v2/assets/{uuid_of(200)}/content",
        "url_expires_at": "1970-01-01T01:23:20.000Z",
        "job_id": JOB,
    }


def test_copies_stand_beside_an_output_where_there_are_some() -> None:
    bare, link = output_to_client(output(), LINKS, 5000.0), SignedLink("https://bucket.example.com/x", 5.0)
    form = CopiedForm("x_00001_.webp", "image/webp", 12, "blake3:0", link)
    told = {"url": "https://bucket.example.com/x", "expires_at": "1970-01-01T00:00:05.000Z"}
    shown = output_to_client(output(link=link, forms=(form,)), LINKS, 5000.0)
    assert shown == bare | {
        "link": told,
        "forms": [
            {"name": "x_00001_.webp", "content_type": "image/webp", "size_bytes": 12, "hash": "blake3:0", "link": told}
        ],
    }
    assert output_to_client(output(link=link), LINKS, 5000.0) == bare | {"link": told}


@pytest.mark.parametrize(
    ("folder", "name"),
    [(Folder.INPUT, "a/b.png"), (Folder.OUTPUT, "a/b.png [output]"), (Folder.TEMP, "a/b.png [temp]")],
)
def test_a_file_is_named_as_comfyuis_loaders_read_it(folder: Folder, name: str) -> None:
    assert name_in_workflow(upload(folder=folder, path="a/b.png")) == name


def test_a_text_is_no_file() -> None:
    assert is_missing(name_in_workflow, upload(folder=None, path=""))


@pytest.mark.parametrize("value", [None, "core/ASSET", [], {}, {"__type": "core/MODEL"}, {"type": "core/ASSET"}])
def test_other_values_stand_for_themselves(value: Any) -> None:
    assert not is_reference(value)
    assert find_references(graph(value)) == []


@given(MIXED)
def test_assets_are_found_wherever_they_stand_and_replaced_there(value: Any) -> None:
    workflow = graph(value)
    before = copy.deepcopy(workflow)
    found = find_references(workflow)
    assert len(found) == len(set(found))
    assert resolve(workflow, NAMES) == graph(naive(value))
    assert workflow == before, "what was sent is kept"
    assert find_references(resolve(workflow, NAMES)) == []


@given(PLAIN, st.dictionaries(st.text(max_size=3), PLAIN, max_size=3))
def test_a_workflow_without_assets_is_never_changed(value: Any, workflow: dict[str, Any]) -> None:
    for each in (graph(value), workflow, value):
        assert find_references(each) == []
        assert resolve(each, {}) == each


@pytest.mark.parametrize("levels", [0, 1, 63, 64, 65, MAX_DEPTH - 4])
def test_an_asset_may_stand_as_deep_as_a_document_goes(levels: int) -> None:
    """What the gate reads of a document is all looked at: nothing passes to ComfyUI as an object that nobody has replaced."""
    workflow = graph(nested(reference(uuid_of(1)), levels))
    assert find_references(workflow) == [uuid_of(1)]
    assert resolve(workflow, NAMES) == graph(nested(NAMES[uuid_of(1)], levels))


@pytest.mark.parametrize("spell", [r"\/", r"\u002f", r"\u002F"])
def test_a_reference_is_looked_for_however_it_is_escaped(spell: str) -> None:
    written = REFERENCE.replace("/", spell)
    assert may_have_references(f'{{"__type":"{written}"}}'.encode())
    for at, letter in enumerate(REFERENCE):
        for code in (f"\\u{ord(letter):04x}", f"\\u{ord(letter):04X}"):
            raw = f'{{"__type":"{REFERENCE[:at]}{code}{REFERENCE[at + 1 :]}"}}'.encode()
            assert orjson.loads(raw) == {"__type": REFERENCE}
            assert may_have_references(raw)
    assert not may_have_references(b'{"a":"asset \\u00e4"}')


def test_each_asset_is_asked_for_once() -> None:
    workflow = graph([reference(uuid_of(2)), reference(uuid_of(1)), reference(uuid_of(2))])
    assert find_references(workflow) == [uuid_of(2), uuid_of(1)]


def test_only_a_nodes_inputs_name_assets() -> None:
    outside: list[Any] = [
        *({"1": reference()}, {"1": {"_meta": reference(), "inputs": {}}}, {"1": {"inputs": [reference()]}}),
        *([reference()], "text", None, 7, {"1": None}, {"1": {"inputs": None}}, {"1": {"class_type": reference()}}),
    ]
    for workflow in outside:
        assert find_references(workflow) == []
        assert resolve(workflow, {}) == workflow


@pytest.mark.parametrize(
    "malformed",
    [
        {"__type": "core/ASSET"},
        *(reference(info=info) for info in (None, "id", [ASSET], {}, {"hash": HASH}, {"file_path": "photo.png"})),
        *(reference(asset_id) for asset_id in (None, 1, True, "", [ASSET], {"id": ASSET})),
        *(reference(asset_id) for asset_id in ("a\x00b", "a/b", "x" * 65, "\u0661", "a\n", "\ud800")),
    ],
)
def test_a_malformed_one_is_a_missing_one(malformed: dict[str, Any]) -> None:
    assert is_missing(find_references, graph(malformed))
    assert is_missing(resolve, graph(malformed), NAMES)


def test_one_that_is_not_the_tenants_is_missing_and_named() -> None:
    violation = refusal(resolve, graph(reference("x" * 64)), NAMES)
    assert (violation.reason, violation.details) == (Reason.MISSING_ASSET, "x" * 64)
    assert "upload the file" in violation.message


def test_a_workflow_names_so_many_and_no_more() -> None:
    assert len(find_references(graph([reference(uuid_of(number)) for number in range(MAX_REFERENCES)]))) == 1000
    assert is_missing(find_references, graph([reference(uuid_of(number)) for number in range(MAX_REFERENCES + 1)]))
