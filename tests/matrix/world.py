"""One gate, one ComfyUI behind it, and everybody who may come: two tenants, an admin, a revoked key, nobody, and one who goes past the gate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from proxy.auth import key_file
from standin import StandIn
from standin.pack import Pack
from tests.contract.driver import TIMEOUT_S, Comfy, loading
from tests.harness import Running, running_gate
from tests.matrix.people import COLORS, Tenant, version_of
from tests.proxy.functions.calls import write_functions

WEAR = '[parameters.picture]\ntype = "image"\nfills = ["1.image"]\n'
BOTH_CALL = "".join(f'[tenants.{who}]\nfunctions = ["wear"]\n' for who in ("alice", "mallory"))
REAL_BASE = Path(os.environ["COMFYUI_DIRECTORY"]) if os.environ.get("COMFYUI_DIRECTORY") else None


@dataclass
class World:
    """comfy: the stand-in, None before a real ComfyUI. direct: a client that uses ComfyUI beside the gate."""

    running: Running
    direct: Comfy
    comfy: StandIn | None
    alice: Tenant
    mallory: Tenant
    admin: Comfy
    nobody: Comfy
    revoked: Comfy
    base: Path | None = None
    """ComfyUI's base folder, where it is known: of a real one when COMFYUI_DIRECTORY says so."""

    @property
    def standin(self) -> StandIn:
        assert self.comfy is not None, "only in tests of the stand-in"
        return self.comfy

    def keep_apart(self) -> None:
        """From now on neither tenant may be sent the other's name or colour."""
        for one, other in ((self.alice, "mallory"), (self.mallory, "alice")):
            one.secrets.add(other.encode())
            one.foreign_colors = tuple(color for who, color in COLORS.items() if who != one.who)


@asynccontextmanager
async def open_world(
    folder: Path,
    *,
    real_url: str = "",
    server: str = "",
    upstream_more: str = "",
    more: str = "",
    pack: Pack | None = None,
) -> AsyncIterator[World]:
    """Starts everything. real_url: of a ComfyUI that runs; without it the stand-in is started below `folder`, with this pack."""
    async with AsyncExitStack() as stack:
        comfy = None
        if not real_url:
            comfy = StandIn(folder / "comfyui", frontend=False, pack=pack)
            await comfy.start()
            stack.push_async_callback(comfy.stop)
        url = comfy.url if comfy else real_url
        write_functions(folder, {"wear": (WEAR, loading("none.png"))})
        running = await stack.enter_async_context(
            running_gate(folder, url, server=server, upstream_more=upstream_more, more=more, tenants=BOTH_CALL)
        )
        running.comfy = comfy
        world = await people_of(stack, running, url, comfy)
        world.keep_apart()
        world.base = folder / "comfyui" if comfy else REAL_BASE
        if real_url:
            await tidy(world)
        yield world


async def tidy(world: World) -> None:
    """A real ComfyUI goes on from test to test: nothing may run or be told of that an earlier one left."""
    for tenant in (world.alice, world.mallory):
        for path, document in (("/queue", {"clear": True}), ("/interrupt", {})):
            await Comfy.call(tenant, "POST", path, json=document)
        async with asyncio.timeout(TIMEOUT_S):
            while any((await Comfy.call(tenant, "GET", "/queue")).json().values()):  # it ends with its next step
                await asyncio.sleep(0.02)
        await Comfy.call(tenant, "POST", "/history", json={"clear": True})


async def people_of(stack: AsyncExitStack, running: Running, url: str, comfy: StandIn | None) -> World:
    plain = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
    version = await version_of(url, plain)
    dead = key_file.create_key(running.config_file, tenant="alice")
    assert await running.gate.reload(running.config_file), "the key is put into force"

    async def session(key: str) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {key}"}
        return await stack.enter_async_context(aiohttp.ClientSession(headers=headers, auto_decompress=False))

    sessions = {who: await session(key) for who, key in {**running.keys, "revoked": dead.text}.items()}
    revoked = Comfy(running.url, sessions["revoked"], version, is_real=comfy is None)
    assert (await revoked.get("/queue")).status == 200, "the key was good before it was revoked"
    key_file.revoke_key(running.config_file, dead.id)
    assert await running.gate.reload(running.config_file)
    is_real = comfy is None
    return World(
        running,
        Comfy(url, plain, version, is_real),
        comfy,
        Tenant(running.url, sessions["alice"], version, is_real, who="alice"),
        Tenant(running.url, sessions["mallory"], version, is_real, who="mallory"),
        Comfy(running.url, sessions["admin"], version, is_real),
        Comfy(running.url, plain, version, is_real),
        revoked,
    )
