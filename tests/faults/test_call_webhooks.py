"""A gate that is killed, again and again, while calls name addresses to be told: whoever was accepted is told of, at the address of the call, whatever of its
message was under way.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.webhooks.endpoint import new_secret
from standin import StandIn
from tests.faults.programs import GUARD_S, NAP_S, GateProcess
from tests.harness import write_config
from tests.proxy.functions.calls import PAINT, PAINT_TOML, write_functions
from tests.proxy.outside.web import Web, a_web
from tests.proxy.webhooks.receiver import Received, Receiver

ROUNDS = int(os.environ.get("CALL_WEBHOOK_ROUNDS", "3"))
"""`CALL_WEBHOOK_ROUNDS=50 python -m pytest tests/faults/test_call_webhooks.py` plays more."""
CALLS = 4
"""Of a round."""
FAILING_SHARE = 0.1
"""Of the first deliveries: such a message comes again after five seconds."""
TENANTS = """\
[tenants.alice]
functions = ["*"]
call_webhooks = {hosts}
call_webhooks_secret_file = "alice.secret"
[tenants.mallory]
"""
LEADS_HERE = """\
import dataclasses, socket
from proxy.outside import door

async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
    found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0}
    return [{**found, "flags": socket.AI_NUMERICHOST}]

post = door.OutsideDoor.post

async def leads_here(self, target, *more):
    return await post(self, dataclasses.replace(target, allows_private=True), *more)

door._Resolver.resolve, door.OutsideDoor.post = resolve, leads_here
"""
"""A gate's way out leads to this machine alone, where the receiver is."""


class Player:
    def __init__(
        self,
        gate: GateProcess,
        outside: Web,
        receiver: Receiver,
        session: aiohttp.ClientSession,
        key: str,
        chance: random.Random,
    ) -> None:
        self._gate = gate
        self._outside = outside
        self._receiver = receiver
        self._session = session
        self._chance = chance
        self._headers = {"Authorization": f"Bearer {key}"}
        self.accepted: dict[str, str] = {}
        """Their addresses, by job."""
        self.taken: set[str] = set()
        """Jobs of which a message was answered with 204."""
        receiver.answer = self._answer

    async def play(self, number: int) -> None:
        """Calls, one after the other, of a gate that is killed meanwhile: when so many were accepted, or so many told."""
        await self._gate.start()
        await self._gate.is_up()
        accepted, told, count = len(self.accepted), len(self._receiver.got), self._chance.randrange(1, CALLS)
        calling = asyncio.create_task(self._call(number))
        is_early = self._chance.random() < 0.5
        async with asyncio.timeout(GUARD_S):
            while (len(self.accepted) - accepted if is_early else len(self._receiver.got) - told) < count:
                self._gate.check()
                await asyncio.sleep(NAP_S)
        await asyncio.sleep(self._chance.uniform(0, 0.1))
        await self._gate.kill()
        await calling

    def _answer(self, received: Received) -> web.Response:
        is_first = sum(each.job == received.job for each in self._receiver.got) == 1
        if is_first and self._chance.random() < FAILING_SHARE:
            return web.Response(status=500)
        self.taken.add(received.job)
        return web.Response(status=204)

    def missing(self) -> set[str]:
        return self.accepted.keys() - self.taken

    async def _call(self, number: int) -> None:
        for index in range(CALLS):
            path = f"/{number}-{index}"
            headers = {**self._headers, "Webhook-URL": self._outside.url(path)}
            try:
                async with self._session.post(f"{self._gate.url}/gate/run/paint", json={}, headers=headers) as answer:
                    assert answer.status == 202, await answer.text()
                    self.accepted[(await answer.json())["id"]] = path
            except aiohttp.ClientError:
                return  # it was killed: nobody knows whether it was accepted


@pytest.mark.timeout(600)
async def test_every_call_is_told_at_its_own_address_whenever_the_gate_is_killed(
    tmp_path: Path, comfy: StandIn
) -> None:
    seed = secrets.randbelow(2**31)
    chance = random.Random(seed)
    secret = new_secret()
    receiver = Receiver({f"/{number}-{index}": secret for number in range(ROUNDS) for index in range(CALLS)})
    folder = tmp_path / "gate"
    write_functions(folder, {"paint": (PAINT_TOML, PAINT)})
    (folder / "alice.secret").write_text(secret, "ascii")
    async with a_web(tmp_path, receiver) as outside, aiohttp.ClientSession() as session:
        authority = tmp_path / "authority.pem"
        authority.write_text("".join(map(ssl.DER_cert_to_PEM_cert, outside.trust.get_ca_certs(binary_form=True))))
        gate = GateProcess("gate", tmp_path, environment={"SSL_CERT_FILE": str(authority)}, before=LEADS_HERE)
        config, keys = write_config(folder, comfy.url, tenants=TENANTS.format(hosts=outside.hosts))
        config.write_text(config.read_text().replace("port = 0", f"port = {gate.port}", 1))
        player = Player(gate, outside, receiver, session, keys["alice"], chance)
        try:
            for number in range(ROUNDS):
                await player.play(number)
            await gate.start()
            await gate.is_up()
            async with asyncio.timeout(GUARD_S):
                while player.missing():
                    gate.check()
                    await asyncio.sleep(NAP_S)
        finally:
            await gate.kill()
    assert not receiver.wrong, f"seed {seed}"
    ids: dict[str, set[str]] = {}
    for each in receiver.got:
        assert each.path == player.accepted.get(each.job, each.path), f"seed {seed}"
        ids.setdefault(each.job, set()).add(each.id)
    assert all(len(found) == 1 for found in ids.values()), f"seed {seed}: told again it has the same id"
    assert len({each.path for each in receiver.got}) == len(ids), f"seed {seed}"
