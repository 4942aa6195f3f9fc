"""Pictures that ComfyUI makes for a call (previews, channels, masks): it does so on its event loop, so one at a time, tenants in turn."""

from __future__ import annotations

from typing import Final

from proxy.http.errors import LimitExceeded
from proxy.http.multipart_upload import UploadStream
from proxy.limits.lane import Lane, Turn

MAX_WAITING: Final = 32
"""Of one tenant."""
WAIT_S: Final = 60.0
_RETRY_S: Final = 3.0


class PictureLane(Lane):
    """SECURITY: a picture of few bytes and many pixels keeps ComfyUI from everybody for seconds (tests/security/test_previews.py)."""

    max_waiting = MAX_WAITING
    wait_s = WAIT_S

    def refusal(self) -> LimitExceeded:
        return LimitExceeded(
            "Too many pictures of this tenant wait to be made smaller. Ask for fewer at once.",
            limit=f"{MAX_WAITING} pictures of the tenant",
            retry_after_s=_RETRY_S,
            reason="too-many-pictures",
        )


async def wait_for(turn: Turn, content: object) -> None:
    """ComfyUI begins with a mask when it has all of it; its client may take long to send it, and delays nobody."""
    if isinstance(content, UploadStream):
        content.before_end = turn.take
    else:
        await turn.take()
