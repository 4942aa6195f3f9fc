from __future__ import annotations

import ntpath
import posixpath
import unicodedata
from typing import Literal
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policy.call import UpstreamPath
from policy.namespace import (
    Folder,
    Namespace,
    check_file_name,
    is_path,
    is_shared,
    is_unguessable,
    owner_of,
    parse_folder,
    split_annotation,
    split_path,
)
from policy.principal import TenantId
from policy.violation import Reason, Violation
from tests.policy.names import HOSTILE, NOT_ALICES, ORDINARY, PIECES

ALICE, BOB = Namespace(TenantId("alice")), Namespace(TenantId("bob"))

FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
TENANTS = ("a", "ab", "alice", "alice-2", "bob", "tenants", "0")


def is_inside(names: Namespace, path: str) -> bool:
    posix = posixpath.normpath(f"/base/{path}")
    windows = ntpath.normpath(f"D:\\base\\{path}")
    return posix.startswith(f"/base/{names.root}/") and windows.startswith(
        "D:\\base\\" + names.root.replace("/", "\\") + "\\"
    )


def check_chroot(tenant: str, neighbour: str, path: str) -> None:
    """The whole promise for one name: round trip, nothing for a neighbour, no way out by decoding or normalising."""
    names = Namespace(TenantId(tenant))
    try:
        upstream = names.path_to_upstream(path)
    except Violation:
        return
    assert names.path_to_client(upstream) == path
    assert names.path_to_client(upstream.replace("/", "\\")) == path
    assert names.without_root(upstream) == path
    if neighbour != tenant:
        other = Namespace(TenantId(neighbour))
        assert other.path_to_client(upstream) is None
        assert other.without_root(upstream) == upstream
    if path.isascii():
        assert is_inside(names, upstream)
        assert is_inside(names, upstream.lower())
    else:
        for form in FORMS:
            assert is_inside(names, unicodedata.normalize(form, upstream))
    if "%" in path:
        with pytest.raises(Violation):
            names.userdata_to_upstream(path)
    else:
        assert names.userdata_to_upstream(path) == upstream == unquote(unquote(upstream))


@settings(max_examples=10_500)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
def test_a_tenant_stays_among_its_own_names(pieces: list[str]) -> None:
    tenant, neighbour = TENANTS[len(pieces) % 7], TENANTS[len(pieces[0]) % 7]
    check_chroot(tenant, neighbour, "".join(pieces))
    check_chroot(tenant, neighbour, "/".join(pieces))


@settings(max_examples=10_500)
@given(st.text(min_size=1, max_size=12))
@example("%252e%252e/x")
@example("%2e%2e/%2e%2e/bob/x")
@example("tenants/alice/x")
def test_any_text_stays_among_its_own_names(path: str) -> None:
    check_chroot("alice", "bob", path)
    check_chroot("alice", "bob", f"a/{path}/b")


@pytest.mark.parametrize("path", ORDINARY)
def test_ordinary_names_are_accepted(path: str) -> None:
    assert ALICE.path_to_upstream(path) == f"tenants/alice/{path}"
    assert is_path(path)


@pytest.mark.parametrize("path", ["", "tenants/alice", "tenants/alice/x.png", *HOSTILE])
def test_names_with_two_meanings_are_refused(path: str) -> None:
    with pytest.raises(Violation) as refused:
        ALICE.path_to_upstream(path)
    assert refused.value.reason is Reason.NAME_REFUSED
    assert "bob" not in refused.value.message
    assert not is_path(path) or path.startswith("tenants/alice")


def test_an_empty_folder_is_the_tenants_root() -> None:
    assert ALICE.folder_to_upstream("") == "tenants/alice"
    assert ALICE.folder_to_upstream("a/b") == "tenants/alice/a/b"
    assert ALICE.path_to_client("tenants/alice") == ""
    assert ALICE.without_root("tenants/alice") == ""


