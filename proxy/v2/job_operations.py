"""Jobs as the API tells of them, in the gate's database (proxy/persistence/operations.py). Each reads what is one tenant's alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from policy.v2.assets import Asset
from policy.v2.effects import After
from proxy.jobs.doubts import UNSURE
from proxy.jobs.job_rows import CANCEL, COLUMNS, ENDS, MEASURED, JobRow, StoredState
from proxy.persistence.operations import Operation, Statement
from proxy.v2.asset_rows import ASSET_COLUMNS, ASSET_PLACES, asset_of, row_of

CANCELING: Final = "canceling"
"""Beside the stored states: a job whose end somebody has asked for."""
LOOKED_AT: Final = 500
"""Jobs in one transaction: some milliseconds, whatever is asked of each."""
_COLUMNS: Final = ", ".join(f"jobs.{name}" for name in JobRow._fields)


class StoredJob(NamedTuple):
    """failure: how it failed (policy.v2.jobs.JobError), as JSON; None while what it made has not been measured."""

    row: JobRow
    labels: dict[str, str]
    outputs: list[Asset]
    failure: Any
    is_measured: bool


class Made(NamedTuple):
    """body: of a text, which the gate keeps itself."""

    asset: Asset
    body: bytes | None = None


def read_job(tenant: str, prompt_id: str) -> Operation[StoredJob | None]:
    """None for what is not there, not the tenant's, or was never said to be there."""
    rows = yield Statement(f"SELECT {COLUMNS} FROM jobs WHERE prompt_id = ? AND tenant = ?", (prompt_id, tenant))
    if not rows or JobRow(*rows[0]).wish == UNSURE:
        return None
    row = JobRow(*rows[0])
    labels = yield Statement("SELECT name, value FROM job_labels WHERE prompt_id = ?", (prompt_id,))
    if not row.has_ended:
        return StoredJob(row, dict(labels), [], None, is_measured=False)
    measured = yield Statement("SELECT body FROM job_documents WHERE prompt_id = ? AND kind = ?", (prompt_id, MEASURED))
    outputs = yield from outputs_of(tenant, prompt_id)
    failure = orjson.loads(bytes(measured[0][0])) if measured else None
    return StoredJob(row, dict(labels), outputs, failure, is_measured=bool(measured))


def outputs_of(tenant: str, prompt_id: str) -> Operation[list[Asset]]:
    """What is known of what a job made, in its order."""
    rows = yield Statement(
        f"SELECT {ASSET_COLUMNS} FROM assets WHERE prompt_id = ? AND tenant = ? ORDER BY place", (prompt_id, tenant)
    )
    return [asset_of(each) for each in rows]


def keep_outputs(prompt_id: str, tenant: str, outputs: Sequence[Made]) -> Operation[bool]:
    """What a job has made so far; False when it is gone meanwhile, or is the tenant's no more. What is there already is as it is now."""
    rows = yield Statement("SELECT state FROM jobs WHERE prompt_id = ? AND tenant = ?", (prompt_id, tenant))
    if not rows:
        return False
    for place, made in enumerate(outputs):
        # Of what is there a text alone has a body, and that is the same.
        yield Statement(
            f"INSERT INTO assets ({ASSET_COLUMNS}, body) VALUES ({ASSET_PLACES}, ?) ON CONFLICT (asset_id) DO UPDATE SET "
            "place = excluded.place, size_bytes = excluded.size_bytes, hash = excluded.hash, stamp = excluded.stamp "
            "WHERE assets.tenant = excluded.tenant",
            (*row_of(made.asset, tenant, place), made.body),
        )
    return True


def keep_results(prompt_id: str, tenant: str, outputs: Sequence[Made], failure: Any) -> Operation[bool]:
    """All that a job that has ended made, and how it failed; False as of `keep_outputs`, and of one that is tried again meanwhile. What an earlier try
    made is known no more. A second time changes nothing.
    """
    rows = yield Statement("SELECT state FROM jobs WHERE prompt_id = ? AND tenant = ?", (prompt_id, tenant))
    if not rows or rows[0][0] not in ENDS or not (yield from keep_outputs(prompt_id, tenant, outputs)):
        return False
    found = yield Statement("SELECT asset_id FROM assets WHERE prompt_id = ? AND tenant = ?", (prompt_id, tenant))
    for asset_id in {row[0] for row in found} - {made.asset.asset_id for made in outputs}:
        yield Statement("DELETE FROM assets WHERE asset_id = ? AND tenant = ?", (asset_id, tenant))
    yield Statement(
        "INSERT INTO job_documents VALUES (?, ?, ?) ON CONFLICT (prompt_id, kind) DO NOTHING",
        (prompt_id, MEASURED, orjson.dumps(failure)),
    )
    return True


