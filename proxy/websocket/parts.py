"""What hears ComfyUI's events for tenants. Made in proxy/wiring/jobs.py."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.jobs.events import SocketReports
from proxy.websocket.event_sessions import EventSessions
from proxy.websocket.own_sockets import OwnSockets


@dataclass(frozen=True, slots=True)
class SocketParts:
    """own: sockets to ComfyUI that no client asked for. reports: told what all of them hear."""

    sessions: EventSessions
    own: OwnSockets
    reports: SocketReports
