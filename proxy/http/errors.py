"""What went wrong, as the client is told: the only place where a refusal gets a status and ComfyUI's error shape."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from policy.v2.errors import envelope, in_words
from policy.violation import Reason, Violation
from proxy.persistence.operations import DatabaseUnavailable


class Unauthenticated(Exception):
    """No credential, or one that is not good: 401. message: what to do; never what was wrong with the secret part.

    key_id: of the API key that failed, when it named one. headers: for the answer.
    """

    key_id: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, message: str = "Send an API key or a token.", *, reason: str = "credential-missing") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class IssuerUnavailable(Exception):
    """The keys of a token's issuer could not be read yet: 503. The token may be good, so this is no failed login."""

    message = "The keys of this token's issuer cannot be read at the moment. Try again in a minute."


class CredentialEnded(Unauthenticated):
    """The credential was good when the request began, and is no more."""

    reason = "credential-ended"

    def __init__(self) -> None:
        super().__init__(
            "The credential was revoked or ran out while the request was under way.", reason="credential-ended"
        )


class MethodNotAllowed(Exception):
    """The path is known, by other methods: 405 with `Allow` (RFC 9110, 15.5.6)."""

    message = "This path takes other methods: Allow names them."

    def __init__(self, methods: tuple[str, ...]) -> None:
        super().__init__(methods)
        self.methods = methods


class LimitExceeded(Exception):
    """Over a limit: 429. retry_after_s: when it is worth asking again. limit: its name and size in words. headers: for the answer."""

    headers: tuple[tuple[str, str], ...] = ()

    is_of_key = False
    """The key's own limit, and not its tenant's."""

    def __init__(self, message: str, *, limit: str, retry_after_s: float, reason: str = "rate-limited") -> None:
        super().__init__(message)
        self.message = message
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.reason = reason


class UpstreamUnavailable(Exception):
    """ComfyUI cannot be reached or broke off: 502, or 503 when it answers but is not ready."""

    def __init__(self, message: str = "ComfyUI does not answer. Try again in a moment.", *, status: int = 502) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class UpstreamUnreachable(UpstreamUnavailable):
    """No connection to ComfyUI came to be, so it was sent nothing: 502."""


class ReplyTooLarge(UpstreamUnavailable):
    """ComfyUI answers more than is read of one answer: 502."""


class UpstreamTimeout(Exception):
    """ComfyUI took longer than the route's limit: 504."""

    message = "ComfyUI took too long to answer."


