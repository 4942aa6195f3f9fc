"""What passes on a WebSocket, both ways. ComfyUI sends broadcasts to everybody; here only what is the tenant's passes, in its names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Final

import orjson

from policy.document import read_upstream_json
from policy.namespace import ROOT, Namespace
from policy.rule_context import OwnJobs
from policy.rules import overtime
from policy.rules.catalog import features_to_client
from policy.rules.jobs import count_own
from policy.rules.results import output_to_client, scrub
from policy.values import value

# protocol.py, BinaryEventTypes; each frame begins with one, as four bytes, big-endian.
PREVIEW: Final = (1).to_bytes(4, "big")
TEXT: Final = (3).to_bytes(4, "big")
PREVIEW_WITH_METADATA: Final = (4).to_bytes(4, "big")

MAX_CLIENT_MESSAGE_LENGTH: Final = 64 * 1024
MAX_METADATA_BYTES: Final = 64 * 1024

# These carry no names but node ids, so they pass as they are. A quote inside a value is escaped, so the pattern finds a key only, and
# one before any brace is the event's own.
_PLAIN = re.compile(
    r'\{"type": "(progress_state|progress|executing|execution_start|execution_success|execution_interrupted)", '
    r'"data": \{[^{}]*?"prompt_id": "([^"\\]*)"'
)
PROGRESS_STATE: Final = "progress_state"
PROGRESS: Final = frozenset({PROGRESS_STATE, "progress"})
OF_ONE_SOCKET: Final = frozenset({"feature_flags", "status"})
"""Said to a socket alone, and of no job."""
_NEVER: Final = "\0"
_NO_HEAD: Final = bytes(8)
_NO_DATA: Final[Mapping[str, Any]] = MappingProxyType({})
ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
# What clients may tell ComfyUI of themselves; anything else in `data` is not sent.
_CLIENT_FLAGS = ("supports_preview_metadata", "supports_manager_v4_ui", "supports_progress_text_metadata")


@value
class Event:
    """A frame that is the client's. text: as it is sent. The others are what ComfyUI said, from the one reading by which it was judged.

    data: empty for kinds that carry no names, but for the node of `executing`.
    """

    text: str
    kind: str
    prompt_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class EventRules:
    """The rules of one upstream socket, which has one client id.

    It follows which of its own jobs runs. ComfyUI sends all events through one queue, so between the start and the end of a job, as
    this socket sees them, whatever carries no prompt id is of that job.
    """

    __slots__ = ("_other_progress", "_preview", "_progress", "client_id", "is_running", "names")

    def __init__(self, names: Namespace, client_id: str) -> None:
        self.names = names
        self.client_id = client_id
        self.is_running = False
        self._progress = self._other_progress = _NEVER, "", ""
        """What the last event of a job's progress began with, up to the job; its kind, and the job: whatever begins like that is of both. And of the one
        before that began otherwise: ComfyUI's two kinds come by turns.
        """

        self._preview = _NO_HEAD, ""
        """What the last preview began with, up to its picture, and the job that it names: those of one node begin alike."""

    def text(self, frame: str, jobs: OwnJobs) -> Event | None:
        """The frame for the client, None when it is not for it."""
        beginning, kind, prompt_id = self._progress
        is_known = frame.startswith(beginning)
        if not is_known:
            self._progress, self._other_progress = self._other_progress, self._progress
            beginning, kind, prompt_id = self._progress
            is_known = frame.startswith(beginning)
        if is_known and jobs.owns(prompt_id):
            return Event(frame, kind, prompt_id, _NO_DATA)
        plain = _PLAIN.match(frame)
        if plain:
            kind, prompt_id = plain.groups()
            if not jobs.owns(prompt_id):
                return None
            if kind in PROGRESS:
                self._progress = plain[0], kind, prompt_id
                return Event(frame, kind, prompt_id, _NO_DATA)
            self._follow(kind, is_idle='"node": null' in frame)
            if kind != "execution_interrupted" or jobs.stopped_after_s(prompt_id) is None:
                return Event(frame, kind, prompt_id, _place_of(frame) if kind == "executing" else _NO_DATA)
        message = _parse(frame)
        if message is None:
            return None
        kind, data = message["type"], message["data"]
        shown = self._show(kind, data, jobs)
        if shown is None:
            return None
        if kind == "execution_interrupted" and (limit_s := jobs.stopped_after_s(data["prompt_id"])) is not None:
            kind, shown = "execution_error", overtime.describe(shown, limit_s)
        text = frame if kind == "execution_cached" else _write(kind, shown)  # node ids alone
        return Event(text, kind, data.get("prompt_id"), data)

    def _show(self, kind: str, data: dict[str, Any], jobs: OwnJobs) -> dict[str, Any] | None:
        if kind == "status":
            return status(jobs, self.client_id if "sid" in data else None)
        if kind == "feature_flags":
            return features_to_client(data)
        if kind == "logs" or kind.startswith("assets"):
            return None
        prompt_id = data.get("prompt_id")
        if prompt_id is None:
            # The first frames after a connection tell the node that runs, if the job is this client's.
            if kind == "executing" and data.get("node") is not None:
                self.is_running = True
        elif not isinstance(prompt_id, str) or not jobs.owns(prompt_id):
            return None
        else:
            self._follow(kind, is_idle=data.get("node") is None)
            return _name_data(kind, data, self.names)
        return _name_data(kind, data, self.names) if self.is_running else None

    def _follow(self, kind: str, is_idle: bool) -> None:
        if kind in ENDS or (kind == "executing" and is_idle):
            self.is_running = False
        elif kind in ("execution_start", "executing"):
            self.is_running = True

    def binary(self, frame: bytes | memoryview, jobs: OwnJobs) -> bytes | memoryview | None:
        """A preview or a text, None when it is not the client's. Unknown kinds are dropped: they may carry another tenant's data."""
        head, prompt_id = self._preview
        if bytes(frame[: len(head)]) == head:
            return frame if jobs.owns(prompt_id) else None
        kind = frame[:4]
        if kind == PREVIEW_WITH_METADATA:
            self._preview = head, prompt_id = _head_of_preview(frame)
            return frame if jobs.owns(prompt_id) else None
        if not self.is_running:
            return None
        if kind == PREVIEW:
            return frame
        if kind == TEXT:
            return self._name_text(bytes(frame))
        return None

    def _name_text(self, frame: bytes) -> bytes | None:
        length = int.from_bytes(frame[4:8], "big")
        if len(frame) < 8 + length:
            return None
        if ROOT.encode() not in frame:
            return frame
        head, text = frame[: 8 + length], frame[8 + length :].decode("utf-8", "replace")
        return head + self.names.clean_text(text).encode()


def status(jobs: OwnJobs, sid: str | None = None) -> dict[str, Any]:
    """The data of a `status` event: the tenant's own count, and in the first one the client's id, which web UIs adopt."""
    data: dict[str, Any] = {"status": {"exec_info": {"queue_remaining": count_own(jobs)}}}
    return data if sid is None else data | {"sid": sid}


def status_frame(jobs: OwnJobs, sid: str | None = None) -> str:
    """A `status` event of the gate's own making, for when the tenant's count changes: ComfyUI's comes before the registry knows."""
    return _write("status", status(jobs, sid))


