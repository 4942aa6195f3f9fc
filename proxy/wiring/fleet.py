"""The ComfyUIs that there are while the gate runs: others than the first come and go as the configuration says.

One that is taken out leaves: it is given nothing any more, what it has is followed to its end, and then it is gone. One that is at another address is taken out
and, when it has gone, put in. A gate that is restarted meanwhile follows on those that leave.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from policy.needs import Needs
from proxy.config import Config, ConfigError, Mistake
from proxy.config.comfyui import ComfyUISettings
from proxy.dependencies import Dependencies
from proxy.files.directories import Directories
from proxy.files.makers import Makers
from proxy.jobs.placing import Placing
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.registry import change_comfyuis
from proxy.jobs.sender import Sender
from proxy.jobs.store_placing import is_any_reading
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream
from proxy.upstream.merged_catalogue import MergedCatalogue
from proxy.upstream.node_catalogue import CatalogueSource
from proxy.upstream.other import OtherUpstream
from proxy.upstream.upstreams import Upstreams
from proxy.websocket.session_sockets import SessionSockets
from proxy.wiring.comfyui import folders_of
from proxy.wiring.dispatching import set_patience
from proxy.wiring.jobs import Made
from proxy.wiring.leaving import Leaving

LOOK_EACH_S: Final = 0.25
STAYS_S: Final = 60.0
"""After its last job, for who waits for what that has made."""
AGREED_S: Final = 120.0
"""By then the other gates of a database have read the configuration too: some platforms renew files within a minute."""
READ_WITHIN_S: Final = 3600.0
"""For jobs of others that wait, or are prepared, and read what it has made. Tenants send these: it does not stay for them for ever."""
READ_EACH_S: Final = 2.0
ENDS_WITHIN_S: Final = 3600.0
"""Of one that has gone: for who still reads a file of it."""

_log = logging.getLogger("comfygate")


@dataclass(slots=True)
class _Member:
    """Another than the first. leaving: runs as long as it is followed and given nothing, from the gate's start on."""

    settings: ComfyUISettings
    upstream: Upstream
    catalogue: CatalogueSource
    watcher: QueueWatcher
    sender: Sender
    leaving: asyncio.Task[None] | None = None

    @property
    def is_leaving(self) -> bool:
        return self.sender.is_leaving


class FleetParts(NamedTuple):
    """What has to know of each ComfyUI. database: of the jobs; where it is shared there are other gates before the same ComfyUIs."""

    upstream: Upstreams
    placing: Placing
    sockets: SessionSockets
    makers: Makers
    directories: Directories
    catalogue: MergedCatalogue
    made: Made
    database: Database


class Wanted(NamedTuple):
    """A configuration of which nothing can fail any more. upstreams: of those that are not there at this address, by name."""

    config: Config
    upstreams: Mapping[str, Upstream]


