"""Texts of which no description says what they name: in undeclared inputs, and where only nodes make what an input wants.

A text that names a media file is a file of the tenant's; one that leads out of ComfyUI's folders, or into the folder of the tenants,
is refused; a model's name is shared; anything else is a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from policy.namespace import ROOT, Namespace
from policy.violation import Reason, Violation

MAX_NAME_LENGTH: Final = 1024
_MEDIA = re.compile(
    r"(?i)[^\r\n]*\.(?:png|jpe?g|webp|gif|bmp|tiff?|avif|apng|jfif|heic|jxl|exr|psd|svg|mp4|webm|mov|mkv|avi|m4v|wav|mp3|flac|ogg|opus|m4a|aac"
    r"|txt|json|csv|yaml|pdf|latent|glb|gltf|obj|fbx|stl|ply|usdz|splat|ksplat|spz)(?:\s*\[(?:input|output|temp)\]\s*)?"
)
_ADDRESS = re.compile(r"(?i)(?:https?|data|blob|ftp|s3)://?[^\r\n]*|data:[^\r\n]*")
_OUTSIDE = re.compile(r"(?i)[\\/]|[a-z]:[\\/]|~[^\s\\/]*[\\/]|\$\w+[\\/]|\$\{|%\w+%[\\/]|file:")
_SEPARATOR = re.compile(r"[\\/]")


def rewrite_texts(value: Any, names: Namespace, to_upstream: Callable[[str], str]) -> Any:
    """A value with every text in it judged, and every file of the tenant's under its upstream name. to_upstream: of such a name.

    Raises Violation(name-refused).
    """
    if type(value) is str:
        return _rewrite_text(value, names, to_upstream)
    if type(value) is dict:
        return {key: rewrite_texts(item, names, to_upstream) for key, item in value.items()}
    if type(value) is list:
        return [rewrite_texts(item, names, to_upstream) for item in value]
    return value


def _rewrite_text(text: str, names: Namespace, to_upstream: Callable[[str], str]) -> str:
    own = names.without_root(text)
    if own != text:
        return to_upstream(own) if own else text
    if text.strip().casefold() == ROOT:
        raise _refused(f"the name of the folder {ROOT}/")
    if len(text) > MAX_NAME_LENGTH or ("/" not in text and "\\" not in text and "." not in text):
        return text
    if _OUTSIDE.match(text):
        raise _refused("a text that reads like a path outside of ComfyUI's folders")
    if _ADDRESS.fullmatch(text):
        return text
    segments = [segment.strip().casefold() for segment in _SEPARATOR.split(text)]
    if ".." in segments:
        raise _refused("a text that reads like a path with '..'")
    if ROOT in segments:
        raise _refused(f"a text that reads like a path into {ROOT}/")
    return to_upstream(text) if _MEDIA.fullmatch(text) else text


def _refused(what: str) -> Violation:
    return Violation(
        Reason.NAME_REFUSED, f"This input is not one that the class declares, and {what} is not accepted in it."
    )
