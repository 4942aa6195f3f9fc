"""Tenants with very many files or folders: what that costs is bounded, and paid by themselves."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from policy.namespace import MAX_SEGMENTS, Namespace
from policy.principal import TenantId
from policy.violation import Violation
from proxy.files import listing as files_module
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.directories import Directories
from proxy.files.listing import FileListing

MAL = TenantId("mal")


def test_paths_are_not_deeper_than_a_person_makes_them() -> None:
    """ComfyUI makes the folders of a userdata name that is only read."""
    names = Namespace(MAL)
    assert names.userdata_to_upstream("/".join("a" * MAX_SEGMENTS))
    with pytest.raises(Violation, match="segments"):
        names.userdata_to_upstream("/".join("a" * (MAX_SEGMENTS + 1)))


async def test_a_listing_ends_at_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_LISTED", 3)
    root = tmp_path / "input/tenants/mal"
    for folder in range(10):
        (root / str(folder)).mkdir(parents=True)
        (root / str(folder) / "x.png").touch()
    walked: list[str] = []
    walk = os.walk

    def counted(top: Any) -> Any:
        for step in walk(top):
            walked.append(step[0])
            yield step

    monkeypatch.setattr(os, "walk", counted)
    assert len((await FileListing(Directories(tmp_path)).listing(MAL)).input) == 3
    assert len(walked) <= 5


async def test_folders_without_files_end_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_LISTED", 3)
    for folder in range(10):
        (tmp_path / "input/tenants/mal" / str(folder)).mkdir(parents=True)
    (tmp_path / "input/tenants/mal/9/x.png").touch()
    assert len((await FileListing(Directories(tmp_path)).listing(MAL)).input) <= 1


@pytest.mark.parametrize("kind", ["listing", "usage"])
async def test_one_tenant_takes_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    running = most = 0
    lock = threading.Lock()
    entered = threading.Semaphore(0)

    def work(self: Any, tenant: TenantId, *more: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        # Whoever came together would be counted here: they wait a moment for company that must not come.
        entered.acquire(timeout=0.05)
        with lock:
            running -= 1
        return 0

    if kind == "listing":
        monkeypatch.setattr(FileListing, "_list", work)
        ask = FileListing(Directories(tmp_path)).listing
    else:
        monkeypatch.setattr(ComfyUIFolders, "_count", work)
        monkeypatch.setattr("proxy.files.comfyui_folders._USAGE_FRESH_S", -1.0)
        ask = ComfyUIFolders(Directories(tmp_path)).usage_bytes  # type: ignore[assignment]
    await asyncio.gather(*(ask(MAL) for _ in range(4)))
    assert most == 1