class Fleet:
    """on_named: called with the names of all when some have come or gone. on_leaving: with that of one that leaves."""

    def __init__(self, config: Config, parts: FleetParts) -> None:
        self._parts = parts
        self._first, *others = config.comfyuis
        self._timeout_s = config.upstream.connect_timeout
        senders = {sender.comfyui: sender for sender in parts.made.jobs.dispatcher.senders}
        self._first_sender = senders[self._first.name]
        self._members = {
            each.name: _Member(
                each,
                parts.upstream.of(each.name),
                parts.catalogue.parts[each.name],
                parts.made.jobs.watchers.of(each.name),
                senders[each.name],
            )
            for each in others
        }
        self._wanted = Wanted(config, {})
        self._leaving = Leaving(parts.database)
        self._tasks = Tasks()
        self.on_named: Callable[[Sequence[str]], None] = lambda names: None
        self.on_leaving: Callable[[str], None] = lambda name: None

    async def resume(self) -> None:
        """Before jobs are read: what was leaving when the gate was stopped leaves on. Raises DatabaseUnavailable."""
        for settings in await self._leaving.read():
            if not _is_there_otherwise(settings, self.settings):
                self._resume(settings)
                self._publish()

    def _resume(self, settings: ComfyUISettings) -> None:
        name = settings.name
        try:
            upstream = OtherUpstream(name, settings.url, self._timeout_s)
        except ValueError as error:
            _log.warning("ComfyUI %s was leaving, and is not followed: %s", name, error)
            return
        replaced = self._members.get(name)
        if (
            replaced is not None
        ):  # the configuration has it at another address, where it is asked when this one has gone
            upstreams = {**self._wanted.upstreams, name: replaced.upstream}
            self._wanted = self._wanted._replace(upstreams=upstreams)
        self._members[name] = self._make(settings, upstream)
        self._members[name].sender.is_leaving = True

    def start(self) -> None:
        """After jobs were read."""
        for name, member in self._members.items():
            if member.is_leaving:
                member.leaving = self._tasks.start(self._follow_to_end(member, STAYS_S), "a ComfyUI that leaves")
                count = len(self._parts.made.jobs.registry.given_to(name))
                url = member.settings.url
                _log.info("ComfyUI %s at %s still leaves, since before the start: it has %d jobs", name, url, count)

    async def stop(self) -> None:
        await self._tasks.stop()
        for member in self._members.values():
            if member.is_leaving:
                await member.sender.stop()

    @property
    def settings(self) -> list[ComfyUISettings]:
        """Of all, also of those that leave, the first one's first."""
        return [self._first, *(member.settings for member in self._members.values())]

    def prepare(self, config: Config) -> Wanted | None:
        """None where it is for a restart: see proxy/config/restart.py. Raises ConfigError; nothing has changed then."""
        if not config.comfyui or config.comfyui[0].name != self._first.name:
            return None
        upstreams = {}
        for index, each in enumerate(config.comfyui[1:], 1):
            member = self._members.get(each.name)
            if member is None or member.settings.url != each.url:
                try:
                    upstreams[each.name] = OtherUpstream(each.name, each.url, self._timeout_s)
                except ValueError as error:
                    raise ConfigError(config.file, [Mistake(f"comfyui[{index}].url", None, str(error))]) from None
        return Wanted(config, upstreams)

    def take_up(self, wanted: Wanted | None) -> None:
        """All of it at once: whoever asks meanwhile finds the ones or the others."""
        if wanted is None:
            return
        self._wanted, self._first = wanted, wanted.config.comfyui[0]
        others = {each.name: each for each in wanted.config.comfyui[1:]}
        for name, member in self._members.items():
            settings = others.get(name)
            if settings is not None and settings.url == member.settings.url:
                self._stay(member, settings)
            elif not member.is_leaving:
                self._leave(member)
        here = {name: self._members.get(name) or self._come(settings) for name, settings in others.items()}
        self._members = here | {name: member for name, member in self._members.items() if name not in here}
        self._publish()

    def _come(self, settings: ComfyUISettings) -> _Member:
        _log.info("ComfyUI %s at %s is one of the gate's from now on", settings.name, settings.url)
        return self._make(settings, self._wanted.upstreams[settings.name])

    def _make(self, settings: ComfyUISettings, upstream: Upstream) -> _Member:
        watcher = self._parts.made.watcher_of(settings.name, upstream)
        source = CatalogueSource(upstream, settings.name)
        return _Member(settings, upstream, source, watcher, self._parts.made.sender_of(watcher, upstream))

    def _stay(self, member: _Member, settings: ComfyUISettings) -> None:
        member.settings = settings
        if member.leaving is not None:
            member.leaving.cancel()
            member.leaving, member.sender.is_leaving = None, False
            self._tasks.start(self._leaving.forget(settings.name), "a ComfyUI that stays")
            _log.info("ComfyUI %s stays", settings.name)

    def _leave(self, member: _Member) -> None:
        name = member.settings.name
        member.sender.is_leaving = True
        member.leaving = self._tasks.start(self._follow_to_end(member), "a ComfyUI that leaves")
        self.on_leaving(name)
        count = len(self._parts.made.jobs.registry.given_to(name))
        _log.info("ComfyUI %s leaves: it is given nothing more, and has %d jobs, which are followed", name, count)

    async def _follow_to_end(self, member: _Member, at_least_s: float = 0.0) -> None:
        name = member.settings.name
        await self._until_over(member, at_least_s)
        await self._leaving.forget(name)
        del self._members[name]
        # SECURITY: also where another one has its name at once: names in the temp folder of this one are nobody's there
        # (tests/several/test_fleet_files.py::test_previews_of_one_address_are_not_read_at_another).
        self._publish()
        _log.info("ComfyUI %s at %s has gone", name, member.settings.url)
        settings = next((each for each in self._wanted.config.comfyui[1:] if each.name == name), None)
        if settings is not None:
            self._members[name] = self._come(settings)
            self._publish()
        self._tasks.start(_end(member), "the end of a ComfyUI")

    async def _until_over(self, member: _Member, at_least_s: float) -> None:
        """at_least_s: how long it is there, whether it has jobs or not."""
        jobs, name = self._parts.made.jobs, member.settings.name
        began_s, is_noted = time.monotonic(), False
        earliest_s = began_s + max(at_least_s, AGREED_S if self._parts.database.is_shared else 0.0)
        while True:
            is_noted = is_noted or await self._leaving.note(member.settings)
            now_s = time.monotonic()
            if jobs.registry.given_to(name) or member.sender.is_sending:
                # Where it is put in again at another address, that is where its files are.
                is_replaced = any(each.name == name for each in self._wanted.config.comfyui)
                earliest_s = max(earliest_s, now_s + (0.0 if is_replaced else STAYS_S))
            elif now_s >= earliest_s and not jobs.dispatcher.is_giving:
                if now_s - began_s > READ_WITHIN_S or not await self._is_read(name):
                    return
                await asyncio.sleep(READ_EACH_S)
            await asyncio.sleep(LOOK_EACH_S)

    async def _is_read(self, name: str) -> bool:
        """Whether there are jobs that read what it has made, and go to the others."""
        makers = self._parts.makers

        def reads(needs: Needs) -> bool:
            return any(makers.of_file(folder, path) == name for folder, path in needs.files)

        try:
            return await self._parts.database.read(is_any_reading, reads)
        except DatabaseUnavailable:
            return True  # it is looked for again

    def _publish(self) -> None:
        """Who knows of all, of those that are given jobs, and of both."""
        parts, first, members = self._parts, self._first.name, self._members
        there = [member for member in members.values() if not member.is_leaving]
        upstreams = {name: member.upstream for name, member in members.items()}
        folders, sharing = folders_of(self._wanted.config, [member.settings for member in members.values()])
        change_comfyuis(parts.made.jobs.registry, [first, *members])
        parts.upstream.others = upstreams
        parts.makers.others, parts.makers.sharing = frozenset(members), sharing
        parts.directories.change(folders, sharing)
        parts.made.hearing.reports.others = frozenset(members)
        watchers = {name: member.watcher for name, member in members.items()}
        parts.made.jobs.watchers.change({first: parts.made.jobs.watchers.first, **watchers})
        set_patience(parts.made.jobs.watchers, self.settings)
        parts.catalogue.change(
            {first: parts.catalogue.parts[first], **{each.settings.name: each.catalogue for each in there}}
        )
        parts.placing.change([self._first, *(member.settings for member in there)])
        parts.made.jobs.dispatcher.senders = [self._first_sender, *(member.sender for member in there)]
        parts.sockets.change(upstreams)
        self.on_named([first, *members])
        parts.made.jobs.dispatcher.wake()


