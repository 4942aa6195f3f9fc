"""A job's row and its whole, from its entry in the history or its item in the queue (comfy_execution/jobs.py)."""

from __future__ import annotations

from typing import Any

import pytest

from policy.documents import Kind, keep
from policy.job_rows import detail_of_entry, row_of_entry, row_of_item

ID = "6f0f7f3c-0000-4000-8000-000000000001"
GRAPH = {"1": {"class_type": "A", "inputs": {}}}
EXTRA = {"create_time": 1700000000000, "extra_pnginfo": {"workflow": {"id": "wf"}}, "client_id": "c"}
START = ["execution_start", {"prompt_id": ID, "timestamp": 10}]
CACHED = ["execution_cached", {"nodes": [], "prompt_id": ID, "timestamp": 11}]
SUCCESS = ["execution_success", {"prompt_id": ID, "timestamp": 20}]
ERROR = ["execution_error", {"prompt_id": ID, "node_id": "1", "exception_message": "no", "timestamp": 21}]
INTERRUPTED = ["execution_interrupted", {"prompt_id": ID, "node_id": "1", "timestamp": 22}]
SAVED = {"filename": "a.png", "subfolder": "", "type": "output"}
SHOWN = {"filename": "b.png", "subfolder": "", "type": "temp"}
NOTES = {"filename": "notes.TXT", "subfolder": "", "type": "output"}
MODEL = {"filename": "m.GLB", "type": "output", "subfolder": "", "mediaType": "3d"}


def entry_of(outputs: Any = None, status: Any = ..., extra: Any = EXTRA) -> dict[str, Any]:
    if status is ...:
        status = {"status_str": "success", "completed": True, "messages": [START, CACHED, SUCCESS]}
    return {"prompt": [7, ID, GRAPH, extra, ["1"]], "outputs": {} if outputs is None else outputs, "status": status}


def preview_of(outputs: Any) -> Any:
    return row_of_entry(entry_of(outputs), ID).get("preview_output")


def test_a_job_that_waits_or_runs() -> None:
    row = row_of_item([7, ID, GRAPH, EXTRA, ["1"]], "pending")
    assert row == {
        "priority": 7,
        "id": ID,
        "status": "pending",
        "create_time": 1700000000000,
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "workflow_id": "wf",
    }
    assert row_of_item([7, ID, GRAPH, EXTRA, []], "in_progress") == row | {"status": "in_progress"}


def test_a_job_that_ended_well() -> None:
    row = row_of_entry(entry_of({"1": {"images": [SAVED]}}), ID)
    assert row == {
        "priority": 7,
        "id": ID,
        "status": "completed",
        "create_time": 1700000000000,
        "execution_start_time": 10,
        "execution_end_time": 20,
        "outputs_count": 1,
        "previewable_outputs_count": 1,
        "preview_output": SAVED | {"nodeId": "1", "mediaType": "images"},
        "workflow_id": "wf",
    }


def test_the_whole_of_a_job() -> None:
    entry = entry_of({"1": {"images": [SAVED, None], "animated": [False]}, "2": {"3d": ["m.GLB", "x"]}, "3": "odd"})
    assert detail_of_entry(entry, ID) == row_of_entry(entry, ID) | {
        "outputs": {"1": {"images": [SAVED], "animated": [False]}, "2": {"3d": [MODEL, "x"]}, "3": "odd"},
        "execution_status": entry["status"],
        "workflow": {"prompt": GRAPH, "extra_data": EXTRA},
    }


@pytest.mark.parametrize(
    ("status", "expected", "end", "error"),
    [
        ({"status_str": "success", "messages": [START, SUCCESS]}, "completed", 20, None),
        ({"status_str": "error", "messages": [START, ERROR]}, "failed", 21, ERROR[1]),
        ({"status_str": "error", "messages": [START, INTERRUPTED]}, "cancelled", 22, None),
        ({"status_str": "error", "messages": [INTERRUPTED, ERROR]}, "cancelled", 21, ERROR[1]),
        ({"status_str": "error", "messages": []}, "failed", None, None),
        ({"messages": [START]}, "completed", None, None),
        (None, "completed", None, None),
        ({"status_str": "error", "messages": None}, "failed", None, None),
        ({"status_str": "error", "messages": ["x", ["execution_error"], ["execution_error", 5], [5, {}]]}, "failed", None, None),
        ({"status_str": "error", "messages": [["execution_error", {}, 1]]}, "failed", None, {}),
    ],
)  # fmt: skip
def test_how_a_job_ended(status: Any, expected: str, end: int | None, error: Any) -> None:
    row = row_of_entry(entry_of(status=status), ID)
    assert (row["status"], row.get("execution_end_time"), row.get("execution_error")) == (expected, end, error)
    assert ("execution_error" in row) is (error is not None)


