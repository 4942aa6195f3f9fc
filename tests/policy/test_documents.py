"""Documents that are kept: the same JSON comes out, with the number of the moment."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.documents import PACKED_BYTES, Document, Kind, NoDocuments, from_bytes, joined, keep, named

ITEM = [0, "id", {"1": {"class_type": "A", "inputs": {}}}, {}, []]


@pytest.mark.parametrize("size", [10, PACKED_BYTES * 3])
@pytest.mark.parametrize(
    ("kind", "shown", "numbered"),
    [
        (Kind.ITEM, [0, "id"], [7, "id"]),
        (Kind.ENTRY, {"prompt": [0, "id"], "outputs": {}}, {"prompt": [7, "id"], "outputs": {}}),
        (Kind.ROW, {"priority": 0, "id": "id"}, {"priority": 7, "id": "id"}),
        (Kind.JOB, {"priority": 0, "id": "id"}, {"priority": 7, "id": "id"}),
    ],
)
def test_a_document_gets_its_number_when_it_is_shown(kind: Kind, shown: Any, numbered: Any, size: int) -> None:
    text = "é" * size
    for value in (shown, numbered):
        value.append(text) if isinstance(value, list) else value.update(text=text)
    document = keep(kind, shown)
    assert orjson.loads(document.numbered(7)) == numbered
    assert document.size == len(orjson.dumps(shown))
    assert (document.held_bytes < size) is document.is_packed is (size > PACKED_BYTES)
    for value in (shown, numbered):
        value.pop() if isinstance(value, list) else value.pop("text")


def test_lists_and_objects_of_documents() -> None:
    document = keep(Kind.ITEM, ITEM, "id")
    assert orjson.loads(joined([(1, document), (2, document)])) == [[1, *ITEM[1:]], [2, *ITEM[1:]]]
    assert joined([]) == b"[]"
    assert orjson.loads(named([('a"b', 3, document)])) == {'a"b': [3, *ITEM[1:]]}
    assert orjson.loads(document.without_workflow().numbered(4)) == [4, "id", {}, {}, []]


def test_a_document_may_be_written_when_it_is_asked_for() -> None:
    document = keep(Kind.ITEM, ITEM, "id")
    assert document.written() is document
    asked: list[int] = []

    def write() -> Document:
        asked.append(1)
        return document

    unwritten = Document(Kind.ITEM, b"what it is made of", 5, prompt_id="id", write=write)
    assert unwritten.held_bytes == 18
    assert orjson.loads(unwritten.without_workflow().numbered(4)) == [4, "id", {}, {}, []]
    assert not asked
    assert unwritten.written() is document
    assert unwritten.numbered(4) == document.numbered(4)


@pytest.mark.parametrize("text", ["", "z:1z", "é" * PACKED_BYTES])
@pytest.mark.parametrize("kind", [Kind.ENTRY, Kind.ROW])
def test_a_document_comes_from_disk_as_it_was(kind: Kind, text: str) -> None:
    shown = {"prompt": [0, text]} if kind is Kind.ENTRY else {"priority": 0, "id": text}
    document = keep(kind, shown)
    read = from_bytes(kind, document.to_bytes())
    assert read == document
    assert read.numbered(12) == document.numbered(12)


def test_nothing_is_kept_where_nobody_keeps() -> None:
    assert NoDocuments().get(Kind.ITEM, "id") is None
    assert not NoDocuments().has_room(1)
