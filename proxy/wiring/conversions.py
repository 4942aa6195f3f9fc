"""Makes what gives results in another form, and gives each part what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.compiled_config import CompiledConfig
from proxy.conversion.conversions import Conversions
from proxy.conversion.kept_files import KeptFiles
from proxy.conversion.pool import ConverterPool
from proxy.conversion.sources import Sources
from proxy.files.tenant_files import TenantFiles
from proxy.upstream.client import Upstream

FOLDER: Final = "converted"
"""Below `server.state_dir`."""


def build_conversions(
    compiled: CompiledConfig,
    upstream: Upstream,
    files: TenantFiles,
    directory: Path | None,
    in_force: Callable[[], CompiledConfig],
) -> Conversions:
    """directory: ComfyUI's base folder, None where the gate does not see it. in_force: the configuration, when everything is built."""
    config = compiled.config
    folder = config.resolve(config.server.state_dir).absolute() / FOLDER
    return Conversions(
        KeptFiles(folder, lambda: in_force().config.server.max_converted_bytes),
        ConverterPool(),
        Sources(upstream, files, directory),
        lambda: in_force().config.server.max_picture_pixels,
    )
