"""SVG: what ComfyUI writes behind each `<svg>` (comfy_extras/nodes_images.py, SaveSVGNode)."""

from __future__ import annotations

import re
from typing import Final

from policy.media.editing import Editing, NotUnderstood, Reading, apply

_BEGIN: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,8}<(?:(?:[A-Za-z_][\w.-]{0,8}:)?svg|\?xml|!--|!DOCTYPE)")
"""Programs that draw write declarations and comments before it (XML 1.0, 2.8)."""
_SVG: Final = re.compile(rb"<(?:[A-Za-z_][\w.-]{0,64}:)?svg[\s>/]")
"""With a prefix too (Namespaces in XML 1.0, 4)."""
_METADATA: Final = re.compile(rb"<metadata>\s{0,64}<!\[CDATA\[\s{0,64}(?=\{)")
_END: Final = b"]]>"


def is_markup(head: bytes) -> bool:
    """Whether an SVG may begin so."""
    return _BEGIN.match(head) is not None


def svg(editing: Editing) -> Reading:
    data = yield from editing.exactly(0, editing.size)
    if _SVG.search(data) is None:
        raise NotUnderstood
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
