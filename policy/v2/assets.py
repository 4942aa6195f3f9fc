"""Assets: files of the tenant's under an id, uploaded or made by its jobs, and what stands for them in a workflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from policy.document import has_escaped_ascii, holds
from policy.namespace import Folder
from policy.v2.links import Links
from policy.v2.times import timestamp, timestamp_or_null
from policy.values import value
from policy.violation import Reason, Violation

REFERENCE: Final = "core/ASSET"
"""The `__type` of an object in a workflow that stands for an asset."""
MAX_REFERENCES: Final = 1000
"""In one workflow."""
_WORD: Final = REFERENCE.partition("/")[2].encode()
# Unreserved characters of a URL (RFC 3986, 2.3), as ids are written; a NUL is no text of a database.
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")


@value
class SignedLink:
    """Leads to a copy of the bytes, for whoever has it and without a credential. expires_at_s: Unix time."""

    url: str = field(repr=False)
    expires_at_s: float

    def to_client(self) -> dict[str, Any]:
        return {"url": self.url, "expires_at": timestamp(self.expires_at_s)}


@value
class CopiedForm:
    """A copy of a file in another form, as a function gives it."""

    file_path: str
    content_type: str
    size_bytes: int
    hash: str
    link: SignedLink

    def to_client(self) -> dict[str, Any]:
        return {
            "name": self.file_path,
            "content_type": self.content_type,
            "size_bytes": self.size_bytes,
            "hash": self.hash,
            "link": self.link.to_client(),
        }


@value
class Asset:
    """A file under an id.

    folder, path: where ComfyUI has it, in the tenant's own names; None and "" for a text that the gate keeps itself. file_path: what its uploader
    called it. hash: `blake3:` and 64 hexadecimal digits; None when it is not known. kind: of an output: image, video, audio, text, latent or
    file; "" for an upload. prompt_id, node_id: of the job that made it, "" for an upload. Times are Unix seconds. stamp: of the file as it was when
    it was recorded, `<time of its last change in ns>-<size>` in hexadecimal digits, as ComfyUI's ETags have it; "" where that is not known.
    link, forms: while there are copies of it, for the answer that is just made.
    """

    asset_id: str
    file_path: str
    content_type: str
    size_bytes: int
    hash: str | None
    created_at_s: float
    expires_at_s: float | None = None
    folder: Folder | None = None
    path: str = ""
    kind: str = ""
    prompt_id: str = ""
    node_id: str = ""
    tags: tuple[str, ...] = ()
    stamp: str = ""
    link: SignedLink | None = None
    forms: tuple[CopiedForm, ...] = ()


@value
class AssetDetails:
    """What a client says of an asset of its own. file_path, content_type: empty for those of the record that is there. expires_in_s: None to keep it."""

    file_path: str = ""
    content_type: str = ""
    tags: tuple[str, ...] = ()
    expires_in_s: float | None = None


def asset_to_client(
    asset: Asset, links: Links, url_expires_at_s: float, *, is_new: bool | None = None
) -> dict[str, Any]:
    """The contract's Asset. url_expires_at_s: Unix time until which the link works. is_new: whether its bytes were stored just now.

    Here the url may be one that works without a credential; that of an Output is the gate's own (Comfy-Org's docs, issue 1731).
    """
    link = asset.link or SignedLink(links.content(asset.asset_id), url_expires_at_s)
    shown: dict[str, Any] = {
        "id": asset.asset_id,
        "hash": asset.hash,
        "size_bytes": asset.size_bytes,
        "content_type": asset.content_type,
        "file_path": asset.file_path,
        "created_at": timestamp(asset.created_at_s),
        "expires_at": timestamp_or_null(asset.expires_at_s),
        "url": link.url,
        "url_expires_at": timestamp(link.expires_at_s),
        "job_id": asset.prompt_id or None,
        "tags": list(asset.tags),
    }
    return shown if is_new is None else shown | {"created_new": is_new}


def output_to_client(asset: Asset, links: Links, url_expires_at_s: float) -> dict[str, Any]:
    """The contract's Output: an asset that a job made. `link`, `forms`: beside it, where there are copies; to `url` a client sends its key, to those none."""
    shown: dict[str, Any] = {
        "id": asset.asset_id,
        "node_id": asset.node_id,
        "name": asset.file_path,
        "type": asset.kind,
        "content_type": asset.content_type,
        "size_bytes": asset.size_bytes,
        "hash": asset.hash,
        "url": links.content(asset.asset_id),
        "url_expires_at": timestamp(url_expires_at_s),
        "job_id": asset.prompt_id,
    }
    shown |= {} if asset.link is None else {"link": asset.link.to_client()}
    return shown | {"forms": [form.to_client() for form in asset.forms]} if asset.forms else shown


