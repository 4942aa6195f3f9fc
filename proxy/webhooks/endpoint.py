"""An endpoint that is told of a tenant's jobs, with what its messages are signed with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from policy.addresses import AddressRefused, HostPattern, parse_host_pattern, read_address
from policy.principal import TenantId
from policy.webhooks import CALLS
from proxy.config import Config, Mistake
from proxy.config.webhooks import WebhookSettings
from proxy.outside.target import Target, Unreachable

if TYPE_CHECKING:
    from standardwebhooks import Webhook

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
AT_ONCE: Final = 2
CALLS_AT_ONCE: Final = 8
"""They go to many receivers."""
_MIN_BYTES: Final = 24
_MAX_BYTES: Final = 64


class Recipient(Protocol):
    """Who is told: an endpoint, or the addresses that a tenant's calls have named. at_once: how many messages, from one gate."""

    @property
    def name(self) -> str: ...
    @property
    def tenant(self) -> TenantId: ...
    @property
    def at_once(self) -> int: ...

    def target_of(self, url: str) -> Target:
        """url: of the delivery. Raises Unreachable where nobody is told there any more."""
        ...

    def headers(self, message_id: str, at_s: float, body: bytes) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """signers: one for each secret, the new one first. fingerprint: another one when address, tenant or events are others."""

    name: str
    tenant: TenantId
    events: tuple[str, ...]
    target: Target
    signers: Sequence[Webhook] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        parts = (self.tenant, self.target.url, str(self.target.allows_private), *self.events)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def place(self) -> str:
        return place_of(self.target.url)

    @property
    def at_once(self) -> int:
        return AT_ONCE

    def target_of(self, url: str) -> Target:
        return self.target

    def headers(self, message_id: str, at_s: float, body: bytes) -> dict[str, str]:
        return _headers(self.signers, message_id, at_s, body)


@dataclass(frozen=True, slots=True)
class CallWebhooks:
    """The addresses that calls of one tenant have named. hosts: that may be named. signers: as of an endpoint."""

    tenant: TenantId
    hosts: tuple[HostPattern, ...]
    signers: Sequence[Webhook] = field(repr=False)

    @property
    def name(self) -> str:
        return CALLS

    @property
    def at_once(self) -> int:
        return CALLS_AT_ONCE

    def target_of(self, url: str) -> Target:
        """By the configuration in force: it may have changed since the call."""
        try:
            address = read_address(url, self.hosts)
        except AddressRefused:
            raise Unreachable("its host is permitted no more") from None
        return Target(address.url, frozenset({address.port}), tenant=self.tenant)

    def headers(self, message_id: str, at_s: float, body: bytes) -> dict[str, str]:
        return _headers(self.signers, message_id, at_s, body)


def _headers(signers: Sequence[Webhook], message_id: str, at_s: float, body: bytes) -> dict[str, str]:
    """Of an attempt at a time (Unix seconds): each is signed anew, since receivers take no old ones."""
    at, text = datetime.fromtimestamp(int(at_s), UTC), body.decode()
    return {
        "Content-Type": "application/json",
        "User-Agent": "comfygate",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at_s)),
        "webhook-signature": " ".join(signer.sign(message_id, at, text) for signer in signers),
    }


def place_of(url: str) -> str:
    """What may be said of an address where it is written down: a path or a query may hold a secret of the receiver's."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def make_endpoints(config: Config, mistakes: list[Mistake]) -> tuple[Endpoint, ...]:
    """Those of the configuration; what cannot be used of their secrets is added to `mistakes`."""
    found = []
    for index, settings in enumerate(config.webhooks):
        files = {"secret_file": settings.secret_file, "previous_secret_file": settings.previous_secret_file}
        found.append(_endpoint(settings, _signers(config, f"webhooks[{index}]", files, mistakes)))
    return tuple(found)


def make_call_webhooks(config: Config, mistakes: list[Mistake]) -> tuple[CallWebhooks, ...]:
    """Those of tenants whose calls may name addresses; mistakes: as of `make_endpoints`."""
    found = []
    for name, settings in config.tenants.items():
        if settings.call_webhooks:
            files = {
                "call_webhooks_secret_file": settings.call_webhooks_secret_file,
                "call_webhooks_previous_secret_file": settings.call_webhooks_previous_secret_file,
            }
            hosts = tuple(map(parse_host_pattern, settings.call_webhooks))
            found.append(CallWebhooks(TenantId(name), hosts, _signers(config, f"tenants.{name}", files, mistakes)))
    return tuple(found)


def _signers(
    config: Config, place: str, files: Mapping[str, Path | None], mistakes: list[Mistake]
) -> tuple[Webhook, ...]:
    """files: by the names of their settings, the new one first."""
    signers = []
    for name, file in files.items():
        if file is None:
            continue
        try:
            signers.append(_read_secret(config.resolve(file)))
        except ValueError as error:
            mistakes.append(Mistake(f"{place}.{name}", None, str(error)))
    return tuple(signers)


def _endpoint(settings: WebhookSettings, signers: Sequence[Webhook]) -> Endpoint:
    events = tuple(sorted(event.value for event in settings.events))
    target = Target(settings.url, frozenset({settings.port}), settings.allow_private, settings.tenant)
    return Endpoint(settings.name, TenantId(settings.tenant), events, target, tuple(signers))


def _read_secret(file: Path) -> Webhook:
    """Raises ValueError."""
    from standardwebhooks import Webhook  # only a gate that sends any needs it

    try:
        text = file.read_text(encoding="ascii").strip()
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read: {error.strerror or error}; make it with `comfygate webhooks secret`"
        ) from None
    except (binascii.Error, ValueError):
        key, text = b"", ""
    if not text.startswith(PREFIX) or not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(
            f"{file} holds no secret as {PREFIX}<base64 of {_MIN_BYTES} to {_MAX_BYTES} bytes>: make it with `comfygate webhooks secret`"
        )
    return Webhook(key)
