"""What the gate sends itself: the end of a call's job, to the address that the call has named.

tests/proxy/webhooks/test_calls.py holds real messages against it.
"""

from __future__ import annotations

from typing import Any, Final

from policy.functions.delivery import WEBHOOK_URL
from policy.openapi.parts import JSON
from policy.openapi.schemas import ref

JOB_ENDED: Final = "job_ended"
_HEADERS: Final = {
    "webhook-id": "Of the message: the same for every attempt. What comes twice is one message.",
    "webhook-timestamp": "Of the attempt, in Unix seconds.",
    "webhook-signature": "Of id, timestamp and body, after Standard Webhooks; several, with spaces between, while a secret is changed.",
}


def callbacks() -> dict[str, Any]:
    """All there are, by name."""
    told: dict[str, Any] = {
        "summary": "The job has ended",
        "description": "Comes once, and again for a day until it is taken. Verify the signature, answer at once, and work afterwards.",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": words}
            for name, words in _HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("JobEnded")}}},
        "responses": {
            "2XX": {"description": "It is taken."},
            "410": {"description": "It is not wanted: it does not come again."},
            "default": {"description": "It comes again."},
        },
    }
    return {JOB_ENDED: {f"{{$request.header.{WEBHOOK_URL}}}": {"post": told}}}


def callback_references() -> dict[str, Any]:
    """For an operation that takes the address."""
    return {JOB_ENDED: {"$ref": f"#/components/callbacks/{JOB_ENDED}"}}
