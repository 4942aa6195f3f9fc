"""What lies on ComfyUI's disk outside a tenant's own folders: nothing a tenant does may change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDERS = ("input", "output", "temp", "models", "custom_nodes", "user/default")


def files_outside(base: Path, tenant: str) -> dict[str, tuple[int, int]]:
    """Every file that is not the tenant's, with its size and when it was written (a real ComfyUI may have gigabytes).

    Names in temp are drawn by ComfyUI, so only old ones count there.
    """
    found: dict[str, tuple[int, int]] = {}
    for path in (path for folder in FOLDERS for path in (base / folder).rglob("*")):
        relative = path.relative_to(base).as_posix()
        if path.is_file() and f"/tenants/{tenant}/" not in f"/{relative}":
            found[relative] = (path.stat().st_size, path.stat().st_mtime_ns)
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


def _is_new_preview(name: str, before: dict[str, tuple[int, int]]) -> bool:
    return name.startswith("temp/ComfyUI_temp_") and name not in before