def _is_there_otherwise(leaving: ComfyUISettings, there: Sequence[ComfyUISettings]) -> bool:
    """Whether the configuration has it again, or gives its name to the first, or its address to another one, which takes what it has for strays."""
    return leaving.name == there[0].name or any(each.url == leaving.url for each in there)


def build_fleet(
    config: Config, parts: Dependencies, made: Made, makers: Makers | None, database: Database
) -> Fleet | None:
    """None where there is one ComfyUI, and no other can come."""
    upstream, catalogue, placing = parts.upstream, parts.catalogue, made.jobs.placing
    if not isinstance(upstream, Upstreams):
        return None
    assert isinstance(catalogue, MergedCatalogue)
    assert placing is not None
    assert made.sockets is not None
    assert makers is not None
    return Fleet(
        config, FleetParts(upstream, placing, made.sockets, makers, made.directories, catalogue, made, database)
    )


async def _end(member: _Member) -> None:
    """Nobody finds it any more. Who has begun to read a file of it reads on."""
    try:
        await member.sender.stop()
        await member.watcher.stop()
        await member.catalogue.stop()
        end_s = time.monotonic() + ENDS_WITHIN_S
        while True:
            if not member.upstream.is_busy or time.monotonic() >= end_s:
                break
            await asyncio.sleep(LOOK_EACH_S)
    finally:
        await member.upstream.stop()
