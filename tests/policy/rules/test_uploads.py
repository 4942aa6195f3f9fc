from __future__ import annotations

import json
from typing import Any

import pytest

from policy.call import UploadBody
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.uploads import (
    MAX_FIELD_BYTES,
    MAX_PARTS,
    UploadKind,
    UploadPlan,
    UploadSession,
    upload_image,
    upload_mask,
    uploaded,
)
from policy.violation import Reason
from tests.policy.names import HOSTILE, ODD
from tests.policy.tenants import Jobs, caller_of, refusal, request_of

PNG = b"\x89PNG\r\n\x1a\n"
SPELLINGS = [
    ("foo/", "/foo"),
    ("./foo", "/foo"),
    (".", ""),
    ("foo\\bar", "/foo/bar"),
    ("foo//bar", "/foo/bar"),
    ("con", "/~=con"),
]
ALICE = caller_of("alice", jobs=Jobs(temp={"made.png"}))


def begin(kind: UploadKind = UploadKind.IMAGE, **more: Any) -> UploadSession:
    plan = UploadPlan(kind, Namespace(TenantId("alice")), ALICE.jobs, ("example.png", "shared/"), **more)
    return plan.begin()


def fields_of(**fields: str) -> dict[str, str]:
    """What is sent after a file and these fields."""
    session = begin()
    assert session.accept_file("image", "photo.png", PNG) == "photo.png"
    for name, value in fields.items():
        session.accept_field(name, value)
    return dict(session.fields_to_send())


def refused(reason: Reason, function: Any, *arguments: Any) -> None:
    violation = refusal(function, *arguments)
    assert violation.reason is reason, violation.message


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {"subfolder": "tenants/alice", "type": "input"}),
        ({"subfolder": "pasted"}, {"subfolder": "tenants/alice/pasted", "type": "input"}),
        ({"subfolder": "", "type": "output"}, {"subfolder": "tenants/alice", "type": "output"}),
        ({"type": "temp", "subfolder": "threed"}, {"subfolder": "tenants/alice/threed", "type": "temp"}),
        ({"overwrite": "true"}, {"subfolder": "tenants/alice", "type": "input", "overwrite": "true"}),
        ({"overwrite": "1"}, {"subfolder": "tenants/alice", "type": "input", "overwrite": "true"}),
        ({"overwrite": "True"}, {"subfolder": "tenants/alice", "type": "input"}),
        ({"unknown": "x"}, {"subfolder": "tenants/alice", "type": "input"}),
        ({"subfolder": "tenants/bob"}, {"subfolder": "tenants/alice/tenants/bob", "type": "input"}),
        ({"subfolder": "checkpoints", "type": "output"}, {"subfolder": "tenants/alice/checkpoints", "type": "output"}),
        ({"subfolder": "shared", "type": "output"}, {"subfolder": "tenants/alice/shared", "type": "output"}),
    ],
)
def test_one_checked_subfolder_is_sent(fields: dict[str, str], sent: dict[str, str]) -> None:
    assert fields_of(**fields) == sent


def test_fields_may_come_before_the_file() -> None:
    session = begin()
    session.accept_field("subfolder", "a")
    session.accept_file("image", "photo.png", PNG)
    assert dict(session.fields_to_send())["subfolder"] == "tenants/alice/a"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(name: str) -> None:
    refused(Reason.NAME_REFUSED, begin().accept_field, "subfolder", name)
    refused(Reason.NAME_REFUSED, begin().accept_file, "image", f"{name}", PNG)


@pytest.mark.parametrize(
    "name", ["../bob/x.png", "a/x.png", "x.png [output]", "x.png[temp]", "", ".", "a\\x.png", "tenants/alice/x.png"]
)
def test_file_names_are_one_segment(name: str) -> None:
    refused(Reason.NAME_REFUSED, begin().accept_file, "image", name, PNG)


