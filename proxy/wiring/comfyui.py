"""Makes what knows of each ComfyUI where it is, and which of them has what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from proxy.compiled_config import CompiledConfig
from proxy.config import Config
from proxy.config.comfyui import ComfyUISettings
from proxy.files.directories import Directories
from proxy.files.makers import Makers
from proxy.files.transfers import Transfers
from proxy.jobs.parts import JobParts
from proxy.jobs.queue_watchers import is_heard
from proxy.steps.temp_file_owners import TempFileOwners
from proxy.upstream.client import Upstream
from proxy.upstream.other import OtherUpstream
from proxy.upstream.upstreams import Upstreams


def build_upstream(compiled: CompiledConfig) -> Upstream:
    """All of them as one; which one a call goes to, `choose_makers` says. Where the one there is has a name, others may come while the gate runs."""
    config = compiled.config
    first, *others = config.comfyuis
    timeout_s = config.upstream.connect_timeout
    if not config.comfyui:
        return Upstream(first.url, timeout_s)
    return Upstreams(
        first.url, timeout_s, {other.name: OtherUpstream(other.name, other.url, timeout_s) for other in others}
    )


def see_directories(config: Config) -> Directories:
    """As the configuration names them; which one has a file, `choose_makers` says."""
    first, *others = config.comfyuis
    return Directories(_base_of(config, first), *folders_of(config, others))


def folders_of(config: Config, others: Sequence[ComfyUISettings]) -> tuple[dict[str, Path | None], frozenset[str]]:
    """The base folders of others than the first, by name, and which of these see the first one's."""
    sharing = frozenset(other.name for other in others if other.shared_directory)
    return {other.name: _base_of(config, other) for other in others}, sharing


def _base_of(config: Config, comfyui: ComfyUISettings) -> Path | None:
    return None if comfyui.directory is None else config.resolve(comfyui.directory)


def choose_makers(
    upstream: Upstream, directories: Directories, jobs: JobParts
) -> tuple[Makers | None, Transfers | None]:
    """Calls and paths lead to the ComfyUI that has what they name, and what a job reads is brought there, from now on."""
    if not isinstance(upstream, Upstreams):
        return None, None
    names = jobs.registry.comfyuis
    makers = Makers(jobs.registry, frozenset(upstream.others), directories.sharing, names.absent_for)
    upstream.choose, upstream.absent_maker = makers.of_call, makers.absent_maker_of
    directories.maker_of, directories.absent = makers.of_file, names.absent
    owners = TempFileOwners(upstream, jobs.registry)
    transfers = Transfers(upstream, makers, directories, jobs.registry.temp_files, owners.is_own, names[0])
    jobs.preparation.bring, jobs.preparation.far_files = transfers.bring, transfers.far_files
    upstream.is_told, upstream.answers = makers.is_told, partial(is_heard, jobs.watchers)
    if jobs.placing is not None:
        open_to = jobs.placing.open_to
        makers.is_open = lambda name, tenant: any(each.name == name for each in open_to(tenant))
        jobs.placing.sources, jobs.placing.far_files = transfers.sources, transfers.far_files
        jobs.placing.bytes_to = transfers.brought.bytes_to
    return makers, transfers
