"""Makes what follows and feeds each ComfyUI: its queue watcher, its sender, and the dispatcher of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def build_watchers(
    comfyuis: Sequence[ComfyUISettings],
    upstream: Upstream,
    registry: JobRegistry,
    records: JobRecords,
    endings: JobEndings,
    events: JobEvents,
    replica: JobReplica,
) -> QueueWatchers:
    has_others = len(comfyuis) > 1
    watchers = {
        comfyui.name: QueueWatcher(
            upstream.of(comfyui.name),
            registry,
            records,
            endings,
            name=comfyui.name,
            on_started=events.started,
            current=replica.current,
            gone_after_s=comfyui.gone_after if has_others else None,
        )
        for comfyui in comfyuis
    }
    return QueueWatchers(watchers, registry)


def build_senders(
    watchers: QueueWatchers,
    upstream: Upstream,
    registry: JobRegistry,
    records: JobRecords,
    on_refused: Refused,
    prepare: Preparation,
) -> list[Sender]:
    def sender(watcher: QueueWatcher) -> Sender:
        def is_ready() -> bool:
            return watcher.is_settled.is_set() and not watcher.closing.is_giving_back

        name = watcher.name
        return Sender(name, upstream.of(name), registry, records, is_ready, on_refused, prepare, prepare.is_far)

    return [sender(watcher) for watcher in watchers]


def build_dispatcher(
    comfyuis: Sequence[ComfyUISettings],
    senders: Sequence[Sender],
    watchers: QueueWatchers,
    registry: JobRegistry,
    records: JobRecords,
    replica: JobReplica,
    in_force: InForce,
) -> tuple[Dispatcher, Placing | None]:
    """None where there is one ComfyUI, and nothing to choose."""
    if len(senders) == 1:
        return dispatcher_of_one(senders[0], registry, records, replica), None

    def window_of(comfyui: ComfyUISettings) -> int:
        return in_force().config.window_of(comfyui)

    placing = Placing(registry, records, comfyuis, lambda: in_force().config.comfyuis, window_of, watchers.is_well)
    return Dispatcher(senders, registry, records, replica, placing.give, placing.has_room), placing
