from __future__ import annotations

import ntpath
import posixpath
import unicodedata
from string import printable
from typing import Literal
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policy.call import UpstreamPath
from policy.namespace import (
    MAX_CLIENT_ID_LENGTH,
    Folder,
    Namespace,
    check_file_name,
    is_path,
    is_shared,
    is_unguessable,
    owner_of,
    parse_folder,
    read_path,
    split_annotation,
    split_path,
)
from policy.principal import TenantId
from policy.spelling import is_plain
from policy.violation import Reason, Violation
from tests.policy.names import HOSTILE, NOT_ALICES, ODD, ORDINARY, PIECES, READ_AS

ALICE, BOB = Namespace(TenantId("alice")), Namespace(TenantId("bob"))

FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
TENANTS = ("a", "ab", "alice", "alice-2", "bob", "tenants", "0")


def is_inside(names: Namespace, path: str) -> bool:
    posix = posixpath.normpath(f"/base/{path}")
    windows = ntpath.normpath(f"D:\\base\\{path}")
    return posix.startswith(f"/base/{names.root}/") and windows.startswith(
        "D:\\base\\" + names.root.replace("/", "\\") + "\\"
    )


def readings(upstream: str) -> set[str]:
    """What two more decodings and the normalisations of disks make of a path, in any order."""
    found = {upstream}
    for _ in range(3):
        found |= {unquote(text) for text in found}
        found |= {unicodedata.normalize(form, text) for form in FORMS for text in found}
        found |= {text.casefold() for text in found} | {text.lower() for text in found}
    return found


def check_chroot(tenant: str, neighbour: str, path: str) -> None:
    """The whole promise for one name: round trip, nothing for a neighbour, no way out by decoding or normalising."""
    names = Namespace(TenantId(tenant))
    try:
        upstream = names.path_to_upstream(path)
    except Violation:
        return
    shown = names.path_to_client(upstream)
    assert shown is not None
    if "/".join(read_path(path)[:2]) != names.root:
        assert shown == "/".join(read_path(path))
    assert names.path_to_upstream(shown) == upstream
    assert names.path_to_client(upstream.replace("/", "\\")) == shown
    assert names.without_root(upstream) == shown
    assert names.path_to_upstream(upstream) == upstream
    assert unquote(names.userdata_to_upstream(path)) == upstream
    if neighbour != tenant:
        other = Namespace(TenantId(neighbour))
        assert other.path_to_client(upstream) is None
        assert other.without_root(upstream) == upstream
        assert other.path_to_upstream(upstream) != upstream
    assert all(is_inside(names, reading) for reading in readings(upstream))


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
def test_a_tenant_stays_among_its_own_names(pieces: list[str]) -> None:
    tenant, neighbour = TENANTS[len(pieces) % 7], TENANTS[len(pieces[0]) % 7]
    check_chroot(tenant, neighbour, "".join(pieces))
    check_chroot(tenant, neighbour, "/".join(pieces))


@settings(max_examples=200)
@given(st.text(min_size=1, max_size=12))
@example("%252e%252e/x")
@example("%2e/.. [temp]")
@example("%2e%2e/%2e%2e/bob/x")
@example("tenants/alice/x")
def test_any_text_stays_among_its_own_names(path: str) -> None:
    check_chroot("alice", "bob", path)
    check_chroot("alice", "bob", f"a/{path}/b")


@pytest.mark.parametrize("path", ORDINARY)
def test_ordinary_names_are_accepted(path: str) -> None:
    assert ALICE.path_to_upstream(path) == f"tenants/alice/{path}"
    assert ALICE.path_to_client(f"tenants/alice/{path}") == path
    assert is_path(path)


@pytest.mark.parametrize("path", ODD)
def test_odd_names_are_carried_in_a_safe_spelling(path: str) -> None:
    upstream = ALICE.path_to_upstream(path)
    assert upstream.isascii()
    assert upstream != f"tenants/alice/{path}"
    assert ALICE.path_to_client(upstream) == path
    assert not is_path(path) or path.startswith("~=")
    assert is_path(upstream.removeprefix("tenants/alice/"))
    assert ALICE.clean_text(f"No such file: '{upstream}'") == f"No such file: '{path}'"


@pytest.mark.parametrize(("path", "read"), READ_AS.items())
def test_paths_are_read_as_comfyui_reads_them(path: str, read: str) -> None:
    assert ALICE.path_to_upstream(path) == ALICE.path_to_upstream(read) == ALICE.folder_to_upstream(path)
    assert not is_path(path) or path.startswith("tenants/alice/")


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=24))
@example("~=~=~=")
@example("~==7E=3Da")
@example("a. ")
@example("=2F")
def test_every_name_that_a_disk_can_hold_comes_back_exactly(name: str) -> None:
    if name in (".", ".."):
        return
    assert ALICE.path_to_client(ALICE.path_to_upstream(f"x/{name}")) == f"x/{name}"
    # What lay on the disk before the gate is shown, and is found again unless its name is a dangerous one.
    shown = ALICE.path_to_client(f"tenants/alice/{name}")
    assert shown
    if is_plain(name):
        assert ALICE.path_to_upstream(f"./{shown}") in (
            f"tenants/alice/{name}",
            ALICE.path_to_upstream(f"x/{shown}").replace("/x/", "/"),
        )


