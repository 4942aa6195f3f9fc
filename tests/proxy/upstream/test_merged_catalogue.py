"""Several catalogues as one: when it is made anew, and who waits for a ComfyUI that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from policy.catalogue import Catalogue
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream import merged_catalogue as merged_module
from proxy.upstream import node_catalogue as catalogue_module
from proxy.upstream.client import Upstream as RealUpstream
from proxy.upstream.merged_catalogue import MergedCatalogue
from proxy.upstream.node_catalogue import CatalogueSource
from proxy.upstream.upstreams import Upstreams
from proxy.wiring.catalogue import build_catalogue
from tests.proxy.upstream.test_node_catalogue import Answer, Upstream


def loader(*models: str) -> dict[str, Any]:
    return {"input": {"required": {"ckpt_name": [list(models)]}}, "output": ["MODEL"]}


FIRST, SECOND = (200, {"A": loader("a"), "B": loader()}), (200, {"A": loader("b"), "C": loader()})
AWAY = UpstreamUnavailable()


def several(**answers: list[Any]) -> tuple[MergedCatalogue, dict[str, Upstream]]:
    upstreams = {name: Upstream(*given) for name, given in answers.items()}
    parts = {name: CatalogueSource(upstream) for name, upstream in upstreams.items()}  # type: ignore[arg-type]
    return MergedCatalogue(parts), upstreams


def models_of(catalogue: Catalogue) -> set[str]:
    return set(catalogue.classes.choices_of("A")["ckpt_name"])


class Held:
    """Answers when it is let go."""

    def __init__(self, answer: Any) -> None:
        self.go_on = asyncio.Event()
        self._answer = answer

    async def open(self, *_: Any, time_limit_s: float) -> Answer:
        await self.go_on.wait()
        return Answer(*self._answer)


@pytest.mark.parametrize("how", ["known", "fresh"])
async def test_what_any_of_them_can_run_is_known(how: str) -> None:
    merged, upstreams = several(one=[FIRST], two=[SECOND])
    snapshot = await getattr(merged, how)()
    assert list(snapshot.catalogue.classes) == ["A", "B", "C"]
    assert models_of(snapshot.catalogue) == {"a", "b"}
    assert await merged.fresh() is snapshot is await merged.known() is merged.snapshot
    assert [upstream.asked for upstream in upstreams.values()] == [1, 1]
    assert models_of(merged.parts["two"].snapshot.catalogue) == {"b"}
    await merged.stop()


async def test_many_wait_for_one_read() -> None:
    merged, upstreams = several(one=[FIRST], two=[SECOND])
    snapshots = await asyncio.gather(*(merged.fresh() for _ in range(9)), *(merged.known() for _ in range(9)))
    assert len({id(snapshot) for snapshot in snapshots}) == 1
    assert [upstream.asked for upstream in upstreams.values()] == [1, 1]


async def test_a_new_model_of_one_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    merged, _ = several(one=[FIRST], two=[SECOND, (200, {"A": loader("new")})])
    first = await merged.fresh()
    monkeypatch.setattr(catalogue_module, "FRESH_S", -1.0)
    second = await merged.fresh()
    assert models_of(second.catalogue) == {"a", "new"}
    assert set(second.catalogue.classes) == {"A", "B"}
    assert second.version != first.version


async def test_one_that_comes_later_is_taken_up_when_the_gate_connects() -> None:
    merged, upstreams = several(one=[FIRST], two=[AWAY, AWAY, AWAY, SECOND])
    before = await merged.known()
    assert (set(before.catalogue.classes), before.catalogue.is_whole) == ({"A", "B"}, False)
    for _ in range(3):
        await merged.fresh()
        await merged._tasks.finish()
    assert upstreams["two"].asked == 2, "once in a while, when nobody connects to it"
    with pytest.raises(UpstreamUnavailable):
        await merged.renew("two")
    await merged.renew("two")
    assert set(merged.snapshot.catalogue.classes) == {"A", "B", "C"}
    assert merged.snapshot.catalogue.is_whole
    asked = upstreams["one"].asked
    await merged.renew()
    assert upstreams["one"].asked == asked + 1


@pytest.mark.parametrize("away", ["one", "two"])
async def test_one_that_is_away_keeps_its_part(away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, list[Any]] = {"one": [FIRST], "two": [SECOND]}
    answers[away].append(AWAY)
    merged, _ = several(**answers)
    before = await merged.fresh()
    await merged.renew(away)
    monkeypatch.setattr(catalogue_module, "FRESH_S", -1.0)
    assert await merged.fresh() is before


async def test_of_those_that_fail_the_first_ones_failure_is_told_and_the_next_call_asks_again() -> None:
    merged, _ = several(one=[UpstreamTimeout(), FIRST], two=[AWAY])
    with pytest.raises(UpstreamTimeout):
        await merged.known()
    assert set((await merged.known()).catalogue.classes) == {"A", "B"}


async def test_nobody_waits_long_for_one_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_module, "PATIENCE_S", 0.01)
    held = Held(FIRST)
    second = Upstream(SECOND)
    merged = MergedCatalogue({"one": CatalogueSource(held), "two": CatalogueSource(second)})  # type: ignore[arg-type]
    assert set((await merged.known()).catalogue.classes) == {"A", "C"}
    held.go_on.set()
    await merged.parts["one"].known()
    assert set((await merged.fresh()).catalogue.classes) == {"A", "B", "C"}
    await merged.stop()


async def test_who_waits_for_the_first_answer_is_not_kept_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_module, "PATIENCE_S", 0.0)
    first, second = Held(FIRST), Held(SECOND)
    merged = MergedCatalogue({"one": CatalogueSource(first), "two": CatalogueSource(second)})  # type: ignore[arg-type]
    asked = asyncio.ensure_future(merged.known())
    await asyncio.sleep(0.02)
    assert not asked.done(), "nothing is known"
    second.go_on.set()
    assert set((await asked).catalogue.classes) == {"A", "C"}
    await merged.stop()


async def test_one_that_became_silent_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    merged, upstreams = several(one=[FIRST], two=[SECOND])
    await merged.fresh()
    monkeypatch.setattr(catalogue_module, "PATIENCE_S", 0.01)
    for module in (catalogue_module, merged_module):
        monkeypatch.setattr(module, "FRESH_S", 0.0)
    waited: list[int] = []

    async def silent(*_: Any, time_limit_s: float) -> Answer:
        waited.append(1)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(upstreams["two"], "open", silent)
    asked = upstreams["one"].asked
    for _ in range(3):
        await merged.fresh()
    assert (len(waited), upstreams["one"].asked - asked) == (1, 3)
    assert merged.parts["two"].snapshot.is_known
    await merged.stop()


async def test_what_is_read_anew_while_it_is_merged_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    merged, _ = several(one=[FIRST], two=[SECOND, (200, {"D": loader()})])
    await merged.parts["one"].known()
    await merged.parts["two"].known()
    real = merged_module._merge

    def merge_slowly(snapshots: list[Any], *, is_whole: bool) -> Any:
        asyncio.run_coroutine_threadsafe(merged.parts["two"].renew(), loop).result()
        monkeypatch.setattr(merged_module, "_merge", real)
        return real(snapshots, is_whole=is_whole)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(merged_module, "_merge", merge_slowly)
    await merged.known()
    assert set(merged.parts["two"].snapshot.catalogue.classes) == {"D"}
    assert set((await merged.fresh()).catalogue.classes) == {"A", "B", "D"}


async def test_while_jobs_wait_it_is_looked_for_what_they_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_module, "LOOK_EACH_S", 0.0)
    monkeypatch.setattr(catalogue_module, "FRESH_S", -1.0)
    merged, upstreams = several(one=[AWAY, AWAY, FIRST, FIRST, (200, {"new": loader()})], two=[AWAY])
    waits = iter([False, True, True, True, True])
    with pytest.raises(StopAsyncIteration):
        await merged.keep_fresh(lambda: _next(waits))
    assert upstreams["one"].asked == 5, "not where nobody waits"
    assert set(merged.snapshot.catalogue.classes) == {"new"}
    await merged.stop()


def _next(answers: Iterator[bool]) -> bool:
    found = next(answers, None)
    if found is None:
        raise StopAsyncIteration
    return found


async def test_of_some_it_is_what_they_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    third = (200, {"A": loader("c"), "D": loader()})
    merged, upstreams = several(one=[FIRST], two=[SECOND, (200, {"A": loader("new")})], three=[third])
    some = merged.among(("two", "three"))
    assert merged.among(("one", "two", "three")) is merged
    assert merged.among(("two", "three")) is some
    for snapshot in (await some.known(), await some.fresh(), some.snapshot):
        assert set(snapshot.catalogue.classes) == {"A", "C", "D"}
        assert models_of(snapshot.catalogue) == {"b", "c"}
    assert (await some.known()) is some.snapshot, "made once"
    asked = upstreams["one"].asked
    monkeypatch.setattr(catalogue_module, "FRESH_S", -1.0)
    assert models_of((await some.fresh()).catalogue) == {"new", "c"}
    assert upstreams["one"].asked == asked, "nobody looks at those that it is not of"
    assert models_of(merged.snapshot.catalogue) == {"a", "new", "c"}
    await merged.stop()


async def test_of_some_of_which_none_ever_answered_the_failure_is_told() -> None:
    merged, _ = several(one=[FIRST], two=[AWAY, AWAY, AWAY, SECOND])
    await merged.known()
    some = merged.among(("two",))
    for ask in (some.known, some.fresh):
        with pytest.raises(UpstreamUnavailable):
            await ask()
    assert set((await some.known()).catalogue.classes) == {"A", "C"}
    assert merged.among(("one",)).snapshot.catalogue.classes.places == {}, "nobody has asked"
    await merged.stop()


async def test_of_none_nothing_can_be_run() -> None:
    merged, _ = several(one=[FIRST], two=[SECOND])
    nothing = merged.among(())
    assert nothing.snapshot.is_known
    assert (await nothing.known()).catalogue.classes.places == (await nothing.fresh()).catalogue.classes.places == {}


async def test_a_change_of_one_beside_them_is_taken_up_for_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may come to be run by that one, when the configuration changes."""
    other = {"input": {"required": {"ckpt_name": ["INT"]}}, "output": ["MODEL"]}
    merged, _ = several(one=[FIRST, (200, {"C": other})], two=[SECOND])
    await merged.known()
    some = merged.among(("two",))
    assert (await some.known()).catalogue.differing == frozenset()
    await merged.renew("one")
    assert (await some.known()).catalogue.differing == {"C"}


