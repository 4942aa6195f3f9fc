"""The chroot: the only place that knows how a tenant's names look upstream, in both directions.

It refuses and never repairs: a name goes in exactly as it came, one folder deeper, or not at all. Leaving is total: what is not the tenant's is None.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from policy.call import UpstreamClientId, UpstreamPath
from policy.principal import TenantId
from policy.violation import Reason, Violation

ROOT: Final = "tenants"
MAX_PATH_BYTES: Final = 1024
MAX_SEGMENTS: Final = 32  # ComfyUI makes the folders of userdata that is only asked for
MAX_SEGMENT_BYTES: Final = 200  # ComfyUI adds a counter and an extension; file systems end at 255
MAX_CLIENT_ID_LENGTH: Final = 128

# Windows opens a device for these names, whatever the extension or the case.
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?")
# Controls, invisible format characters (some file systems ignore them when they compare names) and lone surrogates.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATORS = frozenset("/\\:")
_MAX_LEAD: Final = 302
_PATH_STOP = re.compile(r"[\r\n\"'<>|*?:]")
_LEADING_SLASH = re.compile(r"(?<![\w.-])[\\/]")
_DRIVE = re.compile(r"(?<![\w.-])[A-Za-z]:")
_WORD = re.compile(r"[\w.-]")
_RANDOM_NAME = re.compile(
    r"(?:preview3d|preview3d_advanced|preview_splat|preview_pointcloud|bg)_[0-9a-f]{32}\.[a-z0-9]{1,8}"
)
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:@=+-]+")
# ComfyUI cuts the bracket word and whatever stands before it, so only the spelling with one space is one name with one meaning.
_ANNOTATION = re.compile(r"(?s)(.*)\[(input|output|temp)\]\s*")


class Folder(StrEnum):
    """ComfyUI's `type` of a file."""

    INPUT = "input"
    OUTPUT = "output"
    TEMP = "temp"


def parse_folder(text: str | None, default: Folder) -> Folder:
    """ComfyUI's `type`, exactly. Raises Violation for any other word."""
    if text is None:
        return default
    try:
        return Folder(text)
    except ValueError:
        raise Violation(Reason.NAME_REFUSED, "`type` must be input, output or temp.") from None


def split_annotation(name: str) -> tuple[str, Folder | None]:
    """Takes ComfyUI's ` [output]` suffix off a file name: the suffix overrides `type` upstream, so it is read here and never sent on."""
    found = _ANNOTATION.fullmatch(name)
    if not found:
        return name, None
    bare = found[1]
    if not bare.endswith(" ") or not name.endswith("]") or _ANNOTATION.fullmatch(bare[:-1]):
        raise _refused("write the folder suffix as 'name.png [output]', with one space and once")
    return bare[:-1], Folder(found[2])


@dataclass(frozen=True, slots=True)
class Namespace:
    """One tenant's names. Every method raises Violation(name-refused) for a name that two programs could read in two ways."""

    tenant: TenantId

    @property
    def root(self) -> UpstreamPath:
        """The tenant's folder in input, output and userdata alike."""
        return UpstreamPath(f"{ROOT}/{self.tenant}")

    def folder_to_upstream(self, path: str) -> UpstreamPath:
        """A `subfolder`; empty is the tenant's own root."""
        if path == "":
            return self.root
        return self.path_to_upstream(path)

    def path_to_upstream(self, path: str) -> UpstreamPath:
        """A file or folder path, at least one segment."""
        check_path(path)
        if path == self.root or path.startswith(f"{self.root}/"):
            # Workflows in saved pictures carry upstream names, so such a name must not mean a second thing.
            raise _refused(f"leave out '{self.root}/'")
        return UpstreamPath(f"{ROOT}/{self.tenant}/{path}")

    def readable_to_upstream(
        self, path: str, folder: Folder, shared_inputs: Sequence[str], has_temp_file: Callable[[str], bool]
    ) -> UpstreamPath:
        """A file that the tenant wants to read: a shared input, a temp file of one of its jobs, or one in its own folder.

        What is none of these becomes a name in its own folder too, where ComfyUI finds nothing: a neighbour's file answers like none.
        """
        own = self.path_to_upstream(path)
        is_elsewhere = folder is Folder.INPUT and is_shared(path, shared_inputs)
        is_elsewhere = is_elsewhere or (folder is Folder.TEMP and has_temp_file(path))
        is_elsewhere = is_elsewhere or (folder is Folder.OUTPUT and is_unguessable(path) and has_temp_file(path))
        return UpstreamPath(path) if is_elsewhere else own

    def without_root(self, path: str) -> str:
        """Takes the tenant's own root off a path that has it: workflows in saved pictures carry upstream names."""
        if path == self.root:
            return ""
        return path.removeprefix(f"{self.root}/")

    def clean_text(self, text: str) -> str:
        """Takes the tenant's root, and what stands before it in an absolute path, out of a message."""
        if ROOT not in text:
            return text
        return _without_mentions(text, self.tenant)

    def path_to_client(self, path: str) -> str | None:
        """The client's name for an upstream path; "" for the tenant's root, None for what is not the tenant's."""
        path = path.replace("\\", "/")  # ComfyUI on Windows answers with its own separator
        if path == self.root:
            return ""
        head = f"{self.root}/"
        if not path.startswith(head):
            return None
        rest = path[len(head) :]
        return rest if is_path(rest) else None

    def userdata_to_upstream(self, path: str) -> UpstreamPath:
        """A userdata path, at least one segment. ComfyUI decodes it a second time, so it may hold no '%'."""
        if "%" in path:
            raise _refused("'%' is not accepted in userdata names")
        return self.path_to_upstream(path)

    def client_id_to_upstream(self, client_id: str) -> UpstreamClientId:
        """`<tenant>.<id>`: a tenant has no dot, so no two tenants share one."""
        if not is_client_id(client_id):
            raise _refused("a client id has 1 to 128 letters, digits or any of _.:@=+-")
        return UpstreamClientId(f"{self.tenant}.{client_id}")

    def client_id_to_client(self, client_id: object) -> str | None:
        if not isinstance(client_id, str) or owner_of(client_id) != self.tenant:
            return None
        return client_id.partition(".")[2]


