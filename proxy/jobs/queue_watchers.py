"""The queue watchers of all ComfyUIs, as one where it does not matter which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping

from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.registry import JobRegistry


class QueueWatchers:
    """By the name of the ComfyUI, the first one first."""

    def __init__(self, watchers: Mapping[str, QueueWatcher], registry: JobRegistry) -> None:
        self._watchers = watchers
        self._registry = registry

    def __iter__(self) -> Iterator[QueueWatcher]:
        return iter(self._watchers.values())

    def of(self, comfyui: str) -> QueueWatcher:
        return self._watchers[comfyui]

    @property
    def first(self) -> QueueWatcher:
        return next(iter(self))

    def there(self) -> list[str]:
        """Names of those that are well."""
        return [name for name in self._watchers if self.is_well(name)]

    def is_well(self, comfyui: str) -> bool:
        """Whether it is there and runs what it is given, as far as is known."""
        watcher = self._watchers[comfyui]
        return watcher.is_settled.is_set() and not watcher.is_worker_stuck and not watcher.queue.is_silent

    @property
    def is_any_connected(self) -> bool:
        return any(watcher.is_connected for watcher in self)

    def start(self) -> None:
        for watcher in self:
            watcher.start()

    async def stop(self) -> None:
        for watcher in self:
            await watcher.stop()

    def request_sync(self) -> None:
        for watcher in self:
            watcher.request_sync()

    def close_soon(self, prompt_id: str) -> None:
        """Its client was told that it ended."""
        job = self._registry.job(prompt_id)
        if job is not None:
            self._watchers.get(job.comfyui, self.first).close_soon(prompt_id)

    def on_synced(self, call: Callable[[], None]) -> None:
        for watcher in self:
            watcher.on_synced = call

    def on_connected(self, call: Callable[[str], Awaitable[None]]) -> None:
        """call: with the name of the ComfyUI."""
        for watcher in self:
            watcher.on_connected = call

    def on_cold(self, call: Callable[[str], None]) -> None:
        """call: with the name of a ComfyUI that was restarted."""
        for watcher in self:
            watcher.on_cold = call

    async def has_job(self, prompt_id: str) -> bool:
        """Whether one of them has or had a job of this id, whoever sent it; the first is asked, and others that are there. Raises UpstreamUnavailable,
        UpstreamTimeout."""
        there = [watcher for watcher in self if watcher.is_connected and not watcher.queue.is_silent]
        others = [watcher for watcher in there if watcher is not self.first]
        asked = there if others else [self.first]
        return any([await watcher.has_job(prompt_id) for watcher in asked])
