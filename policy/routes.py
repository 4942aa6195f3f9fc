"""The table: one row per route of ComfyUI, with its request rule and reply rule. No row means no.

A row must say everything: that a call passes unchanged is written, and why a route is refused too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final

from policy.call import (
    ClientCall,
    ClientReply,
    RuleGenerator,
    UpstreamCall,
    UpstreamPath,
    UpstreamReply,
    parse_target,
)
from policy.namespace import Folder
from policy.principal import Principal, Scope
from policy.route_templates import bind, key_of, prefix_segments
from policy.rule_context import RuleInput
from policy.v2.asset_files import FileGenerator
from policy.v2.jobs import JobView
from policy.violation import Reason, Violation

RequestRule = Callable[[RuleInput], UpstreamCall | ClientReply]
ReplyRule = Callable[[Any, RuleInput], Any]
DialogueRule = Callable[[RuleInput], RuleGenerator]
FileRule = Callable[[RuleInput], FileGenerator]
JobRule = Callable[[RuleInput, JobView | None], ClientReply]
Gather = Callable[[Sequence[Any]], Any]


class Body(Enum):
    """What the pipeline does with the client's body before the rule sees the call."""

    NONE = "none"
    JSON = "json"
    OPTIONAL_JSON = "lenient"
    """JSON, or anything else, which means nothing: so ComfyUI reads an interrupt."""
    RAW = "raw"
    """Bounded bytes, for the rule that judges their very spelling."""
    ARGUMENTS = "arguments"
    """As RAW; but a multipart form streams, and the rule asks for its parts."""
    FORM = "form"
    """Bounded bytes of a small form."""
    STREAM = "stream"


class Budget(StrEnum):
    """Which allowance a call draws on. Submissions and uploads also draw on the one for requests; polls and the web UI's files do not."""

    READ = "requests"
    SUBMIT = "prompts"
    UPLOAD = "uploads"
    POLL = "polls"
    """Asking again and again after one's own jobs, and sockets that come back: what clients and pages do by themselves while a person waits."""
    WEB_UI = "web_ui_files"
    """The web UI's files: hundreds for one load of the page."""
    PREVIEW = "previews"
    """Pictures that ComfyUI makes for a call, on its event loop."""


class Idempotency(Enum):
    """What an `Idempotency-Key` means here. NONE: nothing. REPLAYED: a repeat gets the first answer. SINGLE_USE: a repeat is refused."""

    NONE = "none"
    REPLAYED = "replayed"
    SINGLE_USE = "single-use"


class Prefix(Enum):
    """Under which prefixes ComfyUI serves a route (it doubles those of its main table); the first is the one used upstream."""

    BOTH = ("", "/api")
    BARE = ("",)
    API = ("/api",)
    JOBS = ("/api", "/api/api")


_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Caching(Enum):
    """PRIVATE: kept nowhere. REVALIDATE: kept by the caller's browser. WEB_UI: files of the web UI and its extensions, equal for all callers.

    HASHED: those of them whose name holds a hash of their content, where it does. words: for Cache-Control, of the first two.
    """

    PRIVATE = "private, no-store"
    REVALIDATE = "private, no-cache"
    WEB_UI = "web-ui"
    HASHED = "web-ui-hashed"

    def __init__(self, words: str) -> None:
        self.words = words
        self.is_web_ui = words.startswith("web-ui")


@dataclass(frozen=True, slots=True)
class PassThrough:
    """The call goes on as it is: for what is shared and read-only."""


@dataclass(frozen=True, slots=True)
class AdminOnly:
    """Refused to tenants; an admin's call goes on as it is."""

    why: str


@dataclass(frozen=True, slots=True)
class Deny:
    """Refused to everybody."""

    why: str


@dataclass(frozen=True, slots=True)
class MultiCall:
    """A rule that talks with ComfyUI before it answers. is_exclusive: it reads, changes and writes, so one at a time per tenant.

    has_page: a person who opens the address gets a page, and a program what the rule tells. On a row whose body streams it asks for the body itself
    (policy.v2.effects.ReceiveUpload).
    """

    rule: DialogueRule
    is_exclusive: bool = False
    has_page: bool = False


@dataclass(frozen=True, slots=True)
class ShowJob:
    """A rule that shows one job of the tenant's: the path's `job_id`, None where there is none. It asks for nothing else."""

    rule: JobRule


