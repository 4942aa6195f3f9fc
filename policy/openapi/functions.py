"""The operations of one function each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.functions.function import Function
from policy.functions.schema import arguments_schema
from policy.functions.settings import FILES, OutputSettings
from policy.openapi.callbacks import callback_references
from policy.openapi.examples import ExampleCall, example_call
from policy.openapi.parts import (
    BYTES,
    INLINE,
    JSON,
    ON_DISCONNECT,
    PREFER,
    REPLAYED_KEY,
    answer,
    job_links,
    operation,
    streamed,
)
from policy.openapi.refusals import ALWAYS, CALLS, FOLLOWS
from policy.openapi.schemas import Schema, ref
from policy.openapi.scripts import scripts_of
from policy.v2.links import Links

TAG: Final = "Functions"
_PICTURE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4//8/AAX+Av4zEpUUAAAAAElFTkSuQmCC"
)
"""One white pixel."""
_ASSET: Final = "6b0f1f5e-4c3a-4d0e-9a53-0d9d7f0a2f11"
_MEDIA: Final = ("image/*", "video/*", "audio/*", "text/plain", BYTES)
_FILE_SCHEMA: Final[Schema] = {"type": "string", "format": "binary", "contentMediaType": BYTES}
_LANGUAGES: Final = {"curl": "Shell", "Python": "Python", "TypeScript": "TypeScript"}
_HOW_TO_ASK: Final = (
    "Without more the answer is 202 and the job, at once. `Prefer: wait=60` waits for its end. `Accept: image/png` (also `image/*`, `video/*`, "
    "`audio/*`, `text/plain`, `application/octet-stream`) asks for the bytes of the one output of such a type, `Accept: text/event-stream` for what happens. "
    "`Webhook-URL: https://hooks.example.com/7` has an address told of the job's end, where the operator permits its host."
)


def arguments_name(function: Function) -> str:
    """Of the schema of its arguments."""
    return f"arguments_of_{function.name}"


def json_arguments(function: Function) -> dict[str, Any]:
    """As the gate takes them in JSON: what may be left out may be null too."""
    schema = arguments_schema(function)
    needed = schema.get("required", ())
    properties = {
        name: each if name in needed else {"anyOf": [each, {"type": "null"}]}
        for name, each in schema["properties"].items()
    }
    return schema | {"properties": properties}


def form_arguments(function: Function) -> dict[str, Any]:
    """As a form sends them: files are files."""
    schema = arguments_schema(function)
    properties = {
        name: _as_file(each) if function.parameters[name].type in FILES else each
        for name, each in schema["properties"].items()
    }
    return schema | {"properties": properties}


def _as_file(schema: Schema) -> dict[str, Any]:
    kept = {name: words for name, words in schema.items() if name == "title"}
    return {**_FILE_SCHEMA, **kept}


def call_operation(function: Function, links: Links) -> dict[str, Any]:
    """POST /gate/run/NAME."""
    called = _narrowed(function)
    applied = {"Preference_Applied": "How long was waited, where that was asked for."}
    accepted = answer("The job is on disk.", called, Location="The job.", **applied) | {"links": job_links()}
    ended = answer("The job has ended, however it ended: see `status`.", called, Location="The job.", **applied)
    ended["content"] |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _MEDIA}
    ended["content"] |= streamed("")["content"]
    ended["headers"]["Content-Location"] = {
        "schema": {"type": "string"},
        "description": "Where these bytes are found again.",
    }
    ended["links"] = job_links()
    words = [function.settings.description or f"{function.title}.", _outputs_in_words(function), _HOW_TO_ASK]
    shown = operation(
        f"run_{function.name}",
        TAG,
        function.title,
        {"200": ended, "202": accepted},
        ALWAYS | CALLS | FOLLOWS,
        description="\n\n".join(words),
        parameters=[PREFER, REPLAYED_KEY, ON_DISCONNECT, INLINE],
        requestBody=_body(function),
    )
    return shown | {"callbacks": callback_references(), "x-codeSamples": _samples(function, links)}


def _narrowed(function: Function) -> Schema:
    """Its job: outputs have the function's own names."""
    if not function.outputs:
        return ref("CalledJob")
    output = {"properties": {"output": {"enum": list(function.outputs)}}}
    return {"allOf": [ref("CalledJob"), {"properties": {"outputs": {"items": output}}}]}


def _outputs_in_words(function: Function) -> str:
    named = function.settings.outputs
    if not named:
        return "It gives all files that the workflow makes."
    return f"It gives {', '.join(_in_words(name, each) for name, each in named.items())}."


def _in_words(name: str, output: OutputSettings) -> str:
    form = f" as {output.convert}" if output.convert else " without its workflow" if output.strip else ""
    return f"`{name}`" + (f" ({output.title})" if output.title else "") + form


def _body(function: Function) -> dict[str, Any]:
    schema, example = json_arguments(function), example_call(function)
    content = {
        JSON: {"schema": ref(arguments_name(function)), "example": _in_json(example)},
        "multipart/form-data": {"schema": form_arguments(function)},
    }
    return {"required": "required" in schema, "content": content}


def _in_json(example: ExampleCall) -> Mapping[str, Any]:
    files = {name: _PICTURE if file.endswith(".png") else _ASSET for name, file in example.files.items()}
    return {**example.texts, **files}


def _samples(function: Function, links: Links) -> list[dict[str, str]]:
    return [
        {"lang": _LANGUAGES[label], "label": label, "source": text}
        for label, text in scripts_of(function, links).items()
    ]
