"""/api/v2/assets: a tenant's files under ids. Bytes are known by their hash, within one tenant alone: nobody learns what another one has."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from policy.call import ClientReply, Effect, Opaque, RuleGenerator, UploadBody, UpstreamCall, UpstreamReply
from policy.namespace import Folder
from policy.rule_context import RuleInput
from policy.rules.uploads import uploaded
from policy.v2.asset_files import FileGenerator, StoredText, stored_file
from policy.v2.asset_uploads import AssetUploadPlan, is_hash, read_details, read_hash
from policy.v2.assets import Asset, asset_to_client
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
from policy.v2.errors import envelope
from policy.values import value
from policy.violation import Reason, Violation

LINK_S: Final = 86_400.0
"""How long a link is said to work: a client asks for the asset again then. It works as long as the asset is there, with a credential."""
_TOO_LARGE: Final = 413


@value
class Kept:
    """is_new: bytes that the tenant did not have. is_new_record: what is there because of this upload."""

    asset: Asset
    is_new: bool
    is_new_record: bool


def upload(request: RuleInput) -> RuleGenerator:
    """POST /api/v2/assets. 201: bytes that the tenant did not have; 200: a record over those that it has."""
    received: Received | UpstreamReply = yield ReceiveUpload(upload_call(request, request.minted_id))
    if isinstance(received, UpstreamReply):
        return _not_stored(received)
    asked = received.upload
    if asked.expected_hash not in (None, received.hash):
        raise Violation(
            Reason.HASH_MISMATCH,
            "These are not the bytes of `expected_hash`: nothing is stored. Send the file again.",
            received.hash,
        )
    kept = yield from keep(request, request.minted_id, received)
    if isinstance(kept, UpstreamReply):
        return _not_stored(kept)
    return ClientReply(201 if kept.is_new else 200, _shown(request, kept.asset, is_new=kept.is_new))


def upload_call(request: RuleInput, asset_id: str) -> UpstreamCall:
    """What takes a file that is going to be this asset."""
    context = request.context
    plan = AssetUploadPlan(context.names, asset_id, context.upload_types, context.max_picture_pixels)
    return UpstreamCall("POST", (Opaque("upload"), Opaque("image")), body=UploadBody(plan))


def keep(request: RuleInput, asset_id: str, received: Received) -> Generator[Effect, Any, Kept | UpstreamReply]:
    """A file that has come, but for its end: as a record over the same bytes, or stored under this id. ComfyUI's answer where it does not store it."""
    details = received.upload.details
    reused: Reused | None = yield ReuseBytes(received.hash, details)
    if reused is not None:
        return Kept(reused.asset, False, reused.is_new_record)
    reply: UpstreamReply = yield FinishUpload()
    stored = uploaded(reply.value, request) if reply.status < 400 else {}
    if not stored:
        return reply
    asset: Asset = yield AddAsset(
        Asset(
            asset_id=asset_id,
            file_path=details.file_path,
            content_type=details.content_type,
            size_bytes=received.size_bytes,
            hash=received.hash,
            created_at_s=0.0,
            folder=Folder(stored["type"]),
            path="/".join(filter(None, (stored["subfolder"], stored["name"]))),
            tags=details.tags,
        ),
        details.expires_in_s,
    )
    return Kept(asset, True, True)


def _not_stored(reply: UpstreamReply) -> ClientReply:
    """ComfyUI's refusal: of what is larger than it takes, or of what the gate does not foresee. Raises Violation(body-too-large)."""
    if reply.status == _TOO_LARGE:
        raise Violation(
            Reason.BODY_TOO_LARGE, "ComfyUI takes no file as large as this.", "the operator sets --max-upload-size"
        )
    message = "ComfyUI did not store the file. Try again; if it stays so, the operator finds why in ComfyUI's log."
    return ClientReply(
        502,
        envelope(
            "upstream_error", message, gate_type="upstream_unavailable", details=f"ComfyUI answered {reply.status}"
        ),
        headers=(("Retry-After", "5"),),
    )


def from_hash(request: RuleInput) -> RuleGenerator:
    """POST /api/v2/assets/from-hash. 201: a record of its own over bytes that the tenant has; 200: one that says the same was there."""
    document = request.document
    if not isinstance(document, dict):
        raise Violation(Reason.BODY_MALFORMED, 'The body must be a JSON object: {"hash": "blake3:…"}.')
    digest, details = read_hash(document.get("hash"), "hash"), read_details(document)
    reused: Reused | None = yield ReuseBytes(digest, details)
    if reused is None:
        raise _no_blob()
    return ClientReply(201 if reused.is_new_record else 200, _shown(request, reused.asset, is_new=False))


def by_hash(request: RuleInput) -> RuleGenerator:
    """GET /api/v2/assets/by-hash/{hash}: whether the tenant has these bytes."""
    digest = request.call.parameters["hash"]
    found: Asset | None = (yield FindHash(digest)) if is_hash(digest) else None
    if found is None:
        raise _no_blob()
    return ClientReply(body=_shown(request, found))


def read(request: RuleInput) -> RuleGenerator:
    """GET /api/v2/assets/{id}."""
    asset = yield from _own(request)
    return ClientReply(body=_shown(request, asset))


def delete(request: RuleInput) -> RuleGenerator:
    """DELETE /api/v2/assets/{id}."""
    was_there: bool = yield DeleteAsset(request.call.parameters["asset_id"])
    if not was_there:
        raise _no_asset()
    return ClientReply(204)


def content(request: RuleInput) -> FileGenerator:
    """GET /api/v2/assets/{id}/content."""
    asset = yield from _own(request)
    return (yield from content_of(request, asset, request.call.method))


def content_of(request: RuleInput, asset: Asset, method: str) -> FileGenerator:
    """The bytes of an own asset."""
    if asset.folder is not None:
        context = request.context
        return stored_file(asset, context.names, context.jobs.has_temp_file, method)
    body: bytes | None = yield ReadText(asset.asset_id)
    if body is None:
        raise _no_asset()
    return StoredText(body, asset.file_path)


def _own(request: RuleInput) -> Generator[Effect, Any, Asset]:
    asset_id = request.call.parameters["asset_id"]
    found = yield FindAssets((asset_id,), is_for_comfyui=False)
    if asset_id not in found:
        raise _no_asset()
    asset: Asset = found[asset_id]
    return asset


def _shown(request: RuleInput, asset: Asset, *, is_new: bool | None = None) -> dict[str, Any]:
    context = request.context
    works_until_s = context.now.timestamp() + LINK_S
    if asset.expires_at_s is not None:
        works_until_s = min(works_until_s, asset.expires_at_s)
    return asset_to_client(asset, context.links, works_until_s, is_new=is_new)


def _no_asset() -> Violation:
    return Violation(Reason.NOT_FOUND, "There is no such asset of yours.", error_type="asset_not_found")


def _no_blob() -> Violation:
    return Violation(Reason.NOT_FOUND, "You have no file of this hash here: upload it.", error_type="blob_not_found")
