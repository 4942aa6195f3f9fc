"""One request and its answer, with everything that log, metrics and audit say of it afterwards. The only value the pipeline changes."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from multidict import istr

from policy.principal import Principal
from policy.v2.paths import is_v2
from proxy.http.request import Request

# It stands in logs and answers: what looks like an API key, sent there by mistake, is not taken.
_REQUEST_ID = re.compile(r"(?!cg_)[A-Za-z0-9._-]{1,64}")
_RAY = re.compile(r"[0-9a-f]{16}(-[A-Z]{3})?")
UNLISTED = "unlisted"
_MAX_DEPTH = 64
"""No path of the gate is deeper, and what leads back from one stands in a header."""
_SENT_ID = istr("X-Request-Id")
_SENT_RAY = istr("Cf-Ray")
_NAMED = "names"
"""Of Request.of_head."""
_V2_REQUEST_ID: Final = "X-Comfy-Request-Id"
_ids = random.Random()  # noqa: S311 - a name to find a line by, which proves nothing


class Decision(StrEnum):
    """What became of a submission."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """ComfyUI was asked, and no answer came: the job may run."""


@dataclass
class RequestRecord:
    """route: the row's name, never the path, so that it can be a label. reason: why it was refused, empty when it was not.

    received_bytes, sent_bytes: of the bodies, without heads. upstream_s: seconds that it waited for ComfyUI, of all its calls.
    """

    method: str
    request_id: str
    client: str
    cf_ray: str = ""
    route: str = UNLISTED
    principal: Principal | None = None
    status: int = 0
    reason: str = ""
    received_bytes: int = 0
    sent_bytes: int = 0
    upstream_s: float = 0.0
    started_s: float = field(default_factory=time.perf_counter)
    elapsed_s: float = 0.0
    """From its beginning until it was written down."""
    submits: bool = False
    """Its route takes jobs."""
    is_submitted: bool = False
    """ComfyUI was sent the job."""
    decision: Decision | None = None
    """None: as the status says."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What a rule adds for the audit trail."""
    response_headers: list[tuple[str, str]] = field(default_factory=list)
    """What every answer carries beside its own fields: limits, CORS."""
    raw_path: str = field(default="", repr=False)
    public_path: str = ""

    @property
    def root(self) -> str:
        """Leads from the request's path to the gate's front page, for a browser: below a prefix that the gate does not see it is relative."""
        return root_of(self.raw_path, self.public_path) if self.raw_path else "/"

    @classmethod
    def begin(cls, request: Request, client: str, public_path: str = "") -> RequestRecord:
        """public_path: below which the gate is seen by clients, as far as it is known."""
        known: tuple[str, str, str, bool] | None = request.of_head.get(_NAMED)
        if known is None:
            known = request.of_head[_NAMED] = _names_in(request)
        # As `__init__` does it, at half the price: what has its default is read from the class.
        record = cls.__new__(cls)
        record.method, sent, record.cf_ray, has_v2_id = known
        record.request_id = sent or f"{_ids.getrandbits(64):016x}"
        record.client = client
        record.reason, record.received_bytes, record.notes = "", 0, {}
        record.response_headers = [(_V2_REQUEST_ID, record.request_id)] if has_v2_id else []
        record.raw_path, record.public_path = request.raw_path, public_path
        record.started_s = time.perf_counter()
        return record


def _names_in(request: Request) -> tuple[str, str, str, bool]:
    """The method as it is counted, what the request and the edge's request are called, empty where they have no name that is taken; and whether its
    answer says the request's name as Comfy-Org's does.
    """
    sent, ray = request.headers.get(_SENT_ID, ""), request.headers.get(_SENT_RAY, "")
    return (
        request.method if request.method in _METHODS else "OTHER",
        sent if _REQUEST_ID.fullmatch(sent) else "",
        ray if _RAY.fullmatch(ray) else "",
        is_v2(request.raw_path),
    )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def root_of(raw_path: str, public_path: str = "") -> str:
    """What leads from a request's path to the gate's front page: "/prefix/" where the prefix is known, else "../" as often as it takes.

    A proxy in front may serve the gate below a prefix of its own (RFC 3986, 5.2.4: a browser goes no further up than to its host).
    """
    if public_path:
        return f"{public_path}/"
    depth = raw_path.partition("?")[0].count("/") - 1
    return "../" * min(depth, _MAX_DEPTH) or "./"
