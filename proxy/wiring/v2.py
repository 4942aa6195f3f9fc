"""Makes what serves Comfy API v2, and gives each part what it needs."""

from __future__ import annotations

from collections.abc import Callable

from proxy.compiled_config import CompiledConfig
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.directories import UNSEEN
from proxy.files.tenant_files import TenantFiles
from proxy.jobs.idempotency_db import KeptSubmissions
from proxy.jobs.parts import JobParts
from proxy.jobs.single_use_keys import SingleUseKeys
from proxy.persistence.operations import Database
from proxy.upstream.client import Upstream
from proxy.v2.asset_files import AssetFiles
from proxy.v2.assets import Assets
from proxy.v2.door import V2Door
from proxy.v2.event_streams import EventStreams
from proxy.v2.file_measuring import FileMeasuring
from proxy.v2.followed_jobs import FollowedJobs
from proxy.v2.job_hearing import JobHearing
from proxy.v2.job_streams import JobStreams
from proxy.v2.job_views import JobViews
from proxy.v2.left_jobs import LeftJobs
from proxy.v2.outputs import JobOutputs
from proxy.v2.parts import V2Parts
from proxy.v2.progress_relay import ProgressRelay
from proxy.websocket.connections import ConnectionRegistry
from proxy.websocket.parts import SocketParts
from proxy.websocket.places import Slot


def build_v2(
    upstream: Upstream,
    database: Database,
    disk: ComfyUIFolders | None,
    files: TenantFiles,
    jobs: JobParts,
    hearing: SocketParts,
    sockets: ConnectionRegistry,
    slot: Slot,
    in_force: Callable[[], CompiledConfig],
) -> V2Parts:
    """disk: ComfyUI's folders, None where the gate does not see them. slot: see `EventStreams`. in_force: the configuration, when all is built."""

    def history_s() -> float:
        return in_force().config.jobs.history

    directories = UNSEEN if disk is None else disk.directories
    assets = _assets(database, AssetFiles(disk, upstream, jobs.registry), in_force)
    outputs = JobOutputs(database, jobs.documents, jobs.registry, FileMeasuring(upstream, files, directories))
    followed = FollowedJobs(jobs.registry, history_s)
    streams, hears = JobStreams(database, jobs.registry, followed), JobHearing(jobs.registry, followed, outputs)
    views = JobViews(database, jobs.registry, streams, outputs, history_s)
    streams.find = views.find
    hearing.reports.listener = hears
    door = V2Door(views, assets, jobs.registry, jobs.records, jobs.results, jobs.forecasts, streams.job_changed)
    return V2Parts(
        door=door,
        views=views,
        keys=SingleUseKeys(KeptSubmissions(database)),
        streams=streams,
        hearing=hears,
        relay=_relay(database, hears, hearing),
        outputs=outputs,
        own_sockets=hearing.own,
        event_streams=EventStreams(streams, views, sockets, slot),
        assets=assets,
        left=LeftJobs(door),
        slot=slot,
    )


def _relay(database: Database, hears: JobHearing, hearing: SocketParts) -> ProgressRelay:
    relay = ProgressRelay(database.say, hears.take)
    if database.is_shared:
        hears.tell_others = relay.heard
        database.on_word(relay.told)
        hearing.own.was_heard = hears.has_heard
    return relay


def _assets(database: Database, files: AssetFiles, in_force: Callable[[], CompiledConfig]) -> Assets:
    return Assets(
        database,
        files,
        lambda: in_force().tenants,
        lambda tenant: in_force().limits_of(tenant).retention,
    )
