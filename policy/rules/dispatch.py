"""What of a job's workflow depends on which ComfyUI runs it: where it saves its files."""

from __future__ import annotations

from typing import Final

import orjson

from policy.call import UpstreamPath
from policy.makers import made_by
from policy.namespace import ROOT, split_path
from policy.needs import Needs
from policy.workflow import Notice

_MARK: Final = b"/@"
"""In a body that may have the folder of a ComfyUI in it."""

_FOLDER_LEFT_OUT: Final = Notice(
    "comfyui-folder-left-out",
    "`@NAME/` at the beginning of the name of a file to be saved is left out: it is the folder of the ComfyUI that runs the job, which the gate adds.",
)


def body_at(body: bytes, needs: Needs, comfyui: str) -> bytes:
    """`Prepared.body` as this ComfyUI gets it: what it saves goes into its own folder (policy/makers.py). comfyui: "" for the first.

    A workflow out of a picture that another one made, or written so by hand, saves where this one does.
    """
    if not (needs.prefixes or needs.folders) or not (comfyui or _MARK in body):
        return body
    document = orjson.loads(body)
    for places, rewrite in ((needs.prefixes, _prefix_at), (needs.folders, made_by)):
        for node_id, name in places:
            inputs = document["prompt"][node_id]["inputs"]
            value = inputs.get(name)
            # A bare name stands beside a folder, which is named too.
            if isinstance(value, str) and value.startswith(f"{ROOT}/"):
                inputs[name] = rewrite(UpstreamPath(value), comfyui)
    return orjson.dumps(document)


def at_first(body: bytes, needs: Needs) -> tuple[bytes, tuple[Notice, ...]]:
    """As the first one gets it, and what its client is told of that."""
    written = body_at(body, needs, "")
    return written, () if written == body else (_FOLDER_LEFT_OUT,)


def _prefix_at(prefix: UpstreamPath, comfyui: str) -> UpstreamPath:
    """SECURITY: its last part is no folder, also where it is spelled as a ComfyUI's: without it the tenant's own folder would be the beginning of names
    beside it (test_dispatch.py::test_a_tenant_cannot_leave_its_folder_with_the_name_of_a_comfyui)."""
    folder, name = split_path(prefix)
    return UpstreamPath(f"{made_by(folder, comfyui)}/{name}")
