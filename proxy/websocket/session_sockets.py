"""Where there are several ComfyUIs: the sockets of each session to those at which jobs of its client id are.

A job goes to each ComfyUI under its client's own id, so one and the same id is heard wherever a job of it runs. One is open before the job is sent, as long as
one may still be there, and again when its ComfyUI has been away. That to the first ComfyUI is there with the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from policy.principal import TenantId
from policy.rules.results import OWN_CLIENTS, UNNAMED_CLIENT
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.job import GIVEN, Job, JobState
from proxy.jobs.registry import JobRegistry
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.upstream.client import Upstream
from proxy.websocket.event_session import EventSession
from proxy.websocket.event_sessions import EventSessions, all_open, connect
from proxy.websocket.kept_sockets import KeptSockets
from proxy.websocket.upstream_events import UpstreamEvents


class _Key(NamedTuple):
    """comfyui: "" for the first."""

    tenant: TenantId
    client_id: str
    comfyui: str

    def __str__(self) -> str:
        return f"{self.tenant}, {self.comfyui or 'the first ComfyUI'}"


class SessionSockets:
    """`sessions` ask it, once it is made. others: the ComfyUIs, by name, but for the first; some may come and go. has_other_gates: jobs that wait may be
    given by a gate that has no session of their client's. is_connected: whether the gate itself is to a ComfyUI, "" for the first: no session tries to be
    while it is not.
    """

    def __init__(
        self,
        sessions: EventSessions,
        registry: JobRegistry,
        first: Upstream,
        others: Mapping[str, Upstream],
        has_other_gates: bool,
        is_connected: Callable[[str], bool],
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._first = first
        self._others = others
        self._has_other_gates = has_other_gates
        self._is_connected = is_connected
        self._is_there: set[str] = set()
        """ComfyUIs that have just come back."""
        self._opening = KeyedSemaphore()
        self._kept: KeptSockets[_Key] = KeptSockets(
            self._open, is_open=self._is_open, is_wanted=self._is_wanted, close=partial(_close, sessions)
        )
        sessions.several = self

    async def stop(self) -> None:
        await self._kept.stop()

    async def prepare(self, job: Job) -> None:
        """Before a job goes to its ComfyUI. Of one without a session nobody hears: who comes later is told how it was."""
        session = self._session(job.tenant, job.client_id or UNNAMED_CLIENT)
        if session is not None and job.comfyui in self._others:
            await self._kept.keep(_Key(job.tenant, session.client_id, job.comfyui))

    def connected(self, comfyui: str) -> None:
        """A ComfyUI is there, perhaps anew; "" for the first."""
        self._is_there.add(comfyui)
        self._kept.hurry(lambda key: key.comfyui == comfyui)

    def change(self, others: Mapping[str, Upstream]) -> None:
        """Some have come, gone, or are at other addresses. Clients stay: what one says that has gone nobody waits for."""
        before, self._others = self._others, others
        if before == others:
            return
        gone = {name for name, upstream in before.items() if others.get(name) is not upstream}
        self._is_there -= gone
        for session in all_open(self._sessions):
            for comfyui in gone:
                session.at(comfyui).close()
            for comfyui in self._needed(session):
                self._kept.keep_soon(_Key(session.names.tenant, session.client_id, comfyui))

    # What the sessions tell.

    def attached(self, session: EventSession) -> None:
        if not session.at("").is_open:
            self.lost(session, "")
        for comfyui in self._needed(session):
            self._kept.keep_soon(_Key(session.names.tenant, session.client_id, comfyui))

    def lost(self, session: EventSession, comfyui: str) -> None:
        self._is_there.discard(comfyui)
        self._kept.lost(_Key(session.names.tenant, session.client_id, comfyui))

    def job_changed(self, job: Job) -> None:
        session = self._session(job.tenant, job.client_id or UNNAMED_CLIENT)
        if session is None:
            return
        for comfyui in self._places(job):
            key = _Key(job.tenant, session.client_id, comfyui)
            if not self._is_open(key):
                self._kept.keep_soon(key)
        if job.state is JobState.ENDED:
            self._sessions.job_ended(job)

    def has_missed(self, session: EventSession, job: Job) -> bool:
        """SECURITY: `session` is of the job's tenant; what it is told is read from the job's own history entry."""
        events = self.events_of(session, job)
        if events.is_open and events.opened_at_s < job.sent_at_s:
            return False
        return not (job.is_over and events.knows(job.prompt_id))

    def events_of(self, session: EventSession, job: Job) -> UpstreamEvents:
        return session.at(job.comfyui if job.comfyui in self._others else "")

    # Which are needed, and open.

    def _session(self, tenant: TenantId, client_id: str) -> EventSession | None:
        session = self._sessions.stream(tenant, client_id)
        return session if session is not None and session.is_open and not session.is_closing else None

    def _places(self, job: Job) -> Iterable[str]:
        """Other ComfyUIs than the first from which something of it may come, or come soon."""
        if job.state in GIVEN:
            return (job.comfyui,) if job.comfyui in self._others else ()
        return self._others if job.state is JobState.WAITING and self._has_other_gates else ()

    def _needed(self, session: EventSession) -> Iterable[str]:
        if self._has_other_gates and session.is_attached and session.client_id not in OWN_CLIENTS:
            return self._others  # what another gate gives is heard here from its beginning
        client_id = "" if session.client_id == UNNAMED_CLIENT else session.client_id
        own = self._registry.of(session.names.tenant)
        jobs = [self._registry.job(prompt_id) for prompt_id in (*own.running(), *own.pending())]
        return {
            comfyui for job in jobs if job is not None and job.client_id == client_id for comfyui in self._places(job)
        }

    def _is_open(self, key: _Key) -> bool:
        session = self._session(key.tenant, key.client_id)
        if session is None:
            return False
        events = session.at(key.comfyui)
        return events.is_open and not events.is_closing

    def _is_wanted(self, key: _Key) -> bool:
        session = self._session(key.tenant, key.client_id)
        return session is not None and (not key.comfyui or key.comfyui in self._needed(session))

    async def _open(self, key: _Key) -> None:
        """Two upstream sockets of one id at a time would leave ComfyUI with neither (E.4). Raises UpstreamUnavailable, UpstreamTimeout."""
        async with self._opening.of(key):
            session = self._session(key.tenant, key.client_id)
            if session is None or self._is_open(key):
                return
            upstream = self._others.get(key.comfyui) if key.comfyui else self._first
            if upstream is None or (key.comfyui not in self._is_there and not self._is_connected(key.comfyui)):
                raise UpstreamUnavailable
            events = session.at(key.comfyui)
            await events.wait_until_ended()
            events.is_opening = True  # from here on the session does not end before this has, one way or the other
            try:
                upstream_id = session.names.client_id_to_upstream(session.client_id)
                session.begin(await connect(upstream, upstream_id), key.comfyui)
                if session.is_closing or (key.comfyui and self._others.get(key.comfyui) is not upstream):
                    events.close()
            except (UpstreamUnavailable, UpstreamTimeout):
                self._is_there.discard(key.comfyui)
                raise
            finally:
                events.settle()


def _close(sessions: EventSessions, key: _Key) -> None:
    session = sessions.stream(key.tenant, key.client_id)
    if session is not None and session.is_open and not session.is_closing and key.comfyui:
        session.at(key.comfyui).close()