@lru_cache(maxsize=1024)
def _mentions_of(tenant: str) -> re.Pattern[str]:
    return re.compile(rf"{ROOT}[\\/]+{re.escape(tenant)}(?:[\\/]+|(?![\w-]))")


def _without_mentions(text: str, tenant: str) -> str:
    """Cuts out `tenants/<tenant>/` with the absolute path that leads to it.

    SECURITY: how far back a path may begin is bounded and looked at once for each mention: a pattern for all of it would look back from
    each slash of a long text (tests/security/test_long_texts.py).
    """
    kept: list[str] = []
    end = 0
    for found in _mentions_of(tenant).finditer(text):
        start = _start_of_path(text, max(end, found.start() - _MAX_LEAD), found.start())
        if start is not None:
            kept.append(text[end:start])
            end = found.end()
    return "".join((*kept, text[end:]))


def _start_of_path(text: str, earliest: int, mention: int) -> int | None:
    """Where the path begins that has its root's name at `mention`; None when that is the end of another word."""
    if mention and text[mention - 1] in "\\/":
        first = earliest
        for stop in _PATH_STOP.finditer(text, earliest, mention):
            first = stop.end()
        slash = _LEADING_SLASH.search(text, first, mention)
        if slash is not None:
            drive = _DRIVE.match(text, slash.start() - 2) if slash.start() - 2 >= earliest else None
            return slash.start() - 2 if drive else slash.start()
        return mention
    return None if mention and _WORD.match(text[mention - 1]) else mention


def split_path(path: UpstreamPath) -> tuple[UpstreamPath, UpstreamPath]:
    """Folder and file name of an upstream path; the folder is empty for a file in ComfyUI's own root."""
    folder, _, name = path.rpartition("/")
    return UpstreamPath(folder), UpstreamPath(name)


def is_unguessable(name: str) -> bool:
    """Whether a file in a root has a random name: what ComfyUI's 3D previews write there (nodes_load_3d.py)."""
    return _RANDOM_NAME.fullmatch(name) is not None


def is_shared(path: str, shared_inputs: Sequence[str]) -> bool:
    """Whether an input path is one of the shared inputs: named exactly, or in a shared folder (ending in "/")."""
    if path.partition("/")[0].casefold() == ROOT:
        return False
    return any(path.startswith(shared) if shared.endswith("/") else path == shared for shared in shared_inputs)


def owner_of(client_id: object) -> str | None:
    """The tenant that a job's upstream client id names, None when the gate did not make it."""
    if not isinstance(client_id, str):
        return None
    tenant, dot, rest = client_id.partition(".")
    return tenant if dot and rest else None


def is_client_id(text: str) -> bool:
    return len(text) <= MAX_CLIENT_ID_LENGTH and _CLIENT_ID.fullmatch(text) is not None


def is_path(path: str) -> bool:
    try:
        check_path(path)
    except Violation:
        return False
    return True


def check_path(path: str) -> None:
    """Accepts a relative path that POSIX, Windows and every normalisation read the same way. Raises Violation(name-refused) for others."""
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise _refused(f"a path has at most {MAX_PATH_BYTES} bytes")
    segments = path.split("/")
    if len(segments) > MAX_SEGMENTS:
        raise _refused(f"a path has at most {MAX_SEGMENTS} segments")
    for segment in segments:
        _check_segment(segment)


def check_file_name(name: str) -> None:
    """A single segment that ComfyUI does not take for an annotated name. Raises Violation(name-refused)."""
    if "/" in name:
        raise _refused("a file name has no '/': use subfolder")
    if _ANNOTATION.fullmatch(name):
        raise _refused("a file name does not end in [input], [output] or [temp]")
    check_path(name)


def _check_segment(segment: str) -> None:
    if not segment.isascii():
        if any(unicodedata.category(character) in _INVISIBLE for character in segment):
            raise _refused("control and invisible characters are not accepted")
        # Windows code pages and some file systems turn look-alikes into the plain characters.
        _check_plain(unicodedata.normalize("NFKC", segment), "look-alikes of ")
    _check_plain(segment, "")
    if len(segment.encode("utf-8")) > MAX_SEGMENT_BYTES:
        raise _refused(f"a name has at most {MAX_SEGMENT_BYTES} bytes")


def _check_plain(segment: str, what: str) -> None:
    if segment in ("", ".", ".."):
        raise _refused(f"{what}empty, '.' and '..' segments are not accepted")
    if _SEPARATORS.intersection(segment):
        raise _refused(f"{what}'/', '\\' and ':' are not accepted")
    if segment[-1] in ". ":
        raise _refused(f"{what}names that end in a dot or a space are not accepted")
    if _CONTROL.search(segment):
        raise _refused("control and invisible characters are not accepted")
    if _DEVICE.fullmatch(segment):
        raise _refused(f"{what}names of Windows devices are not accepted")


def _refused(rule: str) -> Violation:
    return Violation(Reason.NAME_REFUSED, f"This name is not accepted: {rule}.")
