"""A function's job as this door shows it: the contract's Job (policy/v2/jobs.py), with the function's own outputs and addresses of this door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from policy.functions.delivery import fits
from policy.functions.function import CallableFunction, Function
from policy.v2.assets import Asset, output_to_client
from policy.v2.jobs import JobView, Status, job_to_client
from policy.v2.links import Links
from policy.v2.times import timestamp_or_null
from policy.values import value
from policy.violation import Reason, Violation

LABEL: Final = "function"
VERSION_LABEL: Final = "function_version"
_SAFE: Final = "-._~"


@value
class Result:
    """output: the function's name for what made it, "" where it has none. index: among those of the same name, or of the same node."""

    asset: Asset
    output: str
    index: int

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return self.output or self.asset.node_id


def results_of(job: JobView, function: Function | None) -> tuple[Result, ...]:
    """What the function gives; all that the job made where it names nothing, or is none that the caller may call."""
    outputs = {} if function is None else {node_id: name for name, node_id in function.outputs.items()}
    counts: dict[str, int] = {}
    found: list[Result] = []
    for asset in job.outputs:
        output = outputs.get(asset.node_id, "")
        if outputs and not output:
            continue
        result = Result(asset, output, counts.get(asset.node_id, 0))
        counts[asset.node_id] = result.index + 1
        found.append(result)
    return tuple(found)


def function_of(job: JobView, functions: Mapping[str, CallableFunction]) -> Function | None:
    called = functions.get((job.labels or {}).get(LABEL, ""))
    return None if called is None else called.function


def find_result(job: JobView, function: Function | None, name: str, index: int) -> Asset:
    """name: of an output of the function's, else a node's id, else a file's name. Raises Violation(not-found)."""
    node_id = "" if function is None else function.outputs.get(name, "")
    found = [asset for asset in job.outputs if asset.node_id == (node_id or name)]
    found = found or [asset for asset in job.outputs if asset.file_path == name]
    if index >= len(found):
        words = "There is no such output of this job." if job.ended_at_s else "This job has no such output yet."
        raise Violation(Reason.NOT_FOUND, f"{words} The job itself lists those that there are.")
    return found[index]


def job_address(links: Links, prompt_id: str) -> str:
    """Relative to the host: see Links."""
    return f"{links.prefix}/gate/jobs/{quote(prompt_id, safe=_SAFE)}"


def result_address(links: Links, prompt_id: str, result: Result) -> str:
    return _address_below(job_address(links, prompt_id), result)


def _address_below(job: str, result: Result) -> str:
    address = f"{job}/outputs/{quote(result.name, safe=_SAFE)}"
    return f"{address}?index={result.index}" if result.index else address


def call_to_client(
    job: JobView, function: Function | None, links: Links, starts_at_s: float | None = None
) -> dict[str, Any]:
    """starts_at_s: Unix time at which it will probably begin."""
    here = job_address(links, job.prompt_id)
    outputs = [
        output_to_client(result.asset, links, job.keep_until_s)
        | {"output": result.output or None, "url": links.origin + _address_below(here, result)}
        for result in results_of(job, function)
    ]
    return job_to_client(replace(job, outputs=()), links) | {  # they may be a thousand, and are told otherwise here
        "estimated_start": timestamp_or_null(starts_at_s),
        "outputs": outputs,
        "urls": {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"},
    }


def pick(job: JobView, function: Function | None, ranges: Sequence[str], links: Links) -> Result:
    """The one result of a media type that the client takes. Raises Violation(not-acceptable)."""
    here = job_address(links, job.prompt_id)
    if job.status is not Status.SUCCEEDED:
        why = f": {job.error.message}" if job.error is not None else "."
        raise _not_acceptable(f"The job has {_WORDS.get(job.status, 'not ended')}{why}", here)
    results = results_of(job, function)
    fitting = [result for result in results if fits(result.asset.content_type, ranges)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(dict.fromkeys(result.name for result in fitting))
        raise _not_acceptable(f"{len(fitting)} outputs of the job are of such a type ({names}): ask for each", here)
    types = ", ".join(sorted({result.asset.content_type for result in results})) or "nothing"
    raise _not_acceptable(f"No output of the job is of such a type, it made {types}: ask for that", here)


_WORDS: Final = {Status.FAILED: "failed", Status.CANCELED: "been canceled"}


def _not_acceptable(words: str, here: str) -> Violation:
    return Violation(Reason.NOT_ACCEPTABLE, f"{words[:300].rstrip('.')}. GET {here} tells all of it.", here)
