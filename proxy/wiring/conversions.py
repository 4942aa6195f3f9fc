"""Makes what gives results in another form, and gives each part what it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.compiled_config import CompiledConfig
from proxy.conversion.conversions import Conversions
from proxy.conversion.kept_files import KeptFiles
from proxy.conversion.pool import ConverterPool
from proxy.conversion.sources import Sources
from proxy.files.directories import Directories
from proxy.files.tenant_files import TenantFiles
from proxy.upstream.client import Upstream

FOLDER: Final = "converted"
"""Below `server.state_dir`."""


def build_conversions(
    compiled: CompiledConfig,
    upstream: Upstream,
    files: TenantFiles,
    directories: Directories,
    in_force: Callable[[], CompiledConfig],
    on_converted: Callable[[str, str, float], None],
) -> Conversions:
    """in_force: the configuration, when everything is built. on_converted: told of each conversion, see Metrics.converted."""
    pool = ConverterPool()
    pool.on_converted = lambda order, answer, seconds: on_converted(order.kind, answer.result, seconds)
    config = compiled.config
    folder = config.resolve(config.server.state_dir).absolute() / FOLDER
    return Conversions(
        KeptFiles(folder, lambda: in_force().config.server.max_converted_bytes),
        pool,
        Sources(upstream, files, directories),
        lambda: in_force().config.server.max_picture_pixels,
    )
