"""The chroot: the only place that knows how a tenant's names look upstream, in both directions.

A path is read as ComfyUI reads it ("./a/" is "a", "\\" is "/"); every name in it goes one folder deeper, as it came or in a safe spelling
(policy/spelling.py), and comes back as it went in. Leaving is total: what is not the tenant's is None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from policy.call import UpstreamClientId, UpstreamPath
from policy.keyform import KEY_FORM
from policy.principal import TenantId
from policy.spelling import MARK, decode, encode, escape, has_surrogates, is_name, is_plain, spell, unspell
from policy.violation import Reason, Violation

ROOT: Final = "tenants"
MAX_PATH_BYTES: Final = 1024
MAX_SEGMENTS: Final = 32  # ComfyUI makes the folders of userdata that is only asked for
MAX_SEGMENT_BYTES: Final = 255  # where file systems end
MAX_PREFIX_BYTES: Final = 230  # ComfyUI adds a counter and an extension
MAX_CLIENT_ID_LENGTH: Final = 128

_MAX_LEAD: Final = 302
_PATH_STOP = re.compile(r"[\r\n\"'<>|*?:]")
_LEADING_SLASH = re.compile(r"(?<![\w.-])[\\/]")
_DRIVE = re.compile(r"(?<![\w.-])[A-Za-z]:")
_WORD = re.compile(r"[\w.-]")
_RANDOM_NAME = re.compile(
    r"(?:preview3d|preview3d_advanced|preview_splat|preview_pointcloud|bg)_[0-9a-f]{32}\.[a-z0-9]{1,8}"
)
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:@=+-]+")
_CLIENT_ID_MARK: Final = "~"  # no id that needs no spelling has one
_DRIVE_PATH = re.compile(r"[A-Za-z]:")
# The server puts digits for these before it looks at the path (folder_paths.get_save_image_path).
_TOKEN = re.compile(r"(%(?:year|month|day|hour|minute|second|width|height|batch_num)%)")
_SPELLED_PATH = re.compile(r"[^\s\"'<>|*?:]+")
# ComfyUI cuts the bracket word and whatever stands before it, so only the spelling with one space is one name with one meaning.
_ANNOTATED = re.compile(r"(?s)(.*)( \[(?:input|output|temp)\])")
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
        return UpstreamPath("/".join((self.root, *map(_spell, self.read(path)))))

    def path_to_upstream(self, path: str) -> UpstreamPath:
        """A file or folder path, at least one segment."""
        segments = self.read(path)
        if not segments:
            raise _refused("it names no file")
        return UpstreamPath("/".join((self.root, *map(_spell, segments))))

    def prefix_to_upstream(self, prefix: str, default: str = "") -> UpstreamPath:
        """What the names of saved files begin with. The server's own tokens (`%year%`) stay, for it to fill in. default: for one that names nothing."""
        return _prefix_to_upstream(self.tenant, prefix, default)

    def read(self, path: str) -> tuple[str, ...]:
        """The segments of a client's path, as ComfyUI reads it. Raises Violation(name-refused).

        Workflows in saved pictures carry upstream names, so a path below the tenant's own root is one in it, not another one below it.
        """
        segments = read_path(path)
        if "/".join(segments[:2]) == self.root:
            while "/".join(segments[:2]) == self.root:
                segments = segments[2:]
            segments = tuple(map(unspell, segments))
        if segments and _DRIVE_PATH.match(segments[0]):
            raise _refused("a path does not begin with a drive")
        return segments

    def readable_to_upstream(
        self, path: str, folder: Folder, shared_inputs: Sequence[str], has_temp_file: Callable[[str], bool]
    ) -> UpstreamPath:
        """A file that the tenant wants to read: a shared input, a temp file of one of its jobs, or one in its own folder.

        What is none of these becomes a name in its own folder too, where ComfyUI finds nothing: a neighbour's file answers like none.
        """
        own = self.path_to_upstream(path)
        raw = "/".join(read_path(path))
        is_elsewhere = folder is Folder.INPUT and is_shared(raw, shared_inputs)
        is_elsewhere = is_elsewhere or (folder is Folder.TEMP and has_temp_file(raw))
        is_elsewhere = is_elsewhere or (folder is Folder.OUTPUT and is_unguessable(raw) and has_temp_file(raw))
        # SECURITY: outside the tenant's folder nothing is spelled, so only what needs no spelling is found there
        # (test_namespace.py::test_a_shared_folder_is_not_left_by_a_second_reading).
        return UpstreamPath(raw) if is_elsewhere and is_path(raw) else own

    def without_root(self, path: str) -> str:
        """Takes the tenant's own root off a path that has it, in the client's spelling: workflows in saved pictures carry upstream names."""
        if not path.startswith(self.root):
            return path
        found = _ANNOTATED.fullmatch(path)
        last = path.rpartition("/")[2]
        bare, annotation = (found[1], found[2]) if found and last != found[2] and unspell(last) == last else (path, "")
        shown = self.path_to_client(bare)
        if shown is None:  # nothing is left without the suffix, which so belongs to the name
            shown, annotation = self.path_to_client(path), ""
        return path.removeprefix(f"{self.root}/") if shown is None else shown + annotation

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
        return path_to_client(path[len(head) :])

    def userdata_to_upstream(self, path: str) -> UpstreamPath:
        """A userdata path, at least one segment: ComfyUI decodes it a second time (user_manager.py), so "%" goes encoded once more."""
        return UpstreamPath(self.path_to_upstream(path).replace("%", "%25"))

    def userdata_folder_to_upstream(self, path: str) -> UpstreamPath:
        """A folder of userdata; empty is the tenant's own root."""
        return UpstreamPath(self.folder_to_upstream(path).replace("%", "%25"))

    def client_id_to_upstream(self, client_id: str) -> UpstreamClientId:
        """`<tenant>.<id>`: a tenant has no dot, so no two tenants share one. Ids with other characters go in a safe spelling."""
        check_client_id(client_id)
        is_safe = _CLIENT_ID.fullmatch(client_id)
        return UpstreamClientId(f"{self.tenant}.{client_id if is_safe else _CLIENT_ID_MARK + encode(client_id)}")

    def client_id_to_client(self, client_id: object) -> str | None:
        if not isinstance(client_id, str) or owner_of(client_id) != self.tenant:
            return None
        shown = client_id.partition(".")[2]
        if not shown.startswith(_CLIENT_ID_MARK):
            return shown
        return decode(shown.removeprefix(_CLIENT_ID_MARK))


