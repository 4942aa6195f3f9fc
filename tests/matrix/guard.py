"""What lies on ComfyUI's disk outside a tenant's own folders: nothing a tenant does may change it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDERS = ("input", "output", "temp", "models", "custom_nodes", "user/default")


def files_outside(base: Path, tenant: str) -> dict[str, str]:
    """Every file that is not the tenant's, with a hash of what is in it. Names in temp are drawn by ComfyUI, so only old ones count there."""
    found = {}
    for path in (path for folder in FOLDERS for path in (base / folder).rglob("*")):
        relative = path.relative_to(base).as_posix()
        if path.is_file() and f"/tenants/{tenant}/" not in f"/{relative}":
            found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@contextmanager
def nothing_else_changes(base: Path | None, tenant: str) -> Iterator[None]:
    """base: None where ComfyUI's disk is not to be seen, and so not watched."""
    if base is None:
        yield
        return
    before = files_outside(base, tenant)
    yield
    after = {name: value for name, value in files_outside(base, tenant).items() if not _is_new_preview(name, before)}
    assert after == before


def _is_new_preview(name: str, before: dict[str, str]) -> bool:
    return name.startswith("temp/ComfyUI_temp_") and name not in before
