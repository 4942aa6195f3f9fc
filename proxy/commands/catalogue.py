"""Asks ComfyUI for its node classes, for commands that need them."""

from __future__ import annotations

from typing import Final

from policy.call import Opaque, UpstreamCall
from policy.catalogue import Catalogue, read_catalogue
from proxy.commands.exits import fail
from proxy.config import Config
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, unreachable
from proxy.upstream.client import Upstream

_TIME_LIMIT_S: Final = 60.0


async def ask_catalogue(config: Config, purpose: str) -> Catalogue:
    """Ends the command where ComfyUI does not answer. purpose: in words, as "to judge a workflow"."""
    upstream = Upstream(config.upstream.url, config.upstream.connect_timeout)
    try:
        reply = await upstream.ask(UpstreamCall("GET", (Opaque("object_info"),)), time_limit_s=_TIME_LIMIT_S)
    except (UpstreamUnavailable, UpstreamTimeout) as error:
        fail(f"{unreachable(config.upstream.url, error)} Its node classes are needed {purpose}.")
    finally:
        await upstream.stop()
    return read_catalogue(reply.value)
