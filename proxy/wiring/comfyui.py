"""Makes what knows of each ComfyUI where it is, and which of them has what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from proxy.compiled_config import CompiledConfig
from proxy.config.comfyui import ComfyUISettings
from proxy.files.directories import Directories
from proxy.files.makers import Makers
from proxy.files.transfers import Transfers
from proxy.jobs.parts import JobParts
from proxy.steps.temp_file_owners import TempFileOwners
from proxy.upstream.client import Upstream
from proxy.upstream.other import OtherUpstream
from proxy.upstream.upstreams import Upstreams


def build_upstream(compiled: CompiledConfig) -> Upstream:
    """All of them as one; which one a call goes to, `choose_makers` says."""
    config = compiled.config
    first, *others = config.comfyuis
    timeout_s = config.upstream.connect_timeout
    if not others:
        return Upstream(first.url, timeout_s)
    return Upstreams(
        first.url, timeout_s, {other.name: OtherUpstream(other.name, other.url, timeout_s) for other in others}
    )


def see_directories(compiled: CompiledConfig) -> Directories:
    """As the configuration names them; which one has a file, `choose_makers` says."""

    def base_of(comfyui: ComfyUISettings) -> Path | None:
        return None if comfyui.directory is None else compiled.config.resolve(comfyui.directory)

    first, *others = compiled.config.comfyuis
    sharing = frozenset(other.name for other in others if other.shared_directory)
    return Directories(base_of(first), {other.name: base_of(other) for other in others}, sharing)


def choose_makers(upstream: Upstream, directories: Directories, jobs: JobParts) -> tuple[Directories, Transfers | None]:
    """Calls and paths lead to the ComfyUI that has what they name, and what a job reads is brought there, from now on."""
    if not isinstance(upstream, Upstreams):
        return directories, None
    makers = Makers(jobs.registry, upstream.others, directories.sharing)
    upstream.choose = makers.of_call
    directories = replace(directories, maker_of=makers.of_file)
    owners = TempFileOwners(upstream, jobs.registry)
    first = jobs.registry.comfyuis[0]
    transfers = Transfers(upstream, makers, directories, jobs.registry.temp_files, owners.is_own, first)
    jobs.preparation.bring, jobs.preparation.reads_elsewhere = transfers.bring, transfers.reads_elsewhere
    if jobs.placing is not None:
        jobs.placing.sources, jobs.placing.reads_elsewhere = transfers.sources, transfers.reads_elsewhere
    return directories, transfers
