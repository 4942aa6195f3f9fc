"""Copies of what jobs made, in a bucket or a folder of the operator's: under which names, how they are shown, and which originals may go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from policy.principal import TenantId

MAX_NAME: Final = 100
"""Characters of a file's name in the name of its copy."""
_UNPLAIN: Final = re.compile(r"[^A-Za-z0-9._-]+")
_JOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_COUNTER: Final = re.compile(r"_(?=([0-9]{1,12})_)")
_FILE: Final = "file"


class CopyState(StrEnum):
    """waiting: to be made. copied: the bucket has it, and ComfyUI's folder too, as far as the gate knows. failed: it is not tried again. wiped: the bucket
    alone has it. unwanted: it is to be deleted.
    """

    WAITING = "waiting"
    COPIED = "copied"
    FAILED = "failed"
    WIPED = "wiped"
    UNWANTED = "unwanted"


def job_copy_id(tenant: TenantId, prompt_id: str, sequence: int, ended_at_s: float) -> str:
    """Of all that a job made: the same whenever it is asked, another one for each end of a job, so nothing that was copied is overwritten by something else.

    sequence: the job's place among all jobs, since an id may come again.
    """
    return _digest(f"{tenant}/{prompt_id}/{sequence}/{ended_at_s!r}")


def file_copy_id(job_copy: str, asset_id: str) -> str:
    """Of one file among them."""
    return _digest(f"{job_copy}/{asset_id}")


def form_copy_id(file_copy: str, form: str) -> str:
    """Of a file in another form than the job made it. form: the mark of its recipe (policy.functions.conversion)."""
    return _digest(f"{file_copy}/{form}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def object_key(tenant: TenantId, prompt_id: str, copy_id: str, name: str) -> str:
    """`<tenant>/<job>/<copy>/<file>`: four segments, of letters, digits, ".", "_" and "-" alone.

    SECURITY: no file's name leaves its tenant's prefix, or meets another one's (tests/policy/test_copies.py).
    """
    job = prompt_id if _JOB.fullmatch(prompt_id) else _digest(prompt_id)
    return f"{tenant}/{job}/{copy_id}/{plain_name(name)}"


def plain_name(name: str) -> str:
    """A file's name in characters that every store takes. It need not be the only one of its kind."""
    stem, dot, suffix = _UNPLAIN.sub("_", name.rpartition("/")[2]).strip(".").rpartition(".")
    if not dot:
        return suffix[:MAX_NAME] or _FILE
    suffix = suffix[:16]
    return f"{stem[: MAX_NAME - 1 - len(suffix)]}.{suffix}"


def disposition_of(name: str, *, is_shown: bool) -> str:
    """The Content-Disposition of a copy, under the file's own name (RFC 6266). is_shown: a browser shows it, and runs nothing in it."""
    kind = "inline" if is_shown else "attachment"
    if name.isascii() and name.isprintable() and not set(name) & set('"\\;%'):
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename*=UTF-8''{quote(name[:MAX_NAME], safe='', errors='replace')}"


def keeps_count(name: str, others: Iterable[str]) -> bool:
    """Whether a file has the highest number of its kind, by which ComfyUI numbers the next one (folder_paths.py, get_save_image_path): while it is there
    no later file gets the name of one that was wiped. others: names of files in its folder, read as far as needed.
    """
    numbers = {name[: found.start() + 1]: int(found[1]) for found in _COUNTER.finditer(name)}
    for other in others:
        if not numbers:
            break
        if other != name:
            for prefix in [each for each, number in numbers.items() if _number_after(other, each) >= number]:
                del numbers[prefix]
    return bool(numbers)


def _number_after(name: str, prefix: str) -> int:
    """-1 where there is none."""
    digits = name[len(prefix) :].partition("_")[0] if name.startswith(prefix) and "_" in name[len(prefix) :] else ""
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 12 else -1
