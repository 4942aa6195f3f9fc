"""The gate's own paths, under /gate/: login, logout, who am I, alive, a script for the web UI.

Only here a path of the public listener needs no credential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policy.call import ClientReply
from policy.principal import Principal
from policy.routes import Budget, Target
from policy.table import FUNCTIONS
from policy.violation import Reason, Violation
from proxy.auth.api_keys import KeyPrincipal
from proxy.auth.login_throttle import LoginThrottle
from proxy.auth.sessions import Sessions
from proxy.compiled_config import CompiledConfig
from proxy.config.presets import describe_presets
from proxy.http import request_body
from proxy.http.errors import Unauthenticated
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.responses import is_navigation
from proxy.jobs.forecasts import JobForecasts
from proxy.jobs.registry import JobRegistry
from proxy.limits.limits import Limits
from proxy.observability.recent_refusals import RecentRefusals
from proxy.pages.account import account_script
from proxy.pages.document import redirect
from proxy.pages.login import LoginPages, login_page, login_redirect, storage_page
from proxy.pages.me import MeView, me_json, me_page, wants_html
from proxy.pages.words import policy_in_words

_SHORTCUTS: Final = {
    "/gate": "me",
    "/gate/": "me",
    "/gate/me/": "me",
    "/gate/login/": "login",
    "/gate/run/": "run",
    "/login": "login",
    "/login/": "login",
}
Query = tuple[tuple[str, str], ...]
_METHODS: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("login",): ("GET", "HEAD", "POST"),
    ("logout",): ("POST",),
    ("storage",): ("POST",),
    ("account.js",): ("GET", "HEAD"),
    ("me",): ("GET", "HEAD"),
    ("health",): ("GET", "HEAD"),
}


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A call of one of the gate's own pages. compiled: the configuration that the whole request goes by."""

    request: Request
    record: RequestRecord
    compiled: CompiledConfig
    query: Query

    @property
    def login_pages(self) -> LoginPages:
        compiled = self.compiled
        max_form_bytes = compiled.config.sessions.max_form_bytes
        return LoginPages(compiled.authenticator, compiled.origins, max_form_bytes, self.record.root)

    async def read_form(self) -> bytes:
        limits = self.compiled.json_limits.within(self.compiled.config.sessions.max_form_bytes)
        return await request_body.read_whole(self.request, limits)


_OF_ROWS: Final = frozenset(route.template[1] for route in FUNCTIONS)
"""What stands below /gate and is no page."""


def has_page(target: Target) -> bool:
    return target.segments[:1] == ("gate",) and target.route is None and not _OF_ROWS.intersection(target.segments[1:2])


def shortcut(request: Request, record: RequestRecord) -> ClientReply | None:
    """Where somebody is led who writes the address of a page of the gate as it comes to mind; None for every other address.

    Tells nobody anything, and takes no query along: a key could stand in it.
    """
    page = _SHORTCUTS.get(request.raw_path.partition("?")[0])
    if page is None or request.method not in ("GET", "HEAD"):
        return None
    record.route = "GET /gate"
    return redirect(f"{record.root}gate/{page}")


def before_web_ui(
    request: Request, record: RequestRecord, sessions: Sessions, principal: Principal
) -> ClientReply | None:
    """What a person's browser gets in place of the web UI while it may keep another tenant's drafts; None when all is well.

    SECURITY: the web UI opens what it finds in the browser's storage, and saves it as the caller's. tests/browser/test_sessions.py
    """
    # Programs have no storage. A browser tells that it opens a page, but for plain http, where the session cookie tells that it is one.
    is_browser = principal.is_session or request.headers.get("Sec-Fetch-Dest") in ("document", "iframe")
    if not is_browser or not is_navigation(request) or sessions.storage.is_of(principal.tenant, request.headers):
        return None
    return storage_page(request.raw_path, record.root)


def in_place_of_web_ui(
    request: Request, record: RequestRecord, segments: tuple[str, ...], *, takes_workflows: bool
) -> ClientReply | None:
    """Where a person is led who opens the front page and has no use for the web UI: to the functions; None for everybody else.

    takes_workflows: whether the caller may send workflows of its own.
    """
    if takes_workflows or segments or not is_navigation(request):
        return None
    return redirect(f"{record.root}gate/run")


