"""Files that stand in a call as addresses: the gate fetches them. What the other side says of a file is not believed; its first bytes say what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Final

from policy.addresses import Address
from policy.functions.settings import ParameterType
from policy.rules.media import extension_of
from policy.violation import Reason, Violation

MAX_REDIRECTS: Final = 5
FAMILIES: Final[Mapping[ParameterType, str]] = {"image": "image", "mask": "image", "audio": "audio", "video": "video"}
_EXTENSIONS: Final = {"image": "png", "audio": "wav", "video": "mp4"}


class Failure(StrEnum):
    """Why nothing was fetched."""

    UNREACHABLE = "unreachable"
    """Nothing answers there, or the gate does not ask there: which of both nobody outside is told."""
    REDIRECT = "redirect"
    STATUS = "status"
    ENCODED = "encoded"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    BROKEN_OFF = "broken-off"
    EMPTY = "empty"


_RULES: Final = {
    Failure.UNREACHABLE: "does not answer, not with a valid certificate, or not at a public address",
    Failure.REDIRECT: "leads on {}",
    Failure.STATUS: "answers {}",
    Failure.ENCODED: "sends it with a Content-Encoding, for which it was not asked",
    Failure.TOO_LARGE: "sends more than {} bytes",
    Failure.TOO_SLOW: "takes longer than {} seconds",
    Failure.BROKEN_OFF: "broke off in the middle",
    Failure.EMPTY: "sends nothing",
}


class FetchFailed(Exception):
    """detail: for the client where it is a number or a rule of the gate's. note: for the operator, of an address that the client is told nothing of."""

    def __init__(self, failure: Failure, detail: str = "", note: str = "") -> None:
        super().__init__(failure.value)
        self.failure = failure
        self.detail = detail
        self.note = note


def refusal(parameter: str, address: Address, failed: FetchFailed) -> Violation:
    """What the client is told. SECURITY: the same for every address that did not answer or is not asked, so that nobody learns what is in the gate's network
    (tests/proxy/functions/test_fetches.py)."""
    rule = _RULES[failed.failure].format(failed.detail)
    shown = f"The argument `{parameter}` cannot be fetched: {address.host} {rule}."
    return Violation(Reason.ARGUMENT_REFUSED, shown[:500], parameter)


def naming(parameter: str, kind: ParameterType, upload_types: frozenset[str]) -> Callable[[bytes], str]:
    """Finds the name of a file by its first bytes. Raises Violation(argument-refused) for what the parameter does not take."""
    return partial(_name_of, parameter, FAMILIES[kind], upload_types)


def _name_of(parameter: str, family: str, upload_types: frozenset[str], head: bytes) -> str:
    extension = extension_of(head, family, upload_types)
    if extension is None:
        raise Violation(
            Reason.ARGUMENT_REFUSED,
            f"The argument `{parameter}` is not accepted: what stands at its address is no {family} of a type that is taken.",
            parameter,
        )
    return f"{parameter}.{extension}"


def name_before(parameter: str, kind: ParameterType) -> str:
    """Of a file that is still to be fetched: so the workflow can be judged before."""
    return f"{parameter}.{_EXTENSIONS[FAMILIES[kind]]}"
