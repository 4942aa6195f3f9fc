"""The operations of Comfy API v2, as the gate answers them (policy/v2)."""

from __future__ import annotations

from typing import Any, Final

from policy.openapi.parts import (
    PLAIN_TEXT,
    SINGLE_USE_KEY,
    answer,
    file_answers,
    json_body,
    operation,
    path_parameter,
    query_parameter,
    streamed,
)
from policy.openapi.refusals import ALWAYS, ASKS_COMFYUI, CHANGES, FOLLOWS, HAS_BODY, SUBMITS, Refusals
from policy.openapi.schemas import ANY_OBJECT, TEXT, Schema, ref, told
from policy.rules.v2_jobs import LISTED, MAX_LISTED
from policy.v2.asset_uploads import MAX_EXPIRES_IN_S, MAX_TAG_CHARACTERS, MAX_TAGS, MIN_EXPIRES_IN_S
from policy.v2.jobs import Status
from policy.v2.labels import MAX_FILTERS, MAX_LABELS

JOBS: Final = "Jobs"
ASSETS: Final = "Assets"
_ID: Final = path_parameter("job_id", "The `id` of a job of yours.", {"type": "string", "format": "uuid"})
_ASSET: Final = path_parameter("asset_id", "The `id` of an asset of yours.", PLAIN_TEXT)
_HASH: Final[Schema] = {"type": "string", "pattern": "^blake3:[0-9a-f]{64}$"}
_NO_JOB: Final = Refusals({404: ("job_not_found",)})
_NO_ASSET: Final = Refusals({404: ("asset_not_found",)})
_NO_BYTES: Final = Refusals({404: ("blob_not_found",)})
_STORES: Final = CHANGES | HAS_BODY | Refusals({400: ("body_malformed",), 422: ("asset_invalid", "name_refused")})
_DETAILS: Final[dict[str, Schema]] = {
    "file_path": told(TEXT, "What it is to be called; the last segment is the file's name."),
    "tags": {
        "type": "array",
        "maxItems": MAX_TAGS,
        "items": {"type": "string", "maxLength": MAX_TAG_CHARACTERS},
    },
    "expires_in": {
        "type": "integer",
        "minimum": MIN_EXPIRES_IN_S,
        "maximum": MAX_EXPIRES_IN_S,
        "description": "Seconds after which it is gone.",
    },
}
_STATUS: Final = f"(?:{'|'.join(Status)})"
_STATUSES: Final = f"^(?:{_STATUS}(?: *, *{_STATUS})*)?$"
_LABELS: Final[Schema] = {
    "type": "object",
    "maxProperties": MAX_LABELS,
    "propertyNames": {"pattern": "^[A-Za-z0-9_.-]{1,40}$"},
    "additionalProperties": {"type": "string", "maxLength": 256},
}


def v2_paths(*, takes_workflows: bool) -> dict[str, Any]:
    """By path. takes_workflows: whether the tenant sends workflows of its own."""
    listed: dict[str, Any] = {"get": _list_jobs()} | ({"post": _submit()} if takes_workflows else {})
    here, asset = "/api/v2/jobs/{job_id}", "/api/v2/assets/{asset_id}"
    return {
        "/api/v2/jobs": listed,
        here: _of_job("get", "getJob", "How far a job is", {"200": answer("The job.", ref("Job"))}),
        f"{here}/workflow": _of_job(
            "get", "getJobWorkflow", "The workflow of a job", {"200": answer("In API format.", ref("Workflow"))}
        ),
        f"{here}/events": _of_job(
            "get", "getJobEvents", "What happens to a job", {"200": streamed("Until the job has ended.")}, FOLLOWS
        ),
        f"{here}/cancel": _of_job(
            "post", "cancelJob", "End a job", {"200": answer("The job.", ref("Job"))}, CHANGES | ASKS_COMFYUI
        ),
        "/api/v2/assets": {"post": _upload()},
        "/api/v2/assets/from-hash": {"post": _from_hash()},
        "/api/v2/assets/by-hash/{hash}": {
            "parameters": [path_parameter("hash", "`blake3:` and 64 hexadecimal digits.", _HASH)],
            "get": _asset("getAssetByHash", "Whether you have these bytes", _NO_BYTES),
        },
        asset: {"parameters": [_ASSET], "get": _asset("getAsset", "An asset", _NO_ASSET), "delete": _delete()},
        f"{asset}/content": {"parameters": [_ASSET], "get": _content()},
    }


