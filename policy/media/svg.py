"""SVG: what ComfyUI writes behind each `<svg>` (comfy_extras/nodes_images.py, SaveSVGNode)."""

from __future__ import annotations

import re

from policy.media.editing import Editing, NotUnderstood, Reading, apply

_METADATA = re.compile(rb"<metadata>\s{0,64}<!\[CDATA\[\s{0,64}(?=\{)")
_END = b"]]>"


def svg(editing: Editing) -> Reading:
    data = yield from editing.exactly(0, editing.size)
    place = 0
    while (found := _METADATA.search(data, place)) is not None:
        editing.count()
        end = data.find(_END, found.end())
        if end < 0:
            raise NotUnderstood
        text = data[found.end() : end].rstrip()
        judged = editing.judge("", text)
        if judged is not None:
            editing.replace(found.end(), text, judged)
        place = end
    editing.leave(apply(data, editing.edits))
