"""Everything a rule may know about who calls: the principal, its names, its jobs, what it may run. Made by the pipeline, read by rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from policy.addresses import HostPattern
from policy.call import ClientCall
from policy.catalogue import Catalogue
from policy.document import MAX_PARTS
from policy.documents import NoDocuments, OwnDocuments
from policy.fitting import Candidate
from policy.keyform import NOTHING_PRESENTED, Presented
from policy.namespace import Namespace
from policy.principal import Principal
from policy.v2.links import Links
from policy.values import value

if TYPE_CHECKING:
    from policy.functions.function import CallableFunction
    from policy.judge import Policy
    from policy.templates.recurring import RecurringWorkflows


class OwnJobs(Protocol):
    """The tenant's own jobs, as the registry knows them. Ids are in the order in which ComfyUI got them, oldest first."""

    def owns(self, prompt_id: str) -> bool: ...

    def pending(self) -> Sequence[str]: ...

    def running(self) -> Sequence[str]: ...

    def finished(self) -> Sequence[str]: ...

    def count_finished(self) -> int: ...

    def count_unfinished(self) -> int:
        """How many wait or run."""
        ...

    def place_of(self, prompt_id: str) -> int:
        """A job's place among the tenant's own, from 1: what ended, then what runs, then what waits. 0 for a job that is none of them."""
        ...

    def stopped_after_s(self, prompt_id: str) -> int | None:
        """How long the job might run, when the gate stopped it for running longer; None for any other."""
        ...

    def running_nodes(self) -> Mapping[str, Collection[str]]:
        """The nodes at which the tenant's own running jobs are, by job, as far as ComfyUI's events tell.

        Without those that were answered a moment ago.
        """
        ...

    def has_temp_file(self, name: str) -> bool:
        """Whether one of the tenant's jobs made this file in ComfyUI's temp folder (`subfolder/name` or `name`)."""
        ...


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """Names of the tenant's own files, in its own names, newest first; empty when the gate cannot see ComfyUI's folders."""

    input: Sequence[str] = ()
    output: Sequence[str] = ()


@dataclass(frozen=True)
class RuleContext:
    """shared_inputs: input files every tenant may read and none may write, exact or a folder ending in "/".

    upload_types: kinds of files that may be uploaded, as the configuration names them. now: the local time, for dates in names. has_account_menu: the web UI
    gets the gate's own extension. id_inputs: by class, those that name bytes which were put under an id.
    """

    principal: Principal
    names: Namespace
    jobs: OwnJobs
    policy: Policy
    catalogue: Catalogue
    now: datetime
    files: OwnFiles = field(default_factory=OwnFiles)
    shared_inputs: tuple[str, ...] = ()
    upload_types: frozenset[str] = frozenset({"image", "audio", "video", "mask"})
    max_picture_pixels: int = 100_000_000
    has_account_menu: bool = True
    documents: OwnDocuments = field(default_factory=NoDocuments)
    id_inputs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    functions: Mapping[str, CallableFunction] = field(default_factory=dict)
    """That the caller may call, by name."""
    takes_workflows: bool = True
    """Whether the caller may send workflows of its own."""
    fetches: tuple[HostPattern, ...] = ()
    """Hosts outside from which files of a call are fetched."""
    webhooks: tuple[HostPattern, ...] = ()
    """Hosts outside that a call may name to be told of its job."""
    links: Links = field(default_factory=Links)
    """For rows whose answers name addresses."""
    is_placed: bool = False
    """Whether there are several ComfyUIs: then what a job needs of one is recorded with it."""
    comfyuis: tuple[Candidate, ...] | None = None
    """Those of several that run the caller's jobs; None where it is not looked at which they are."""
    labels: tuple[str, ...] = ()
    """That the ComfyUI must have on which the job of the call runs."""
    recurring: RecurringWorkflows | None = None
    """By which workflows are known that were sent before with other values."""

    def of_request(
        self,
        principal: Principal,
        jobs: OwnJobs,
        catalogue: Catalogue,
        now: datetime,
        files: OwnFiles,
        documents: OwnDocuments,
        links: Links,
        comfyuis: tuple[Candidate, ...] | None,
    ) -> RuleContext:
        """The same with what is each request's own; as `replace` makes it, at a tenth of the price."""
        made, known = object.__new__(RuleContext), self.__dict__.copy()
        known["principal"], known["jobs"], known["catalogue"], known["now"] = principal, jobs, catalogue, now
        known["files"], known["documents"], known["links"], known["comfyuis"] = files, documents, links, comfyuis
        object.__setattr__(made, "__dict__", known)  # it is frozen
        return made


@value
class RuleInput:
    """What a rule judges: the call, its JSON document where the row reads one (raw too, for rules that judge the spelling), and who sent it."""

    call: ClientCall
    context: RuleContext
    document: Any = None
    raw: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """Fields of the document that the gate has taken out, and tells of in its answer."""
    credentials: Presented = NOTHING_PRESENTED
    """What the request proved itself with: a rule that reads the bytes itself looks for it, and takes at most `max_parts` parts."""
    max_parts: int = MAX_PARTS
    is_form: bool = False
    """The body is a multipart form, which streams: the rule asks for its parts (policy.v2.effects.ReadPart)."""
    minted_id: str = ""
    """A new UUID: for the job of an admin who names none, where its id must be known before ComfyUI has it; for what a streamed body holds."""
