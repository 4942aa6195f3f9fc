"""The rules of /api/v2/assets: what they ask for, and what they answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from policy.call import ClientReply, UploadBody, UpstreamReply
from policy.namespace import Folder
from policy.rule_context import RuleInput
from policy.rules import v2_assets
from policy.v2.asset_files import FileGenerator, StoredFile, StoredText
from policy.v2.asset_uploads import AssetUpload, AssetUploadPlan
from policy.v2.assets import Asset, AssetDetails
from policy.v2.effects import (
    AddAsset,
    DeleteAsset,
    FindAssets,
    FindHash,
    FinishUpload,
    ReadText,
    Received,
    ReceiveUpload,
    ReuseBytes,
    Reused,
)
from policy.v2.links import Links
from policy.violation import Reason, Violation
from tests.policy.tenants import caller_of, drive, reply_of, request_of

ID = "00000000-0000-4000-8000-000000000001"
DIGEST, OTHER = "blake3:" + "0a" * 32, "blake3:" + "0b" * 32
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
CONTEXT = caller_of(now=NOW, links=Links("https://gate.example", "/p"))
DETAILS = AssetDetails("input/x.png", "image/png", ("a",), 60.0)
ASSET = Asset(
    ID,
    "input/x.png",
    "image/png",
    5,
    DIGEST,
    NOW.timestamp(),
    folder=Folder.INPUT,
    path=f"api-v2/{ID}/x.png",
    tags=("a",),
)
STORED = reply_of({"name": "x.png", "subfolder": f"tenants/alice/api-v2/{ID}", "type": "input"})


def asked(**more: Any) -> RuleInput:
    return replace(request_of(CONTEXT, **more), minted_id=ID)


def received(digest: str = DIGEST, expected: str | None = None) -> Received:
    return Received(digest, 5, AssetUpload(DETAILS, "x.png", expected))


def refused(rule: Any, *answers: Any) -> Violation:
    with pytest.raises(Violation) as caught:
        drive(rule, *answers)
    return caught.value


def test_an_upload_is_stored_and_then_recorded() -> None:
    steps, reply = drive(v2_assets.upload(asked()), received(expected=DIGEST), None, STORED, ASSET)
    receive, reuse, finish, add = steps
    assert isinstance(receive, ReceiveUpload)
    assert receive.call.segments == ("upload", "image")
    assert isinstance(receive.call.body, UploadBody)
    plan = receive.call.body.plan
    assert isinstance(plan, AssetUploadPlan)
    assert (plan.folder, plan.upload_types, plan.max_picture_pixels) == (
        ID,
        CONTEXT.upload_types,
        CONTEXT.max_picture_pixels,
    )
    assert (reuse, finish) == (ReuseBytes(DIGEST, DETAILS), FinishUpload())
    assert add == AddAsset(replace(ASSET, created_at_s=0.0), 60.0)
    assert reply.status == 201
    assert reply.body == {
        "id": ID,
        "hash": DIGEST,
        "size_bytes": 5,
        "content_type": "image/png",
        "file_path": "input/x.png",
        "created_at": "2026-11-28T12:00:00.000Z",
        "expires_at": None,
        "url": f"https://gate.example/p/api/v2/assets/{ID}/content",
        "url_expires_at": "2026-11-29T12:00:00.000Z",
        "job_id": None,
        "tags": ["a"],
        "created_new": True,
    }


def test_bytes_that_are_known_are_not_stored() -> None:
    for is_new in (True, False):
        steps, reply = drive(v2_assets.upload(asked()), received(), Reused(ASSET, is_new))
        assert len(steps) == 2, "the upload is broken off"
        assert (reply.status, reply.body["created_new"]) == (200, False)


def test_other_bytes_than_announced_are_not_stored() -> None:
    violation = refused(v2_assets.upload(asked()), received(DIGEST, OTHER))
    assert (violation.reason, violation.details) == (Reason.HASH_MISMATCH, DIGEST)


@pytest.mark.parametrize(
    "reply",
    [
        reply_of({"name": "x.png", "subfolder": "tenants/mallory", "type": "input"}),
        reply_of({"name": "x.png", "subfolder": f"tenants/alice/api-v2/{ID}", "type": "elsewhere"}),
        reply_of(None),
        UpstreamReply(400, None),
        UpstreamReply(500, None),
    ],
)
def test_what_comfyui_did_not_store_has_no_record(reply: UpstreamReply) -> None:
    steps, answer = drive(v2_assets.upload(asked()), received(), None, reply)
    assert isinstance(steps[-1], FinishUpload)
    assert answer.status == 502
    assert answer.body["error"]["code"] == "upstream_error"
    assert str(reply.status) in answer.body["error"]["details"]["details"]
    assert dict(answer.headers)["Retry-After"] == "5"


def test_an_answer_before_the_end_is_comfyuis_refusal() -> None:
    assert refused(v2_assets.upload(asked()), UpstreamReply(413, None)).reason is Reason.BODY_TOO_LARGE
    assert refused(v2_assets.upload(asked()), received(), None, UpstreamReply(413, None)).reason is (
        Reason.BODY_TOO_LARGE
    )
    assert drive(v2_assets.upload(asked()), UpstreamReply(200, {}))[1].status == 502


def test_a_link_ends_with_its_asset() -> None:
    ending = replace(ASSET, expires_at_s=NOW.timestamp() + 90)
    _, reply = drive(v2_assets.upload(asked()), received(), Reused(ending, True))
    assert reply.body["url_expires_at"] == reply.body["expires_at"] == "2026-11-28T12:01:30.000Z"


@pytest.mark.parametrize(("is_new", "status"), [(True, 201), (False, 200)])
def test_a_record_from_a_hash(is_new: bool, status: int) -> None:
    document = {"hash": DIGEST, "file_path": "input/x.png", "tags": ["a"], "expires_in": 60}
    steps, reply = drive(v2_assets.from_hash(asked(document=document)), Reused(ASSET, is_new))
    assert steps == [ReuseBytes(DIGEST, replace(DETAILS, content_type=""))]
    assert (reply.status, reply.body["id"], reply.body["created_new"]) == (status, ID, False)


def test_no_record_from_what_is_no_hash_of_ones_own() -> None:
    assert refused(v2_assets.from_hash(asked(document={"hash": DIGEST})), None).error_type == "blob_not_found"
    assert refused(v2_assets.from_hash(asked(document={}))).error_type == "asset_invalid"
    assert refused(v2_assets.from_hash(asked(document=[]))).reason is Reason.BODY_MALFORMED


def test_bytes_by_their_hash() -> None:
    steps, reply = drive(v2_assets.by_hash(asked(parameters={"hash": DIGEST})), ASSET)
    assert steps == [FindHash(DIGEST)]
    assert (reply.status, reply.body["id"], "created_new" in reply.body) == (200, ID, False)
    assert refused(v2_assets.by_hash(asked(parameters={"hash": DIGEST})), None).error_type == "blob_not_found"
    assert refused(v2_assets.by_hash(asked(parameters={"hash": "content"}))).error_type == "blob_not_found"


def test_one_is_read() -> None:
    steps, reply = drive(v2_assets.read(asked(parameters={"asset_id": ID})), {ID: ASSET})
    assert steps == [FindAssets((ID,), is_for_comfyui=False)]
    assert reply.body["id"] == ID
    violation = refused(v2_assets.read(asked(parameters={"asset_id": ID})), {})
    assert (violation.reason, violation.error_type) == (Reason.NOT_FOUND, "asset_not_found")


def test_one_is_deleted_once() -> None:
    steps, reply = drive(v2_assets.delete(asked(parameters={"asset_id": ID})), True)
    assert (steps, reply) == ([DeleteAsset(ID)], ClientReply(204))
    assert refused(v2_assets.delete(asked(parameters={"asset_id": ID})), False).error_type == "asset_not_found"


def answer_of(rule: FileGenerator, *answers: Any) -> tuple[list[Any], StoredFile | StoredText]:
    steps, waiting = [next(rule)], list(answers)
    try:
        while True:
            steps.append(rule.send(waiting.pop(0)))
    except StopIteration as end:
        assert not waiting
        found: StoredFile | StoredText = end.value
        return steps, found


def test_content_is_a_file() -> None:
    request = asked(method="HEAD", parameters={"asset_id": ID})
    steps, found = answer_of(v2_assets.content(request), {ID: ASSET})
    assert steps == [FindAssets((ID,), is_for_comfyui=False)]
    assert isinstance(found, StoredFile)
    assert (found.path, found.call.method) == (f"tenants/alice/api-v2/{ID}/x.png", "HEAD")


def test_content_is_a_text() -> None:
    request, text = asked(parameters={"asset_id": ID}), replace(ASSET, folder=None, path="", file_path="text.txt")
    steps, found = answer_of(v2_assets.content(request), {ID: text}, b"words")
    assert steps == [FindAssets((ID,), is_for_comfyui=False), ReadText(ID)]
    assert found == StoredText(b"words", "text.txt")
    without: list[list[Any]] = [[{}], [{ID: text}, None]]
    for answers in without:
        with pytest.raises(Violation) as caught:
            answer_of(v2_assets.content(request), *answers)
        assert caught.value.error_type == "asset_not_found"