def _of_job(method: str, name: str, words: str, answers: dict[str, Any], more: Refusals = _NO_JOB) -> dict[str, Any]:
    return {"parameters": [_ID], method: operation(name, JOBS, words, answers, ALWAYS | _NO_JOB | more, "V2Error")}


def _list_jobs() -> dict[str, Any]:
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": LISTED}
    return operation(
        "listJobs",
        JOBS,
        "Your jobs, the newest first",
        {"200": answer("A page of them.", ref("JobPage"))},
        ALWAYS | Refusals({400: ("metadata_filter_invalid", "cursor_malformed")}),
        "V2Error",
        description=f"`metadata[NAME]=VALUE` asks for those with a label; {MAX_FILTERS} at most.",
        parameters=[
            query_parameter("limit", "How many.", limit),
            query_parameter("cursor", "`next_cursor` of the page before.", TEXT),
            query_parameter("status", "States, separated by commas.", {"type": "string", "pattern": _STATUSES}),
        ],
    )


def _submit() -> dict[str, Any]:
    body = {
        "type": "object",
        "required": ["workflow"],
        "properties": {
            "workflow": told(ANY_OBJECT, "A graph in API format."),
            "metadata": _LABELS,
            "extra_data": {"type": "object", "properties": {"api_key_comfy_org": TEXT}, "additionalProperties": False},
        },
    }
    refused = SUBMITS | Refusals({422: ("workflow_malformed", "metadata_invalid", "missing_asset", "name_refused")})
    return operation(
        "postJobs",
        JOBS,
        "Run a workflow",
        {"201": answer("The job is on disk.", ref("SubmittedJob"))},
        ALWAYS | refused | Refusals({422: ("idempotency_key_reused",)}),
        "V2Error",
        parameters=[SINGLE_USE_KEY],
        requestBody=json_body(body),
    )


def _upload() -> dict[str, Any]:
    parts = {
        "content_type": TEXT,
        **_DETAILS,
        "expected_hash": _HASH,
        "file": told({"type": "string", "format": "binary"}, "The last part."),
    }
    names = {"pattern": "^[A-Za-z0-9_.-]{1,100}$"}  # others are passed over
    body = {"type": "object", "required": ["file"], "properties": parts, "propertyNames": names}
    refused = {
        403: ("file_type_refused",),
        409: ("hash_mismatch",),
        413: ("picture_too_large",),
        507: ("storage_full",),
    }
    return operation(
        "postAssets",
        ASSETS,
        "Upload a file",
        {
            "200": answer("Of bytes that you have already.", ref("Asset")),
            "201": answer("Of bytes that you had not.", ref("Asset")),
        },
        ALWAYS | _STORES | ASKS_COMFYUI | Refusals(refused) | Refusals({422: ("idempotency_key_reused",)}),
        "V2Error",
        parameters=[SINGLE_USE_KEY],
        requestBody={"required": True, "content": {"multipart/form-data": {"schema": body}}},
    )


def _from_hash() -> dict[str, Any]:
    body = {"type": "object", "required": ["hash"], "properties": {"hash": _HASH, **_DETAILS}}
    return operation(
        "assetFromHash",
        ASSETS,
        "Another name for bytes that you have",
        {
            "200": answer("One that says the same was there.", ref("Asset")),
            "201": answer("A record of its own.", ref("Asset")),
        },
        ALWAYS | _STORES | _NO_BYTES,
        "V2Error",
        requestBody=json_body(body),
    )


def _asset(name: str, words: str, missing: Refusals) -> dict[str, Any]:
    return operation(name, ASSETS, words, {"200": answer("It.", ref("Asset"))}, ALWAYS | missing, "V2Error")


def _delete() -> dict[str, Any]:
    gone = {"204": {"description": "It is gone."}}
    refused = ALWAYS | CHANGES | _NO_ASSET | Refusals({409: ("asset_in_use",)})
    return operation("deleteAsset", ASSETS, "Delete an asset", gone, refused, "V2Error")


def _content() -> dict[str, Any]:
    refused = ALWAYS | _NO_ASSET | ASKS_COMFYUI
    return operation("getAssetContent", ASSETS, "The file", file_answers("Its bytes."), refused, "V2Error")
