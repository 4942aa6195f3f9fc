"""What of a job's workflow depends on which ComfyUI runs it: where it saves its files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

import orjson

from policy.call import UpstreamPath
from policy.makers import made_by
from policy.namespace import ROOT, split_path
from policy.needs import Needs
from policy.workflow import Notice

_MARK: Final = b"/@"
"""In a body that may have the folder of a ComfyUI in it."""
_BEGIN: Final = f'"{ROOT}/'.encode()
_FOLDER: Final = re.compile(_BEGIN + rb'[^/"\\]+(?:/(?:[^"\\]|\\.)*)?"')
_PREFIX: Final = re.compile(_BEGIN + rb'[^/"\\]+/(?:[^"\\]|\\.)*"')
Rewrite = Callable[[UpstreamPath, str], UpstreamPath]

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
    found = _found_at_once(body, needs)
    return _read_whole(body, needs, comfyui) if found is None else _written(body, found, comfyui)


def _found_at_once(body: bytes, needs: Needs) -> list[tuple[int, int, Rewrite]] | None:
    """Where the names stand, without all of it being read, which takes half a second of millions of bytes; None where it is not sure that it is these.

    The gate has written the body: a quotation mark that is none of a text begins or ends one (RFC 8259, 7), so a member is told by its name.
    """
    counts = Counter((name, rewrite) for rewrite, places in _rewrites(needs) for _, name in places)
    if len({name for name, _ in counts}) < len(counts):
        return None
    found: list[tuple[int, int, Rewrite]] = []
    for (name, rewrite), count in counts.items():
        key, before, at = orjson.dumps(name) + b":", len(found), -1
        while (at := body.find(key + _BEGIN, at + 1)) >= 0:
            value = (_PREFIX if rewrite is _prefix_at else _FOLDER).match(body, at + len(key))
            if value is not None:
                found.append((value.start(), value.end(), rewrite))
        if len(found) - before != count:
            return None
    return sorted(found, key=lambda each: each[0])


def _written(body: bytes, found: list[tuple[int, int, Rewrite]], comfyui: str) -> bytes:
    view, last = memoryview(body), 0
    parts: list[bytes | memoryview] = []
    for start, end, rewrite in found:
        parts += [view[last:start], orjson.dumps(rewrite(UpstreamPath(orjson.loads(view[start:end])), comfyui))]
        last = end
    return b"".join((*parts, view[last:]))


def _rewrites(needs: Needs) -> tuple[tuple[Rewrite, tuple[tuple[str, str], ...]], ...]:
    return ((_prefix_at, needs.prefixes), (made_by, needs.folders))


def _read_whole(body: bytes, needs: Needs, comfyui: str) -> bytes:
    document = orjson.loads(body)
    for rewrite, places in _rewrites(needs):
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
