"""Names of alice's things, and as many names of nothing, equal in form and length, so that two answers can be compared byte for byte."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from blake3 import blake3

# What no answer to a neighbour may hold. The second word is of the same length and names nothing.
SECRET, NOTHING = "zq7canary", "zq7nobody"


@dataclass(frozen=True)
class Things:
    """hash: of the bytes of both assets. root: what stands before a folder for whoever asks: nothing for a tenant, the tenant's folder for an admin.

    copied_*: names under which a neighbour stores something too.
    """

    finished: str
    running: str
    pending: str
    upload: str
    folder: str
    output: str
    output_folder: str
    temp: str
    userdata: str
    setting: str
    client_id: str
    asset: str
    kept_asset: str
    hash: str
    copied_upload: str
    copied_userdata: str
    copied_setting: str
    root: str = ""

    def words(self, *, with_copied: bool = False) -> list[str]:
        names = [each.name for each in fields(self) if with_copied or not each.name.startswith("copied")]
        return [getattr(self, name) for name in names if name != "root"]

    def beside(self, other: Things, *, with_copied: bool) -> Iterator[tuple[bytes, bytes]]:
        """Each name with the other's, the longest first: a folder may be part of a path."""
        pairs = zip(self.words(with_copied=with_copied), other.words(with_copied=with_copied), strict=True)
        yield from sorted(((a.encode(), b.encode()) for a, b in pairs), key=lambda pair: -len(pair[0]))

    def for_admin(self) -> Things:
        return replace(self, root="tenants/alice")


def things_of(word: str) -> Things:
    """output and temp: the names that ComfyUI gives are known later only."""
    ids = [str(uuid.uuid4()) for _ in range(5)]
    return Things(
        finished=ids[0],
        running=ids[1],
        pending=ids[2],
        upload=f"{word}-upload.png",
        folder=f"{word}-folder",
        output=f"{word}-saved_00001_.png",
        output_folder=f"{word}-shots",
        temp="ComfyUI_temp_aaaaa_00001_.png" if word == SECRET else "ComfyUI_temp_bbbbb_00001_.png",
        userdata=f"workflows%2F{word}.json",
        setting=f"Matrix.{word}",
        client_id=f"{word}-client",
        asset=ids[3],
        kept_asset=ids[4],
        hash=f"blake3:{blake3(word.encode()).hexdigest()}",
        copied_upload=f"{word}-copied.png",
        copied_userdata=f"{word}-copied.json",
        copied_setting=f"Copied.{word}",
    )