@pytest.mark.parametrize(("subfolder", "sent"), [("tenants/alice", ""), ("tenants/alice/a", "/a"), *SPELLINGS])
def test_folders_are_read_as_comfyui_reads_them(subfolder: str, sent: str) -> None:
    assert fields_of(subfolder=subfolder)["subfolder"] == f"tenants/alice{sent}"


@pytest.mark.parametrize("name", [name for name in ODD if "/" not in name])
def test_odd_names_come_back_as_they_were_sent(name: str) -> None:
    sent = begin().accept_file("image", f"{name}.png", PNG)
    answer = {"name": sent, "subfolder": "tenants/alice", "type": "input"}
    assert uploaded(answer, request_of(ALICE)) == {"name": f"{name}.png", "subfolder": "", "type": "input"}


def test_a_name_is_as_long_as_a_disk_takes() -> None:
    assert begin().accept_file("image", "x" * 251 + ".png", PNG) == "x" * 251 + ".png"
    refused(Reason.NAME_REFUSED, begin().accept_file, "image", "x" * 252 + ".png", PNG)


@pytest.mark.parametrize("kind", ["", "Input", "models", "checkpoints"])
def test_other_folders_are_refused(kind: str) -> None:
    refused(Reason.NAME_REFUSED, begin().accept_field, "type", kind)


@pytest.mark.parametrize(
    ("kind", "subfolder", "is_refused"),
    [
        ("output", "@gpu-2", True),
        ("temp", "tenants/alice/@gpu-2/deep", True),
        ("input", "@gpu-2", False),
        ("output", "deep/@gpu-2", False),
    ],
)
def test_nothing_is_put_where_it_would_be_read_from_another_comfyui(
    kind: str, subfolder: str, is_refused: bool
) -> None:
    for is_placed in (True, False):
        session = begin(is_placed=is_placed)
        session.accept_file("image", "photo.png", PNG)
        session.accept_field("subfolder", subfolder)
        if is_refused and is_placed:
            refused(Reason.NAME_REFUSED, session.accept_field, "type", kind)
        else:
            session.accept_field("type", kind)
            assert session.fields_to_send()


@pytest.mark.parametrize("name", ["subfolder", "type", "overwrite"])
def test_a_field_comes_once(name: str) -> None:
    session = begin()
    session.accept_field(name, "temp")
    session.accept_field(name, "temp")
    refused(Reason.BODY_MALFORMED, session.accept_field, name, "input")


def test_one_file_comes_in_its_field() -> None:
    refused(Reason.BODY_MALFORMED, begin().accept_field, "image", "text")
    refused(Reason.BODY_MALFORMED, begin().accept_file, "file", "x.png", PNG)
    refused(Reason.BODY_MALFORMED, begin().fields_to_send)
    session = begin()
    session.accept_file("image", "x.png", PNG)
    refused(Reason.BODY_MALFORMED, session.accept_file, "image", "y.png", PNG)


def test_fields_and_parts_are_bounded() -> None:
    refused(Reason.BODY_MALFORMED, begin().accept_field, "unknown", "x" * (MAX_FIELD_BYTES + 1))
    session = begin()
    for _ in range(MAX_PARTS):
        session.accept_field("unknown", "x")
    refused(Reason.BODY_MALFORMED, session.accept_field, "unknown", "x")
    refused(Reason.BODY_MALFORMED, session.accept_file, "image", "x.png", PNG)


def test_the_type_is_judged_by_name_and_content() -> None:
    refused(Reason.FILE_TYPE_REFUSED, begin().accept_file, "image", "x.m3u8", b"#EXTM3U")
    refused(Reason.FILE_TYPE_REFUSED, begin().accept_file, "image", "x.png", b"#EXTM3U")
    refused(Reason.FILE_TYPE_REFUSED, begin().accept_file, "image", "x.glb", b"glTF")
    begin(upload_types=frozenset({"3d"})).accept_file("image", "x.glb", b"glTF")
    refused(Reason.FILE_TYPE_REFUSED, begin(upload_types=frozenset()).accept_file, "image", "x.png", PNG)


