from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.namespace import ROOT, Namespace
from policy.path_texts import MAX_NAME_LENGTH, check_text, rewrite_texts
from policy.principal import TenantId
from policy.violation import Reason, Violation

ALICE = Namespace(TenantId("alice"))


def rewrite(value: Any) -> Any:
    return rewrite_texts(value, ALICE, lambda name: f"<{name}>")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "style.safetensors",
        "sdxl/style.safetensors",
        "video/h264-mp4",
        "yuv420p",
        "a cat / a dog, 1/2 of each",
        "the tenants/owners of a house",
        "https://example.com/a.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "1.5",
        "v1.0.2",
        "x" * MAX_NAME_LENGTH + "/a.png",
        "a\nb.png",
        "// a comment\nfloat x;\n/* more */",
        "a cat, the tenants/owners",
        "ratio 16:9 / 4:3",
        ".",
    ],
)
def test_ordinary_texts_stay_as_they_came(text: str) -> None:
    assert rewrite(text) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a.png", "a.png"),
        ("sub/A.PNG", "sub/A.PNG"),
        ("a.png [output]", "a.png [output]"),
        ("clip.mp4", "clip.mp4"),
        ("mesh.glb", "mesh.glb"),
        ("tenants/alice/a.png", "a.png"),
        ("tenants/alice/any", "any"),
    ],
)
def test_texts_that_name_a_media_file_are_files_of_the_tenant(text: str, name: str) -> None:
    assert rewrite(text) == f"<{name}>"


def test_the_tenants_own_root_is_itself() -> None:
    assert rewrite("tenants/alice") == "tenants/alice"


@pytest.mark.parametrize(
    "text",
    [
        "/var/lib/x",
        "\\server\\share",
        "C:\\x",
        "c:/x.png",
        "~/x",
        "~bob/x",
        "$HOME/x",
        "${HOME}/x",
        "%TEMP%\\x",
        "file:x.png",
        "a/../b",
        "..\\b.png",
        "tenants/bob/a.png",
        "output/tenants/bob",
        "Tenants\\bob\\a.png",
        " tenants /bob",
        "tenants",
        " /var/lib/x",
        '"/var/lib/x"',
        "\u200b/var/lib/x",
        "a.png\n/var/lib/x",
        "a.png\r\n'C:\\x'",
        "other+scheme:/var/lib/x",
        "a.png\ntenants/bob/a.png",
        "a.png,tenants/bob/a.png",
        "x=tenants/bob/a.bin",
        '"tenants/bob/a.png"',
        "tenants./bob/a.bin",
        "tenants::$INDEX_ALLOCATION/bob/a.bin",
        "ten\u200bants/bob/a.bin",
        "\uff34enants/bob/a.bin",
        "a/ '..'/b",
    ],
)
def test_texts_that_lead_elsewhere_are_refused(text: str) -> None:
    with pytest.raises(Violation) as caught:
        rewrite({"deep": [1, {"here": text}]})
    assert caught.value.reason is Reason.NAME_REFUSED


@pytest.mark.parametrize("path", ["/var/lib/x", "tenants/bob/a.png", "a/../b"])
@pytest.mark.parametrize("padding", ["./", "/", ".//"])
def test_no_length_hides_a_path(path: str, padding: str) -> None:
    text = path.replace("/", "/" + padding * MAX_NAME_LENGTH, 1)
    with pytest.raises(Violation):
        rewrite(text)


@pytest.mark.parametrize("path", ["tenants/bob/a.png", "../b"])
def test_what_stands_before_a_path_does_not_hide_it(path: str) -> None:
    with pytest.raises(Violation):
        rewrite("./" * MAX_NAME_LENGTH + path)


def test_a_media_file_with_a_long_path_is_a_file_still() -> None:
    text = "./" * MAX_NAME_LENGTH + "a.png"
    assert rewrite(text) == f"<{text}>"


@pytest.mark.parametrize(
    "piece", ["\n", " ", "/", "./", ",tenants:", "tenants.", "~", '"', "$", "\n a+", ". ", "[temp]"]
)
def test_texts_are_judged_in_time_that_grows_with_them(piece: str) -> None:
    took = []
    for count in (20_000, 200_000):
        before = time.process_time()
        with contextlib.suppress(Violation):
            rewrite("x" + piece * count)
        took.append(time.process_time() - before)
    assert took[1] < 30 * took[0] + 0.2


@pytest.mark.parametrize("key", ["/var/lib/x", "tenants/bob/a.png", "a/../b"])
def test_keys_of_objects_are_texts_too(key: str) -> None:
    with pytest.raises(Violation):
        rewrite({"deep": [{key: True}]})
    assert rewrite({"deep": {"a.png": 1, "on": True}}) == {"deep": {"<a.png>": 1, "on": True}}


def test_texts_are_found_wherever_they_are() -> None:
    value = {"on": True, "lora": "a.safetensors", "preview": ["a.png", 1, None], "more": {"x": 1.5, "y": "b.jpg"}}
    assert rewrite(value) == {
        "on": True,
        "lora": "a.safetensors",
        "preview": ["<a.png>", 1, None],
        "more": {"x": 1.5, "y": "<b.jpg>"},
    }


PIECES = st.lists(
    st.sampled_from([ROOT, "TENANTS", "bob", "alice", "..", ".", "/", "\\", "a.png", " ", "C:", "~", "output"]),
    max_size=8,
)


@given(PIECES.map("".join))
def test_no_text_names_a_neighbours_folder(text: str) -> None:
    try:
        found = rewrite_texts(text, ALICE, lambda name: ALICE.path_to_upstream(name.replace("\\", "/")))
    except Violation:
        return
    segments = [part.strip().casefold() for part in found.replace("\\", "/").split("/")]
    assert ".." not in segments
    if ROOT in segments:
        assert found == ALICE.root or found.startswith(f"{ALICE.root}/")
        assert segments.count(ROOT) == 1 or found.startswith(f"{ALICE.root}/")


@pytest.mark.parametrize(
    "text",
    [
        "tenants/alice/../bob/x.png",
        "tenants/alice/./../bob/x.png",
        "tenants/alice/a\\..\\..\\bob/x.png",
        "tenants/alice/x.png\ntenants/bob/x.png",
        "tenants/alice/x.png, tenants/bob/x.png",
        "tenants/alice/tenants/bob/x.png",
        "tenants/alice/\nx/../../bob/x.png",
    ],
)
def test_a_text_does_not_lead_out_of_the_tenants_own_folder(text: str) -> None:
    with pytest.raises(Violation):
        check_text(text, ALICE)


@pytest.mark.parametrize(
    "text", ["tenants/alice/x.png", "tenants/alice/cats/x.png [output]", "tenants/alice", "up/../x", "tenants"]
)
def test_texts_that_stay_inside_are_as_they_came(text: str) -> None:
    check_text(text, ALICE)
