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
from proxy.dependencies import Services
from proxy.http import request_body
from proxy.http.errors import Unauthenticated
from proxy.http.request_record import Exchange
from proxy.http.responses import is_navigation, reply_with
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
    def __init__(self, services: Callable[[], Services]) -> None:
        self._get = services

    def has(self, segments: tuple[str, ...]) -> bool:
        return segments[:1] == ("gate",)

    async def serve(
        self, request: web.BaseRequest, exchange: Exchange, segments: tuple[str, ...], query: Query
    ) -> web.StreamResponse:
        methods = _METHODS.get(segments[1:])
        is_off = segments[1:] == ("account.js",) and not self._get().rulebook.config.server.account_menu
        if methods is None or is_off:
            await self._authenticate(request, exchange, query)
            raise Violation(Reason.ROUTE_UNLISTED, "There is no such route here.")
        exchange.route = f"{'GET' if request.method == 'HEAD' else exchange.method} /gate/{segments[1]}"
        if request.method not in methods:
            return reply_with(exchange, ClientReply(405, b"", "text/plain", (("Allow", ", ".join(methods)),)))
        match segments[1]:
            case "health":
                return reply_with(exchange, ClientReply(200, {"status": "ok"}))
            case "account.js":
                return reply_with(exchange, account_script())
            case "me":
                return await self._me(request, exchange, query)
            case "logout":
                return reply_with(exchange, await self._login_pages(exchange).logout(request.headers))
            case "storage":
                return await self._cleared(request, exchange, query)
            case _:
                return await self._login(request, exchange, query)

    def shortcut(self, request: web.BaseRequest, exchange: Exchange) -> ClientReply | None:
        """Where somebody is led who writes the address of a page of the gate as it comes to mind; None for every other address.

        Tells nobody anything, and takes no query along: a key could stand in it.
        """
        page = _SHORTCUTS.get(request.raw_path.partition("?")[0])
        if page is None or request.method not in ("GET", "HEAD"):
            return None
        exchange.route = "GET /gate"
        return redirect(f"{exchange.root}gate/{page}")

    def before_web_ui(self, request: web.BaseRequest, exchange: Exchange, principal: Principal) -> ClientReply | None:
        """What a person's browser gets in place of the web UI while it may keep another tenant's drafts; None when all is well.

        SECURITY: the web UI opens what it finds in the browser's storage, and saves it as the caller's. tests/browser/test_sessions.py
        """
        # Programs have no storage. A browser tells that it opens a page, but for plain http, where the session cookie tells that it is one.
        is_browser = principal.is_session or request.headers.get("Sec-Fetch-Dest") in ("document", "iframe")
        sessions = self._get().rulebook.authenticator.sessions
        if not is_browser or not is_navigation(request) or sessions.keeps_storage_of(principal.tenant, request.headers):
            return None
        return storage_page(request.raw_path, exchange.root)

    def _login_pages(self, exchange: Exchange) -> LoginPages:
        rulebook = self._get().rulebook
        max_form_bytes = rulebook.config.sessions.max_form_bytes
        return LoginPages(rulebook.authenticator, rulebook.origins, max_form_bytes, exchange.root)

    async def _cleared(self, request: web.BaseRequest, exchange: Exchange, query: Query) -> web.StreamResponse:
        try:
            principal = await self._authenticate(request, exchange, query)
        except Unauthenticated as error:
            return reply_with(exchange, login_redirect("/", error.headers, exchange.root))
        pages = self._login_pages(exchange)
        form = await request_body.read_whole(request, self._get().rulebook.json_limits.within(pages.max_form_bytes))
        return reply_with(exchange, pages.cleared(form, request.headers, principal.tenant))

    async def _login(self, request: web.BaseRequest, exchange: Exchange, query: Query) -> web.StreamResponse:
        if request.method != "POST":
            following = next((value for name, value in query if name == "next"), None)
            return reply_with(exchange, login_page(following))
        pages = self._login_pages(exchange)
        limits = self._get().rulebook.json_limits.within(pages.max_form_bytes)
        login = await pages.login(await request_body.read_whole(request, limits), request.headers)
        exchange.principal = login.principal
        if login.principal is not None:
            exchange.notes["login"] = "good"
        if login.failure is not None:
            exchange.notes["login"] = "bad"
            exchange.reason = login.failure.reason
            await self._get().gatekeeper.failed(exchange.client, login.failure)
        return reply_with(exchange, login.reply)

    async def _me(self, request: web.BaseRequest, exchange: Exchange, query: Query) -> web.StreamResponse:
        try:
            principal = await self._authenticate(request, exchange, query)
        except Unauthenticated as error:
            if not is_navigation(request):
                raise
            return reply_with(exchange, login_redirect(request.raw_path, error.headers, exchange.root))
        view = await self._view(principal)
        is_page = ("format", "json") not in query and wants_html(request.headers.get("Accept", ""))
        return reply_with(exchange, me_page(view) if is_page else me_json(view))

    async def _authenticate(self, request: web.BaseRequest, exchange: Exchange, query: Query) -> Principal:
        principal = await self._get().gatekeeper.authenticate(request.headers, query, exchange.client)
        exchange.principal = principal
        exchange.answer_headers += self._get().rulebook.authenticator.sessions.renewed(principal)
        # These pages ask the store of limits several times each: they cost what other calls cost.
        exchange.answer_headers += await self._get().limiter.acquire(principal, Budget.READ)
        return principal

    async def _view(self, principal: Principal) -> MeView:
        services = self._get()
        jobs = services.ledger.of(principal.tenant)
        config = services.rulebook.config
        session = principal.session if isinstance(principal, KeyPrincipal) else None
        is_key = isinstance(principal, KeyPrincipal)
        key_ends_s = principal.expires_at_s
        if session is not None and isinstance(principal, KeyPrincipal):
            key = services.rulebook.authenticator.keys.find(principal.subject)
            key_ends_s = key.expires_at_s if key is not None else None
        return MeView(
            tenant=principal.tenant,
            subject=principal.subject,
            role=principal.role.value,
            scopes=tuple(sorted(principal.scopes)),
            policy=policy_in_words(
                config.policies[config.tenants[principal.tenant].policy], principal, describe_presets()
            ),
            limits=tuple(await services.limiter.remaining(principal)),
            jobs_pending=len(jobs.pending()),
            jobs_running=len(jobs.running()),
            gpu=await services.limiter.gpu_budget(principal),
            key_expires_at_s=key_ends_s,
            session_ends_at_s=principal.expires_at_s if session is not None else None,
            note=next((key.note for key in config.keys if key.id == principal.subject), "") if is_key else "",
            refusals=tuple(services.recorder.refusals.of(principal)),
        )