def to_upstream(frame: str) -> str | None:
    """The one message that ComfyUI takes from a client (feature_flags, its first), rebuilt from known flags. None for anything else.

    ComfyUI answers one whose `data` is missing or no object too, but then fails to preview for its client, so nothing passes as it came.
    """
    if len(frame) > MAX_CLIENT_MESSAGE_LENGTH:
        return None
    message = read_upstream_json(frame)
    if not isinstance(message, dict) or message.get("type") != "feature_flags":
        return None
    data = message.get("data")
    flags = data if isinstance(data, dict) else {}
    return _write("feature_flags", {flag: flags[flag] for flag in _CLIENT_FLAGS if isinstance(flags.get(flag), bool)})


def _name_data(kind: str, data: dict[str, Any], names: Namespace) -> dict[str, Any]:
    if kind == "executed":
        return {key: output_to_client(value, names) for key, value in data.items()}
    shown: dict[str, Any] = scrub(data, names)
    return shown


def _head_of_preview(frame: bytes | memoryview) -> tuple[bytes, str]:
    """What stands before its picture, and the job that it names; a head that no frame begins with, and "", where it names none."""
    length = int.from_bytes(frame[4:8], "big")
    if length > MAX_METADATA_BYTES or len(frame) < 8 + length:
        return _NO_HEAD, ""
    head = bytes(frame[: 8 + length])
    try:
        metadata = orjson.loads(head[8:])
    except orjson.JSONDecodeError:
        return _NO_HEAD, ""
    prompt_id = metadata.get("prompt_id") if isinstance(metadata, dict) else None
    return (head, prompt_id) if isinstance(prompt_id, str) else (_NO_HEAD, "")


def _place_of(frame: str) -> dict[str, Any]:
    message = _parse(frame)
    return {} if message is None else message["data"]


def _parse(frame: str) -> dict[str, Any] | None:
    message = read_upstream_json(frame)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return None
    return message if isinstance(message.get("data"), dict) else None


def _write(kind: str, data: dict[str, Any]) -> str:
    return orjson.dumps({"type": kind, "data": data}).decode()
