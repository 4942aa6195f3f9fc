"""The functions that one may call, as a list and as a form of each. Every text in them is the operator's, and is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Final

from policy.call import ClientReply
from policy.functions.function import Function
from proxy.pages.document import document, hash_of, template
from proxy.pages.fields import field

_LIST: Final = template("functions.html")
_FORM: Final = template("form.html")
_STYLE: Final = template("form.css").template
_SCRIPTS: Final = ("elements", "fields", "sending", "results", "runs", "following", "page")
"""Parts of one script, in this order."""


def _script() -> str:
    folder = files(__package__).joinpath("form")
    parts = [folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS]
    return "".join(["'use strict';\n", *parts])


_SCRIPT: Final = _script()
_SCRIPT_HASH: Final = hash_of(_SCRIPT)
# SECURITY: what comes from the gate can only become text: a browser with Trusted Types refuses to read it as HTML (tests/browser/test_form_attacks.py).
_SOURCES: Final = (
    "connect-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def list_page(functions: Sequence[Function], root: str, *, takes_workflows: bool) -> ClientReply:
    """root: leads to the front page. takes_workflows: whether the web UI is of use to the caller."""
    rows = "\n".join(_row(function, root) for function in functions)
    none = "<p>There is none for you yet: ask whoever runs this gate.</p>"
    content = _LIST.substitute(
        functions=f'<ul class="plain">\n{rows}\n</ul>' if rows else none,
        web_ui=f'<a class="button second" href="{escape(root)}">Open ComfyUI</a>' if takes_workflows else "",
        root=escape(root),
    )
    return document("Functions", content, is_wide=True)


def _row(function: Function, root: str) -> str:
    words = function.settings.description
    about = f'<br><span class="quiet">{escape(words)}</span>' if words else ""
    return f'<li><a href="{escape(root)}gate/run/{escape(function.name)}">{escape(function.title)}</a>{about}</li>'


def form_page(function: Function, root: str, max_file_bytes: int, *, takes_addresses: bool) -> ClientReply:
    """max_file_bytes: of one file, which the form says before it is sent. takes_addresses: the gate fetches files for the caller."""
    words = function.settings.description
    content = _FORM.substitute(
        title=escape(function.title),
        about=f'<p class="quiet words">{escape(words)}</p>' if words else "",
        name=escape(function.name),
        fields="\n".join(
            field(name, parameter, takes_addresses=takes_addresses) for name, parameter in function.parameters.items()
        ),
        max_file_bytes=max_file_bytes,
        root=escape(root),
        script=_SCRIPT,
    )
    return document(function.title, content, is_wide=True, script_hash=_SCRIPT_HASH, style=_STYLE, sources=_SOURCES)