@dataclass(frozen=True, slots=True)
class CleanReply:
    """An answer of whatever status that is read whole when it is text. is_read: by its content type; others are streamed as they come."""

    is_read: Callable[[str], bool]
    clean: Callable[[UpstreamReply, RuleInput], ClientReply]
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rule that makes one call of the client's. reply: None streams ComfyUI's answer as it is, but for what `clean` reads.

    on_disk: which file the answer is, for a gate that sees ComfyUI's folders; None when only ComfyUI can make it. source: which
    picture it is made of, whose size is looked at first. reads: a file that lies where those of all tenants lie, and is looked at last.
    """

    request: RequestRule
    reply: ReplyRule | None
    on_disk: Callable[[RuleInput], tuple[Folder, UpstreamPath] | None] | None = None
    source: Callable[[RuleInput], tuple[Folder, UpstreamPath] | None] | None = None
    clean: CleanReply | None = None
    reads: Callable[[RuleInput], UpstreamPath | None] | None = None


@dataclass(frozen=True, slots=True)
class SendFile:
    """A rule that finds out, in several steps, which file its answer is."""

    rule: FileRule


@dataclass(frozen=True, slots=True)
class RelayWebSocket:
    """The upgrade of a WebSocket."""


@dataclass(frozen=True, slots=True)
class CachedReply:
    """A document made of the catalogue, the policy and the tenant's files alone, so that it can be kept until one of them changes.

    rule: tells its members. picks: the parameter that names the one of them that is asked for, `{}` when there is none.
    """

    rule: Callable[[RuleInput], Iterable[tuple[str, Mapping[str, Any]]]]
    picks: str | None = None


@dataclass(frozen=True, slots=True)
class StreamEvents:
    """What happens to one job, as it happens (policy/v2)."""


@dataclass(frozen=True, slots=True)
class RunFunction:
    """A job is made of the arguments of a function, and told of as the client wishes (policy/rules/functions.py)."""


@dataclass(frozen=True, slots=True)
class ShowDocs:
    """What the tenant may call, for programs and for people (policy/openapi). is_negotiated: a page where a browser asks for one."""

    is_negotiated: bool


_Calling = PassThrough | MultiCall | ShowJob | SendFile | Rewrite | CachedReply | RunFunction
TenantRule = _Calling | RelayWebSocket | StreamEvents | ShowDocs | AdminOnly | Deny

UNCHANGED: Final = PassThrough()
QUICK_S: Final = 30.0
"""ComfyUI answers a read within this, also while it blocks on /object_info or a large history."""
SMALL_JSON_BYTES: Final = 1024**2
"""Bound of documents that carry no workflow: ids, settings."""
SMALL_JSON_PARTS: Final = 10_000
PATIENT_S: Final = 90.0
"""For answers that take work; below the 100 s after which the edge gives up."""
MAX_REMEMBERED: Final = 1024
"""Targets that are remembered: more than there are without a parameter, unless somebody spells them in many ways."""


def never(call: ClientCall) -> bool:
    return False


def always(call: ClientCall) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """path: literals and {parameter}; {parameter...} takes all remaining segments. A parameter may hold an encoded "/" where slashed says so.

    tenant: the rule for tenants. admin: the rule for admins, who see ComfyUI as it is.
    """

    method: str
    path: str
    prefix: Prefix
    needs: Scope
    tenant: TenantRule
    admin: TenantRule = UNCHANGED
    body: Body = Body.NONE
    budget: Budget = Budget.READ
    caching: Caching = Caching.PRIVATE
    time_limit_s: float = QUICK_S
    may_contain_slash: frozenset[str] = frozenset()
    needs_catalogue: bool = False
    """The rule judges or shows node classes, so it waits until ComfyUI has described them."""
    stores: bool = False
    """The call adds to what the tenant stores, so its quota is looked at."""
    needs_files: bool = False
    """The rule shows the tenant's own files."""
    max_json_bytes: int = SMALL_JSON_BYTES
    max_json_parts: int = SMALL_JSON_PARTS
    """Of the client's JSON: reading it is work for the event loop, which everybody waits for."""
    makes_picture: Callable[[ClientCall], bool] = never
    """ComfyUI makes a picture for the call, on its event loop: one at a time."""
    is_large: bool = False
    """The answer is made of workflows, which may be megabytes each: few at a time per tenant."""
    is_heavy: bool = False
    """Another program makes the answer while it is sent: few at a time per tenant, until each has gone out."""
    max_stream_bytes: int | None = None
    """Of a body that streams, where the row takes less than the configuration permits."""
    idempotency: Idempotency = Idempotency.NONE
    submits: bool = False
    """The call submits a job: it stands in the audit trail."""
    shows_links: bool = False
    """The answer names addresses of the gate's own."""
    gather: Gather | None = None
    """Where there are several ComfyUIs, each that runs the caller's jobs is asked, and this makes one value of what they say, the first one's first."""
    origin: str = "ComfyUI"
    """Whose route it is: ComfyUI's own, or the pack's or the line of the configuration that the row comes from."""
    kind: str = ""
    note: str = ""
    """Of a row that comes from data: what kind it is, and what for."""
    name: str = field(init=False, default="")
    """The label in metrics and logs: one per row, whatever clients send."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.method} {self.prefix.value[0]}{self.path}")

    @property
    def has_body(self) -> bool:
        return self.body is not Body.NONE

    @property
    def template(self) -> tuple[str, ...]:
        return tuple(self.path.strip("/").split("/")) if self.path != "/" else ()

    @property
    def patterns(self) -> tuple[tuple[str, ...], ...]:
        """The segments under each prefix."""
        return tuple(prefix_segments(prefix) + self.template for prefix in self.prefix.value)

    def budget_for(self, call: ClientCall) -> Budget:
        """What this call draws on."""
        return Budget.PREVIEW if self.budget is Budget.READ and self.makes_picture(call) else self.budget

    def rule_for(self, principal: Principal) -> TenantRule:
        """The rule that judges this caller. Raises Violation when the caller may not use the route at all."""
        rule = self.admin if principal.is_admin else self.tenant
        if self.needs not in principal.scopes:
            raise Violation(Reason.SCOPE_MISSING, f"This credential lacks the scope {self.needs}.", self.needs)
        if isinstance(rule, Deny):
            raise Violation(Reason.ROUTE_REFUSED, f"This route is refused: {rule.why}.")
        if isinstance(rule, AdminOnly):
            raise Violation(Reason.ADMINS_ONLY, f"This route is for admins: {rule.why}.")
        return rule


@dataclass(frozen=True, slots=True)
class Match:
    route: Route
    segments: tuple[str, ...]
    """As ComfyUI knows the route, with the prefix it is asked under."""
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """What a request asks for. query: with the credentials that may stand in it. call: without its query where it has one, in ComfyUI's names."""

    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    route: Route | None
    call: ClientCall

    def call_with(self, query: tuple[tuple[str, str], ...]) -> ClientCall:
        """query: what of it goes on."""
        return self.call if not query else ClientCall(self.call.method, self.call.segments, query, self.call.parameters)


