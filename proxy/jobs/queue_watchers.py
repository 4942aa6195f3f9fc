"""The queue watchers of all ComfyUIs, as one where it does not matter which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping

from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.registry import JobRegistry


class QueueWatchers:
    """By the name of the ComfyUI, the first one first."""

    def __init__(self, watchers: Mapping[str, QueueWatcher], registry: JobRegistry) -> None:
        self._watchers = dict(watchers)
        self._registry = registry
        self._set_up: list[Callable[[QueueWatcher], None]] = []
        """What was said to all of them is said to those that come later."""

    def __iter__(self) -> Iterator[QueueWatcher]:
        return iter(tuple(self._watchers.values()))

    def of(self, comfyui: str) -> QueueWatcher:
        return self._watchers[comfyui]

    def change(self, watchers: Mapping[str, QueueWatcher]) -> None:
        """Some have come, or gone, which is for others to stop; the first stays."""
        come = [watcher for watcher in watchers.values() if watcher not in self._watchers.values()]
        self._watchers = dict(watchers)
        for watcher in come:
            for set_up in self._set_up:
                set_up(watcher)

    @property
    def first(self) -> QueueWatcher:
        return next(iter(self))

    def there(self) -> list[str]:
        """Names of those that are well."""
        return [name for name in self._watchers if self.is_well(name)]

    def is_well(self, comfyui: str) -> bool:
        """Whether it is there and runs what it is given, as far as is known."""
        watcher = self._watchers.get(comfyui)
        if watcher is None or not watcher.is_settled.is_set():
            return False
        return not watcher.is_worker_stuck and not watcher.queue.is_silent

    @property
    def is_any_connected(self) -> bool:
        return any(watcher.is_connected for watcher in self)

    def start(self) -> None:
        self._for_each(QueueWatcher.start)

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
        def set_up(watcher: QueueWatcher) -> None:
            watcher.on_synced = call

        self._for_each(set_up)

    def on_connected(self, call: Callable[[str], Awaitable[None]]) -> None:
        """call: with the name of the ComfyUI."""

        def set_up(watcher: QueueWatcher) -> None:
            watcher.on_connected = call

        self._for_each(set_up)

    def on_cold(self, call: Callable[[str], None]) -> None:
        """call: with the name of a ComfyUI that was restarted."""

        def set_up(watcher: QueueWatcher) -> None:
            watcher.on_cold = call

        self._for_each(set_up)

    def _for_each(self, set_up: Callable[[QueueWatcher], None]) -> None:
        self._set_up.append(set_up)
        for watcher in self:
            set_up(watcher)

    async def has_job(self, prompt_id: str) -> bool:
        """Whether one of them has or had a job of this id, whoever sent it; the first is asked, and others that are there. Raises UpstreamUnavailable,
        UpstreamTimeout."""
        there = [watcher for watcher in self if watcher.is_connected and not watcher.queue.is_silent]
        others = [watcher for watcher in there if watcher is not self.first]
        asked = there if others else [self.first]
        return any([await watcher.has_job(prompt_id) for watcher in asked])


def is_heard(watchers: QueueWatchers, comfyui: str) -> bool:
    """Whether a ComfyUI says anything, as far as is known."""
    return any(each.name == comfyui and each.is_connected and not each.queue.is_silent for each in watchers)
