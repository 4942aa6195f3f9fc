"""What of a job's workflow depends on which ComfyUI runs it: where it saves its files."""

from __future__ import annotations

from typing import Final

import orjson

from policy.call import UpstreamPath
from policy.makers import made_by
from policy.namespace import ROOT
from policy.needs import Needs

_MARK: Final = b"/@"
"""In a body that may have the folder of a ComfyUI in it."""


def body_at(body: bytes, needs: Needs, comfyui: str) -> bytes:
    """`Prepared.body` as this ComfyUI gets it: what it saves goes into its own folder (policy/makers.py). comfyui: "" for the first.

    A workflow out of a picture that another one made, or written so by hand, saves where this one does.
    """
    if not needs.prefixes or not (comfyui or _MARK in body):
        return body
    document = orjson.loads(body)
    for node_id, name in needs.prefixes:
        inputs = document["prompt"][node_id]["inputs"]
        prefix = inputs.get(name)
        # A bare name stands beside a folder, which is named too.
        if isinstance(prefix, str) and prefix.startswith(f"{ROOT}/"):
            inputs[name] = made_by(UpstreamPath(prefix), comfyui)
    return orjson.dumps(document)
