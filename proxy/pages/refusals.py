"""What a refused caller gets: a person who opens a page is led to the login, or told in words; a program gets ComfyUI's error shape."""

from __future__ import annotations

from aiohttp import hdrs, web

from policy.call import ClientReply
from proxy.http.errors import CHALLENGE_FOR_PAGES, Refusal
from proxy.http.request_record import RequestRecord
from proxy.http.responses import NO_STORE, finish, is_browser, is_navigation, reason_phrase, to_response
from proxy.pages.login import login_redirect
from proxy.pages.refusal import refusal_page


def refuse(request: web.BaseRequest, record: RequestRecord, refusal: Refusal) -> web.Response:
    """The answer for a refusal; a person who opens a page is led to the login, or told in words."""
    record.status, record.reason = refusal.status, refusal.reason
    if refusal.status == 401 and is_navigation(request):
        session_headers = tuple(pair for pair in refusal.headers if pair[0] == "Set-Cookie")
        return to_response(record, login_redirect(request.raw_path, session_headers, record.root))
    if refusal.status == 401 and request.headers.get("Sec-Fetch-Dest") == "manifest":
        # Browsers fetch a page's manifest without cookies (HTML standard, 4.6.7.10). One with a name alone keeps the console clean.
        return to_response(record, ClientReply(200, {"name": "ComfyUI"}, "application/manifest+json"))
    if is_navigation(request):
        again = tuple(
            ("Refresh", value) for name, value in refusal.headers if refusal.status == 429 and name == "Retry-After"
        )
        page = refusal_page(
            refusal.status,
            f"{refusal.message} This page tries again by itself." if again else refusal.message,
            refusal.details,
            record.request_id,
            (*refusal.headers, *again),
            record.root,
        )
        return to_response(record, page)
    response = web.Response(
        status=refusal.status,
        reason=reason_phrase(refusal.message),
        body=refusal.body(record.request_id),
        content_type="application/json",
    )
    for name, value in refusal.headers:
        response.headers.add(name, value)
    if hdrs.WWW_AUTHENTICATE in response.headers and is_browser(request):
        response.headers[hdrs.WWW_AUTHENTICATE] = CHALLENGE_FOR_PAGES
    response.headers[hdrs.CACHE_CONTROL] = NO_STORE
    return finish(record, response)
