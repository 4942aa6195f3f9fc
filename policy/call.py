"""Calls and replies as values, and the only parser and quoter of request targets. What is judged here is what is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NewType
from urllib.parse import quote, unquote_to_bytes

from policy.documents import Document, Kind
from policy.v2.effects import V2Effect
from policy.values import value
from policy.violation import Reason, Violation

UpstreamPath = NewType("UpstreamPath", str)
"""A path in the tenant's part of ComfyUI's folders. Only policy/namespace.py makes one."""

UpstreamClientId = NewType("UpstreamClientId", str)
"""A client id as ComfyUI knows it. Only policy/namespace.py makes one."""

Opaque = NewType("Opaque", str)
"""A client's text that names nothing of a tenant's: sent as it came, and openly marked so."""

UpstreamText = UpstreamPath | UpstreamClientId | Opaque

MAX_TARGET_BYTES: Final = 16 * 1024
MAX_QUERY_FIELDS: Final = 64

_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 3986, 3.3: what may stand raw in a path segment; everything else is percent-encoded, "/" in a segment too.
_SEGMENT_SAFE = "-._~!$&'()*+,;=:@"
_QUERY_SAFE = "-._~!$'()*,:@/"


@value
class ClientCall:
    """What the client asked for: decoded once, in the client's names.

    segments: of the path, without an /api prefix when the route is known by both. parameters: by name, from the route's template.
    """

    method: str
    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def first(self, name: str, default: str | None = None) -> str | None:
        """The first value of a query field: ComfyUI takes the first of several, so the gate judges the first and sends only it."""
        return next((value for key, value in self.query if key == name), default)


@dataclass(frozen=True, slots=True)
class StreamedBody:
    """The client's body goes on as it comes."""


@dataclass(frozen=True, slots=True)
class HeadJudged:
    """The client's body goes on as it comes, once its first `head_bytes` (or all of a shorter one) were judged. judge: raises Violation."""

    judge: Callable[[bytes], None]
    head_bytes: int


@dataclass(frozen=True, slots=True)
class UploadBody:
    """The client's multipart body goes on rewritten as it streams (proxy/http/multipart_upload.py)."""

    plan: Any


@value
class UpstreamCall:
    """The only thing that is ever sent to ComfyUI. comfyui: which of several it goes to, where neither a job nor a file says it; else the first."""

    method: str
    segments: tuple[UpstreamText, ...]
    query: tuple[tuple[str, UpstreamText], ...] = ()
    body: bytes | StreamedBody | HeadJudged | UploadBody | None = None
    content_type: str | None = None
    jobs: tuple[str, ...] = field(default=(), compare=False)
    """Jobs that it concerns: it goes to each ComfyUI that has one of them."""
    file: tuple[str, UpstreamPath] | None = field(default=None, compare=False)
    """The file that it reads, by its folder ("input", "output" or "temp") and path: it goes to the ComfyUI that made it. The query says it too."""
    comfyui: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        """Path and query as they go on the wire, quoted by one rule."""
        path = _quoted_path(self.segments)
        if not self.query:
            return path
        pairs = (f"{quote(key, safe=_QUERY_SAFE)}={quote(value, safe=_QUERY_SAFE)}" for key, value in self.query)
        return path + "?" + "&".join(pairs)


@lru_cache(maxsize=1024)
def _quoted_path(segments: tuple[str, ...]) -> str:
    return "/" + "/".join(quote(segment, safe=_SEGMENT_SAFE) for segment in segments)


@value
class UpstreamReply:
    """A bounded answer of ComfyUI. value: its JSON, None when it is none."""

    status: int
    value: Any
    body: bytes = b""
    content_type: str = "application/json"


@value
class JobUpdate:
    """What an answer tells of a job of the tenant's: the registry must know it before the client can act on it."""

    prompt_id: str
    has_ended: bool = False
    is_deleted: bool = False
    documents: tuple[Document, ...] = ()
    """To be shown again without asking."""


