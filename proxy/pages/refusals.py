"""What a refused caller gets: a person who opens a page is led to the login, or told in words; a program gets ComfyUI's error shape."""

from __future__ import annotations

from policy.call import ClientReply
from policy.v2.paths import is_v2
from proxy.http import hdrs
from proxy.http.errors import CHALLENGE_FOR_PAGES, Refusal
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.responses import is_browser, is_navigation
from proxy.pages.login import login_redirect
from proxy.pages.refusal import refusal_page


def refuse(request: Request, record: RequestRecord, refusal: Refusal) -> ClientReply:
    """The answer for a refusal; a person who opens a page is led to the login, or told in words."""
    record.reason = refusal.reason
    if is_v2(record.raw_path):
        return _v2(record, refusal)
    is_page = is_navigation(request)
    if refusal.status == 401 and is_page:
        session_headers = tuple(pair for pair in refusal.headers if pair[0] == "Set-Cookie")
        return login_redirect(request.raw_path, session_headers, record.root)
    if refusal.status == 401 and request.headers.get("Sec-Fetch-Dest") == "manifest":
        # Browsers fetch a page's manifest without cookies (HTML standard, 4.6.7.10). One with a name alone keeps the console clean.
        return ClientReply(200, {"name": "ComfyUI"}, "application/manifest+json")
    if is_page:
        return _page(record, refusal)
    has_window = is_browser(request)
    fields = tuple(
        (name, CHALLENGE_FOR_PAGES if name == hdrs.WWW_AUTHENTICATE and has_window else value)
        for name, value in refusal.headers
    )
    return ClientReply(refusal.status, refusal.body(record.request_id), headers=fields, phrase=refusal.message)


def _v2(record: RequestRecord, refusal: Refusal) -> ClientReply:
    """The SDKs wait and send again only what comes with a `Retry-After`."""
    status, body = refusal.v2(record.request_id)
    fields = dict(refusal.headers)
    if status in (429, 503, 504):
        fields.setdefault("Retry-After", "5")
    elif status == 402:  # in hours, and the SDKs wait for a minute
        fields.pop("Retry-After", None)
    return ClientReply(status, body, headers=tuple(fields.items()))


def _page(record: RequestRecord, refusal: Refusal) -> ClientReply:
    again = tuple(
        ("Refresh", value) for name, value in refusal.headers if refusal.status == 429 and name == "Retry-After"
    )
    return refusal_page(
        refusal.status,
        f"{refusal.message} This page tries again by itself." if again else refusal.message,
        refusal.details,
        record.request_id,
        (*refusal.headers, *again),
        record.root,
    )
