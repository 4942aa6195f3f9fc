"""Texts of which no description says what they name: in undeclared inputs, and in declared ones of a type that ComfyUI does not know.

A text that names a media file is a file of the tenant's; one that leads out of ComfyUI's folders, or into the folder of the tenants,
is refused; a model's name is shared; anything else is a text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from policy.namespace import ROOT, Namespace
from policy.violation import Reason, Violation

MAX_NAME_LENGTH: Final = 1024
_MEDIA = re.compile(
    r"(?i)[^\r\n]*\.(?:png|jpe?g|webp|gif|bmp|tiff?|avif|apng|jfif|heic|jxl|exr|psd|svg|mp4|webm|mov|mkv|avi|m4v|wav|mp3|flac|ogg|opus|m4a|aac"
    r"|txt|json|csv|ya?ml|pdf|log|db|sqlite3?|latent|glb|gltf|obj|fbx|stl|ply|usdz|splat|ksplat|spz)\s*(?:\[(?:input|output|temp)\]\s*)?"
)
_ADDRESS = re.compile(r"(?i)(?:https?|data|blob|ftp|s3)://?[^\r\n]*|data:[^\r\n]*")
# Of each line, since a class may read a list of paths; many take off quotes and spaces before one. Comments are no paths.
# Whatever repeats here is bounded or begins at a line or a separator: these run over texts of any length.
_BLANK = r"[^\S\n]"
_LEAD = r"(?:[^\S\n]|[\"'`])*"
_OUTSIDE = re.compile(
    rf"(?m)^{_LEAD}(?!//\s|/\*\s|(?:https?|blob|ftp|s3)://?)"
    r"(?:[\\/]|[a-z][a-z0-9+.-]{0,30}:[\\/]|~[^\s\\/]*[\\/]|\$\w+[\\/]|\$\{|%\w+%[\\/]|file:)"
)
_STEP_UP = re.compile(rf"(?m)(?:^|[\\/]){_LEAD}\.\.{_LEAD}(?:[\\/]|$)")
# Windows passes over dots and spaces at the end of a folder's name, and takes what follows a ":" for a stream of it.
_TENANTS = re.compile(
    rf"(?m)(?:^|[\\/,;:|=(\[{{<\"'`]){_BLANK}*{ROOT}[ .]*(?::[^\\/\n]{{0,80}})?[\\/]"
    rf"|[\\/]{_BLANK}*{ROOT}(?:{_BLANK}|\.)*$|\A{_LEAD}{ROOT}(?:{_LEAD}|\.)\Z"
)
_NOTHING = re.compile(r"(?:(?<![^\\/])\.?[\\/])+")


def rewrite_texts(value: Any, names: Namespace, to_upstream: Callable[[str], str]) -> Any:
    """A value with every text in it judged, keys of objects too, and every file of the tenant's under its upstream name. to_upstream: of such a name.

    Raises Violation(name-refused).
    """
    if type(value) is str:
        return _rewrite_text(value, names, to_upstream)
    if type(value) is dict:
        return {
            _rewrite_text(key, names, to_upstream): rewrite_texts(item, names, to_upstream)
            for key, item in value.items()
        }
    if type(value) is list:
        return [rewrite_texts(item, names, to_upstream) for item in value]
    return value


def check_text(text: str, names: Namespace) -> None:
    """What a text may be that a class from outside declares under a name which is no path's: anything but a way into others' folders.

    Raises Violation(name-refused).
    """
    if text.isascii() and ROOT not in text.lower():
        return
    own = names.without_root(text)
    folded = _fold(own)
    has_folders = own != text or "/" in folded or "\\" in folded
    # SECURITY: behind the tenant's own root too (test_path_texts.py::test_a_text_does_not_lead_out_of_the_tenants_own_folder).
    if has_folders and (_TENANTS.search(folded) or (own != text and _STEP_UP.search(folded))):
        raise _refused(f"a text that reads like a path into {ROOT}/")


def _rewrite_text(text: str, names: Namespace, to_upstream: Callable[[str], str]) -> str:
    own = names.without_root(text)
    if own != text:
        return to_upstream(own) if own else text
    if _ADDRESS.fullmatch(text):
        return text
    # SECURITY: judged however long it is: "././…" makes a short path long (test_path_texts.py::test_no_length_hides_a_path).
    folded = _fold(text)
    if _TENANTS.search(folded):
        raise _refused(f"a text that reads like a path into {ROOT}/")
    if _OUTSIDE.search(folded):
        raise _refused("a text that reads like a path outside of ComfyUI's folders")
    if _STEP_UP.search(folded):
        raise _refused("a text that reads like a path with '..'")
    is_name = len(text) <= MAX_NAME_LENGTH or len(_NOTHING.sub("", text)) <= MAX_NAME_LENGTH
    return to_upstream(text) if is_name and _MEDIA.fullmatch(text) else text


def _fold(text: str) -> str:
    """As disks compare names that ignore case, normalisation and invisible characters; with one kind of line end."""
    if not text.isascii():
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
        text = unicodedata.normalize("NFKC", text)
    return "\n".join(text.splitlines()).casefold()


def _refused(what: str) -> Violation:
    return Violation(
        Reason.NAME_REFUSED, f"The class does not say what this input is, and {what} is not accepted in it."
    )
