"""The gate's extension of ComfyUI's web UI: a way from there to `/gate/me` and to signing out. One script for everybody, which tells nothing of anybody."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from policy.call import ClientReply

_SCRIPT: Final = files(__package__).joinpath("account.js").read_bytes()


def account_script() -> ClientReply:
    """The script that the list of extensions names while `server.account_menu` is on."""
    headers = (("Cache-Control", "private, no-cache"), ("X-Content-Type-Options", "nosniff"))
    return ClientReply(200, _SCRIPT, "text/javascript; charset=utf-8", headers)
