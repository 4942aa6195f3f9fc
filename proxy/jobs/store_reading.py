"""What is read of jobs in the gate's database (proxy/persistence/operations.py)."""

from __future__ import annotations

from collections.abc import Sequence

from policy.principal import TenantId
from proxy.jobs.job_rows import COLUMNS, SUBMITTED, Changes, JobRow, Lease, StoredState, Submitted
from proxy.persistence.operations import Operation, Statement


def find(prompt_id: str) -> Operation[JobRow | None]:
    rows = yield Statement(f"SELECT {COLUMNS} FROM jobs WHERE prompt_id = ?", (prompt_id,))
    return JobRow(*rows[0]) if rows else None


def submitted_of(prompt_id: str) -> Operation[Submitted]:
    """Raises LookupError when it is not kept any more."""
    rows = yield Statement("SELECT kind, body FROM job_documents WHERE prompt_id = ?", (prompt_id,))
    parts = {kind: bytes(body) for kind, body in rows}
    return Submitted(*(parts[kind] for kind in SUBMITTED))


def submission(tenant: str, prompt_id: str, max_bytes: int) -> Operation[tuple[int, Submitted | None]]:
    """How many bytes were submitted, and what; None where it is more than that, not kept any more, or not the tenant's."""
    sizes = yield Statement("SELECT size FROM jobs WHERE prompt_id = ? AND tenant = ?", (prompt_id, tenant))
    size = int(sizes[0][0]) if sizes else 0
    if not sizes or size > max_bytes:
        return size, None
    try:
        return size, (yield from submitted_of(prompt_id))
    except LookupError:
        return size, None


def documents(
    tenant: str, kind: str, prompt_ids: Sequence[str], max_bytes: int
) -> Operation[tuple[dict[str, bytes], list[str]]]:
    """kind: `entry` or `row`. By id, those that the tenant has; and the ids of those that were not read, because there were enough bytes.

    SECURITY: the rules ask for own jobs only; that a job is the tenant's is looked at here once more (test_store_operations.py).
    """
    if not prompt_ids:
        return {}, []
    lengths = yield Statement(
        "SELECT jobs.prompt_id, LENGTH(job_documents.body) FROM jobs JOIN job_documents ON job_documents.prompt_id = jobs.prompt_id "
        f"WHERE jobs.tenant = ? AND job_documents.kind = ? AND jobs.prompt_id IN ({_places(prompt_ids)})",
        (tenant, kind, *prompt_ids),
    )
    sizes = {str(prompt_id): int(size) for prompt_id, size in lengths}
    wanted, total = 0, 0
    for prompt_id in prompt_ids:
        total += sizes.get(prompt_id, 0)
        if wanted and total > max_bytes:
            break
        wanted += 1
    chosen = [prompt_id for prompt_id in prompt_ids[:wanted] if prompt_id in sizes]
    if not chosen:
        return {}, list(prompt_ids[wanted:])
    rows = yield Statement(
        f"SELECT prompt_id, body FROM job_documents WHERE kind = ? AND prompt_id IN ({_places(chosen)})",
        (kind, *chosen),
    )
    return {prompt_id: bytes(body) for prompt_id, body in rows}, list(prompt_ids[wanted:])


def submissions(
    tenant: str, prompt_ids: Sequence[str], max_bytes: int
) -> Operation[tuple[dict[str, Submitted], list[str]]]:
    """Likewise, of the tenant's jobs that have not ended."""
    if not prompt_ids:
        return {}, []
    rows = yield Statement(
        f"SELECT prompt_id FROM jobs WHERE tenant = ? AND prompt_id IN ({_places(prompt_ids)})", (tenant, *prompt_ids)
    )
    own = {prompt_id for (prompt_id,) in rows}
    found: dict[str, Submitted] = {}
    total = 0
    for index, prompt_id in enumerate(prompt_ids):
        if total > max_bytes:
            return found, list(prompt_ids[index:])
        if prompt_id not in own:
            continue
        try:
            found[prompt_id] = yield from submitted_of(prompt_id)
        except LookupError:
            continue
        total += sum(map(len, found[prompt_id]))
    return found, []


def _places(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def changes(since: int) -> Operation[Changes]:
    version = (yield Statement("SELECT version FROM store_state WHERE id = 1"))[0][0]
    if version == since:
        return Changes(version, [], [])
    rows = yield Statement(f"SELECT {COLUMNS} FROM jobs WHERE version > ? ORDER BY version, sequence", (since,))
    gone = yield Statement("SELECT prompt_id FROM forgotten_jobs WHERE version > ?", (since,))
    return Changes(version, [JobRow(*row) for row in rows], [prompt_id for (prompt_id,) in gone])


def listing(tenant: str | None, state: str | None, limit: int) -> Operation[list[JobRow]]:
    """The newest first."""
    wheres, parameters = [], []
    for column, value in (("tenant", tenant), ("state", state)):
        if value is not None:
            wheres.append(f"{column} = ?")
            parameters.append(value)
    where = f"WHERE {' AND '.join(wheres)} " if wheres else ""
    rows = yield Statement(f"SELECT {COLUMNS} FROM jobs {where}ORDER BY sequence DESC LIMIT ?", (*parameters, limit))
    return [JobRow(*row) for row in rows]


def leases(but: str = "") -> Operation[list[Lease]]:
    """Who follows the jobs that ComfyUI has, and until when nobody else does. but: a wish, of which there are none."""
    rows = yield Statement(
        "SELECT prompt_id, gate, lease_until_s FROM jobs WHERE state IN (?, ?) AND (wish = '' OR wish <> ?)",
        (StoredState.DISPATCHED, StoredState.RUNNING, but),
    )
    return [Lease(*row) for row in rows]


def fair_tags() -> Operation[tuple[float, dict[TenantId, float]]]:
    """The virtual time, and each tenant's finish tag (policy.fairness)."""
    rows = yield Statement("SELECT virtual_time FROM store_state WHERE id = 1")
    tags = yield Statement("SELECT tenant, finish_tag FROM fair_tags")
    return float(rows[0][0]), {TenantId(tenant): float(tag) for tenant, tag in tags}


def owner_of(prompt_id: str) -> Operation[str | None]:
    """The tenant that has, or lately had, a job of this id; None for nobody."""
    rows = yield Statement(
        "SELECT tenant FROM jobs WHERE prompt_id = ? UNION ALL SELECT tenant FROM forgotten_jobs WHERE prompt_id = ?",
        (prompt_id, prompt_id),
    )
    return str(rows[0][0]) if rows else None


def needs_of(prompt_ids: Sequence[str]) -> Operation[dict[str, bytes]]:
    """What is recorded of what these jobs need, by id; of several ComfyUIs."""
    found = {}
    for prompt_id in prompt_ids:
        for (needs,) in (yield Statement("SELECT needs FROM job_needs WHERE prompt_id = ?", (prompt_id,))):
            found[prompt_id] = bytes(needs)
    return found
