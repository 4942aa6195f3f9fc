"""HTML documents of the gate's own: one layout, one style sheet inside it, and headers that let nothing else in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from policy.call import ClientReply

HTML: Final = "text/html; charset=utf-8"


def template(name: str) -> Template:
    """A file of this folder. `$name` in it stands for text that is already HTML."""
    return Template(files(__package__).joinpath(name).read_text(encoding="utf-8"))


_LAYOUT: Final = template("layout.html")
_STYLE: Final = template("style.css").template


def hash_of(text: str) -> str:
    """SHA-256 in base64, by which a style or a script that stands in a page is permitted (Content Security Policy 3, 2.3.1)."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


PRIVATE_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    # Tells other sites and other pages nothing but the origin, so no `?token=` of the address. Not `no-referrer`: with it browsers send
    # `Origin: null` with the page's own form (Fetch standard, 3.2.5), which over plain HTTP cannot be told from a stranger's.
    ("Referrer-Policy", "strict-origin"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
_CSP: Final = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_PICTURES: Final = "img-src data:"
"""What a page loads that says nothing else: the icon of the layout."""


def document(
    title: str,
    content: str,
    *,
    status: int = 200,
    is_wide: bool = False,
    script_hash: str = "",
    style: str = "",
    sources: str = _PICTURES,
    headers: Iterable[tuple[str, str]] = (),
) -> ClientReply:
    """A whole page. title: plain text; content: HTML in which everything foreign is escaped; script_hash: of the one script in it.

    style: of this page alone, besides the layout's. sources: directives of its policy that say what else it loads.
    """
    whole_style = _STYLE + style
    text = _LAYOUT.substitute(
        title=escape(f"{title} - comfygate"), style=whole_style, width="wide" if is_wide else "", content=content
    )
    csp = f"{_CSP}; style-src 'sha256-{hash_of(whole_style)}'; {sources}"
    if script_hash:
        csp += f"; script-src 'sha256-{script_hash}'"
    return ClientReply(status, text.encode("utf-8"), HTML, (*_HEADERS, ("Content-Security-Policy", csp), *headers))


def redirect(location: str, headers: Iterable[tuple[str, str]] = ()) -> ClientReply:
    """Leads a browser on with GET. location: a path of the gate."""
    return ClientReply(303, b"", HTML, (("Location", location), *PRIVATE_HEADERS, *headers))
