"""Files that begin with JSON: safetensors (ComfyUI's latents and models) and glTF's binary form, version 2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from policy.media.editing import GONE, Editing, Judge, NotUnderstood, Reading, little

GLB_MARK: Final = b"glTF"
_JSON: Final = b"JSON"


def safetensors(editing: Editing) -> Reading:
    """The length of the head, the head, and the tensors; ComfyUI's texts are the head's `__metadata__` (nodes.py, SaveLatent)."""
    size = little((yield from editing.exactly(0, 8)), 0, 8)
    yield from _judge_json(editing, 8, size, ("__metadata__",))


def glb(editing: Editing) -> Reading:
    """12 bytes of head, and chunks of which the first is the JSON; ComfyUI's texts are `asset.extras` (comfy_extras/nodes_save_3d.py)."""
    head = yield from editing.exactly(0, 20)
    if head[16:] != _JSON:
        raise NotUnderstood
    yield from _judge_json(editing, 20, little(head, 12), ("asset", "extras"))


def _judge_json(editing: Editing, offset: int, size: int, path: tuple[str, ...]) -> Reading:
    if size > editing.size - offset:
        raise NotUnderstood
    written = yield from editing.exactly(offset, size)
    try:
        document = json.loads(written)  # noqa: TID251 - as ComfyUI's libraries read and write it
        is_other = _judge_texts(document, path, editing.judge)
        if editing.is_thorough:
            editing.leave(json.dumps(document, ensure_ascii=False).encode())
        if is_other:
            text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
            # Both formats pass over spaces at its end.
            if len(text) > size:
                raise NotUnderstood
            editing.replace(offset, written, text.ljust(size))
    except (ValueError, RecursionError):
        raise NotUnderstood from None


def _judge_texts(document: Any, path: tuple[str, ...], judge: Judge) -> bool:
    """In place; says whether anything was changed."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(document, dict):
        return False
    judged = {key: judge(key, text.encode()) for key, text in document.items() if isinstance(text, str)}
    for key, found in judged.items():
        if found == GONE:
            del document[key]
        elif found is not None:
            document[key] = found.decode()
    return any(found is not None for found in judged.values())
