"""ComfyUI's node classes, kept: when they are read, who waits, and what stands in when ComfyUI does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from policy.call import UpstreamCall
from policy.catalogue import read_catalogue
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream import node_catalogue as catalogue_module
from proxy.upstream.node_catalogue import CatalogueSource
from standin import StandIn
from tests.harness import Running

ENTRY = {"input": {"required": {"a": ["INT", {}]}}, "output": ["IMAGE"]}


class Answer:
    def __init__(self, status: int, value: Any) -> None:
        self.status = status
        self._value = value

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def body(self, max_bytes: int) -> bytes:
        return orjson.dumps(self._value)


class Upstream:
    """Gives the answers in turn; the last one again and again."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def open(self, call: UpstreamCall, headers: Mapping[str, str], *, time_limit_s: float) -> Answer:
        assert call.target == "/object_info"
        assert headers["Accept-Encoding"] == "identity"
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Answer(*answer)


def source(*answers: Any) -> tuple[CatalogueSource, Upstream]:
    upstream = Upstream(*answers)
    return CatalogueSource(upstream), upstream  # type: ignore[arg-type]


ONE, TWO = (200, {"A": ENTRY}), (200, {"A": ENTRY, "B": ENTRY})


async def test_is_read_when_it_is_first_wanted_and_then_kept() -> None:
    kept, upstream = source(ONE, TWO)
    assert not kept.snapshot.is_known
    for _ in range(3):
        snapshot = await kept.known()
        assert dict(snapshot.catalogue.classes) == dict(read_catalogue(ONE[1]).classes)
        assert await kept.fresh() is snapshot
    assert upstream.asked == 1


async def test_many_wait_for_one_read() -> None:
    kept, upstream = source(ONE)
    snapshots = await asyncio.gather(*(kept.fresh() for _ in range(20)), *(kept.known() for _ in range(20)))
    assert len({id(snapshot) for snapshot in snapshots}) == 1
    assert upstream.asked == 1


async def test_is_read_again_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, upstream = source(ONE, TWO)
    first = await kept.fresh()
    monkeypatch.setattr(catalogue_module, "FRESH_S", -1.0)
    second = await kept.fresh()
    assert (set(second.catalogue.classes), upstream.asked) == ({"A", "B"}, 2)
    assert second.version != first.version
    assert await kept.known() is second


async def test_what_did_not_change_is_not_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, _ = source(ONE)
    first = await kept.fresh()
    await kept.renew()
    assert kept.snapshot.catalogue is first.catalogue
    assert kept.snapshot.catalogue is first.catalogue
    assert kept.snapshot.version == first.version
    assert kept.snapshot.read_at_s > first.read_at_s


async def test_renewing_asks_at_once() -> None:
    kept, upstream = source(ONE, TWO)
    await kept.fresh()
    await kept.renew()
    assert set(kept.snapshot.catalogue.classes) == {"A", "B"}
    assert upstream.asked == 2


@pytest.mark.parametrize("failure", [UpstreamUnavailable(), UpstreamTimeout(), (500, None), (200, []), (200, None)])
async def test_the_old_one_stays_when_comfyui_fails(failure: Any) -> None:
    kept, _ = source(ONE, failure)
    first = await kept.fresh()
    await kept.renew()
    assert (kept.snapshot.version, kept.snapshot.is_known) == (first.version, True)
    assert set((await kept.fresh()).catalogue.classes) == {"A"}


@pytest.mark.parametrize(
    ("failure", "error", "status"),
    [
        (UpstreamUnavailable(), UpstreamUnavailable, 502),
        (UpstreamTimeout(), UpstreamTimeout, None),
        ((500, None), UpstreamUnavailable, 503),
        ((200, "text"), UpstreamUnavailable, 503),
    ],
)
async def test_without_an_old_one_the_failure_is_told_and_the_next_call_asks_again(
    failure: Any, error: type[Exception], status: int | None
) -> None:
    kept, upstream = source(failure, ONE)
    with pytest.raises(error) as caught:
        await kept.known()
    assert getattr(caught.value, "status", None) == status
    assert (await kept.known()).is_known
    assert upstream.asked == 2


async def test_a_slow_comfyui_delays_nobody_who_has_an_older_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, upstream = source(ONE)
    first = await kept.fresh()
    monkeypatch.setattr(catalogue_module, "FRESH_S", -1.0)
    monkeypatch.setattr(catalogue_module, "PATIENCE_S", 0.01)
    go_on = asyncio.Event()

    async def late(*_: Any, time_limit_s: float) -> Answer:
        await go_on.wait()
        return Answer(*TWO)

    monkeypatch.setattr(upstream, "open", late)
    assert await asyncio.gather(*(kept.fresh() for _ in range(3))) == [first] * 3
    go_on.set()
    monkeypatch.setattr(catalogue_module, "PATIENCE_S", 60)
    assert set((await kept.fresh()).catalogue.classes) == {"A", "B"}
    await kept.stop()


async def test_a_new_model_shows_while_comfyui_stays_up(
    gate: Running, comfy: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_module, "FRESH_S", 0.0)

    async def shown(validator: str = "") -> tuple[int, str, bool]:
        headers = {"If-None-Match": validator, "Accept-Encoding": "identity"}
        async with gate.call("GET", "/object_info", "alice", headers=headers) as answer:
            return answer.status, answer.headers["ETag"], b"brand-new.safetensors" in await answer.read()

    status, tag, is_there = await shown()
    assert (status, is_there) == (200, False)
    assert await shown(tag) == (304, tag, False)
    folder = Path(comfy.folders.base, "models", "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "brand-new.safetensors").write_bytes(b"x")
    status, newer, is_there = await shown(tag)
    assert (status, is_there) == (200, True)
    assert newer != tag
