"""The operations of functions in general, and of their jobs."""

from __future__ import annotations

from typing import Any, Final

from policy.functions.function import Function
from policy.functions.settings import NAME
from policy.openapi.choice import APIS
from policy.openapi.parts import (
    INLINE,
    JSON,
    PLAIN_TEXT,
    answer,
    file_answers,
    job_links,
    operation,
    path_parameter,
    query_parameter,
    streamed,
)
from policy.openapi.refusals import ALWAYS, ASKS_COMFYUI, CHANGES, FOLLOWS, GIVES_FILE, HOLDS_FILES, NAMED
from policy.openapi.schemas import ref

TAG: Final = "Jobs"
_ABOUT: Final = "Functions"
_JOB_ID: Final = path_parameter(
    "job_id", "The `id` of a job of yours, by whichever door it came.", {"type": "string", "format": "uuid"}
)
_NAME: Final = path_parameter(
    "name", "Of an output of the function's, else a node's id, else the file's own name.", PLAIN_TEXT
)
_INDEX: Final = query_parameter(
    "index", "Which of several files, from 0.", {"type": "integer", "minimum": 0, "maximum": 999_999, "default": 0}
)


def shared_paths() -> dict[str, Any]:
    """By path."""
    return {**_of_functions(), "/gate/openapi.json": {"get": _document()}, **_of_jobs()}


def _of_functions() -> dict[str, Any]:
    return {
        "/gate/functions": {"get": _list("list_functions", "All of them.")},
        "/gate/run": {"get": _list("list_forms", "All of them; in a browser a page of their forms.")},
        "/gate/functions/{name}": {
            "get": operation(
                "read_function",
                _ABOUT,
                "One function",
                {"200": answer("What it takes and gives.", ref("Function"))},
                ALWAYS | NAMED,
                parameters=[
                    path_parameter("name", "Of the function.", {"type": "string", "pattern": f"^{NAME.pattern}$"})
                ],
            )
        },
    }


def _list(operation_id: str, words: str) -> dict[str, Any]:
    return operation(
        operation_id, _ABOUT, "The functions that you may call", {"200": answer(words, ref("Functions"))}, ALWAYS
    )


def describe_operation(function: Function) -> dict[str, Any]:
    """GET /gate/run/NAME."""
    return operation(
        f"describe_{function.name}",
        _ABOUT,
        f"What {function.name} takes and gives",
        {"200": answer("As of `/gate/functions`; in a browser a form to fill in.", ref("Function"))},
        ALWAYS | NAMED,
    )


def _of_jobs() -> dict[str, Any]:
    here = "/gate/jobs/{job_id}"
    read = {"200": answer("The job.", ref("Job")) | {"links": job_links()}}
    canceled = {"200": answer("The job. What has ended stays as it ended.", ref("Job"))}
    followed = {"200": streamed("Until the job has ended. A stream takes the place of one of the tenant's websockets.")}
    found = file_answers("Its bytes.")
    return {
        here: _named(
            "get",
            operation("read_job", TAG, "How far a job is", read, ALWAYS | NAMED | HOLDS_FILES, parameters=[INLINE]),
        ),
        f"{here}/events": _named(
            "get",
            operation("follow_job", TAG, "What happens to a job, as it happens", followed, ALWAYS | NAMED | FOLLOWS),
        ),
        f"{here}/cancel": _named(
            "post",
            operation(
                "cancel_job",
                TAG,
                "End a job",
                canceled,
                ALWAYS | CHANGES | NAMED | ASKS_COMFYUI | HOLDS_FILES,
                parameters=[INLINE],
            ),
        ),
        f"{here}/outputs/{{name}}": _named(
            "get",
            operation("read_output", TAG, "A file that a job made", found, ALWAYS | NAMED | GIVES_FILE),
            _NAME,
            _INDEX,
        ),
    }


def _named(method: str, of_job: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """What a path answers below a job. more: parameters besides the job's id."""
    return {"parameters": [_JOB_ID, *more], method: of_job}


def _document() -> dict[str, Any]:
    """Of the operation that gives this document."""
    content = {JSON: {"schema": {"type": "object", "required": ["openapi", "info", "paths"]}}}
    tag = {"ETag": {"schema": {"type": "string"}}}
    return operation(
        "read_document",
        _ABOUT,
        "This document",
        {
            "200": {"description": "Made for your tenant.", "headers": tag, "content": content},
            "304": {"description": "It is as the client has it (If-None-Match).", "headers": tag},
        },
        ALWAYS,
        parameters=[query_parameter("api", "Which one is told of: functions, or Comfy API v2.", {"enum": list(APIS)})],
    )
