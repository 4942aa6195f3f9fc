from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.contract.conftest import REAL_URL
from tests.v2.bodies import Judges
from tests.v2.sdk import KINDS
from tests.v2.world import TARGETS, OpenWorld, World, open_world


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judges]:
    found = Judges(tmp_path_factory.mktemp("judges"))
    yield found
    found.stop()


@pytest.fixture
def worlds(judges: Judges, tmp_path: Path) -> OpenWorld:
    """Opens a world in the folder of the test: for one that is not the usual."""
    return partial(open_world, judges=judges, folder=tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kind` is each SDK in turn: comfy_sdk.Comfy, comfy_sdk.AsyncComfy, @comfyorg/sdk; or those that a module names as its SDKS."""
    own = {str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")}
    if "kind" in metafunc.fixturenames and "kind" not in own:
        metafunc.parametrize("kind", getattr(metafunc.module, "SDKS", KINDS))


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
async def world(target: str, worlds: OpenWorld) -> AsyncIterator[World]:
    async with worlds(target) as running:
        yield running


@pytest.fixture
async def standin_world(worlds: OpenWorld) -> AsyncIterator[World]:
    async with worlds("standin") as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What can be tried on a real ComfyUI alone is no test where there is none."""
    if not REAL_URL:
        items[:] = [item for item in items if "real_target" not in getattr(item, "fixturenames", ())]


@pytest.fixture(params=[each for each in TARGETS if each.id == "real"])
def real_target(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
async def real_world(real_target: str, worlds: OpenWorld) -> AsyncIterator[World]:
    async with worlds(real_target) as running:
        yield running
