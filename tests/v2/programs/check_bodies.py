"""Bodies as comfy-sdk's own models take them: a JSON line each, `{"kind": "job", "text": "…"}`; the answer is a line each, null or what is wrong."""

import json
import sys

from comfy_low.models import (
    Asset,
    ErrorEnvelope,
    Job,
    JobWorkflowResponse,
    LogEvent,
    Output,
    PreviewEvent,
    Progress,
    StatusEvent,
)
from comfy_sdk.client import _next_list_cursor, _page_jobs
from comfy_sdk.jobs import JobSummary


def page(text):
    whole = json.loads(text)
    for item in _page_jobs(whole):
        summary = JobSummary._from_item(item)
        if summary.create_time is None:
            raise ValueError("create_time cannot be read")
    _next_list_cursor(whole, set())


MODELS = {
    "job": Job,
    "asset": Asset,
    "error": ErrorEnvelope,
    "workflow": JobWorkflowResponse,
    "status": StatusEvent,
    "progress": Progress,
    "preview": PreviewEvent,
    "output": Output,
    "log": LogEvent,
}
for line in sys.stdin:
    body = json.loads(line)
    try:
        page(body["text"]) if body["kind"] == "page" else MODELS[body["kind"]].model_validate_json(body["text"])
        print(json.dumps(None), flush=True)
    except Exception as exception:
        print(json.dumps(f"{type(exception).__name__}: {exception}"), flush=True)