@value
class ClientReply:
    """An answer that the gate makes itself. body: bytes as they are, or a value sent as JSON.

    phrase: the sentence of the status line, which the web UI shows of a failed upload or save; the standard one when empty.
    """

    status: int = 200
    body: Any = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    phrase: str = ""
    updates: tuple[JobUpdate, ...] = field(default=(), compare=False)


@value
class ClaimJob:
    """Asks for the ownership of a job before it exists upstream; answered with a `ClaimedJob`.

    prompt_id: what the client wishes, None for any. workflow: a hash by which like workflows are known, for the cost. priority: within the tenant's own jobs.
    """

    prompt_id: str | None
    workflow: str
    priority: float = 0.0
    classes: tuple[str, ...] = ()
    """Of the workflow's nodes, for the audit trail."""
    client_id: str = ""
    """Which of the tenant's WebSockets waits for it."""
    needs: bytes = b""
    """See JobExtras."""


@value
class CheckRoom:
    """Whether a job would be taken now, of one whose submission takes long. Claims nothing. Raises what `ClaimJob` does for want of a slot or a budget."""


@value
class ClaimedJob:
    """created_ms: Unix time."""

    prompt_id: str
    created_ms: int = field(default=0, compare=False)
    is_next: bool = True
    """Whether ComfyUI has room for it, as far as is known before it is recorded."""
    sequence: int = field(default=0, compare=False)
    """No other job that is being submitted has it."""
    is_placed: bool = False
    """There are several ComfyUIs: where it runs is decided when it is given."""
    is_judged: bool = True  # whether the first has what it needs, and can be asked of it


class Place(StrEnum):
    NEXT = "next"
    """Only where ComfyUI has room for it and nobody waits."""
    WAITING = "waiting"
    """It waits, whether there is room or not."""
    THERE = "there"
    """ComfyUI has it already."""


@value
class JobExtras:
    """What is kept of a job beside what ComfyUI is sent. labels: by name. assets: ids of those that its workflow uses. webhook: the address that is told
    of its end, "" for none. needs: policy.needs.Needs, empty where there is one ComfyUI."""

    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    assets: tuple[str, ...] = ()
    webhook: str = ""
    needs: bytes = b""


NO_EXTRAS: Final = JobExtras()


@value
class RecordJob:
    """Puts a claimed job on disk; answered with its number in ComfyUI's queue, or None where it waits (with `Place.NEXT`: where it was not recorded).

    body, originals, outputs: see policy.rules.jobs.submitted_item; outputs as JSON.
    """

    prompt_id: str
    place: Place
    body: bytes
    originals: bytes
    outputs: bytes
    extras: JobExtras = NO_EXTRAS


@value
class AmendJob:
    """What is on disk of a job says now which output nodes ComfyUI runs: less than all that were asked for. outputs: as JSON."""

    prompt_id: str
    outputs: bytes


@value
class TryJob:
    """Asks ComfyUI whether it takes a job that has to wait, and takes the job back before it can run; answered with a `Tried`.

    None instead where ComfyUI has too little to do: the job would run at once, before those that wait.
    """

    prompt_id: str
    call: UpstreamCall


@value
class Tried:
    """is_there: the job had come to its turn meanwhile and stays with ComfyUI."""

    reply: UpstreamReply
    is_there: bool = False


@value
class ReadDocuments:
    """Asks for what is on disk of the tenant's own jobs; answered with a `DocumentsRead`.

    Of a job whose end is being read it comes when that is known.
    """

    kind: Kind
    prompt_ids: tuple[str, ...]


@value
class DocumentsRead:
    """By id, those that there are, as many as are held at a time. unread: the ids of the others, in the order asked for."""

    documents: Mapping[str, Document]
    unread: tuple[str, ...] = ()


@value
class CancelWaiting:
    """Ends those of the tenant's own jobs that wait outside ComfyUI; answered with their ids."""

    prompt_ids: tuple[str, ...]


@value
class ForgetJobs:
    """Deletes jobs of the tenant's own that have ended; ComfyUI, where it still has them, deletes them too."""

    prompt_ids: tuple[str, ...]


