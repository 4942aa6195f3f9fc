"""What a job shows as its results, and how it failed."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.rules.results import output_to_client
from policy.v2.jobs import JobError
from policy.v2.outputs import (
    MAX_OUTPUTS,
    MAX_TEXT_BYTES,
    MAX_TEXTS_BYTES,
    Shown,
    asset_id_of,
    content_type_of,
    failure_of_entry,
    find_results,
    find_shown,
    kind_of,
)

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
LEGAL = {"image", "video", "audio", "text", "file", "latent"}


def saved(name: str, folder: str = "output", subfolder: str = "") -> dict[str, Any]:
    return {"filename": name, "subfolder": subfolder, "type": folder}


@pytest.mark.parametrize(
    ("key", "name", "kind", "content_type"),
    [
        ("images", "a.png", "image", "image/png"),
        ("images", "a.webp", "image", "image/webp"),
        ("images", "a.mp4", "video", "video/mp4"),
        ("gifs", "a.webm", "video", "video/webm"),
        ("video", "A.MP4", "video", "video/mp4"),
        ("audio", "a.flac", "audio", "audio/flac"),
        ("latents", "a.latent", "latent", "application/octet-stream"),
        ("3d", "a.glb", "file", "model/gltf-binary"),
        ("files", "a.txt", "file", "text/plain"),
        ("images", "noextension", "file", "application/octet-stream"),
        ("images", "sub.d/.png", "file", "application/octet-stream"),
        ("text", "a.png", "image", "image/png"),
    ],
)
def test_the_kind_of_a_file(key: str, name: str, kind: str, content_type: str) -> None:
    assert find_shown("7", {key: [saved(name)]}) == [Shown("7", 0, kind, content_type, Folder.OUTPUT, name)]
    assert kind_of(content_type_of(name), key) in LEGAL


def test_files_of_subfolders_and_of_the_temp_folder() -> None:
    shown = find_shown("7", {"images": [saved("a.png", subfolder="sub/deep"), saved("b.png", "temp")]})
    assert [(each.folder, each.path, each.name, each.place) for each in shown] == [
        (Folder.OUTPUT, "sub/deep/a.png", "a.png", 0),
        (Folder.TEMP, "b.png", "b.png", 1),
    ]


def test_texts_are_results() -> None:
    (shown,) = find_shown("7", {"text": ["a\u2028b"]})
    assert (shown.kind, shown.text, shown.folder, shown.name) == ("text", "a\u2028b", None, "7_0.txt")


@pytest.mark.parametrize(
    "output",
    [
        None,
        [],
        {"images": None},
        {"images": ["a.png", 3, None, {"name": "a.png"}, {"filename": 3}]},
        {"images": [saved("a.png", "input")]},
        {"images": [saved("a.png", "models")]},
        {"images": [{"filename": "a.png"}]},
        {"animated": [True]},
        {"strings": ["a"]},
        {"text": "a"},
        {"text": ["x" * (MAX_TEXT_BYTES + 1)]},
        {"text": ["é" * (MAX_TEXT_BYTES // 2 + 1)]},
    ],
)
def test_what_is_no_result(output: Any) -> None:
    assert find_shown("7", output) == []


def test_a_node_that_no_database_can_name_shows_nothing() -> None:
    assert find_shown("7\0", {"text": ["a"]}) == []


def test_a_subfolder_that_is_none_is_passed_over() -> None:
    (shown,) = find_shown("7", {"images": [saved("a.png") | {"subfolder": None}]})
    assert shown.path == "a.png"


def test_names_are_the_tenants_own_and_nobody_elses() -> None:
    upstream = {
        "images": [
            saved("a.png", subfolder="tenants/alice/sub"),
            saved("canary.png", subfolder="tenants/mallory"),
            saved("canary.png", subfolder=""),
        ],
        "text": ["in /srv/comfyui/output/tenants/alice/a.png"],
    }
    shown = find_shown("7", output_to_client(upstream, Namespace(ALICE)))
    assert [(each.path, each.text) for each in shown] == [("sub/a.png", ""), ("", "in a.png")]


def test_results_of_a_job_are_bounded() -> None:
    many = {str(node): {"images": [saved(f"{node}-{count}.png") for count in range(400)]} for node in range(4)}
    assert len(find_results(many)) == MAX_OUTPUTS
    texts = {str(node): {"text": ["x" * MAX_TEXT_BYTES]} for node in range(6)}
    found = find_results(texts | {"9": {"images": [saved("a.png")]}})
    assert sum(len(each.text) for each in found) == MAX_TEXTS_BYTES
    assert found[-1].path == "a.png"
    assert len(find_shown("1", {"images": [saved("a.png")] * (MAX_OUTPUTS + 5)})) == MAX_OUTPUTS
    assert find_results(None) == []


def test_an_id_is_the_same_for_the_same_result_alone() -> None:
    one = Shown("7", 0, "image", "image/png", Folder.OUTPUT, "a.png")
    others = [
        Shown("8", 0, "image", "image/png", Folder.OUTPUT, "a.png"),
        Shown("7", 1, "image", "image/png", Folder.OUTPUT, "a.png"),
        Shown("7", 0, "image", "image/png", Folder.TEMP, "a.png"),
        Shown("7", 0, "image", "image/png", Folder.OUTPUT, "b.png"),
        Shown("7", 0, "text", "text/plain", text="a"),
    ]
    ids = [asset_id_of(ALICE, "p", each) for each in (one, *others)]
    ids += [asset_id_of(MALLORY, "p", one), asset_id_of(ALICE, "q", one)]
    assert len(set(ids)) == len(ids)
    assert asset_id_of(ALICE, "p", one) == ids[0]
    assert all(str(uuid.UUID(each)) == each for each in ids)


def failed(**data: Any) -> dict[str, Any]:
    return {"status": {"status_str": "error", "messages": [["execution_start", {}], ["execution_error", data]]}}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("node", "node_execution_error"),
        ("out-of-memory", "out_of_memory"),
        ("comfyui-gone", "lost"),
        ("job-seconds", "deadline_exceeded"),
        ("validation", "invalid_workflow"),
        ("", "node_execution_error"),
    ],
)
def test_a_failure_has_a_code_by_its_class(error: str, code: str) -> None:
    entry = failed(exception_message=" It broke.\n", node_id="2", node_type="Sampler")
    assert failure_of_entry(entry, error) == JobError(code, "It broke.", "2", "Sampler")
    bare = failure_of_entry(None, error)
    assert (bare.code, bare.node_id, bare.class_type) == (code, None, None)
    assert bare.message


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"status": None},
        {"status": {"messages": None}},
        {"status": {"messages": [None, [], ["execution_error"], ["execution_error", None], ["other", {}]]}},
        failed(exception_message=3, node_id=None, node_type=""),
    ],
)
def test_a_failure_of_which_nothing_is_told_is_one_all_the_same(entry: Any) -> None:
    assert failure_of_entry(entry, "node") == JobError("node_execution_error", "This job failed.")


def test_a_long_message_is_cut() -> None:
    assert len(failure_of_entry(failed(exception_message="x" * 100_000), "node").message) == 4096
