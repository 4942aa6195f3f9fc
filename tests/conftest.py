"""Fixtures by role: `comfy` is the stand-in, `gate` the gate before it, with keys for alice, mallory and an admin."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from standin import StandIn
from tests.compiling import pytest_collection
from tests.distribution import pytest_xdist_make_scheduler
from tests.harness import Running, running_gate
from tests.measuring import pytest_collection_modifyitems, pytest_runtest_protocol
from tests.postgres import PostgresServer, running_postgres
from tests.postgres_databases import PostgresDatabases

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    # Started in the background of a shell: the programs that tests start would not hear of it either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


__all__ = [
    "pytest_collection",
    "pytest_collection_modifyitems",
    "pytest_runtest_protocol",
    "pytest_xdist_make_scheduler",
]  # hooks

# A busy machine is no mistake of what is tested: no example has a deadline. A failure prints how it is made again. CI tries the same
# examples each time, so that only a change can break it; `make fuzz` looks for others.
settings.register_profile("usual", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("ci", settings.get_profile("usual"), derandomize=True, database=None)
settings.register_profile("fuzz", settings.get_profile("usual"), derandomize=False, max_examples=200)
settings.load_profile("ci" if os.environ.get("CI") else "usual")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Sixteen thousand tests and all modules stay until the end: each full collection of garbage would look through them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def comfy(tmp_path: Path) -> AsyncIterator[StandIn]:
    stand_in = StandIn(tmp_path / "comfyui", frontend=False)
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn) -> AsyncIterator[Running]:
    async with running_gate(tmp_path, comfy.url) as running:
        running.comfy = comfy
        yield running


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One for all tests; what kills or freezes it takes `own_postgres`."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: PostgresServer) -> PostgresDatabases:
    return PostgresDatabases(postgres_server)


@pytest.fixture
async def postgres_url(postgres_databases: PostgresDatabases) -> AsyncIterator[str]:
    """An empty database of the test's own."""
    async with postgres_databases.empty() as url:
        yield url
