"""Which requests are of the API. ComfyUI and packs have routes of their own below /api/v2, so no more than these two trees are claimed."""

from __future__ import annotations

import re
from typing import Final

_TREES: Final = re.compile(r"/api/v2/(?:jobs|assets)(?=[/?]|\Z)")


def is_v2(raw_path: str) -> bool:
    """raw_path: of the request's target, with or without its query."""
    return raw_path.startswith("/api/v2/") and _TREES.match(raw_path) is not None
