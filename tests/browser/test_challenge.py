"""A page whose session has ended gets its 401 as an answer: Chromium opens no login window of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from proxy.http.errors import CHALLENGE
from tests.browser.conftest import OpenHouse

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASK = """async address => {
  const request = new XMLHttpRequest();
  const told = new Promise(resolve => { request.onloadend = () => resolve(request.status); });
  request.open('GET', address);
  request.send();
  return [(await fetch(address)).status, await told];
}"""


async def test_no_window_opens_for_a_401(open_house: OpenHouse) -> None:
    challenge = 'Basic realm="x"'

    async def refuses(request: web.BaseRequest) -> web.Response:
        if request.path == "/":
            return web.Response(text="<title>x</title>", content_type="text/html")
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    runner = web.ServerRunner(web.Server(refuses))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    elsewhere = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with open_house() as house, house.person() as page:
            windows: list[str] = []
            session = await page.context.new_cdp_session(page)
            working: set[asyncio.Task[Any]] = set()

            def do(method: str, **arguments: Any) -> None:
                task = asyncio.ensure_future(session.send(method, arguments))
                working.add(task)
                task.add_done_callback(working.discard)

            def wants_a_window(event: Any) -> None:
                windows.append(event["request"]["url"])
                do(
                    "Fetch.continueWithAuth",
                    requestId=event["requestId"],
                    authChallengeResponse={"response": "CancelAuth"},
                )

            session.on("Fetch.authRequired", wants_a_window)
            session.on("Fetch.requestPaused", lambda event: do("Fetch.continueRequest", requestId=event["requestId"]))
            await session.send("Fetch.enable", {"handleAuthRequests": True})

            await page.goto(f"{house.url}/gate/health")  # a page without a Content-Security-Policy that forbids to ask
            assert await page.evaluate(ASK, "/queue") == [401, 401]
            assert windows == []

            await page.goto(f"{elsewhere}/")
            assert await page.evaluate(ASK, "/x") == [401, 401]
            assert len(windows) == 2, "else this test sees no window that opens"

            challenge = CHALLENGE  # what programs get opens none either, should one with a browser's page be taken for a program
            windows.clear()
            assert await page.evaluate(ASK, "/y") == [401, 401]
            assert windows == []
    finally:
        await runner.cleanup()