class Listed(NamedTuple):
    """Jobs, each with its labels. rest: from where on it was not looked at; None where no more are left."""

    rows: list[tuple[JobRow, dict[str, str]]]
    rest: After | None


def list_some(
    tenant: str, states: Sequence[str], labels: Mapping[str, str], limit: int, after: After | None
) -> Operation[Listed]:
    """As `list_rows`, among the next LOOKED_AT of the tenant's jobs.

    SECURITY: everybody's reading waits for one who has all of a long history looked through (tests/security/test_long_lists.py).
    """
    until = None
    if states or labels:
        wheres, parameters = _place(tenant, after)
        places = yield Statement(
            f"SELECT created_at_s, prompt_id FROM jobs WHERE {' AND '.join(wheres)} "
            "ORDER BY created_at_s DESC, prompt_id DESC LIMIT 1 OFFSET ?",
            (*parameters, LOOKED_AT - 1),
        )
        until = After(*places[0]) if places else None
    return Listed((yield from list_rows(tenant, states, labels, limit, after, until)), until)


def list_rows(
    tenant: str,
    states: Sequence[str],
    labels: Mapping[str, str],
    limit: int,
    after: After | None,
    until: After | None = None,
) -> Operation[list[tuple[JobRow, dict[str, str]]]]:
    """The newest first. states: stored ones and CANCELING, of which a job has one alone; none for all. until: the last that is looked at."""
    wheres, parameters = _place(tenant, after, until)
    wheres.append("jobs.wish <> ?")
    parameters.append(UNSURE)
    if states:
        wheres.append(_is_in(states, parameters))
    for name, text in labels.items():
        wheres.append(
            "EXISTS (SELECT 1 FROM job_labels WHERE job_labels.prompt_id = jobs.prompt_id AND job_labels.tenant = ? "
            "AND job_labels.name = ? AND job_labels.value = ?)"
        )
        parameters += [tenant, name, text]
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM jobs WHERE {' AND '.join(wheres)} ORDER BY jobs.created_at_s DESC, jobs.prompt_id DESC LIMIT ?",
        (*parameters, limit),
    )
    found = [JobRow(*row) for row in rows]
    told = yield from _labels_of([row.prompt_id for row in found])
    return [(row, told.get(row.prompt_id, {})) for row in found]


def _place(tenant: str, after: After | None, until: After | None = None) -> tuple[list[str], list[Any]]:
    """Conditions, of which an index finds the tenant and the times."""
    wheres, parameters = ["jobs.tenant = ?"], [tenant]
    for place, is_before in ((after, "<"), (until, ">")):
        if place is not None:
            is_it = "" if place is after else " OR jobs.prompt_id = ?"
            wheres.append(f"jobs.created_at_s {is_before}= ?")
            wheres.append(f"(jobs.created_at_s {is_before} ? OR jobs.prompt_id {is_before} ?{is_it})")
            parameters += [place.created_at_s, place.created_at_s, place.prompt_id]  # type: ignore[list-item]
            parameters += [place.prompt_id] if is_it else []
    return wheres, parameters


def _is_in(states: Sequence[str], parameters: list[Any]) -> str:
    """Waiting jobs that somebody wants to end have ended by then, so that a wish is of those that ComfyUI has."""
    plain = [state for state in states if state != CANCELING]
    alternatives = []
    if plain:
        ended = f"jobs.state IN ({', '.join('?' * len(plain))})"
        alternatives.append(f"({ended} AND (jobs.wish <> ? OR jobs.ended_at_s IS NOT NULL))")
        parameters += [*plain, CANCEL]
    if CANCELING in states:
        alternatives.append("(jobs.wish = ? AND jobs.state IN (?, ?))")
        parameters += [CANCEL, StoredState.DISPATCHED, StoredState.RUNNING]
    return f"({' OR '.join(alternatives)})"


def _labels_of(prompt_ids: Sequence[str]) -> Operation[dict[str, dict[str, str]]]:
    if not prompt_ids:
        return {}
    rows = yield Statement(
        f"SELECT prompt_id, name, value FROM job_labels WHERE prompt_id IN ({', '.join('?' * len(prompt_ids))})",
        tuple(prompt_ids),
    )
    found: dict[str, dict[str, str]] = {}
    for prompt_id, name, text in rows:
        found.setdefault(prompt_id, {})[name] = text
    return found