@pytest.mark.parametrize(("subfolder", "name"), [("", "example.png"), ("shared", "x.png"), ("shared/a", "x.png")])
def test_shared_inputs_are_not_written(subfolder: str, name: str) -> None:
    early = begin()
    early.accept_field("type", "input")
    early.accept_field("subfolder", subfolder)
    refused(Reason.NAME_REFUSED, early.accept_file, "image", name, PNG)
    late = begin()
    late.accept_file("image", name, PNG)
    late.accept_field("subfolder", subfolder)
    refused(Reason.NAME_REFUSED, late.fields_to_send)


def test_the_whole_path_is_bounded() -> None:
    session = begin()
    session.accept_field("subfolder", "/".join(["a" * 150] * 6))
    refused(Reason.NAME_REFUSED, session.accept_file, "image", "x" * 196 + ".png", PNG)


@pytest.mark.parametrize(
    ("kind", "original", "shared"),
    [
        (UploadKind.MASK, {"filename": "made.png", "type": "temp"}, "made.png"),
        (UploadKind.MASK, {"filename": "other.png", "type": "temp"}, None),
        (UploadKind.MASK, {"filename": "example.png", "type": "input"}, None),
        (UploadKind.IMAGE, {"filename": "made.png", "type": "temp"}, None),
    ],
)
def test_an_original_among_everybodys_temp_files_is_told(
    kind: UploadKind, original: dict[str, str], shared: str | None
) -> None:
    session = begin(kind)
    session.accept_field("original_ref", json.dumps(original))
    assert session.shared_original() == shared


def mask_of(original: Any) -> dict[str, str]:
    session = begin(UploadKind.MASK)
    session.accept_file("image", "mask.png", PNG)
    session.accept_field("original_ref", original if isinstance(original, str) else json.dumps(original))
    return dict(session.fields_to_send())


@pytest.mark.parametrize(
    ("original", "sent"),
    [
        ({"filename": "x.png"}, ("x.png", "tenants/alice", "output")),
        ({"filename": "x.png", "subfolder": "a", "type": "input"}, ("x.png", "tenants/alice/a", "input")),
        ({"filename": "x.png [input]", "type": "output"}, ("x.png", "tenants/alice", "input")),
        ({"filename": "a/x.png", "subfolder": None}, ("x.png", "tenants/alice/a", "output")),
        ({"filename": "example.png", "type": "input"}, ("example.png", "", "input")),
        ({"filename": "made.png", "type": "temp"}, ("made.png", "", "temp")),
        ({"filename": "other.png", "type": "temp"}, ("other.png", "tenants/alice", "temp")),
        ({"filename": "x.png", "subfolder": "tenants/bob"}, ("x.png", "tenants/alice/tenants/bob", "output")),
    ],
)
def test_a_mask_is_put_on_an_image_that_the_tenant_may_read(original: Any, sent: tuple[str, str, str]) -> None:
    fields = mask_of(original)
    assert json.loads(fields["original_ref"]) == dict(zip(("filename", "subfolder", "type"), sent, strict=True))
    assert (fields["subfolder"], fields["type"]) == ("tenants/alice", "input")


@pytest.mark.parametrize(
    ("original", "reason"),
    [
        ("nonsense", Reason.BODY_MALFORMED),
        ("null", Reason.BODY_MALFORMED),
        ("[]", Reason.BODY_MALFORMED),
        ('{"filename": "a.png", "filename": "b.png"}', Reason.BODY_MALFORMED),
        ({}, Reason.BODY_MALFORMED),
        ({"filename": 5}, Reason.BODY_MALFORMED),
        ({"filename": "x.png", "subfolder": ["a"]}, Reason.BODY_MALFORMED),
        ({"filename": "x.png", "type": 5}, Reason.BODY_MALFORMED),
        ({"filename": "x.png", "type": "models"}, Reason.NAME_REFUSED),
        ({"filename": "../bob/x.png"}, Reason.NAME_REFUSED),
        ({"filename": "x.png", "subfolder": "/srv/output"}, Reason.NAME_REFUSED),
        ({"filename": "x.pngZ[output]"}, Reason.NAME_REFUSED),
    ],
)
def test_other_originals_are_refused(original: Any, reason: Reason) -> None:
    refused(reason, mask_of, original)