async def test_very_many_sets_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_module, "MAX_PARTIAL", 1)
    merged, _ = several(one=[FIRST], two=[SECOND])
    first = merged.among(("one",))
    assert merged.among(("one",)) is first
    merged.among(("two",))
    assert merged.among(("one",)) is not first
    assert len(merged._partial) == 1


async def test_it_is_made_where_there_are_several() -> None:
    one = RealUpstream("http://127.0.0.1:1", 1.0)
    both = Upstreams("http://127.0.0.1:1", 1.0, {"two": one})
    merged = build_catalogue(both, "one")
    assert isinstance(merged, MergedCatalogue)
    assert list(merged.parts) == ["one", "two"]
    assert isinstance(build_catalogue(one, "one"), CatalogueSource)
    await both.stop()


async def until_known(merged: MergedCatalogue, *classes: str) -> None:
    async with asyncio.timeout(5):
        while list(merged.snapshot.catalogue.classes) != list(classes):
            await asyncio.sleep(0.01)


async def test_what_one_has_that_comes_is_in_the_union_and_what_one_had_that_goes_is_not() -> None:
    merged, _ = several(one=[FIRST])
    await merged.known()
    come = CatalogueSource(Upstream(SECOND))  # type: ignore[arg-type]
    merged.change({**merged.parts, "two": come})
    await until_known(merged, "A", "B", "C")
    merged.change({"one": merged.parts["one"]})
    await until_known(merged, "A", "B")
    await merged.renew("two")  # it may just have been back
    await merged.stop()


async def test_one_that_goes_while_all_are_read_is_passed_over() -> None:
    merged, _ = several(one=[FIRST], two=[SECOND])
    await merged.known()
    reading = asyncio.ensure_future(merged.fresh())
    merged.change({"one": merged.parts["one"]})
    await reading
    await until_known(merged, "A", "B")
    await merged.stop()


async def test_what_some_have_is_without_one_that_goes_meanwhile() -> None:
    merged, _ = several(one=[FIRST], two=[SECOND], three=[AWAY])
    await merged.known()
    some = merged.among(("two", "three"))
    assert list((await some.known()).catalogue.classes) == ["A", "C"]
    merged.change({name: part for name, part in merged.parts.items() if name != "two"})
    await until_known(merged, "A", "B")
    with pytest.raises(UpstreamUnavailable):
        await some.known()
    merged.change({"one": merged.parts["one"]})
    with pytest.raises(UpstreamUnavailable):
        await some.known()
    assert merged.among(("two", "three")) is not some
    await merged.stop()