def unreachable(url: str, error: Exception, setting: str = "upstream.url") -> str:
    """For the operator: what is at upstream.url, and what to change. url: of ComfyUI. setting: where it stands in the configuration."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(error, UpstreamTimeout):
        why = "it is connected and says nothing"
    else:
        number = getattr(cause, "errno", None)
        why = os.strerror(number).lower() if isinstance(number, int) and number > 0 else type(cause).__name__
    return (
        f"ComfyUI does not answer at {url} ({why}). Start ComfyUI there, or set {setting} in config.toml to where it is: "
        "it prints its address when it starts."
    )


class ClientGone(Exception):
    """The client went away before its request was whole: recorded as 499, answered with nothing."""


class BodyTimeout(Exception):
    """The client sent its body too slowly: 408."""

    message = "The body came too slowly."


_STATUS: Mapping[Reason, int] = {
    Reason.ROUTE_UNLISTED: 404,
    Reason.NOT_FOUND: 404,
    Reason.ROUTE_REFUSED: 403,
    Reason.ADMINS_ONLY: 403,
    Reason.SCOPE_MISSING: 403,
    Reason.ORIGIN_FOREIGN: 403,
    Reason.POLICY_VIOLATION: 403,
    Reason.FILE_TYPE_REFUSED: 403,
    Reason.PATH_MALFORMED: 400,
    Reason.QUERY_MALFORMED: 400,
    Reason.HEADER_MALFORMED: 400,
    Reason.BODY_MALFORMED: 400,
    Reason.WORKFLOW_MALFORMED: 400,
    Reason.PROMPT_ID_TAKEN: 400,
    Reason.NOWHERE_TO_RUN: 400,
    Reason.IDEMPOTENCY_KEY_REUSED: 422,
    Reason.NAME_REFUSED: 400,
    Reason.CREDENTIAL_MISPLACED: 400,
    Reason.BODY_TOO_LARGE: 413,
    Reason.PICTURE_TOO_LARGE: 413,
    Reason.STORAGE_FULL: 507,
    Reason.ARGUMENT_REFUSED: 422,
    Reason.NOT_ACCEPTABLE: 406,
    Reason.CONVERSION_FAILED: 422,
    Reason.MISSING_ASSET: 422,
    Reason.HASH_MISMATCH: 409,
    Reason.ASSET_IN_USE: 409,
    Reason.METADATA_INVALID: 422,
    Reason.METADATA_FILTER_INVALID: 400,
    Reason.CURSOR_MALFORMED: 400,
}


CHALLENGE: Final = 'Bearer realm="comfygate", Basic realm="comfygate"'
"""RFC 9110, 11.6.1: in one line, for programs that choose by themselves. Chromium reads a line as one challenge, so as Bearer."""
CHALLENGE_FOR_PAGES: Final = 'Bearer realm="comfygate"'
"""Other browsers would ask for a user and a password in a window of their own, over a page whose session has ended."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer in ComfyUI's error shape, which its clients and its web UI already read."""

    status: int
    reason: str
    message: str
    details: str = ""
    node_errors: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    general: tuple[tuple[str, str], ...] = ()
    """(code, sentence) of what concerns a workflow as a whole; for the record, the answer has it in `details`."""
    error_type: str | None = None
    extra_info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """ComfyUI writes error types with underscores."""
        return self.error_type or self.reason.replace("-", "_")

    def v2(self, request_id: str) -> tuple[int, bytes]:
        """Status and body as Comfy API v2 tells it."""
        status, code = in_words(self.type, self.status, frozenset(code for code, _ in self.general))
        body = envelope(
            code,
            self.message,
            gate_type=self.type,
            request_id=request_id,
            details=self.details,
            node_errors=self.node_errors,
        )
        return status, orjson.dumps(body)

    def body(self, request_id: str) -> bytes:
        return orjson.dumps(
            {
                "error": {
                    "type": self.type,
                    "message": self.message,
                    "details": self.details,
                    "extra_info": {**self.extra_info, "request_id": request_id},
                },
                "node_errors": dict(self.node_errors),
            }
        )


class TurnedAway(Exception):
    """The gate does not take the call now, on this connection, or none at all."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def refusal_for(error: Exception) -> Refusal | None:
    """The answer for one of the gate's own errors, None for a bug."""
    match error:
        case TurnedAway():
            return error.refusal
        case Violation():
            return Refusal(
                _STATUS[error.reason],
                error.reason,
                error.message,
                error.details,
                error.node_errors,
                general=error.general,
                error_type=error.error_type,
                extra_info=error.extra_info,
            )
        case Unauthenticated():
            return Refusal(401, error.reason, error.message, headers=(("WWW-Authenticate", CHALLENGE), *error.headers))
        case MethodNotAllowed():
            return Refusal(405, "method-not-allowed", error.message, headers=(("Allow", ", ".join(error.methods)),))
        case IssuerUnavailable():
            return Refusal(503, "token-keys-unavailable", error.message, headers=(("Retry-After", "10"),))
        case LimitExceeded():
            retry = str(max(1, round(error.retry_after_s + 0.5)))
            return Refusal(
                429, error.reason, error.message, error.limit, headers=(("Retry-After", retry), *error.headers)
            )
        case DatabaseUnavailable():
            # Its words are for the log: they name a file or a server.
            sentence = "The gate's database cannot be used at the moment. Try again later."
            return Refusal(503, "database-unavailable", sentence, headers=(("Retry-After", "5"),))
        case UpstreamUnavailable():
            return Refusal(error.status, "upstream-unavailable", error.message, headers=(("Retry-After", "5"),))
        case UpstreamTimeout():
            return Refusal(504, "upstream-timeout", error.message)
        case BodyTimeout():
            return Refusal(408, "body-timeout", error.message)
        case _:
            return None