class RouteTable:
    """Looks rows up by method and segments. A HEAD is matched as its GET, which ComfyUI answers alike."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._read: dict[tuple[str, str], Target] = {}
        self._literal: dict[tuple[str, tuple[str, ...]], Match] = {}
        self._patterns: dict[tuple[str, tuple[str, ...]], list[tuple[tuple[str, ...], tuple[str, ...], Route]]] = {}
        for route in routes:
            home = prefix_segments(route.prefix.value[0])
            for pattern in route.patterns:
                if not any(part.startswith("{") for part in pattern):
                    self._literal[route.method, pattern] = Match(route, home + route.template, {})
                else:
                    self._patterns.setdefault((route.method, key_of(pattern)), []).append((pattern, home, route))

    def read(self, method: str, raw: str) -> Target:
        """What a request of this method and raw target asks for. Raises Violation(path-malformed | query-malformed).

        Those that hold no name are remembered: a target means the same each time it comes.
        """
        found = self._read.get((method, raw))
        if found is not None:
            return found
        segments, query = parse_target(raw)
        match = self.match(method, segments)
        if match is None:
            target = Target(segments, query, None, ClientCall(method, segments))
        else:
            target = Target(segments, query, match.route, ClientCall(method, match.segments, (), match.parameters))
        # SECURITY: those without a parameter alone: nobody can tell by the time whether a neighbour asked for this name.
        if match is not None and not match.parameters and "?" not in raw and len(self._read) < MAX_REMEMBERED:
            self._read[method, raw] = target
        return target

    def match(self, method: str, segments: tuple[str, ...]) -> Match | None:
        method = "GET" if method == "HEAD" else method
        found = self._literal.get((method, segments))
        if found is not None or not segments:
            return found
        for pattern, home, route in self._patterns.get((method, key_of(segments)), ()):
            parameters = bind(pattern, segments, route.may_contain_slash)
            if parameters is not None:
                skip = len(pattern) - len(route.template)
                return Match(route, home + segments[skip:], parameters)
        return None

    def methods(self, segments: tuple[str, ...]) -> tuple[str, ...]:
        """The methods of a path that has rows of its own, for `Allow`; empty for a path that is only a page's file."""
        found = [
            method
            for method in _METHODS
            if (match := self.match(method, segments)) and not match.route.caching.is_web_ui
        ]
        return ("GET", "HEAD", *found[1:]) if found[:1] == ["GET"] else tuple(found)
