"""`[[comfyui]]`: the ComfyUIs that jobs run on, where there are several."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from proxy.config.identity import Tenant
from proxy.config.server import DEFAULT_URL, Directory, UpstreamUrl
from proxy.config.units import Duration, Settings

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def parse_name(text: Any) -> str:
    """A name that stands in names of folders too. Raises ValueError."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise ValueError('write a name such as "gpu-1", of at most 32 small letters, digits and "-"')
    return text


FIRST: Final = "default"
"""The name of the ComfyUI of `[upstream]`."""


class ComfyUISettings(Settings):
    """window: None for that of `[jobs]`. weight: how fast it is beside the others: one of 2 takes half the time. tenants: who may use it, all where none is
    named. shared_directory: it sees the folders that the first one sees. gone_after: how long it may be away until what it had goes on with the others.
    warmup: functions that run once there after it was restarted.
    """

    name: Annotated[str, BeforeValidator(parse_name)]
    url: UpstreamUrl = DEFAULT_URL
    directory: Directory = None
    window: Annotated[int, Field(strict=True, ge=1, le=64)] | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    labels: tuple[str, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    shared_directory: Annotated[bool, Field(strict=True)] = False
    gone_after: Annotated[Duration, Field(ge=1)] = 30.0
    warmup: tuple[str, ...] = ()
