"""A function's job as this door shows it: the contract's Job (policy/v2/jobs.py), with the function's own outputs and addresses of this door."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from policy.functions.conversion import Derived, NotDerived, Recipe, misfit, name_of, recipe_of, type_of
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
    """output: the function's name for what made it, "" where it has none. index: among those of the same name, or of the same node.

    recipe: in which form it is given, None for the file as it is. made: what became of it, as far as it was asked for.
    """

    asset: Asset
    output: str
    index: int
    recipe: Recipe | None = None
    made: Derived | NotDerived = NotDerived()

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return self.output or self.asset.node_id

    @property
    def content_type(self) -> str:
        return type_of(self.asset, self.recipe)

    @property
    def file_name(self) -> str:
        return name_of(self.asset, self.recipe)

    @property
    def given(self) -> Asset:
        """What a client is told of: the file that it gets."""
        if self.recipe is None:
            return replace(self.asset, forms=())
        size_bytes, digest, link = 0, None, None
        if isinstance(self.made, Derived):
            size_bytes, digest, link = self.made.size_bytes, self.made.hash, self.made.link
        told = replace(self.asset, size_bytes=size_bytes, hash=digest, link=link, forms=())
        return replace(told, file_path=self.file_name, content_type=self.content_type)


def results_of(job: JobView, function: Function | None) -> tuple[Result, ...]:
    """What the function gives; all that the job made where it names nothing, or is none that the caller may call."""
    if function is None or not function.outputs:
        return tuple(_counted((asset, "", None) for asset in job.outputs))
    return tuple(
        _counted(
            (asset, name, recipe_of(output, asset))
            for asset in job.outputs
            for name, output in function.settings.outputs.items()
            if output.node == asset.node_id
        )
    )


def forms_of(job: JobView, function: Function | None) -> tuple[tuple[Asset, Recipe], ...]:
    """What the function gives in another form, each form of a file once; not what has a form that its name tells it cannot have."""
    found = {
        (result.asset.asset_id, result.recipe.mark): (result.asset, result.recipe)
        for result in results_of(job, function)
        if result.recipe is not None and not misfit(result.asset, result.recipe)
    }
    return tuple(found.values())


def _counted(found: Iterable[tuple[Asset, str, Recipe | None]]) -> Iterator[Result]:
    counts: dict[str, int] = {}
    for asset, output, recipe in found:
        result = Result(asset, output, counts.get(output or asset.node_id, 0), recipe)
        counts[result.name] = result.index + 1
        yield result


def function_of(job: JobView, functions: Mapping[str, CallableFunction]) -> Function | None:
    called = functions.get((job.labels or {}).get(LABEL, ""))
    return None if called is None else called.function


def find_result(job: JobView, function: Function | None, name: str, index: int) -> Result:
    """name: of an output of the function's, else a node's id, else a file's name. Raises Violation(not-found).

    What the function gives in another form is given so, however it is asked for.
    """
    given = results_of(job, function)
    found = [result for result in given if result.output == name] if name else []
    if not found:
        first = {result.asset.asset_id: result for result in reversed(given)}
        every = [first.get(asset.asset_id) or Result(asset, "", 0) for asset in job.outputs]
        found = [result for result in every if result.asset.node_id == name]
        found = found or [result for result in every if name in (result.asset.file_path, result.file_name)]
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
    job: JobView, results: Sequence[Result], links: Links, starts_at_s: float | None = None
) -> dict[str, Any]:
    """starts_at_s: Unix time at which it will probably begin."""
    here = job_address(links, job.prompt_id)
    bare = replace(job, outputs=()) if job.outputs else job  # they may be a thousand, and are told otherwise here
    return job_to_client(bare, links) | {
        "estimated_start": timestamp_or_null(starts_at_s),
        "outputs": [_result_to_client(result, job, here, links) for result in results],
        "urls": {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"},
    }


def _result_to_client(result: Result, job: JobView, here: str, links: Links) -> dict[str, Any]:
    """error: why it cannot be given in the form that the function says; null where it can."""
    return output_to_client(result.given, links, job.keep_until_s) | {
        "output": result.output or None,
        "url": links.origin + _address_below(here, result),
        "error": (isinstance(result.made, NotDerived) and result.made.why) or None,
    }


def pick(job: JobView, function: Function | None, ranges: Sequence[str], links: Links) -> Result:
    """The one result of a media type that the client takes. Raises Violation(not-acceptable)."""
    here = job_address(links, job.prompt_id)
    if job.status is not Status.SUCCEEDED:
        why = f": {job.error.message}" if job.error is not None else "."
        raise _not_acceptable(f"The job has {_WORDS.get(job.status, 'not ended')}{why}", here)
    results = results_of(job, function)
    fitting = [result for result in results if fits(result.content_type, ranges)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(dict.fromkeys(result.name for result in fitting))
        raise _not_acceptable(f"{len(fitting)} outputs of the job are of such a type ({names}): ask for each", here)
    types = ", ".join(sorted({result.content_type for result in results})) or "nothing"
    raise _not_acceptable(f"No output of the job is of such a type, it made {types}: ask for that", here)


_WORDS: Final = {Status.FAILED: "failed", Status.CANCELED: "been canceled"}


def _not_acceptable(words: str, here: str) -> Violation:
    return Violation(Reason.NOT_ACCEPTABLE, f"{words[:300].rstrip('.')}. GET {here} tells all of it.", here)
