"""A refusal as a person sees it who opens a page of the gate: what went wrong and what to do, instead of JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from policy.call import ClientReply
from proxy.pages.document import document, template

_PAGE: Final = template("refusal.html")
_TITLES: Final = {
    403: "Not permitted",
    404: "Not found",
    413: "Too large",
    429: "Too many requests",
    502: "ComfyUI is not reachable",
    503: "Not ready",
    504: "ComfyUI is too slow",
}
_OTHER_TITLE: Final = "This did not work"
_VARY: Final = ("Vary", "Accept")


def refusal_page(
    status: int,
    message: str,
    details: str,
    request_id: str,
    headers: Iterable[tuple[str, str]] = (),
    root: str = "/",
) -> ClientReply:
    """message: one or more sentences; details: what they are about, may be empty; headers: of the refusal; root: leads to the front page."""
    title = _TITLES.get(status, _OTHER_TITLE)
    content = _PAGE.substitute(
        title=escape(title),
        message=escape(message),
        details=f'<p class="quiet">{escape(details)}</p>' if details else "",
        status=status,
        request_id=escape(request_id),
        root=escape(root),
    )
    return document(title, content, status=status, headers=(*headers, _VARY))
