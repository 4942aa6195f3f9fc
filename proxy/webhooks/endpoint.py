"""An endpoint that is told of a tenant's jobs, with what its messages are signed with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from policy.principal import TenantId
from proxy.config import Config, Mistake
from proxy.config.webhooks import WebhookSettings
from proxy.outside.target import Target

if TYPE_CHECKING:
    from standardwebhooks import Webhook

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
_MIN_BYTES: Final = 24
_MAX_BYTES: Final = 64


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
        """What a log line may call it: a path or a query may hold a secret of the receiver's."""
        parts = urlsplit(self.target.url)
        return f"{parts.scheme}://{parts.netloc}"

    def headers(self, message_id: str, at_s: float, body: bytes) -> dict[str, str]:
        """Of an attempt at a time (Unix seconds): each is signed anew, since receivers take no old ones."""
        at, text = datetime.fromtimestamp(int(at_s), UTC), body.decode()
        return {
            "Content-Type": "application/json",
            "User-Agent": "comfygate",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at_s)),
            "webhook-signature": " ".join(signer.sign(message_id, at, text) for signer in self.signers),
        }


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def make_endpoints(config: Config, mistakes: list[Mistake]) -> tuple[Endpoint, ...]:
    """Those of the configuration; what cannot be used of their secrets is added to `mistakes`."""
    found = []
    for index, settings in enumerate(config.webhooks):
        signers = []
        for name, file in (
            ("secret_file", settings.secret_file),
            ("previous_secret_file", settings.previous_secret_file),
        ):
            if file is None:
                continue
            try:
                signers.append(_read_secret(config.resolve(file)))
            except ValueError as error:
                mistakes.append(Mistake(f"webhooks[{index}].{name}", None, str(error)))
        found.append(_endpoint(settings, signers))
    return tuple(found)


def _endpoint(settings: WebhookSettings, signers: Sequence[Webhook]) -> Endpoint:
    events = tuple(sorted(event.value for event in settings.events))
    target = Target(settings.url, frozenset({settings.port}), settings.allow_private)
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
