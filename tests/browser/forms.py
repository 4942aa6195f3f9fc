"""The form of a function as a person uses it: found by labels and words alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import House, OpenHouse
from tests.proxy.functions.calls import PAINT, write_functions

CLEAN = ("Failed to load resource",)
"""What Chromium says of refusals, which the page is told of."""
HTML = '<img src=x onerror="document.title=1"><script>document.title=2</script>{{7*7}}&amp;"'
"""A text that is no text to whoever reads it as HTML."""
ALL_TOML = f"""\
title = 'All {HTML}'
description = '''
One of each. {HTML}
And a second line.'''
[parameters.prompt]
type = "text"
title = 'Prompt {HTML}'
description = 'What is seen {HTML}'
fills = ["2.filename_prefix"]
[parameters.width]
type = "integer"
title = "Width"
default = 32
min = 10
max = 600
multiple_of = 8
fills = ["1.width"]
[parameters.height]
type = "choice"
title = "Height"
choices = [32, 64]
default = 64
fills = ["1.height"]
[parameters.color]
type = "seed"
title = "Color"
max = 16777215
fills = ["1.color"]
[parameters.seconds]
type = "number"
title = "Seconds"
default = 0.0
min = 0.0
max = 3600.0
fills = ["4.seconds"]
[outputs.picture]
node = "5"
"""
ALL = {
    "1": PAINT["1"],
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    "4": {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": 0.0, "steps": 20}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "all"}},
}
ECHO_TOML = """\
title = "Echo"
policy = "texts"
[parameters.text]
type = "text"
title = "Text"
default = "one"
fills = ["1.value"]
[parameters.loud]
type = "boolean"
title = "Loud"
default = false
fills = ["4.switch"]
[outputs.said]
node = "2"
"""
ECHO = {
    "1": {"class_type": "PrimitiveString", "inputs": {"value": "x"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
    "3": {"class_type": "PrimitiveString", "inputs": {"value": "LOUD"}},
    "4": {"class_type": "ComfySwitchNode", "inputs": {"switch": False, "on_false": ["1", 0], "on_true": ["3", 0]}},
}
PLAIN = {"1": PAINT["1"], "2": PAINT["2"]}
SHOW_TOML = """\
title = "Show"
policy = "texts"
[parameters.picture]
type = "text"
title = "Name of a picture"
fills = ["1.image"]
"""
SHOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
FAIL_TOML = """\
title = "Fail"
policy = "texts"
[parameters.sound]
type = "audio"
title = "Sound"
optional = true
fills = ["1.audio"]
"""
FAIL = {
    "1": {"class_type": "LoadAudio", "inputs": {"audio": "none.wav"}},
    "2": {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0], "filename_prefix": "sound"}},
}
TEXTS = """
[policies.texts]
allow = ["PrimitiveString", "PreviewAny", "ComfySwitchNode", "LoadImage", "PreviewImage", "LoadAudio", "SaveAudio"]
"""
TURN_TOML = """\
title = "Turn"
[parameters.picture]
type = "image"
title = "Picture"
fills = ["1.image"]
[parameters.prefix]
type = "text"
default = "turned"
max_length = 60
fills = ["3.filename_prefix"]
[outputs.result]
node = "3"
"""
TURN = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "turned"}},
}
FUNCTIONS = {
    "all": (ALL_TOML, ALL),
    "turn": (TURN_TOML, TURN),
    "echo": (ECHO_TOML, ECHO),
    "show": (SHOW_TOML, SHOW),
    "plain": ('title = "Plain"', PLAIN),
    "fail": (FAIL_TOML, FAIL),
    "small": ('title = "Small"\n[outputs.picture]\nnode = "2"\nconvert = "webp"\n', PLAIN),
    "misfit": ('title = "Misfit"\npolicy = "texts"\n[outputs.words]\nnode = "2"\nconvert = "webp"\n', ECHO),
}


class Form:
    """One page of a form. complaints: what the browser's console says of errors and refused sources."""

    def __init__(self, page: Page, url: str, name: str) -> None:
        self.page = page
        self.address = f"{url}/gate/run/{name}"
        self.complaints: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def open(self, key: str | None = None, title: str | re.Pattern[str] = re.compile(".")) -> None:
        """key: to sign in with first, by the page that a stranger is led to."""
        await self.page.goto(self.address)
        if key is not None:
            await self.page.get_by_label("API key").fill(key)
            await self.page.get_by_role("button", name="Sign in").click()
        await expect(self.page.get_by_role("heading", level=1, name=title)).to_be_visible()

    def field(self, title: str) -> Locator:
        return self.page.get_by_label(title)

    def wrong(self, name: str) -> Locator:
        return self.page.locator(f"#field-{name}-wrong")

    async def fill(self, **texts: str) -> None:
        for name, text in texts.items():
            await self.page.locator(f"#field-{name}").fill(text)

    async def run(self) -> None:
        await self.page.get_by_role("button", name="Run", exact=True).click()

    def card(self, number: int = 1) -> Locator:
        return self.page.get_by_role("article", name=f"Run {number}", exact=True)

    async def until(self, words: str, number: int = 1) -> Locator:
        card = self.card(number)
        await expect(card.locator(".badge")).to_have_text(words)
        return card

    async def job_id(self, number: int = 1) -> str:
        return str(await self.card(number).get_attribute("data-job"))

    def check(self, but: Iterable[str] = CLEAN) -> None:
        """Nothing was refused by the page's own policy, and no script failed."""
        assert [text for text in self.complaints if not text.startswith(tuple(but))] == []


@asynccontextmanager
async def forms(open_house: OpenHouse, folder: Path, target: str = "standin", **options: Any) -> AsyncIterator[House]:
    """A house with functions: cedar may call all of them, and has no workflows of its own; dune may call `turn`."""
    write_functions(folder, FUNCTIONS)
    async with open_house(target, more=TEXTS, **options) as house:
        await house.admit("cedar", more='functions = ["*"]\nworkflows = "functions"\n')
        await house.admit("dune", more='functions = ["turn"]\n')
        yield house