@value
class NameJob:
    """Tells under which id the next call submits a job that nobody claims: an admin's."""

    prompt_id: str


@value
class ReleaseJob:
    """The job was refused upstream: it never existed."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class AnswerNode:
    """Tells that a node of an own running job gets its answer now: for a moment it is none that `running_nodes` has."""

    prompt_id: str
    node_id: str


@value
class CheckTempFiles:
    """Asks whether files of ComfyUI's temp folder, which the tenant has the names of, are still those that its jobs wrote: False when it has lost a name.

    What the gate has heard of other jobs may be behind what they write; the files themselves say when they were written.
    """

    paths: tuple[UpstreamPath, ...]


@value
class Work:
    """Asks for the result of a pure function of so many bytes: beside the event loop when they are many, since everybody waits for that.

    The function reads nothing that changes.
    """

    function: Callable[[], Any]
    size: int


Effect = (
    UpstreamCall
    | tuple[UpstreamCall, ...]
    | ClaimJob
    | CheckRoom
    | RecordJob
    | AmendJob
    | TryJob
    | ReadDocuments
    | CancelWaiting
    | ForgetJobs
    | NameJob
    | ReleaseJob
    | AnswerNode
    | CheckTempFiles
    | Work
    | V2Effect
)
RuleGenerator = Generator[Effect, Any, ClientReply]
"""A rule that needs several answers: it yields a step, is sent the answer (an UpstreamReply, a list of them, a ClaimedJob, None), and returns the reply.
Several calls in a tuple are sent at once. So a rule stays pure, and its test has no event loop.
"""


def parse_target(raw: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Splits a request target (RFC 9112, 3.2.1, origin form) into decoded segments and query pairs.

    Each segment is decoded exactly once. Raises Violation for anything that two programs could read in two ways.
    """
    if len(raw) > MAX_TARGET_BYTES:
        raise _malformed("The request target is too long.", f"at most {MAX_TARGET_BYTES} bytes")
    if not raw.startswith("/") or "#" in raw or not raw.isascii() or _CONTROL.search(raw) or " " in raw:
        raise _malformed("Send a path that begins with '/', percent-encoded and without a fragment.")
    path, _, query = raw.partition("?")
    return _parse_path(path), _parse_query(query)


def _parse_path(path: str) -> tuple[str, ...]:
    if path == "/":
        return ()
    segments = tuple(_decode(segment, Reason.PATH_MALFORMED) for segment in path[1:].split("/"))
    for segment in segments:
        if not segment or segment in (".", ".."):
            raise _malformed("Empty, '.' and '..' path segments are not accepted.")
        if "\\" in segment or _CONTROL.search(segment):
            raise _malformed("Backslashes and control characters are not accepted in a path.")
    return segments


def _parse_query(query: str) -> tuple[tuple[str, str], ...]:
    if not query:
        return ()
    fields = query.split("&")
    if len(fields) > MAX_QUERY_FIELDS:
        raise Violation(Reason.QUERY_MALFORMED, f"At most {MAX_QUERY_FIELDS} query fields are accepted.")
    pairs = []
    for text in fields:
        if not text:
            continue
        key, _, value = text.replace("+", "%20").partition("=")
        pairs.append((_decode(key, Reason.QUERY_MALFORMED), _decode(value, Reason.QUERY_MALFORMED)))
    return tuple(pairs)


def _decode(text: str, reason: Reason) -> str:
    if "%" not in text:
        return text
    if _PERCENT.search(text):
        raise Violation(reason, "A '%' in the request target must be followed by two hexadecimal digits.")
    try:
        decoded = unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise Violation(reason, "The request target must be percent-encoded UTF-8.") from None
    if "\x00" in decoded:
        raise Violation(reason, "NUL characters are not accepted.")
    return decoded


def _malformed(message: str, details: str = "") -> Violation:
    return Violation(Reason.PATH_MALFORMED, message, details)
