"""What nobody outside may lead the gate to."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from proxy.config import Config


def own_places(config: Config) -> Iterable[tuple[str, int]]:
    """Where ComfyUI and the gate itself listen."""
    upstream = urlsplit(config.upstream.url)
    yield upstream.hostname or "", upstream.port or 80
    yield config.server.host, config.server.port
    yield config.ops.host, config.ops.port
