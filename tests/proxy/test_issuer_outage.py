"""While an issuer is down its people are told to wait, and are not taken for somebody who guesses."""

from __future__ import annotations

from pathlib import Path

from standin import StandIn
from tests.harness import running_gate
from tests.proxy.jwks_server import signer
from tests.proxy.token_tables import claims

MORE = """
[limits.logins]
failures = "3/minute"
delay = "0s"
[jwt.idp]
issuer = "https://idp.example"
audience = "comfygate"
jwks_url = "http://127.0.0.1:1/keys"
"""


async def test_an_outage_is_503_and_no_failed_login(tmp_path: Path, comfy: StandIn) -> None:
    token = signer("one").sign(claims(iss="https://idp.example"))
    async with running_gate(tmp_path, comfy.url, more=MORE) as gate:
        for _ in range(5):
            async with gate.session.get(f"{gate.url}/queue", headers={"Authorization": f"Bearer {token}"}) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
                assert (await answer.json())["error"]["type"] == "token_keys_unavailable"
        # A bad key still counts: the first of them is not refused for what the issuer did.
        for expected in (401, 401, 401, 429):
            async with gate.session.get(f"{gate.url}/queue", headers={"X-API-Key": "cg_x"}) as answer:
                assert answer.status == expected