@lru_cache(maxsize=1024)
def _prefix_to_upstream(tenant: TenantId, prefix: str, default: str) -> UpstreamPath:
    names = Namespace(tenant)
    segments = names.read(prefix) or names.read(default)
    if not segments:
        raise _refused("it names no file")
    *folders, last = map(_spell_prefix, segments)
    if len(last.encode()) > MAX_PREFIX_BYTES:
        raise _refused(f"the name that files begin with has at most {MAX_PREFIX_BYTES} bytes")
    return UpstreamPath("/".join((names.root, *folders, last)))


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
            spelled = _SPELLED_PATH.match(text, end) if MARK in text else None
            if spelled:
                kept.append("/".join(map(_decode_name, spelled[0].split("/"))))
                end = spelled.end()
    return "".join((*kept, text[end:]))


def _decode_name(segment: str) -> str:
    return (decode(segment) or segment) if segment.startswith(MARK) else segment


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


def check_client_id(client_id: str) -> None:
    """Any text of 1 to 128 characters. Raises Violation(name-refused) for others, and for one with a key of the gate in it."""
    if not 1 <= len(client_id) <= MAX_CLIENT_ID_LENGTH:
        raise _refused(f"a client id has 1 to {MAX_CLIENT_ID_LENGTH} characters")
    if KEY_FORM.search(client_id):
        raise _refused("it holds an API key, which would be shown to others; choose any other client id")
    if has_surrogates(client_id):
        raise _refused("a client id is a text of Unicode")


@lru_cache(maxsize=256)
def read_path(path: str) -> tuple[str, ...]:
    """The segments of a relative path, without what ComfyUI passes over: "./", "//" and a "/" at the end; "\\" is "/".

    Raises Violation(name-refused) for paths that lead out of their folder, and for what no disk can hold.
    """
    if len(path) > MAX_PATH_BYTES or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise _refused(f"a path has at most {MAX_PATH_BYTES} bytes")
    path = path.replace("\\", "/")
    if path.startswith("/"):
        raise _refused("a path does not begin with '/'")
    segments = tuple(segment for segment in path.split("/") if segment not in ("", "."))
    if len(segments) > MAX_SEGMENTS:
        raise _refused(f"a path has at most {MAX_SEGMENTS} segments")
    for segment in segments:
        if segment == "..":
            raise _refused("'..' is not accepted in a path")
        if not is_name(segment):
            raise _refused("it has characters that no disk can hold")
    return segments


def path_to_client(path: str) -> str | None:
    """The client's spelling of an upstream path, segment by segment; None for what is no path that a disk can hold."""
    segments = path.replace("\\", "/").split("/")
    return "/".join(map(unspell, segments)) if all(map(is_name, segments)) else None


def is_path(path: str) -> bool:
    try:
        check_path(path)
    except Violation:
        return False
    return True


def check_path(path: str) -> None:
    """Accepts a path that needs no spelling: POSIX, Windows and every normalisation read it the same way. Raises Violation(name-refused)."""
    segments = read_path(path)
    if not segments or "/".join(segments) != path:
        raise _refused("empty, '.' and '\\' segments are not accepted")
    for segment in segments:
        if len(segment.encode()) > MAX_SEGMENT_BYTES or not is_plain(segment):
            raise _refused("a name here has no characters that could be read as another path")


def check_file_name(name: str) -> None:
    """A single name that ComfyUI does not take for an annotated one. Raises Violation(name-refused)."""
    if "/" in name or "\\" in name:
        raise _refused("a file name has no '/' or '\\': use subfolder")
    if _ANNOTATION.fullmatch(name):
        raise _refused("a file name does not end in [input], [output] or [temp]")
    segments = read_path(name)
    if not segments or _DRIVE_PATH.match(name):
        raise _refused("it names no file, or a drive")


def spell_name(name: str) -> str:
    """The upstream spelling of one checked file name. Raises Violation(name-refused) when it is too long."""
    return _spell(name)


def _spell(segment: str) -> str:
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        raise _refused(f"a name has at most {MAX_SEGMENT_BYTES} bytes")
    spelled = spell(segment)
    if len(spelled.encode()) > MAX_SEGMENT_BYTES:
        raise _refused("it is too long for the characters in it, which ComfyUI gets in a longer spelling")
    return spelled


def _spell_prefix(segment: str) -> str:
    """Tokens become digits upstream, so a name is judged with them in it, and what is around them is spelled alone."""
    parts = _TOKEN.split(segment)
    if len(parts) == 1:
        return _spell(segment)
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        raise _refused(f"a name has at most {MAX_SEGMENT_BYTES} bytes")
    filled = "0".join(parts[::2])
    if is_plain(filled) and "%" not in filled and not filled.startswith(MARK):
        return segment
    return MARK + "".join(part if index % 2 else escape(part) for index, part in enumerate(parts))


def _refused(rule: str) -> Violation:
    return Violation(Reason.NAME_REFUSED, f"This name is not accepted: {rule}.")