class GatePages:
    """The pages under /gate/. refusals: what callers were refused lately, each of them its own."""

    def __init__(
        self,
        throttle: LoginThrottle,
        limiter: Limits,
        registry: JobRegistry,
        forecasts: JobForecasts,
        refusals: RecentRefusals,
    ) -> None:
        self._throttle = throttle
        self._limiter = limiter
        self._registry = registry
        self._forecasts = forecasts
        self._refusals = refusals

    async def serve(
        self, request: Request, record: RequestRecord, compiled: CompiledConfig, target: Target
    ) -> ClientReply:
        """Raises Unauthenticated, LimitExceeded, Violation, BodyTimeout, ClientGone."""
        path, query = target.segments[1:], target.query
        asked = PageRequest(request, record, compiled, query)
        methods = _METHODS.get(path)
        is_off = path == ("account.js",) and not compiled.config.server.account_menu
        if methods is None or is_off:
            await self._authenticate(asked)
            raise Violation(Reason.ROUTE_UNLISTED, "There is no such route here.")
        record.route = f"{'GET' if request.method == 'HEAD' else record.method} /gate/{path[0]}"
        if request.method not in methods:
            return ClientReply(405, b"", "text/plain", (("Allow", ", ".join(methods)),))
        match path[0]:
            case "health":
                return ClientReply(200, {"status": "ok"})
            case "account.js":
                return account_script()
            case "me":
                return await self._me(asked)
            case "logout":
                return await asked.login_pages.logout(request.headers)
            case "storage":
                return await self._cleared(asked)
            case _:
                return await self._login(asked)

    async def _cleared(self, asked: PageRequest) -> ClientReply:
        try:
            principal = await self._authenticate(asked)
        except Unauthenticated as error:
            return login_redirect("/", error.headers, asked.record.root)
        return asked.login_pages.cleared(await asked.read_form(), asked.request.headers, principal.tenant)

    async def _login(self, asked: PageRequest) -> ClientReply:
        if asked.request.method != "POST":
            return login_page(next((value for name, value in asked.query if name == "next"), None))
        record = asked.record
        login = await asked.login_pages.login(await asked.read_form(), asked.request.headers)
        record.principal = login.principal
        if login.principal is not None:
            record.notes["login"] = "good"
        if login.failure is not None:
            record.notes["login"] = "bad"
            record.reason = login.failure.reason
            await self._throttle.failed(asked.request, record.client, login.failure)
        return login.reply

    async def _me(self, asked: PageRequest) -> ClientReply:
        request = asked.request
        try:
            principal = await self._authenticate(asked)
        except Unauthenticated as error:
            if not is_navigation(request):
                raise
            return login_redirect(request.raw_path, error.headers, asked.record.root)
        view = await self._view(asked.compiled, principal)
        is_page = ("format", "json") not in asked.query and wants_html(request.headers.get("Accept", ""))
        return me_page(view) if is_page else me_json(view)

    async def _authenticate(self, asked: PageRequest) -> Principal:
        authenticator, record = asked.compiled.authenticator, asked.record
        principal = await self._throttle.authenticate(authenticator, asked.request, asked.query, record.client)
        record.principal = principal
        record.response_headers += authenticator.sessions.renewed(principal)
        # These pages ask the store of limits several times each: they cost what other calls cost.
        record.response_headers += await self._limiter.acquire(principal, Budget.READ, asked.request)
        return principal

    async def _view(self, compiled: CompiledConfig, principal: Principal) -> MeView:
        config, jobs = compiled.config, self._registry.of(principal.tenant)
        access = compiled.access_of(principal)
        is_key = isinstance(principal, KeyPrincipal)
        session = principal.session if isinstance(principal, KeyPrincipal) else None
        key_ends_s = principal.expires_at_s
        if session is not None:
            key = compiled.authenticator.keys.find(principal.subject)
            key_ends_s = key.expires_at_s if key is not None else None
        return MeView(
            tenant=principal.tenant,
            subject=principal.subject,
            role=principal.role.value,
            scopes=tuple(sorted(principal.scopes)),
            policy=policy_in_words(
                config.policies[config.tenants[principal.tenant].policy], principal, describe_presets()
            ),
            limits=tuple(await self._limiter.remaining(principal)),
            jobs_pending=len(jobs.pending()),
            jobs_running=len(jobs.running()),
            jobs=await self._forecasts.of(principal.tenant),
            functions={name: called.function.title for name, called in access.functions.items()},
            takes_workflows=access.takes_workflows,
            gpu=await self._limiter.gpu_budget(principal),
            key_expires_at_s=key_ends_s,
            session_ends_at_s=principal.expires_at_s if session is not None else None,
            note=next((key.note for key in config.keys if key.id == principal.subject), "") if is_key else "",
            refusals=tuple(self._refusals.of(principal)),
        )
