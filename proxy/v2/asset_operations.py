"""Records of assets in the gate's database (proxy/persistence/operations.py). Each reads and changes what is one tenant's alone.

Which file a record is over: tenant, folder and path. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from policy.namespace import Folder
from policy.v2.assets import Asset
from policy.violation import Reason, Violation
from proxy.jobs.copy_news import disown
from proxy.jobs.job_rows import ENDS, StoredState
from proxy.jobs.store_state import begin
from proxy.persistence.operations import Operation, Statement
from proxy.v2.asset_rows import ASSET_COLUMNS, ASSET_PLACES, asset_of, row_of, tags_text

MAX_RECORDS: Final = 50_000
"""Of one tenant, of uploads and what was made of their hashes: records over the same file cost no storage."""
MAX_FILES: Final = 20
"""Of one hash that are looked for on disk."""
MAX_OF_HASH: Final = 1000
"""Records of one hash that are looked at for that, the newest ones."""
_PASSING: Final = ("", Folder.TEMP.value)
"""Folders of texts, and of what does not last: ComfyUI empties its temp folder when it starts, and what is uploaded must not be kept there alone."""
_UNFINISHED: Final = tuple(sorted(state.value for state in StoredState if state not in ENDS))
_IS_VALID: Final = "(expires_at_s IS NULL OR expires_at_s > ?)"


class File(NamedTuple):
    """Where bytes are, in the tenant's own names; stamp: see Asset."""

    folder: str
    path: str
    stamp: str


class Deleted(NamedTuple):
    """is_last: no other record is over its file."""

    asset: Asset
    is_last: bool


def find_assets(tenant: str, asset_ids: Sequence[str], now_s: float) -> Operation[dict[str, Asset]]:
    """Those that there are, without expired ones."""
    if not asset_ids:
        return {}
    rows = yield Statement(
        f"SELECT {ASSET_COLUMNS} FROM assets WHERE tenant = ? AND asset_id IN ({_places(asset_ids)}) AND {_IS_VALID}",
        (tenant, *asset_ids, now_s),
    )
    return {row[0]: asset_of(row) for row in rows}


def read_text(tenant: str, asset_id: str, now_s: float) -> Operation[bytes | None]:
    rows = yield Statement(
        f"SELECT body FROM assets WHERE tenant = ? AND asset_id = ? AND folder = '' AND {_IS_VALID}",
        (tenant, asset_id, now_s),
    )
    return bytes(rows[0][0]) if rows and rows[0][0] is not None else None


def files_of(tenant: str, digest: str, now_s: float) -> Operation[list[File]]:
    """Files that a record says have these bytes, the one with the newest record first."""
    # SECURITY: NOT IN, since else SQLite finds them by their folder, among all that a tenant ever uploaded or made (tests/proxy/v2/assets/test_operations.py).
    rows = yield Statement(
        f"SELECT folder, path, stamp FROM assets WHERE tenant = ? AND hash = ? AND folder NOT IN (?, ?) AND {_IS_VALID} "
        "ORDER BY created_at_s DESC LIMIT ?",
        (tenant, digest, *_PASSING, now_s, MAX_OF_HASH),
    )
    return [File(*file) for file in list(dict.fromkeys(rows))[:MAX_FILES]]


def newest_over(tenant: str, digest: str, file: File, now_s: float) -> Operation[Asset | None]:
    rows = yield Statement(
        f"SELECT {ASSET_COLUMNS} FROM assets WHERE tenant = ? AND hash = ? AND folder = ? AND path = ? AND stamp = ? "
        f"AND {_IS_VALID} ORDER BY created_at_s DESC, asset_id LIMIT 1",
        (tenant, digest, *file, now_s),
    )
    return asset_of(rows[0]) if rows else None


def add_asset(tenant: str, asset: Asset) -> Operation[None]:
    """A second time changes nothing. Raises Violation(storage-full)."""
    yield from _check_count(tenant)
    yield Statement(
        f"INSERT INTO assets ({ASSET_COLUMNS}) VALUES ({ASSET_PLACES}) ON CONFLICT (asset_id) DO NOTHING",
        row_of(asset, tenant),
    )


