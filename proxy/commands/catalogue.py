"""Asks ComfyUI for its node classes, for commands that need them."""

from __future__ import annotations

import asyncio
from typing import Final

import typer

from policy.call import Opaque, UpstreamCall
from policy.catalogue import Catalogue, read_catalogue
from policy.merging import merge
from proxy.commands.exits import fail
from proxy.config import Config
from proxy.config.comfyui import ComfyUISettings
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, unreachable
from proxy.upstream.client import Upstream

_TIME_LIMIT_S: Final = 60.0


async def ask_catalogue(config: Config, purpose: str) -> Catalogue:
    """Of all ComfyUIs as one. Ends the command where none answers. purpose: in words, as "to judge a workflow"."""
    asked = await asyncio.gather(*(ask_one(config, comfyui) for comfyui in config.comfyuis))
    known = [found for found in asked if isinstance(found, Catalogue)]
    if not known:
        fail(f"{asked[0]} Its node classes are needed {purpose}.")
    for words in asked:
        if isinstance(words, str):
            typer.echo(f"warning: {words} What it alone has is not known.", err=True)
    return merge(known).catalogue if len(asked) > 1 else known[0]


async def ask_one(config: Config, comfyui: ComfyUISettings) -> Catalogue | str:
    """In words why it is not known."""
    upstream = Upstream(comfyui.url, config.upstream.connect_timeout)
    try:
        reply = await upstream.ask(UpstreamCall("GET", (Opaque("object_info"),)), time_limit_s=_TIME_LIMIT_S)
    except (UpstreamUnavailable, UpstreamTimeout) as error:
        return unreachable(comfyui.url, error, setting_of(config))
    finally:
        await upstream.stop()
    return read_catalogue(reply.value)


def setting_of(config: Config) -> str:
    """Where the address of a ComfyUI stands."""
    return "its url in [[comfyui]]" if config.comfyui else "upstream.url"
