"""How the client of a call hears of its job: at once, when the job is over, as its events, or as the bytes of its one result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from policy.addresses import AddressRefused, HostPattern, read_address
from policy.call import ClientCall
from policy.values import value
from policy.violation import Reason, Violation

MAX_WAIT_S: Final = 90
"""Below the 100 s after which an edge gives up: the answer is the gate's own, and no cut connection."""
WAIT_FOR_BYTES_S: Final = 60
"""Of a client that asks for bytes, and does not say how long it waits."""
ON_DISCONNECT: Final = "on_disconnect"
WEBHOOK_URL: Final = "Webhook-URL"
MAX_WEBHOOK_CHARACTERS: Final = 2000
"""Many wait in the gate's database."""
_ANY: Final = "application/octet-stream"
_STREAM: Final = "text/event-stream"
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9110, 12.5.1.
_RANGE: Final = re.compile(rf"({_WORD}/{_WORD}|\*/\*)((?:[ \t]*;[^;]*)*)")
_WEIGHT: Final = re.compile(r";[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*(?=;|$)", re.IGNORECASE)
_MEDIA: Final = re.compile(r"(?:image|video|audio)/.+|text/plain|application/octet-stream")
# RFC 7240, 4.3.
_WAIT: Final = re.compile(r'wait[ \t]*=[ \t]*(?:"([0-9]{1,6})"|([0-9]{1,6}))[ \t]*(?:;.*)?', re.IGNORECASE)


class Kind(Enum):
    JOB = "job"
    EVENTS = "events"
    BYTES = "bytes"


@value
class Delivery:
    """wait_s: how long the job's end is waited for. ranges: of media types, of which the result must be of one.

    is_waited_for: the client has asked for it by `Prefer`. ends_with_client: a client that leaves before its answer wants no result any more.
    """

    kind: Kind = Kind.JOB
    wait_s: int = 0
    ranges: tuple[str, ...] = ()
    is_waited_for: bool = False
    ends_with_client: bool = False


def read_webhook(lines: Sequence[str], hosts: Sequence[HostPattern]) -> str:
    """lines: of the field `Webhook-URL`. hosts: that the caller may name. The address, "" for none. Raises Violation(header-malformed)."""
    if not lines:
        return ""
    if not hosts:
        raise _no_webhook("nobody outside is told of your calls: the operator permits hosts with `call_webhooks`")
    if len(lines) > 1 or len(lines[0]) > MAX_WEBHOOK_CHARACTERS:
        raise _no_webhook(f"send one address, of at most {MAX_WEBHOOK_CHARACTERS} characters")
    try:
        return read_address(lines[0].strip(" \t"), hosts).url
    except AddressRefused as error:
        raise _no_webhook(str(error)) from None


def _no_webhook(rule: str) -> Violation:
    return Violation(Reason.HEADER_MALFORMED, f"`{WEBHOOK_URL}` is not accepted: {rule}."[:500], WEBHOOK_URL)


def read_delivery(call: ClientCall, accept: Sequence[str], prefer: Sequence[str]) -> Delivery:
    """accept, prefer: the lines of these fields. Raises Violation(query-malformed)."""
    kind, ranges = _read_accept(",".join(accept))
    wait_s = _read_wait(",".join(prefer))
    ends_with_client = _read_on_disconnect(call.first(ON_DISCONNECT))
    if kind is Kind.EVENTS:
        return Delivery(kind, ends_with_client=ends_with_client)
    if wait_s is None:
        return Delivery(kind, WAIT_FOR_BYTES_S if kind is Kind.BYTES else 0, ranges, ends_with_client=ends_with_client)
    return Delivery(kind, wait_s, ranges, True, ends_with_client)


def _read_accept(field: str) -> tuple[Kind, tuple[str, ...]]:
    """What the client likes best of what there is: the greatest weight, and of equal ones the first. A job, where it names nothing that there is."""
    found: list[tuple[float, str]] = []
    for part in field.split(","):
        match = _RANGE.fullmatch(part.strip(" \t"))
        if match is not None and (weight := _weight_of(match[2])) > 0:
            found.append((weight, match[1].lower()))
    found.sort(key=lambda each: -each[0])  # which keeps the order of equal ones
    for _, media_range in found:
        if media_range == _STREAM:
            return Kind.EVENTS, ()
        if media_range in ("*/*", "application/*", "application/json"):
            return Kind.JOB, ()
        if _MEDIA.fullmatch(media_range):
            return Kind.BYTES, tuple(each for _, each in found if _MEDIA.fullmatch(each))
    return Kind.JOB, ()


def _weight_of(parameters: str) -> float:
    match = _WEIGHT.search(parameters)
    return 1.0 if match is None else float(match[1])


def _read_wait(field: str) -> int | None:
    """None where it is not asked for, or not in the words of RFC 7240: such a preference is passed over (section 2)."""
    for part in field.split(","):
        match = _WAIT.fullmatch(part.strip(" \t"))
        if match is not None:
            return min(int(match[1] or match[2]), MAX_WAIT_S)
    return None


def _read_on_disconnect(text: str | None) -> bool:
    if text not in (None, "continue", "cancel"):
        raise Violation(Reason.QUERY_MALFORMED, f"`{ON_DISCONNECT}` is `continue` or `cancel`.", ON_DISCONNECT)
    return text == "cancel"


def fits(content_type: str, ranges: Sequence[str]) -> bool:
    """Whether a media type is of one of the ranges. `application/octet-stream` stands for bytes of whatever type."""
    media_type = content_type.partition(";")[0].strip(" \t").lower()
    return any(
        each in (media_type, _ANY) or (each.endswith("/*") and media_type.startswith(each[:-1])) for each in ranges
    )
