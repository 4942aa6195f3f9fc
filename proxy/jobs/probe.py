"""A small workflow of nobody's in the queue of a ComfyUI that runs nothing: as long as it stands there nothing has changed, and it is gone when that runs
again, or was restarted. Without it one whose jobs others go on with would look idle, and be given the next ones."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Container
from typing import Final

import orjson

from policy.call import UpstreamCall
from policy.rules.jobs import JSON_TYPE
from policy.rules.prompt import PROMPT, body_for
from policy.warmup import CLIENT, PLACE
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.registry import JobRegistry
from proxy.upstream.client import Upstream

_LIMIT_S: Final = 10.0
_BODY: Final = orjson.dumps(
    {
        "prompt": {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        },
        "client_id": CLIENT,
        "extra_data": {"client_id": CLIENT},
    }
)

_log = logging.getLogger("comfygate")


class Probe:
    """Of one ComfyUI."""

    def __init__(self, upstream: Upstream, registry: JobRegistry) -> None:
        self._upstream = upstream
        self._registry = registry
        self._prompt_id = ""

    async def put(self, comfyui: str, pending: Container[str]) -> None:
        """Unless it is there. pending: what waits in the ComfyUI's queue, of this name."""
        if self._prompt_id in pending:
            return
        self._prompt_id = str(uuid.uuid4())
        # SECURITY: no tenant can claim its id, and so see it (tests/matrix/test_reuse.py).
        self._registry.mark_unowned(self._prompt_id)
        body = body_for(_BODY, self._prompt_id, PLACE)
        call = UpstreamCall("POST", PROMPT, body=body, content_type=JSON_TYPE)
        try:
            reply = await self._upstream.ask(call, time_limit_s=_LIMIT_S)
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            _log.warning("%s does not take what would tell that it runs again (%s)", comfyui, error)
            return
        if reply.status != 200:
            _log.warning("%s does not take what would tell that it runs again: it answers %d", comfyui, reply.status)
