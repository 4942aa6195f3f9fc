"""What rules of the API ask for, beside what other rules do (policy/call.py). All of it is of the tenant's own: what is another's is as what is not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from policy.values import value

if TYPE_CHECKING:  # policy/call.py names these effects
    from policy.addresses import Address, HostPattern
    from policy.call import UpstreamCall
    from policy.v2.asset_files import DerivedFile, StoredFile
    from policy.v2.asset_uploads import AssetUpload
    from policy.v2.assets import Asset, AssetDetails
    from policy.v2.jobs import JobView, Status


class V2Effect:
    """One of these."""

    __slots__ = ()


@value
class ReadJob(V2Effect):
    """Answered with a JobView, None where there is none. labels: of a job that was taken just now: it is not read, and None too where it cannot be."""

    prompt_id: str
    labels: Mapping[str, str] | None = field(default=None, hash=False)


@value
class CancelJob(V2Effect):
    """Ends a job that has not ended; answered with what it is then, None where there is none."""

    prompt_id: str


@value
class After:
    """A place in the list: the last job that was told. created_at_s: Unix time."""

    created_at_s: float
    prompt_id: str


@value
class ListJobs(V2Effect):
    """The newest first; answered with a JobPage. statuses: empty for all. labels: that each of them has."""

    statuses: frozenset[Status]
    labels: Mapping[str, str]
    limit: int
    after: After | None = None


@value
class JobPage:
    """next: where it goes on, None at the end."""

    jobs: tuple[JobView, ...]
    next: After | None = None


@value
class DrawSeeds(V2Effect):
    """Answered with a random whole number for each pair of bounds, both of them included."""

    bounds: tuple[tuple[int, int], ...]


@value
class FindAssets(V2Effect):
    """Answered with a mapping of Assets by id, of those that there are: one whose time is over, or whose file is gone or was overwritten, is none.

    is_for_comfyui: whether ComfyUI must have the file. Else it may be that the operator's storage alone has it.
    """

    asset_ids: tuple[str, ...]
    is_for_comfyui: bool = True


@value
class FindHash(V2Effect):
    """Answered with the newest Asset of these bytes whose file is there, None where there is none. hash: see Asset."""

    hash: str


@value
class AddAsset(V2Effect):
    """Puts a record of a file that ComfyUI has just stored on disk; answered with the Asset. Where that fails, the file goes.

    asset: its time of creation and its stamp are found by who does it. expires_in_s: None for an asset that stays.
    """

    asset: Asset
    expires_in_s: float | None = None


@value
class ReuseBytes(V2Effect):
    """Puts a record of a file that the tenant has already on disk; answered with a `Reused`, None where it has no such bytes.

    A record that is there and says the same is not made again.
    """

    hash: str
    details: AssetDetails


@value
class Reused:
    asset: Asset
    is_new_record: bool


@value
class DeleteAsset(V2Effect):
    """Takes a record away, and the file with the last one; answered with whether there was one. Raises Violation(asset-in-use)."""

    asset_id: str


@value
class ReadText(V2Effect):
    """Answered with the bytes of an asset that is a text, None where there is none."""

    asset_id: str


@value
class ReceiveUpload(V2Effect):
    """Sends the client's file on to ComfyUI, all but its end, so that nothing is stored yet; answered with a `Received`.

    call: with an UploadBody. An UpstreamReply instead is ComfyUI's, which answered before it had all.
    """

    call: UpstreamCall


@value
class Received:
    """hash, size_bytes: of the file's bytes. upload: what was said of it."""

    hash: str
    size_bytes: int
    upload: AssetUpload


@value
class FinishUpload(V2Effect):
    """Sends the end of the upload, so that ComfyUI stores it; answered with its UpstreamReply. An upload that is not finished is broken off."""


@value
class ReadPart(V2Effect):
    """The next part of the client's form; answered with a `FormText` or a `FormFile`, None at the end. A file is received before the next one is asked for.

    room: how many bytes a text may have. Raises Violation(body-malformed | body-too-large).
    """

    room: int


@value
class FormText:
    name: str
    text: str


@value
class FormFile:
    """Its bytes are still to come. filename: empty of a field of a form in which nobody chose a file."""

    name: str
    filename: str


@value
class ReceiveFile(V2Effect):
    """Sends one file on to ComfyUI, all but its end, so that nothing is stored yet; answered as `ReceiveUpload`, and ended by `FinishUpload`.

    call: with an UploadBody. data: the file; None for the one that the form is at.
    """

    call: UpstreamCall
    filename: str
    data: bytes | None = None


@value
class FetchFile(V2Effect):
    """Sends a file that stands at an address outside on to ComfyUI, all but its end; answered and ended as `ReceiveFile`.

    hosts: that it may be led on to. name: finds the file's by its first bytes, or raises Violation. Raises FetchFailed.
    """

    call: UpstreamCall
    address: Address
    hosts: tuple[HostPattern, ...]
    name: Callable[[bytes], str]


@value
class SkipFile(V2Effect):
    """Reads over the file that the form is at; answered with whether it had any bytes."""


@value
class ForecastStart(V2Effect):
    """Answered with the Unix time at which a waiting job of the tenant's will probably begin, None where nobody can tell."""

    prompt_id: str


@value
class DeriveOutputs(V2Effect):
    """Answered with a `Derived` or a `NotDerived` for each; they are made where they are not there. Such as could not be made in the time are not made yet.

    is_awaited: whether they are made at all, else it is told what is there.
    """

    files: tuple[DerivedFile, ...]
    is_awaited: bool


@value
class ReadOutputs(V2Effect):
    """Answered with the bytes of each, None of one that is not there, or not as it was told: of this size in bytes, with this hash."""

    files: tuple[StoredFile | DerivedFile, ...]
    sizes: tuple[int, ...]
    hashes: tuple[str, ...]