@pytest.mark.parametrize("path", NOT_ALICES)
def test_what_is_not_the_tenants_becomes_nothing(path: str) -> None:
    assert ALICE.path_to_client(path) is None


@pytest.mark.parametrize("path", ["", ".", "..", "a/..", "%2e%2e", "a%b", "a\\b", "/x"])
def test_userdata_names_that_could_be_decoded_again_are_refused(path: str) -> None:
    with pytest.raises(Violation):
        ALICE.userdata_to_upstream(path)


def test_userdata_lies_in_the_tenants_folder() -> None:
    assert ALICE.userdata_to_upstream("workflows/a b.json") == "tenants/alice/workflows/a b.json"


@pytest.mark.parametrize(
    ("path", "folder", "upstream"),
    [
        ("x.png", Folder.INPUT, "tenants/alice/x.png"),
        ("example.png", Folder.INPUT, "example.png"),
        ("example.png", Folder.OUTPUT, "tenants/alice/example.png"),
        ("shared/a/b.png", Folder.INPUT, "shared/a/b.png"),
        ("shared", Folder.INPUT, "tenants/alice/shared"),
        ("ComfyUI_temp_a_00001_.png", Folder.TEMP, "ComfyUI_temp_a_00001_.png"),
        ("ComfyUI_temp_a_00002_.png", Folder.TEMP, "tenants/alice/ComfyUI_temp_a_00002_.png"),
        ("ComfyUI_temp_a_00001_.png", Folder.OUTPUT, "tenants/alice/ComfyUI_temp_a_00001_.png"),
        ("ComfyUI_temp_a_00001_.png", Folder.INPUT, "tenants/alice/ComfyUI_temp_a_00001_.png"),
        (f"preview3d_{'a' * 32}.glb", Folder.OUTPUT, f"preview3d_{'a' * 32}.glb"),
        (f"preview3d_{'b' * 32}.glb", Folder.OUTPUT, f"tenants/alice/preview3d_{'b' * 32}.glb"),
    ],
)
def test_a_tenant_reads_its_own_the_shared_and_what_its_jobs_made(path: str, folder: Folder, upstream: str) -> None:
    made = {"ComfyUI_temp_a_00001_.png", f"preview3d_{'a' * 32}.glb"}
    assert ALICE.readable_to_upstream(path, folder, ["example.png", "shared/"], made.__contains__) == upstream


def test_reading_refuses_the_names_that_writing_refuses() -> None:
    with pytest.raises(Violation):
        ALICE.readable_to_upstream("shared/../bob.png", Folder.INPUT, ["shared/"], lambda name: True)


@pytest.mark.parametrize(
    ("path", "shared", "is_it"),
    [
        ("a.png", ["a.png"], True),
        ("A.png", ["a.png"], False),
        ("a.png.x", ["a.png"], False),
        ("b/a.png", ["b/"], True),
        ("bb/a.png", ["b/"], False),
        ("tenants/bob/x.png", ["tenants/"], False),
        ("Tenants/bob/x.png", ["Tenants/"], False),
        ("a.png", [], False),
    ],
)
def test_shared_inputs_never_reach_into_tenants(path: str, shared: list[str], is_it: bool) -> None:
    assert is_shared(path, shared) is is_it


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        (f"preview3d_{'0' * 32}.glb", True),
        (f"bg_{'f' * 32}.png", True),
        (f"preview_splat_{'f' * 32}.ply", True),
        (f"preview3d_{'0' * 31}.glb", False),
        (f"tenants/bob/preview3d_{'0' * 32}.glb", False),
        ("ComfyUI_temp_abcde_00001_.png", False),
    ],
)
def test_names_that_count_up_can_be_guessed(name: str, is_it: bool) -> None:
    assert is_unguessable(name) is is_it


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Invalid image file: tenants/alice/x.png", "Invalid image file: x.png"),
        ("'/srv/Comfy UI/input/tenants/alice/x.png'", "'x.png'"),
        (r"C:\Comfy\output\tenants\alice\x.png", "x.png"),
        (r"'C:\\Comfy\\tenants\\alice\\x.png'", "'x.png'"),
        ("input/tenants/alice/x and tenants/alice/y", "input/x and y"),
        ("no such folder: tenants/alice", "no such folder: "),
        ("tenants/alice-2/x tenants/alicex tenants/bob/x", "tenants/alice-2/x tenants/alicex tenants/bob/x"),
        ("mytenants/alice/x", "mytenants/alice/x"),
        ("a story of two", "a story of two"),
    ],
)
def test_messages_lose_the_root(text: str, clean: str) -> None:
    assert ALICE.clean_text(text) == clean


