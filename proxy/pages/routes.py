"""The gate's own paths, under /gate/: login, logout, who am I, alive, a script for the web UI.

Only here a path of the public listener needs no credential.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web

from policy.call import ClientReply
from policy.principal import Principal
from policy.routes import Budget
from policy.violation import Reason, Violation
from proxy.auth.api_keys import KeyPrincipal
from proxy.config.presets import describe_presets
from proxy.dependencies import Dependencies
from proxy.http import request_body
from proxy.http.errors import Unauthenticated
from proxy.http.request_record import RequestRecord
from proxy.http.responses import is_navigation, to_response
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


class GatePages:
    def __init__(self, dependencies: Callable[[], Dependencies]) -> None:
        self._get = dependencies

    def has(self, segments: tuple[str, ...]) -> bool:
        return segments[:1] == ("gate",)

    async def serve(
        self, request: web.BaseRequest, record: RequestRecord, segments: tuple[str, ...], query: Query
    ) -> web.StreamResponse:
        methods = _METHODS.get(segments[1:])
        is_off = segments[1:] == ("account.js",) and not self._get().compiled.config.server.account_menu
        if methods is None or is_off:
            await self._authenticate(request, record, query)
            raise Violation(Reason.ROUTE_UNLISTED, "There is no such route here.")
        record.route = f"{'GET' if request.method == 'HEAD' else record.method} /gate/{segments[1]}"
        if request.method not in methods:
            return to_response(record, ClientReply(405, b"", "text/plain", (("Allow", ", ".join(methods)),)))
        match segments[1]:
            case "health":
                return to_response(record, ClientReply(200, {"status": "ok"}))
            case "account.js":
                return to_response(record, account_script())
            case "me":
                return await self._me(request, record, query)
            case "logout":
                return to_response(record, await self._login_pages(record).logout(request.headers))
            case "storage":
                return await self._cleared(request, record, query)
            case _:
                return await self._login(request, record, query)

    def shortcut(self, request: web.BaseRequest, record: RequestRecord) -> ClientReply | None:
        """Where somebody is led who writes the address of a page of the gate as it comes to mind; None for every other address.

        Tells nobody anything, and takes no query along: a key could stand in it.
        """
        page = _SHORTCUTS.get(request.raw_path.partition("?")[0])
        if page is None or request.method not in ("GET", "HEAD"):
            return None
        record.route = "GET /gate"
        return redirect(f"{record.root}gate/{page}")

    def before_web_ui(
        self, request: web.BaseRequest, record: RequestRecord, principal: Principal
    ) -> ClientReply | None:
        """What a person's browser gets in place of the web UI while it may keep another tenant's drafts; None when all is well.

        SECURITY: the web UI opens what it finds in the browser's storage, and saves it as the caller's. tests/browser/test_sessions.py
        """
        # Programs have no storage. A browser tells that it opens a page, but for plain http, where the session cookie tells that it is one.
        is_browser = principal.is_session or request.headers.get("Sec-Fetch-Dest") in ("document", "iframe")
        sessions = self._get().compiled.authenticator.sessions
        if not is_browser or not is_navigation(request) or sessions.storage.is_of(principal.tenant, request.headers):
            return None
        return storage_page(request.raw_path, record.root)

    def _login_pages(self, record: RequestRecord) -> LoginPages:
        compiled = self._get().compiled
        max_form_bytes = compiled.config.sessions.max_form_bytes
        return LoginPages(compiled.authenticator, compiled.origins, max_form_bytes, record.root)

    async def _cleared(self, request: web.BaseRequest, record: RequestRecord, query: Query) -> web.StreamResponse:
        try:
            principal = await self._authenticate(request, record, query)
        except Unauthenticated as error:
            return to_response(record, login_redirect("/", error.headers, record.root))
        pages = self._login_pages(record)
        form = await request_body.read_whole(request, self._get().compiled.json_limits.within(pages.max_form_bytes))
        return to_response(record, pages.cleared(form, request.headers, principal.tenant))

    async def _login(self, request: web.BaseRequest, record: RequestRecord, query: Query) -> web.StreamResponse:
        if request.method != "POST":
            following = next((value for name, value in query if name == "next"), None)
            return to_response(record, login_page(following))
        pages = self._login_pages(record)
        limits = self._get().compiled.json_limits.within(pages.max_form_bytes)
        login = await pages.login(await request_body.read_whole(request, limits), request.headers)
        record.principal = login.principal
        if login.principal is not None:
            record.notes["login"] = "good"
        if login.failure is not None:
            record.notes["login"] = "bad"
            record.reason = login.failure.reason
            await self._get().login_throttle.failed(record.client, login.failure)
        return to_response(record, login.reply)

    async def _me(self, request: web.BaseRequest, record: RequestRecord, query: Query) -> web.StreamResponse:
        try:
            principal = await self._authenticate(request, record, query)
        except Unauthenticated as error:
            if not is_navigation(request):
                raise
            return to_response(record, login_redirect(request.raw_path, error.headers, record.root))
        view = await self._view(principal)
        is_page = ("format", "json") not in query and wants_html(request.headers.get("Accept", ""))
        return to_response(record, me_page(view) if is_page else me_json(view))

    async def _authenticate(self, request: web.BaseRequest, record: RequestRecord, query: Query) -> Principal:
        principal = await self._get().login_throttle.authenticate(request.headers, query, record.client)
        record.principal = principal
        record.response_headers += self._get().compiled.authenticator.sessions.renewed(principal)
        # These pages ask the store of limits several times each: they cost what other calls cost.
        record.response_headers += await self._get().limiter.acquire(principal, Budget.READ)
        return principal

    async def _view(self, principal: Principal) -> MeView:
        dependencies = self._get()
        jobs = dependencies.registry.of(principal.tenant)
        config = dependencies.compiled.config
        session = principal.session if isinstance(principal, KeyPrincipal) else None
        is_key = isinstance(principal, KeyPrincipal)
        key_ends_s = principal.expires_at_s
        if session is not None and isinstance(principal, KeyPrincipal):
            key = dependencies.compiled.authenticator.keys.find(principal.subject)
            key_ends_s = key.expires_at_s if key is not None else None
        return MeView(
            tenant=principal.tenant,
            subject=principal.subject,
            role=principal.role.value,
            scopes=tuple(sorted(principal.scopes)),
            policy=policy_in_words(
                config.policies[config.tenants[principal.tenant].policy], principal, describe_presets()
            ),
            limits=tuple(await dependencies.limiter.remaining(principal)),
            jobs_pending=len(jobs.pending()),
            jobs_running=len(jobs.running()),
            gpu=await dependencies.limiter.gpu_budget(principal),
            key_expires_at_s=key_ends_s,
            session_ends_at_s=principal.expires_at_s if session is not None else None,
            note=next((key.note for key in config.keys if key.id == principal.subject), "") if is_key else "",
            refusals=tuple(dependencies.recorder.refusals.of(principal)),
        )
