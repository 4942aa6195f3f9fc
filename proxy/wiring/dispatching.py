"""Makes what follows and feeds each ComfyUI: its queue watcher, its sender, and the dispatcher of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from proxy.compiled_config import CompiledConfig
from proxy.config.comfyui import ComfyUISettings
from proxy.jobs.dispatcher import Dispatcher, dispatcher_of_one
from proxy.jobs.endings import JobEndings
from proxy.jobs.events import JobEvents
from proxy.jobs.placing import Placing
from proxy.jobs.preparation import Preparation
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.queue_watchers import QueueWatchers
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.jobs.sender import Refused, Sender
from proxy.upstream.client import Upstream

InForce = Callable[[], CompiledConfig]


WatcherOf = Callable[[str, Upstream], QueueWatcher]
"""Makes that of the ComfyUI of a name."""
SenderOf = Callable[[QueueWatcher, Upstream], Sender]


def watcher_maker(
    registry: JobRegistry, records: JobRecords, endings: JobEndings, events: JobEvents, replica: JobReplica
) -> WatcherOf:
    def make(name: str, upstream: Upstream) -> QueueWatcher:
        return QueueWatcher(
            upstream, registry, records, endings, name=name, on_started=events.started, current=replica.current
        )

    return make


def sender_maker(
    registry: JobRegistry,
    records: JobRecords,
    on_refused: Refused,
    prepare: Preparation,
    on_brought: Callable[[], None],
) -> SenderOf:
    def make(watcher: QueueWatcher, upstream: Upstream) -> Sender:
        def is_ready() -> bool:
            return watcher.is_settled.is_set() and not watcher.closing.is_giving_back

        last = (on_refused, prepare, prepare.is_far, on_brought)
        return Sender(watcher.name, upstream, registry, records, is_ready, *last)

    return make


def set_patience(watchers: QueueWatchers, comfyuis: Iterable[ComfyUISettings]) -> None:
    """How long each may be away until the others go on with what it had: for ever where there are no others."""
    gone_after_s = {comfyui.name: comfyui.gone_after for comfyui in comfyuis}
    names = [watcher.name for watcher in watchers]
    for watcher in watchers:
        if len(names) == 1:
            watcher.absence.gone_after_s = None
        elif watcher.name in gone_after_s:
            watcher.absence.gone_after_s = gone_after_s[watcher.name]


def build_dispatcher(
    comfyuis: Sequence[ComfyUISettings],
    senders: Sequence[Sender],
    watchers: QueueWatchers,
    registry: JobRegistry,
    records: JobRecords,
    replica: JobReplica,
    in_force: InForce,
    prepare: Preparation,
    *,
    may_be_several: bool,
) -> tuple[Dispatcher, Placing | None]:
    """None where there is one ComfyUI, and nothing to choose."""
    if not may_be_several:
        [sender] = senders
        return dispatcher_of_one(sender, registry, records, replica), None

    def window_of(comfyui: ComfyUISettings) -> int:
        return in_force().config.window_of(comfyui)

    placing = Placing(registry, records, comfyuis, lambda: in_force().config.comfyuis, window_of, watchers.is_well)
    dispatcher = Dispatcher(senders, registry, records, replica, placing.give, placing.has_room)
    placing.brings_for = dispatcher.brings_for
    prepare.is_open = lambda tenant, name: any(each.name == name for each in placing.open_to(tenant))
    return dispatcher, placing