def name_in_workflow(asset: Asset) -> str:
    """As ComfyUI's loaders read the name of a file. Raises Violation(missing-asset) for a text, which is no file of ComfyUI's."""
    if asset.folder is None:
        raise missing(asset.asset_id, "it is a text: write the text itself into the workflow")
    return asset.path if asset.folder is Folder.INPUT else f"{asset.path} [{asset.folder.value}]"


def is_reference(found: Any) -> bool:
    return isinstance(found, Mapping) and found.get("__type") == REFERENCE


def may_have_references(document: bytes) -> bool:
    """Whether it is worth to look for them: never wrong when it says no. A slash can be escaped in two ways (RFC 8259, 7), so it is left out."""
    return holds(document, _WORD) or has_escaped_ascii(document)


def find_references(workflow: Any) -> list[str]:
    """Ids of the assets that a workflow names, each once, wherever in a node's inputs they stand. Raises Violation(missing-asset) for a malformed one."""
    found: dict[str, None] = {}
    for node in workflow.values() if type(workflow) is dict else ():
        if type(node) is dict and type(inputs := node.get("inputs")) is dict:
            _collect(inputs, found)
    return list(found)


def resolve(workflow: Any, names: Mapping[str, str]) -> Any:
    """The workflow with the file names in the places of the assets. names: by id. Raises Violation(missing-asset) for one that is none of them."""
    if not isinstance(workflow, Mapping):
        return workflow
    return {
        node_id: {**node, "inputs": _replace(node["inputs"], names)}
        if isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping)
        else node
        for node_id, node in workflow.items()
    }


def is_asset_id(text: str) -> bool:
    """Whether it is written as ids are; there may be none like it."""
    return _ID.fullmatch(text) is not None


def missing(
    asset_id: str, why: str = "there is no such asset of yours: upload the file, and name the id of the answer"
) -> Violation:
    return Violation(Reason.MISSING_ASSET, f"The workflow names an asset that cannot be used: {why}.", asset_id)


def _collect(found: dict[str, Any] | list[Any], ids: dict[str, None]) -> None:
    """As deep as a document goes, which policy/document.py bounds: what is not found here would reach ComfyUI as an object."""
    if type(found) is dict and found.get("__type") == REFERENCE:
        ids[_id_of(found)] = None
        if len(ids) > MAX_REFERENCES:
            raise missing("", f"a workflow names {MAX_REFERENCES} assets at most")
        return
    for inner in found.values() if type(found) is dict else found:
        if type(inner) is dict or type(inner) is list:
            _collect(inner, ids)


def _replace(found: Any, names: Mapping[str, str]) -> Any:
    if is_reference(found):
        asset_id = _id_of(found)
        if asset_id not in names:
            raise missing(asset_id)
        return names[asset_id]
    if isinstance(found, Mapping):
        return {key: _replace(inner, names) for key, inner in found.items()}
    if isinstance(found, list):
        return [_replace(inner, names) for inner in found]
    return found


def _id_of(reference: Mapping[str, Any]) -> str:
    info = reference.get("info")
    asset_id = info.get("id") if isinstance(info, Mapping) else None
    if not isinstance(asset_id, str) or not is_asset_id(asset_id):
        raise missing("", "a core/ASSET object has `info` with the asset's `id`")
    return asset_id
