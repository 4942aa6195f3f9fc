"""Assets and jobs that tests of the API tell of."""

from __future__ import annotations

from typing import Any

from policy.namespace import Folder
from policy.v2.assets import Asset
from policy.v2.jobs import JobView, Status
from policy.v2.links import Links
from tests.policy.tenants import uuid_of

JOB, ASSET = uuid_of(1), uuid_of(100)
HASH = "blake3:" + "0a" * 32
LINKS = Links("https://gate.example", "/p")


def upload(number: int = 100, **more: Any) -> Asset:
    """A picture that was uploaded."""
    fields: dict[str, Any] = {"hash": HASH, "created_at_s": 1000.5, "folder": Folder.INPUT, "path": f"sub/{number}.png"}
    return Asset(uuid_of(number), "photo.png", "image/png", 12, **(fields | more))


def output(number: int = 200, **more: Any) -> Asset:
    """A picture that a job made."""
    fields: dict[str, Any] = {"hash": None, "created_at_s": 1010.0, "folder": Folder.OUTPUT, "path": "out/x_00001_.png"}
    fields |= {"kind": "image", "prompt_id": JOB, "node_id": "9"}
    return Asset(uuid_of(number), "x_00001_.png", "image/png", 34, **(fields | more))


def view(status: Status = Status.QUEUED, **more: Any) -> JobView:
    return JobView(JOB, status, 1000.0, 9000.0, **more)


def reference(asset_id: Any = ASSET, **more: Any) -> dict[str, Any]:
    """What stands for an asset in a workflow, as the SDKs write it."""
    return {"__type": "core/ASSET", "info": {"id": asset_id, "hash": HASH, "file_path": "photo.png"}} | more