def reuse(tenant: str, file: File, made: Asset, now_s: float) -> Operation[tuple[Asset, bool] | None]:
    """A record over a file that another one is over, and whether it is a new one; None where no record is over it any more.

    made: what the new one says, without what is known of the file; its file path may be empty, for the known one. A record that says the same, and does
    not end sooner, is as good. Raises Violation(storage-full).
    """
    known = yield from newest_over(tenant, made.hash or "", file, now_s)
    if known is None:
        return None
    made = _over(made, known)
    lasts, until = (
        ("expires_at_s IS NULL", ())
        if made.expires_at_s is None
        else (
            "(expires_at_s IS NULL OR expires_at_s >= ?)",
            (made.expires_at_s,),
        )
    )
    rows = yield Statement(
        f"SELECT {ASSET_COLUMNS} FROM assets WHERE tenant = ? AND hash = ? AND folder = ? AND path = ? AND stamp = ? "
        f"AND prompt_id = '' AND file_path = ? AND tags = ? AND {lasts} ORDER BY created_at_s DESC, asset_id LIMIT 1",
        (tenant, made.hash, *file, made.file_path, tags_text(made.tags), *until),
    )
    if rows:
        return asset_of(rows[0]), False
    yield from add_asset(tenant, made)
    return made, True


def delete_asset(tenant: str, asset_id: str, now_s: float) -> Operation[Deleted | None]:
    """None for what is not there. Raises Violation(asset-in-use)."""
    state = yield from begin()  # first, as whoever records a job that uses it does: one of the two sees the other
    found = yield from find_assets(tenant, [asset_id], now_s)
    if asset_id not in found:
        return None
    asset = found[asset_id]
    if _place_of(asset) in (yield from _places_in_use(tenant)):
        raise Violation(
            Reason.ASSET_IN_USE,
            "A job of yours that has not ended uses this asset: wait for its end, or cancel it.",
            asset_id,
        )
    return (yield from _delete(tenant, asset, state.version))


def has_expired(tenant: str, now_s: float) -> Operation[bool]:
    rows = yield Statement("SELECT 1 FROM assets WHERE tenant = ? AND expires_at_s <= ? LIMIT 1", (tenant, now_s))
    return bool(rows)


def delete_expired(tenant: str, now_s: float, limit: int) -> Operation[list[Deleted]]:
    """Records whose time is over, but those whose file a job uses that has not ended. Fewer than `limit` only where there are no more."""
    state = yield from begin()
    in_use = yield from _places_in_use(tenant)
    deleted: list[Deleted] = []
    last: tuple[float, str] | None = (0.0, "")
    while last is not None and len(deleted) < limit:
        rows = yield Statement(
            f"SELECT {ASSET_COLUMNS} FROM assets WHERE tenant = ? AND expires_at_s <= ? AND (expires_at_s, asset_id) > (?, ?) "
            "ORDER BY expires_at_s, asset_id LIMIT ?",
            (tenant, now_s, *last, limit),
        )
        last = None
        for asset in map(asset_of, rows):
            last = (asset.expires_at_s or 0.0, asset.asset_id)
            if _place_of(asset) not in in_use and len(deleted) < limit:
                deleted.append((yield from _delete(tenant, asset, state.version)))
    return deleted


def uploads_before(tenant: str, before_s: float, asset_id: str, limit: int) -> Operation[list[Asset]]:
    """Records of that age that are of no job, in the order of their ids. asset_id: what they come after, "" for the first ones."""
    rows = yield Statement(
        f"SELECT {ASSET_COLUMNS} FROM assets WHERE tenant = ? AND prompt_id = '' AND asset_id > ? AND created_at_s < ? "
        "ORDER BY asset_id LIMIT ?",
        (tenant, asset_id, before_s, limit),
    )
    return [asset_of(row) for row in rows]