@pytest.mark.parametrize("plane", range(17))
def test_characters_of_all_planes_come_back(plane: int) -> None:
    points = range(plane << 16, (plane + 1) << 16, 1 if plane == 0 else 31)
    names = [
        f"ab{chr(point)}c{chr(point)}" for point in points if chr(point) not in "\0/\\" and not 0xD800 <= point < 0xE000
    ]
    assert [ALICE.path_to_client(ALICE.path_to_upstream(name)) for name in names] == names


@pytest.mark.parametrize("path", ["", ".", "./", "tenants/alice", *HOSTILE])
def test_names_with_two_meanings_are_refused(path: str) -> None:
    with pytest.raises(Violation) as refused:
        ALICE.path_to_upstream(path)
    assert refused.value.reason is Reason.NAME_REFUSED
    assert "bob" not in refused.value.message
    assert not is_path(path) or path == "tenants/alice"


def test_an_empty_folder_is_the_tenants_root() -> None:
    assert ALICE.folder_to_upstream("") == "tenants/alice"
    assert ALICE.folder_to_upstream("a/b") == "tenants/alice/a/b"
    assert ALICE.path_to_client("tenants/alice") == ""
    assert ALICE.without_root("tenants/alice") == ""


@pytest.mark.parametrize("path", NOT_ALICES)
def test_what_is_not_the_tenants_becomes_nothing(path: str) -> None:
    assert ALICE.path_to_client(path) is None


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        ("50% denoise.json", "tenants/alice/50%25 denoise.json"),
        ("a%41", "tenants/alice/a%2541"),
        ("%2e%2e/x", "tenants/alice/~==252e=252e/x"),
        ("%252e%252e", "tenants/alice/~==25252e=25252e"),
    ],
)
def test_userdata_is_decoded_once_more(path: str, upstream: str) -> None:
    assert ALICE.userdata_to_upstream(path) == ALICE.userdata_folder_to_upstream(path) == upstream
    assert ALICE.path_to_client(unquote(upstream)) == path


@pytest.mark.parametrize("path", ["..", "a/..", "/x", "C:x"])
def test_userdata_names_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(Violation):
        ALICE.userdata_to_upstream(path)
    with pytest.raises(Violation):
        ALICE.userdata_folder_to_upstream(path)


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


@pytest.mark.parametrize("path", ["shared/\uff0e\uff0e/bob.png", "shared/%2e%2e/bob.png", "shared/con"])
def test_a_shared_folder_is_not_left_by_a_second_reading(path: str) -> None:
    assert ALICE.readable_to_upstream(path, Folder.INPUT, ["shared/"], lambda name: True).startswith("tenants/alice/")


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


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_CLIENT_ID_LENGTH))
def test_any_client_id_is_carried_in_a_safe_spelling(client_id: str) -> None:
    assert_carried(client_id)


@pytest.mark.parametrize(
    "client_id", ["{6F9619FF}", "my client", "user/abc", "w_1_//h_1", "http://[::1]:8188", "~~", "~", "a\n"]
)
def test_client_ids_of_other_programs_are_carried(client_id: str) -> None:
    assert_carried(client_id)


def assert_carried(client_id: str) -> None:
    upstream = ALICE.client_id_to_upstream(client_id)
    assert set(upstream) <= set(printable) - set("/\\%\r\n\t\v\f") or not upstream.isascii()
    assert ALICE.client_id_to_client(upstream) == client_id
    assert BOB.client_id_to_client(upstream) is None
    assert owner_of(upstream) == "alice"


@pytest.mark.parametrize(
    ("client_id", "rule"),
    [("", "1 to 128"), ("x" * 129, "1 to 128"), ("\ud800", "Unicode"), (f"my cg_0123abcd_{'x' * 43}", "API key")],
)
def test_other_client_ids_are_refused_and_told_why(client_id: str, rule: str) -> None:
    with pytest.raises(Violation, match=rule):
        ALICE.client_id_to_upstream(client_id)


@pytest.mark.parametrize("client_id", [None, 5, ["alice.x"], {}, "", "alice", "alice.", "0123456789abcdef"])
def test_ids_that_the_gate_did_not_make_have_no_owner(client_id: object) -> None:
    assert owner_of(client_id) is None
    assert ALICE.client_id_to_client(client_id) is None


def test_a_prefix_names_something() -> None:
    for prefix in ("", "./", "tenants/alice"):
        with pytest.raises(Violation):
            ALICE.prefix_to_upstream(prefix)
    assert ALICE.prefix_to_upstream("a/%year%") == "tenants/alice/a/%year%"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tenants/alice/~=con [output]", "con [output]"),
        ("tenants/alice/a\uff0fb.png [input]", "a\uff0fb.png [input]"),
        ("tenants/alice/x [temp]/y", "x [temp]/y"),
        ("tenants/alice/ [temp]", " [temp]"),
        ("tenants/alice/../x", "../x"),
    ],
)
def test_names_in_a_workflow_are_shown_in_the_clients_spelling(text: str, shown: str) -> None:
    assert ALICE.without_root(text) == shown
