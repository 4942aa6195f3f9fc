"""What serves Comfy API v2. Made in proxy/wiring/v2.py."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.jobs.single_use_keys import SingleUseKeys
from proxy.v2.assets import Assets
from proxy.v2.door import V2Door
from proxy.v2.event_streams import EventStreams
from proxy.v2.job_hearing import JobHearing
from proxy.v2.job_streams import JobStreams
from proxy.v2.job_views import JobViews
from proxy.v2.left_jobs import LeftJobs
from proxy.v2.outputs import JobOutputs
from proxy.v2.progress_relay import ProgressRelay
from proxy.websocket.own_sockets import OwnSockets
from proxy.websocket.places import Slot


@dataclass(frozen=True, slots=True)
class V2Parts:
    """slot: a place for who follows a job, or waits for its end."""

    door: V2Door
    views: JobViews
    keys: SingleUseKeys
    streams: JobStreams
    hearing: JobHearing
    relay: ProgressRelay
    outputs: JobOutputs
    own_sockets: OwnSockets
    event_streams: EventStreams
    assets: Assets
    left: LeftJobs
    slot: Slot

    async def stop(self) -> None:
        """Before what they ask is stopped."""
        self.event_streams.stop()
        await self.left.stop()
        await self.streams.stop()
        await self.relay.stop()
        await self.hearing.stop()
        await self.outputs.stop()
