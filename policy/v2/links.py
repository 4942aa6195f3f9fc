"""Where clients find what an answer names."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from policy.values import value

_SAFE: Final = "-._~"
_QUOTED: Final = re.compile(rf"[A-Za-z0-9{re.escape(_SAFE)}]+")
"""What stands for itself in a path: nearly all names do."""


@value
class Links:
    """origin: scheme, host and port at which clients see the gate. prefix: the path below which they do, "" or "/prefix".

    What a client follows with its key is relative to the host: it stays on the origin that the client was given, whatever terminates TLS in front
    of the gate. What the contract wants to be absolute is not fetched by the SDKs.
    """

    origin: str = ""
    prefix: str = ""

    def job(self, prompt_id: str) -> str:
        return f"{self.prefix}/api/v2/jobs/{_quoted(prompt_id)}"

    def content(self, asset_id: str) -> str:
        """Absolute."""
        return f"{self.origin}{self.prefix}/api/v2/assets/{_quoted(asset_id)}/content"


def _quoted(name: str) -> str:
    return name if _QUOTED.fullmatch(name) else quote(name, safe=_SAFE)