def test_only_so_much_is_looked_at_before_the_root() -> None:
    assert ALICE.clean_text("/" + "a/" * 200 + "tenants/alice/x") == "/" + "a/" * 200 + "x"


@pytest.mark.parametrize(
    ("name", "bare", "folder"),
    [
        ("x.png", "x.png", None),
        ("x.png [output]", "x.png", Folder.OUTPUT),
        ("a/x.png [input]", "a/x.png", Folder.INPUT),
        ("x.png [temp]", "x.png", Folder.TEMP),
        ("x [output].png", "x [output].png", None),
        ("x.png [OUTPUT]", "x.png [OUTPUT]", None),
        ("x.png [models]", "x.png [models]", None),
    ],
)
def test_the_suffix_of_an_annotated_name_is_read(name: str, bare: str, folder: Folder | None) -> None:
    assert split_annotation(name) == (bare, folder)


@pytest.mark.parametrize(
    "name", ["[output]", "x.png[output]", "x.pngZ[output]", "x.png [output] ", "x [temp] [output]", "x\t[input]"]
)
def test_other_spellings_of_the_suffix_are_refused(name: str) -> None:
    with pytest.raises(Violation):
        split_annotation(name)


def test_folder_words_are_exact() -> None:
    assert parse_folder(None, Folder.OUTPUT) is Folder.OUTPUT
    assert parse_folder("temp", Folder.OUTPUT) is Folder.TEMP
    for word in ("", "Input", "models", "input "):
        with pytest.raises(Violation):
            parse_folder(word, Folder.OUTPUT)


@pytest.mark.parametrize("name", ["a/b.png", "..", "x.png [output]", "x[temp]", ""])
def test_file_names_are_one_segment_without_a_suffix(name: str) -> None:
    with pytest.raises(Violation):
        check_file_name(name)


def test_paths_split_into_folder_and_name() -> None:
    assert split_path(ALICE.path_to_upstream("a/x.png")) == ("tenants/alice/a", "x.png")
    assert split_path(UpstreamPath("x.png")) == ("", "x.png")
    check_file_name("photo (1).png")


@pytest.mark.parametrize("client_id", ["a", "3f2b-77", "user@host:1", "x" * 128, "a.b"])
def test_client_ids_carry_their_owner(client_id: str) -> None:
    upstream = ALICE.client_id_to_upstream(client_id)
    assert upstream == f"alice.{client_id}"
    assert ALICE.client_id_to_client(upstream) == client_id
    assert BOB.client_id_to_client(upstream) is None
    assert owner_of(upstream) == "alice"


@pytest.mark.parametrize("client_id", ["", "a b", "x" * 129, "é", "a\n", "a/b", "a\x00"])
def test_odd_client_ids_are_refused(client_id: str) -> None:
    with pytest.raises(Violation):
        ALICE.client_id_to_upstream(client_id)


@pytest.mark.parametrize("client_id", [None, 5, ["alice.x"], {}, "", "alice", "alice.", "0123456789abcdef"])
def test_ids_that_the_gate_did_not_make_have_no_owner(client_id: object) -> None:
    assert owner_of(client_id) is None
    assert ALICE.client_id_to_client(client_id) is None
