"""An asset as it stands in the gate's database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from policy.namespace import Folder
from policy.v2.assets import Asset

ASSET_COLUMNS: Final = (
    "asset_id, tenant, prompt_id, node_id, place, kind, folder, path, file_path, content_type, size_bytes, hash, created_at_s, expires_at_s, "
    "tags, stamp"
)
ASSET_PLACES: Final = ", ".join("?" * 16)


def asset_of(row: Sequence[Any]) -> Asset:
    """A row of ASSET_COLUMNS."""
    (
        asset_id,
        _,
        prompt_id,
        node_id,
        _,
        kind,
        folder,
        path,
        file_path,
        content_type,
        size,
        digest,
        created_s,
        expires_s,
        tags,
        stamp,
    ) = row
    return Asset(
        asset_id=asset_id,
        file_path=file_path,
        content_type=content_type,
        size_bytes=int(size),
        hash=digest or None,
        created_at_s=float(created_s),
        expires_at_s=expires_s,
        folder=Folder(folder) if folder else None,
        path=path,
        kind=kind,
        prompt_id=prompt_id,
        node_id=node_id,
        tags=tuple(orjson.loads(tags)),
        stamp=stamp,
    )


def row_of(asset: Asset, tenant: str, place: int = 0) -> tuple[Any, ...]:
    """Of ASSET_COLUMNS. place: among all that its job made."""
    return (
        asset.asset_id,
        tenant,
        asset.prompt_id,
        asset.node_id,
        place,
        asset.kind,
        "" if asset.folder is None else asset.folder.value,
        asset.path,
        asset.file_path,
        asset.content_type,
        asset.size_bytes,
        asset.hash or "",
        asset.created_at_s,
        asset.expires_at_s,
        tags_text(asset.tags),
        asset.stamp,
    )


def tags_text(tags: Sequence[str]) -> str:
    """JSON: one text for the same tags."""
    return orjson.dumps(list(tags)).decode()
