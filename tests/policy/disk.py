"""What a tenant's jobs left on disk and in memory, for rules that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policy.call import ClientReply, DocumentsRead, ReadDocuments, RuleGenerator
from policy.documents import Document, Kind, keep
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.joblist import keep_row
from policy.rules.jobs import keep_entry
from policy.rules.results import item_to_client

ALICES = Namespace(TenantId("alice"))


class Kept(dict[tuple[Kind, str], Document]):
    """What is held in memory of a tenant's jobs."""

    def get(self, kind: Kind, prompt_id: str) -> Document | None:  # type: ignore[override]
        return super().get((kind, prompt_id))

    def has_room(self, size: int) -> bool:
        return True

    def learn(self, reply: ClientReply) -> None:
        for update in reply.updates:
            for document in update.documents:
                self[document.kind, update.prompt_id] = document


@dataclass
class Disk:
    """at_a_time: how many documents it reads at once. reads: what it was asked for, in order."""

    documents: Mapping[tuple[Kind, str], Document]
    at_a_time: int = 1000
    reads: list[ReadDocuments] = field(default_factory=list)

    def read(self, wish: ReadDocuments) -> DocumentsRead:
        self.reads.append(wish)
        now, later = wish.prompt_ids[: self.at_a_time], wish.prompt_ids[self.at_a_time :]
        known = {each: self.documents.get((wish.kind, each)) for each in now}
        return DocumentsRead({each: document for each, document in known.items() if document is not None}, later)

    @property
    def asked(self) -> list[str]:
        """The ids of all that it was asked for."""
        return [prompt_id for wish in self.reads for prompt_id in wish.prompt_ids]


def reading(dialogue: RuleGenerator, disk: Disk) -> RuleGenerator:
    """The rule, without the steps that are answered from this disk."""
    try:
        step = next(dialogue)
        while True:
            step = dialogue.send(disk.read(step) if isinstance(step, ReadDocuments) else (yield step))
    except StopIteration as end:
        reply: ClientReply = end.value
        return reply


def item(prompt_id: str, text: str = "", client_id: str = "alice.tab", **extra: Any) -> list[Any]:
    """As ComfyUI lists a job that waits or runs. text: in its workflow."""
    graph = {"1": {"class_type": "A", "inputs": {"text": text}}} if text else {}
    return [1, prompt_id, graph, extra | {"client_id": client_id}, []]


def entry(prompt_id: str, text: str = "", status: Any = None, outputs: Any = None, **extra: Any) -> dict[str, Any]:
    """As ComfyUI lists a job that has ended."""
    return {"prompt": item(prompt_id, text, **extra), "outputs": outputs or {}, "status": status}


def kept_item(prompt_id: str, text: str = "", **extra: Any) -> Document:
    shown = item_to_client(item(prompt_id, text, **extra), ALICES, 0)
    assert shown is not None, "the tenant's own"
    return keep(Kind.ITEM, shown, prompt_id)


def kept_entry(prompt_id: str, text: str = "", **more: Any) -> Document:
    document = keep_entry({prompt_id: entry(prompt_id, text, **more)}, prompt_id, ALICES)
    assert document is not None, "the tenant's own"
    return document


def entries(*prompt_ids: str, text: str = "") -> dict[tuple[Kind, str], Document]:
    return {(Kind.ENTRY, prompt_id): kept_entry(prompt_id, text) for prompt_id in prompt_ids}


def items(*prompt_ids: str, text: str = "") -> dict[tuple[Kind, str], Document]:
    return {(Kind.ITEM, prompt_id): kept_item(prompt_id, text) for prompt_id in prompt_ids}


def rows(*prompt_ids: str) -> dict[tuple[Kind, str], Document]:
    return {(Kind.ROW, prompt_id): keep_row(kept_entry(prompt_id), prompt_id) for prompt_id in prompt_ids}
