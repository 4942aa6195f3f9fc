"""One job that somebody may follow: how far it is, what it has made so far, and what its clients are told of that."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final

from policy.principal import TenantId
from policy.v2.assets import Asset
from policy.v2.events import output_event, preview_event, progress_event, read_preview, status_event
from policy.v2.jobs import JobView, Status
from policy.v2.progress import Plan, Progress, Tracker, finished
from proxy.v2.audience import Audience
from proxy.v2.event_stream import Piece, Viewer

PROGRESS: Final = "progress"
PREVIEW: Final = "preview"
_NOTHING: Final[deque[str]] = deque(maxlen=0)
"""Of the many that are followed for their end alone: each deque of its own takes a block of 600 bytes."""
MAX_UNMEASURED_BYTES: Final = 8 * 1024**2
"""Of what nodes have shown and has not been measured yet; what is more is found at the end of the job."""


class FollowedJob:
    """plan: None until somebody asks how far it is. unmeasured: what nodes have shown, as ComfyUI's frames."""

    __slots__ = (
        "_last_status",
        "_preview",
        "_told_outputs",
        "_told_progress",
        "_unmeasured_bytes",
        "audience",
        "is_closing",
        "is_heard",
        "late",
        "outputs",
        "plan",
        "planning",
        "prompt_id",
        "tenant",
        "tracker",
        "unmeasured",
    )

    def __init__(self, tenant: TenantId, prompt_id: str) -> None:
        self.tenant = tenant
        self.prompt_id = prompt_id
        self.tracker = Tracker()
        self.plan: Plan | None = None
        self.planning: asyncio.Task[None] | None = None
        self.audience = Audience(self._tell)
        self.late: dict[Viewer, None] = {}
        """Those who came while its end was being read: they are told nothing before that."""
        self.outputs: dict[str, Asset] = {}
        self._told_outputs: dict[str, None] = {}
        """Ids of the results that were told: of an earlier try of the job too."""
        self.unmeasured: deque[str] = _NOTHING
        self._unmeasured_bytes = 0
        self.is_closing = False
        """Its end is being read, after which all streams end."""
        self.is_heard = False
        """ComfyUI has said something of it."""
        self._last_status: bytes | None = None
        self._told_progress: Progress | None = None
        self._preview: bytes | None = None

    @property
    def has_clients(self) -> bool:
        return bool(self.audience) or bool(self.late)

    def leave(self, stream: Viewer) -> None:
        self.late.pop(stream, None)
        self.audience.leave(stream)

    # What happens to it.

    def begin(self) -> None:
        """A run of it begins."""
        self.tracker.begin()
        self.outputs.clear()
        self._preview = None

    def show(self, frame: str) -> bool:
        """A node has shown its results. Says whether nobody measures any at the moment."""
        if self._unmeasured_bytes + len(frame) > MAX_UNMEASURED_BYTES:
            return False
        self._unmeasured_bytes += len(frame)
        if not self.unmeasured:
            self.unmeasured = deque()
        self.unmeasured.append(frame)
        return len(self.unmeasured) == 1

    def shown(self) -> None:
        """The first of `unmeasured` was measured."""
        self._unmeasured_bytes -= len(self.unmeasured.popleft())

    def picture(self, frame: bytes) -> None:
        """frame: a binary one of ComfyUI's."""
        self._preview = frame
        self.audience.changed(PREVIEW)

    # What its clients are told.

    def progress(self) -> Progress | None:
        """None where nothing is known of it yet."""
        return self.tracker.progress(self.plan) if self.plan is not None and self.is_heard else None

    def join(self, stream: Viewer, status: Status, queue_position: int | None, expires_at_s: float) -> None:
        """From now on it is told; first of all what is known. expires_at_s: Unix time until which links to results work."""
        self.tell_status(status, queue_position)
        self.audience.join(stream)
        stream.send(Piece(status_event(status, queue_position)))
        if (progress := self.progress()) is not None:
            stream.offer(PROGRESS, Piece(progress_event(progress)))
        if (picture := self._picture()) is not None:
            stream.offer(PREVIEW, Piece(picture))
        for asset in self.outputs.values():
            stream.send(Piece(output_event(asset, stream.links, expires_at_s)))

    def tell_status(self, status: Status, queue_position: int | None) -> None:
        """Nothing where it is the same as before."""
        event = status_event(status, queue_position)
        if event != self._last_status:
            self._last_status = event
            self.audience.send(event)

    def tell_outputs(self, outputs: Iterable[Asset], expires_at_s: float) -> None:
        """What was not told yet."""
        for asset in outputs:
            self.outputs[asset.asset_id] = asset
            if asset.asset_id not in self._told_outputs:
                self._told_outputs[asset.asset_id] = None
                self.audience.send_with_links(partial(output_event, asset, url_expires_at_s=expires_at_s))

    def _tell(self, changed: frozenset[str]) -> None:
        if PROGRESS in changed:
            self._tell_progress(self.progress())
        if PREVIEW in changed and (picture := self._picture()) is not None:
            self.audience.offer(PREVIEW, picture)

    def _tell_progress(self, progress: Progress | None) -> None:
        if progress is not None and progress != self._told_progress:
            self._told_progress = progress
            self.audience.offer(PROGRESS, progress_event(progress))

    def _picture(self) -> bytes | None:
        preview = None if self._preview is None else read_preview(self._preview)
        return None if preview is None else preview_event(preview, self.tracker.node)

    def end(self, job: JobView | None) -> None:
        """job: None where it is gone, of which there is nothing to tell. The state is the last that is told, and all else comes before it."""
        last = None
        if job is not None:
            self.tell_outputs(job.outputs, job.keep_until_s)
            for stream in tuple(self.late):
                for asset in job.outputs:
                    stream.send(Piece(output_event(asset, stream.links, job.keep_until_s)))
            if self.plan is not None:
                self._tell_progress(finished(self.plan) if job.status is Status.SUCCEEDED else self.progress())
            last = status_event(job.status, None)
        for stream in tuple(self.late):
            stream.finish(None if last is None else Piece(last))
        self.audience.finish(last)
        self.audience.rest()
