"""What a tenant may call, as a person reads it: each function with its arguments and with examples. Shows what it is given, and runs no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

import orjson

from policy.call import ClientReply
from policy.functions.delivery import MAX_WAIT_S
from policy.functions.function import CallableFunction, Function
from policy.functions.settings import FILES, OutputSettings, ParameterSettings
from policy.openapi.jobs import shared_paths
from policy.openapi.refusals import ALWAYS, CALLS, FOLLOWS, TITLES
from policy.openapi.scripts import KEY, scripts_of
from policy.v2.links import Links
from proxy.pages.document import document, template

_PAGE: Final = template("docs.html")
_NONE: Final = '<p class="quiet">None: whoever runs this gate gives them.</p>'
_HEAD: Final = '<thead><tr><th scope="col">Argument</th><th scope="col">What it is</th><th scope="col">Without it</th></tr></thead>'


def docs_page(tenant: str, functions: Mapping[str, CallableFunction], links: Links) -> ClientReply:
    """functions: that the tenant may call, by name. links: where it does."""
    called = [each.function for each in functions.values()]
    content = _PAGE.substitute(
        tenant=escape(tenant),
        address=escape(links.origin + links.prefix),
        key=KEY,
        wait=MAX_WAIT_S,
        contents=_contents(called),
        functions="\n".join(_section(each, links) for each in called) or _NONE,
        operations="\n".join(_operations()),
        refusals="\n".join(_refusals()),
    )
    return document("Functions", content, is_wide=True)


def _contents(functions: Iterable[Function]) -> str:
    """Names are made of letters, digits, `_` and `-`."""
    rows = "".join(f'<li><a href="#run-{each.name}">{escape(each.title)}</a></li>' for each in functions)
    return f"<ul>{rows}</ul>" if rows else ""


def _section(function: Function, links: Links) -> str:
    about = function.settings.description
    rows = "".join(_row(name, parameter) for name, parameter in function.parameters.items())
    examples = "".join(
        f'<details><summary>{label}</summary><pre tabindex="0"><code>{escape(text)}</code></pre></details>'
        for label, text in scripts_of(function, links).items()
    )
    return (
        f'<section class="function" id="run-{function.name}"><h2>{escape(function.title)}</h2>\n'
        f'<p><code>POST /gate/run/{function.name}</code>, or <a href="run/{function.name}">fill in its form</a></p>\n'
        + (f"<p>{escape(about)}</p>\n" if about else "")
        + (f"<table>{_HEAD}<tbody>{rows}</tbody></table>\n" if rows else "<p>It takes no arguments.</p>\n")
        + f"<p>It gives {_outputs(function)}.</p>\n{examples}</section>"
    )


def _outputs(function: Function) -> str:
    named = function.settings.outputs
    if not named:
        return "all files that the workflow makes"
    return ", ".join(_output(name, each) for name, each in named.items())


def _output(name: str, output: OutputSettings) -> str:
    form = f" as {output.convert}" if output.convert else " without its workflow" if output.strip else ""
    return f"<code>{name}</code>" + (f" ({escape(output.title)})" if output.title else "") + form


def _row(name: str, parameter: ParameterSettings) -> str:
    words = ". ".join(filter(None, (parameter.title, parameter.description, _type_in_words(parameter))))
    return f'<tr><th scope="row"><code>{name}</code></th><td>{escape(words)}.</td><td>{_without(parameter)}</td></tr>'


def _type_in_words(parameter: ParameterSettings) -> str:
    words = {"integer": "A whole number", "text": "A text", "boolean": "true or false"}.get(parameter.type)
    if parameter.type == "choice":
        return f"One of {', '.join(map(_plain, parameter.choices))}"
    if parameter.type in FILES:
        return f"A file ({parameter.type}): of a form, or in JSON the id of an asset or a data URL"
    bounds = " ".join(
        f"{word} {limit}" for word, limit in (("from", parameter.min), ("to", parameter.max)) if limit is not None
    )
    multiple = "" if parameter.multiple_of is None else f"a multiple of {parameter.multiple_of}"
    length = "" if parameter.max_length is None else f"at most {parameter.max_length} characters"
    return ", ".join(filter(None, (words or f"A {parameter.type}", bounds, multiple, length)))


def _without(parameter: ParameterSettings) -> str:
    if parameter.default is not None:
        return f"<code>{escape(_plain(parameter.default))}</code>"
    if parameter.optional:
        return "the workflow's own"
    return "drawn at random" if parameter.type == "seed" else "must be given"


def _plain(given: Any) -> str:
    return orjson.dumps(given).decode()


def _operations() -> Iterable[str]:
    for path, methods in shared_paths().items():
        for method, operation in methods.items():
            if method != "parameters":
                call = f"{method.upper()} {path}"
                yield f"<tr><td><code>{escape(call)}</code></td><td>{escape(operation['summary'])}.</td></tr>"


def _refusals() -> Iterable[str]:
    for status, types in sorted((ALWAYS | CALLS | FOLLOWS).types.items()):
        named = ", ".join(f"<code>{each}</code>" for each in types) or "many"
        yield f"<tr><td>{status}</td><td>{escape(TITLES[status])}</td><td>{named}</td></tr>"
