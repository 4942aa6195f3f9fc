"""The gate below a path prefix, behind a real nginx: nothing leads out of the prefix, with or without `server.public_path`."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from standin import StandIn
from tests.deploy.nginx import below_a_prefix
from tests.harness import running_gate
from tests.programs import needs

pytestmark = needs("nginx")

HTML = {"Accept": "text/html"}


@pytest.mark.parametrize("setting", ["", 'public_path = "/comfy/ui"\n'])
async def test_a_visit_stays_below_the_prefix(tmp_path: Path, comfy: StandIn, setting: str) -> None:
    async with (
        running_gate(tmp_path, comfy.url, server=setting) as gate,
        below_a_prefix(tmp_path, gate.url, "/comfy/ui") as base,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        action = ""
        for path, depth in (("/", ""), ("/gate/me", "gate/me"), ("/extensions/a/b.js", "extensions/a/b.js")):
            async with browser.get(f"{base}{path}", headers=HTML) as page:
                assert page.url.path == "/comfy/ui/gate/login"
                assert page.url.query.get("next", "/") == f"/{depth}"
                (action,) = re.findall(r'action="([^"]*)"', await page.text())
        post = URL(base).join(URL("ui/gate/login")).join(URL(action))
        origin = {"Origin": str(post.origin())}
        form = {"key": gate.keys["alice"], "next": "/gate/me"}
        async with browser.post(post, data=form, headers=origin | HTML) as account:
            assert (account.status, account.url.path) == (200, "/comfy/ui/gate/me")
            text = await account.text()
        paths = {cookie["path"] for cookie in browser.cookie_jar}
        assert paths == {"/comfy/ui/" if setting else "/"}
        links = re.findall(r'(?:action|href)="([^"#][^"]*)"', text)
        reached = {account.url.join(URL(link)).path for link in links if not link.startswith("data:")}
        assert reached == {"/comfy/ui/", "/comfy/ui/gate/logout"}
        async with browser.get(f"{base}/api/nowhere", headers=HTML) as refusal:
            assert refusal.status == 404
            links = re.findall(r'href="([^"]+)"', await refusal.text())
            assert "/comfy/ui/gate/me" in {refusal.url.join(URL(link)).path for link in links}
        async with browser.ws_connect(f"{base}/ws?clientId=tab", headers=origin) as socket:
            assert (await socket.receive_json())["type"] == "status"
        async with browser.post(f"{base}/gate/logout", headers=origin | HTML) as left:
            (action,) = re.findall(r'action="([^"]*)"', await left.text())
            assert left.url.join(URL(action)).path == "/comfy/ui/gate/login"
        async with browser.get(f"{base}/queue") as gone:
            assert gone.status == 401


async def test_names_arrive_as_they_were_sent(tmp_path: Path, comfy: StandIn) -> None:
    """A saved workflow's folder and name are one segment of the path."""
    async with (
        running_gate(tmp_path, comfy.url) as gate,
        below_a_prefix(tmp_path, gate.url, "/comfy/ui") as base,
        aiohttp.ClientSession(headers=gate.headers("alice")) as client,
    ):
        for name in ("workflows%2Fa%20b.json", "workflows%2F50%25.json", "workflows%2F%C3%BC.json"):
            target = URL(f"{base}/api/userdata/{name}", encoded=True)
            async with client.post(target.update_query(overwrite="false"), json={}) as saved:
                assert saved.status == 200, name
            async with client.get(target) as read:
                assert (read.status, await read.json(content_type=None)) == (200, {}), read.request_info.url
        listing = {"dir": "workflows", "recurse": "true"}
        async with client.get(f"{base}/userdata", params=listing) as listed:
            assert set(await listed.json()) == {"a b.json", "50%.json", "\u00fc.json"}
