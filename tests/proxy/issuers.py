"""Three issuers of tokens, one of each kind of key, and the verifier that the gate builds for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.auth.jwt_issuers import JwtIssuers
from proxy.config.identity import JwtSettings
from proxy.http.errors import Unauthenticated
from tests.proxy.jwks_server import Clock, JwksServer
from tests.proxy.token_tables import FILE_KEY, IDP, NOW, PEM, SECRET, SHARED, TENANTS


class Issuers:
    """The three issuers of the tables, and what it takes to build their verifier."""

    def __init__(self, folder: Path, server: JwksServer) -> None:
        self.folder = folder
        self.server = server
        self.clock = Clock(float(NOW))
        (folder / "secret").write_bytes(SECRET + b"\n")
        (folder / "key.pem").write_bytes(FILE_KEY.pem())

    def build(self, **changes: Any) -> JwtIssuers:
        """changes: the settings of one issuer only, "idp"."""
        audience = ("comfygate", "comfygate-dev")
        idp: dict[str, Any] = {
            "issuer": IDP,
            "audience": audience,
            "jwks_url": self.server.url,
            "algorithms": ("RS256", "PS256", "ES256", "EdDSA"),
            **changes,
        }
        issuers = {
            "idp": JwtSettings(**idp),
            "pem": JwtSettings(
                issuer=PEM, audience="comfygate", public_key_file=Path("key.pem"), required_claims=("amr",)
            ),
            "shared": JwtSettings(
                issuer=SHARED,
                audience="comfygate",
                algorithms=("HS256",),
                secret_file=Path("secret"),
                tenant_claim="app.org",
                tenants={"org-1": "acme", "org-2": "globex"},
            ),
        }
        return JwtIssuers(
            issuers,
            known_tenants=TENANTS,
            resolve=self.folder.joinpath,
            clock=self.clock,
            monotonic=self.clock,
            seen_capacity=100,
        )


async def refused(tokens: JwtIssuers, token: str) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await tokens.verify(token)
    return caught.value
