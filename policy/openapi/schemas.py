"""Schemas of what the gate answers: JSON Schema 2020-12. tests/openapi/ holds real answers against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.v2.jobs import Status
from policy.webhooks import ENDS

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
COUNT_OR_NULL: Final[Schema] = {"type": ["integer", "null"], "minimum": 0}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
TIME_OR_NULL: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
HASH: Final[Schema] = {
    "type": ["string", "null"],
    "pattern": "^blake3:[0-9a-f]{64}$",
    "description": "Of the bytes; null while they are not measured yet.",
}
ANY_OBJECT: Final[Schema] = {"type": "object"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def told(schema: Schema, words: str) -> Schema:
    return {**schema, "description": words}


def closed(needed: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, words: str = "") -> Schema:
    """An object with these members. Others may come with later versions: clients pass over what they do not know."""
    shown: dict[str, Any] = {"type": "object", "properties": {**needed, **(optional or {})}, "required": list(needed)}
    return shown | ({"description": words} if words else {})


_OUTPUT: Final[Mapping[str, Schema]] = {
    "id": told(TEXT, "Of the asset that it is: good under /api/v2/assets, and as an argument of a file."),
    "node_id": told(TEXT, "Of the node that made it."),
    "name": told(TEXT, "The file's name."),
    "type": {"enum": ["image", "video", "audio", "text", "latent", "file"]},
    "content_type": TEXT,
    "size_bytes": COUNT,
    "hash": HASH,
    "url": {
        "type": "string",
        "format": "uri",
        "description": "Where its bytes are. The credential is needed there too.",
    },
    "url_expires_at": TIME,
    "job_id": TEXT,
}
_LINK: Final = closed(
    {
        "url": {"type": "string", "format": "uri", "description": "For whoever has it: no credential goes there."},
        "expires_at": told(TIME, "Until when it works. The next answer has a new one."),
    },
    words="Leads to a copy in the operator's storage, once there is one.",
)
_WHERE_COPIED: Final[Mapping[str, Schema]] = {"link": _LINK}
_FORMS: Final[Mapping[str, Schema]] = {
    "forms": {
        "type": "array",
        "items": closed({"name": TEXT, "content_type": TEXT, "size_bytes": COUNT, "hash": HASH, "link": _LINK}),
        "description": "Copies of it in the forms in which a function gives it, once there are some.",
    }
}
_URLS: Final = closed(
    {
        "self": told(TEXT, "The job."),
        "events": told(TEXT, "A stream of what happens to it."),
        "cancel": told(TEXT, "POST ends it."),
    },
    words="Relative to the host.",
)
_PROGRESS: Final[Schema] = {
    **closed(
        {
            "value": {"type": "number", "minimum": 0, "maximum": 1, "description": "It never falls."},
            "nodes_done": COUNT,
            "nodes_total": COUNT,
            "current_node": TEXT_OR_NULL,
            "current_node_class": TEXT_OR_NULL,
            "step": COUNT_OR_NULL,
            "steps": COUNT_OR_NULL,
            "message": TEXT_OR_NULL,
        }
    ),
    "type": ["object", "null"],
}
_JOB_ERROR: Final[Schema] = {
    **closed(
        {
            "code": {
                "enum": ["node_execution_error", "out_of_memory", "lost", "deadline_exceeded", "invalid_workflow"],
            },
            "message": TEXT,
            "node_id": TEXT_OR_NULL,
            "class_type": TEXT_OR_NULL,
            "traceback": {"type": "null"},
        },
        words="Why it failed.",
    ),
    "type": ["object", "null"],
}
_METRICS: Final = closed({"queue_ms": COUNT_OR_NULL, "execution_ms": COUNT_OR_NULL})


def job_members(output: str) -> dict[str, Schema]:
    """What each job has. output: the schema of its outputs."""
    return {
        "id": told(TEXT, "The prompt_id of ComfyUI's own API."),
        "status": {"enum": [each.value for each in Status]},
        "created_at": TIME,
        "started_at": TIME_OR_NULL,
        "completed_at": TIME_OR_NULL,
        "expires_at": told(TIME, "Until when it is kept at least."),
        "queue_position": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "Among your own that wait, from 1.",
        },
        "progress": _PROGRESS,
        "outputs": {"type": "array", "items": ref(output)},
        "error": _JOB_ERROR,
        "metrics": _METRICS,
        "urls": _URLS,
        "metadata": told(TEXTS, "Labels; of a function's job its name and version."),
    }


_ONLY_WHEN_SUBMITTED: Final[Mapping[str, Schema]] = {
    "node_errors": told(ANY_OBJECT, "What of the workflow is not sound and was left out, in ComfyUI's words, by node."),
    "notices": {"type": "array", "items": {}, "description": "What was changed of what was sent."},
}
_ONLY_WHEN_CALLED: Final[Mapping[str, Schema]] = {
    "drawn": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "description": "Seeds that nobody gave, by parameter.",
    },
    "assets": told(TEXTS, "Ids of the files that were given, by parameter."),
}

ERROR: Final = closed(
    {
        "error": closed(
            {
                "type": told(TEXT, "What was wrong, for programs."),
                "message": told(TEXT, "One sentence that says what to do."),
                "details": told(TEXT, "What was found; may be empty."),
                "extra_info": closed({}, {"request_id": told(TEXT, "By which the operator finds it in the log.")}),
            }
        ),
        "node_errors": told(ANY_OBJECT, "Refusals of single nodes, in ComfyUI's shape."),
    },
    words="How everything is refused: ComfyUI's own shape.",
)
FUNCTION: Final = closed(
    {
        "name": TEXT,
        "title": TEXT,
        "description": TEXT,
        "version": told(TEXT, "Changes with the function's settings and workflow."),
        "url": told(TEXT, "Where it is called, relative to the host."),
        "arguments": told(ANY_OBJECT, "A JSON schema (2020-12) of what a call sends."),
        "outputs": {"type": "array", "items": TEXT, "description": "Names of what it gives."},
    }
)


V2_ERROR: Final = closed(
    {
        "error": closed(
            {
                "code": told(TEXT, "What was wrong, in the words of the API."),
                "message": TEXT,
                "details": closed(
                    {"type": told(TEXT, "The gate's own word.")},
                    {"request_id": TEXT, "details": TEXT, "message": TEXT, "node_errors": ANY_OBJECT},
                ),
            }
        )
    },
    words="How this API refuses.",
)
_ASSET: Final = closed(
    {
        "id": TEXT,
        "hash": HASH,
        "size_bytes": COUNT,
        "content_type": TEXT,
        "file_path": TEXT,
        "created_at": TIME,
        "expires_at": TIME_OR_NULL,
        "url": {"type": "string", "format": "uri", "description": "Where its bytes are."},
        "url_expires_at": TIME,
        "job_id": told(TEXT_OR_NULL, "Of the job that made it."),
        "tags": {"type": "array", "items": TEXT},
    },
    {"created_new": told({"type": "boolean"}, "Whether its bytes were stored just now.")},
)
_ROW: Final = closed(
    {
        "id": TEXT,
        "status": {"enum": [each.value for each in Status]},
        "create_time": TIME,
        "created_at": TIME,
        "update_time": TIME,
        "updated_at": TIME,
        "metadata": TEXTS,
    }
)


def v2_schemas() -> dict[str, Schema]:
    """Of Comfy API v2, by name."""
    job = job_members("Output")
    return {
        "V2Error": V2_ERROR,
        "Output": closed(_OUTPUT, {**_WHERE_COPIED, **_FORMS}),
        "Job": closed(job),
        "SubmittedJob": closed(job, _ONLY_WHEN_SUBMITTED),
        "JobPage": closed({"jobs": {"type": "array", "items": _ROW}, "next_cursor": TEXT_OR_NULL}),
        "Workflow": closed({"workflow": ANY_OBJECT, "format": {"enum": ["api"]}}),
        "Asset": _ASSET,
    }


def shared_schemas() -> dict[str, Schema]:
    """Of functions and their jobs, by name."""
    own = {
        "output": told(TEXT_OR_NULL, "The function's name for it; null of what it does not name."),
        "error": told(TEXT_OR_NULL, "Why it cannot be given in the form that the function says; null where it can."),
    }
    within = {
        "data": {
            "type": ["string", "null"],
            "contentEncoding": "base64",
            "description": "The file, where `inline` asks for it and there is room for it.",
        }
    }
    job = job_members("Output") | {"estimated_start": told(TIME_OR_NULL, "Of a job that waits, as far as is known.")}
    return {
        "Error": ERROR,
        "Function": FUNCTION,
        "Functions": closed({"functions": {"type": "array", "items": ref("Function")}}),
        "Output": closed({**_OUTPUT, **own}, {**within, **_WHERE_COPIED}),
        "ToldOutput": closed(_OUTPUT, {**_WHERE_COPIED, **_FORMS}, "A file as the job made it."),
        "ToldJob": closed(
            job_members("ToldOutput")
            | {"urls": told(_URLS, "Absolute, where the operator has configured the gate's address.")},
            {"outputs_complete": told({"const": False}, "Where `outputs` does not hold everything: `urls.self` does.")},
        ),
        "JobEnded": closed(
            {"type": {"enum": [each.value for each in ENDS]}, "timestamp": TIME, "data": ref("ToldJob")}
        ),
        "Job": closed(job),
        "CalledJob": closed(job, {**_ONLY_WHEN_SUBMITTED, **_ONLY_WHEN_CALLED}, "A job, and what is told of it once."),
    }
