"""The job rows of the stand-in for outputs that none of its own nodes makes."""

from __future__ import annotations

from typing import Any

import pytest

from standin.jobs import from_history, list_jobs

JOB_ID = "c8111192-b372-4439-943d-f62d358ef47c"


def _row(outputs: dict[str, Any], *, is_complete: bool = True) -> dict[str, Any]:
    entry: dict[str, Any] = {"prompt": (1, JOB_ID, {}, {}, ["1"]), "outputs": outputs, "status": None}
    return from_history(JOB_ID, entry, is_complete=is_complete)


def test_entry_without_status_counts_as_completed() -> None:
    row = _row({}, is_complete=False)
    assert row == {
        "id": JOB_ID,
        "status": "completed",
        "priority": 1,
        "outputs_count": 0,
        "previewable_outputs_count": 0,
    }


def test_name_of_a_3d_model_becomes_a_file() -> None:
    row = _row({"1": {"result": ["mesh.GLB", None, "camera"]}})
    file = {"filename": "mesh.GLB", "type": "output", "subfolder": "", "mediaType": "3d"}
    assert row["outputs"] == {"1": {"result": [file, "camera"]}}
    assert row["preview_output"] == file | {"nodeId": "1"}
    assert row["outputs_count"] == 1


@pytest.mark.parametrize(
    ("item", "is_previewable"),
    [
        ({"filename": "a.mp4", "format": "video/mp4"}, 1),
        ({"filename": "a.latent", "format": None}, 0),
        ({"filename": "a.md"}, 1),
        ({}, 0),
    ],
)
def test_item_of_another_kind_is_judged_by_format_and_name(item: dict[str, Any], is_previewable: int) -> None:
    row = _row({"1": {"gifs": [item], "animated": [True]}})
    assert (row["outputs_count"], row["previewable_outputs_count"]) == (1, is_previewable)
    assert ("preview_output" in row) is bool(is_previewable)
    assert row["outputs"]["1"]["animated"] == [True]


def test_saved_picture_is_preferred_to_a_temporary_one() -> None:
    temporary, saved = {"filename": "t.png", "type": "temp"}, {"filename": "s.png", "type": "output"}
    row = _row({"1": {"images": [temporary]}, "2": {"images": [saved]}})
    assert row["preview_output"] == saved | {"nodeId": "2", "mediaType": "images"}


def test_list_of_nothing() -> None:
    page = {"offset": 0, "limit": None, "total": 0, "has_more": False}
    assert list_jobs([], [], {}, {"status": ","}) == {"jobs": [], "pagination": page}