@pytest.mark.parametrize("extra", [{}, None, {"extra_pnginfo": None}, {"extra_pnginfo": {"workflow": []}}])
def test_what_is_not_known_is_not_named(extra: Any) -> None:
    for row in (row_of_item([7, ID, GRAPH, extra, []], "pending"), row_of_entry(entry_of(extra=extra), ID)):
        assert not {"workflow_id", "create_time"} & set(row)
    assert "preview_output" not in row_of_entry(entry_of(), ID)


@pytest.mark.parametrize(
    ("outputs", "count", "previewed"),
    [
        ({}, 0, 0),
        (None, 0, 0),
        ([], 0, 0),
        ({"1": []}, 0, 0),
        ({"1": {"images": [SAVED, SHOWN]}, "2": {"images": [SAVED]}}, 3, 3),
        ({"1": {"images": [SAVED], "animated": [True]}}, 1, 1),
        ({"1": {"latents": [{"filename": "x.latent"}]}}, 1, 0),
        ({"1": {"files": [NOTES, MODEL, {"filename": "x.bin", "format": "video/h264-mp4"}]}}, 3, 3),
        ({"1": {"files": [{"filename": 5, "format": 5}, {"format": None}, {}]}}, 3, 0),
        ({"1": {"files": ["m.glb", "m.png", None, 5]}}, 1, 1),
        ({"1": {"text": ["hello", MODEL]}}, 1, 1),
        ({"1": {"images": "a.png"}}, 0, 0),
    ],
)
def test_what_counts_as_an_output(outputs: Any, count: int, previewed: int) -> None:
    row = row_of_entry(entry_of(outputs), ID)
    assert (row["outputs_count"], row["previewable_outputs_count"]) == (count, previewed)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"1": {"images": [SHOWN]}, "2": {"images": [SAVED]}}, SAVED | {"nodeId": "2", "mediaType": "images"}),
        ({"1": {"files": [NOTES]}, "2": {"images": [SHOWN]}}, SHOWN | {"nodeId": "2", "mediaType": "images"}),
        ({"1": {"text": ["words"]}, "2": {"files": [NOTES]}}, NOTES | {"nodeId": "2", "mediaType": "files"}),
        ({"1": {"text": [SAVED]}, "2": {"images": [SHOWN]}}, SHOWN | {"nodeId": "2", "mediaType": "images"}),
        ({"1": {"3d": ["m.GLB"]}}, MODEL | {"nodeId": "1"}),
        ({"1": {"images": [SAVED, SAVED | {"filename": "c.png"}]}}, SAVED | {"nodeId": "1", "mediaType": "images"}),
        ({"1": {"latents": [{"filename": "x.latent"}]}}, None),
        ({"1": {"tags": ["words"]}}, None),
    ],
)
def test_which_output_is_shown(outputs: Any, expected: Any) -> None:
    assert preview_of(outputs) == expected


@pytest.mark.parametrize(
    ("texts", "content"),
    [(["one", "two"], "one"), ([5], "5"), ([None], "None"), ([["one"]], "one"), ([[]], ""), ([[5]], "5"), (["x" * 1024], "x" * 1024)],
)  # fmt: skip
def test_a_text_is_shown_where_there_is_no_file(texts: list[Any], content: str) -> None:
    assert preview_of({"1": {"text": texts}}) == {"content": content, "nodeId": "1", "mediaType": "text"}


def test_a_long_text_is_cut() -> None:
    expected = {"content": "x" * 1024, "truncated": True, "nodeId": "1", "mediaType": "text"}
    assert preview_of({"1": {"text": ["x" * 1025]}}) == expected


def test_the_number_comes_first_as_documents_need_it() -> None:
    entry = entry_of({"1": {"images": [SAVED]}})
    entry["prompt"][0] = 0
    for kind, shown in ((Kind.ROW, row_of_entry(entry, ID)), (Kind.JOB, detail_of_entry(entry, ID))):
        assert keep(kind, shown).numbered(3).startswith(b'{"priority":3,')
