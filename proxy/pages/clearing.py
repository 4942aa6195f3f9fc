"""A page whose script empties what a browser keeps for this address, and then sends the form in it. Pure.

`Clear-Site-Data` does it alone only where browsers heed it: not over plain http (W3C Clear Site Data, 3.1), so not in a LAN.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Final

from policy.call import ClientReply
from proxy.pages.document import document, hash_of, template

_PAGE: Final = template("clearing.html")
_SCRIPT: Final = files(__package__).joinpath("clearing.js").read_text(encoding="utf-8")
_SCRIPT_HASH: Final = hash_of(_SCRIPT)


def clearing_page(title: str, action: str, target: str | None, headers: Iterable[tuple[str, str]] = ()) -> ClientReply:
    """action: where the form goes, with POST and the target in its field `next`; without a target with GET."""
    field = "" if target is None else f'<input type="hidden" name="next" value="{escape(target)}">'
    content = _PAGE.substitute(
        title=escape(title),
        method="get" if target is None else "post",
        action=escape(action),
        next=field,
        script=_SCRIPT,
    )
    return document(title, content, headers=headers, script_hash=_SCRIPT_HASH)