def delete_records(tenant: str, asset_ids: Sequence[str]) -> Operation[None]:
    """Whose files are gone."""
    if asset_ids:
        yield Statement(
            f"DELETE FROM assets WHERE tenant = ? AND asset_id IN ({_places(asset_ids)})", (tenant, *asset_ids)
        )


def _delete(tenant: str, asset: Asset, version: int) -> Operation[Deleted]:
    yield Statement("DELETE FROM assets WHERE tenant = ? AND asset_id = ?", (tenant, asset.asset_id))
    if asset.prompt_id:  # what is known of the job elsewhere is not true any more
        yield Statement("UPDATE jobs SET version = ? WHERE prompt_id = ?", (version, asset.prompt_id))
    where, file = _same_file(tenant, asset)
    others = yield Statement(f"SELECT 1 FROM assets WHERE {where} LIMIT 1", file)
    if asset.folder is not None and not (others and (yield from _is_known(tenant, asset))):
        yield from disown(tenant, asset.folder.value, asset.path, asset.stamp)
    return Deleted(asset, not others)


def _is_known(tenant: str, asset: Asset) -> Operation[bool]:
    """Whether another record is of the same file as it was then: what a later job wrote in its place has copies of its own."""
    if not asset.prompt_id:
        return True  # an upload, which has none
    where, file = _same_file(tenant, asset)
    return bool(
        (yield Statement(f"SELECT 1 FROM assets WHERE {where} AND assets.stamp = ? LIMIT 1", (*file, asset.stamp)))
    )


def _places_in_use(tenant: str) -> Operation[set[tuple[str, str]]]:
    """Of the assets that jobs use which have not ended: see `_place_of`. So another record of the same file is in use too."""
    # SECURITY: in the order as written, from the few jobs that have not ended: by its own choice SQLite looks at each job that a tenant ever had, for each
    # record over a file, and nobody writes for minutes (tests/proxy/v2/assets/test_operations.py).
    rows = yield Statement(
        "SELECT DISTINCT assets.folder, CASE assets.folder WHEN '' THEN assets.asset_id ELSE assets.path END "
        "FROM jobs CROSS JOIN job_assets CROSS JOIN assets "
        f"WHERE jobs.state IN ({_places(_UNFINISHED)}) AND jobs.tenant = ? AND job_assets.prompt_id = jobs.prompt_id "
        "AND assets.asset_id = job_assets.asset_id AND assets.tenant = ?",
        (*_UNFINISHED, tenant, tenant),
    )
    return {(folder, place) for folder, place in rows}


def _place_of(asset: Asset) -> tuple[str, str]:
    """Folder and path; a text is in its own record alone."""
    return ("", asset.asset_id) if asset.folder is None else (asset.folder.value, asset.path)


def _same_file(tenant: str, asset: Asset) -> tuple[str, tuple[Any, ...]]:
    """A text is in its own record alone."""
    if asset.folder is None:
        return "assets.tenant = ? AND assets.asset_id = ?", (tenant, asset.asset_id)
    return "assets.tenant = ? AND assets.folder = ? AND assets.path = ?", (tenant, asset.folder.value, asset.path)


def _over(made: Asset, known: Asset) -> Asset:
    return replace(
        made,
        file_path=made.file_path or known.file_path,
        content_type=made.content_type or known.content_type,
        size_bytes=known.size_bytes,
        folder=known.folder,
        path=known.path,
        stamp=known.stamp,
    )


def _check_count(tenant: str) -> Operation[None]:
    [(count,)] = yield Statement("SELECT COUNT(*) FROM assets WHERE tenant = ? AND prompt_id = ''", (tenant,))
    if count >= MAX_RECORDS:
        raise Violation(
            Reason.STORAGE_FULL,
            "You have as many assets as a tenant may have: delete those that you no longer need.",
            f"at most {MAX_RECORDS}",
        )


def _places(texts: Sequence[str]) -> str:
    return ", ".join("?" * len(texts))