def test_a_mask_needs_an_original_and_is_a_mask() -> None:
    session = begin(UploadKind.MASK)
    session.accept_file("image", "mask.png", PNG)
    refused(Reason.BODY_MALFORMED, session.fields_to_send)
    refused(Reason.FILE_TYPE_REFUSED, begin(UploadKind.MASK).accept_file, "image", "x.jpg", b"\xff\xd8\xff")
    everything_else = begin(UploadKind.MASK, upload_types=frozenset({"image"}))
    refused(Reason.FILE_TYPE_REFUSED, everything_else.accept_file, "image", "mask.png", PNG)


def test_the_rules_make_plans() -> None:
    for rule, kind in ((upload_image, UploadKind.IMAGE), (upload_mask, UploadKind.MASK)):
        call = rule(request_of(ALICE, method="POST"))
        assert (call.method, call.target) == ("POST", f"/upload/{kind}")
        assert isinstance(call.body, UploadBody)
        plan = call.body.plan
        assert isinstance(plan, UploadPlan)
        assert (plan.kind, plan.names, plan.shared_inputs) == (kind, ALICE.names, ALICE.shared_inputs)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (
            {"name": "photo (1).png", "subfolder": "tenants/alice", "type": "input", "asset": {"id": "x"}},
            {"name": "photo (1).png", "subfolder": "", "type": "input"},
        ),
        ({"name": "x.png", "subfolder": "tenants/alice/a", "type": "temp"}, {"name": "x.png", "subfolder": "a", "type": "temp"}),
        ({"name": "~=con", "subfolder": "tenants/alice/~==2E", "type": "input"}, {"name": "con", "subfolder": "~==2E", "type": "input"}),
        ({"name": "x.png", "subfolder": "tenants/bob", "type": "input"}, {}),
        ({"name": "x.png", "subfolder": "", "type": "input"}, {}),
        ({"name": "../x.png", "subfolder": "tenants/alice", "type": "input"}, {}),
        ({"name": 5, "subfolder": "tenants/alice", "type": "input"}, {}),
        ({"name": "x.png", "subfolder": None, "type": "input"}, {}),
        ({"name": "x.png", "subfolder": "tenants/alice", "type": "models"}, {}),
        (None, {}),
    ],
)  # fmt: skip
def test_the_answer_is_in_the_tenants_names(value: Any, shown: Any) -> None:
    assert uploaded(value, request_of(ALICE)) == shown


def test_a_file_that_is_set_apart_gets_a_name_of_its_own() -> None:
    session = begin()
    assert session.accept_file("image", "größe.png", PNG) == "größe.png"
    assert session.set_apart("0a1b2c3d") == "größe (0a1b2c3d).png"
    assert dict(session.fields_to_send())["subfolder"] == "tenants/alice"


def test_what_overwrites_is_never_set_apart() -> None:
    session = begin()
    session.accept_file("image", "photo.png", PNG)
    session.set_apart("0a1b2c3d")
    session.accept_field("overwrite", "true")
    assert session.is_overwriting
    violation = refusal(session.fields_to_send)
    assert "before the file" in violation.message


def test_a_name_is_kept_where_the_file_overwrites() -> None:
    kept = []
    session = begin()
    for overwrite in ("1", "1"):
        kept.append(session.keeps_name)
        session.accept_field("overwrite", overwrite)
    assert kept == [False, True]
    assert (begin().plan.is_mask, begin(UploadKind.MASK).plan.is_mask) == (False, True)
