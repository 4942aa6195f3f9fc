"""Runs the gate until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from proxy.app import Gate
from proxy.commands.exits import Exit, fail
from proxy.config import Config, ConfigError, load_config
from proxy.config_watcher import fingerprint, watch
from proxy.http.listener import ListenError
from proxy.memory import set_up_allocator, spare_collections
from proxy.observability.access_log import request_log, set_up_logging, standard_error
from proxy.observability.queued_writer import QueuedWriter
from proxy.systemd import PassedSockets, take_sockets
from proxy.tasks import Tasks

_log = logging.getLogger("comfygate")


def run_gate(config: Path) -> None:
    """Ends the process (exits.py) where it cannot start."""
    try:
        seen = fingerprint(config)  # before it is read: a change in between is not missed
        loaded = load_config(config)
        lines = standard_error()
        set_up_logging(loaded.log, lines)
        passed = take_sockets(loaded)
        run(lambda: _serve(loaded, config, seen, lines, passed))
    except ConfigError as error:
        if not config.exists():
            fail(
                f"There is no {config}. `comfygate init` writes one here with every setting explained; "
                "`comfygate serve --config FILE` takes another."
            )
        fail(f"{error}\nThe gate does not start. Correct what is named; `comfygate check` tries it without starting.")
    except ListenError as error:
        fail(str(error), Exit.PORT_IN_USE)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs on uvloop where there is one."""
    set_up_allocator()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:
            factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())


async def _serve(config: Config, file: Path, seen: bytes, lines: QueuedWriter, passed: PassedSockets) -> None:
    stop = stop_event()
    gate = Gate(config, request_log(config.log.format, lines), passed)
    is_up = asyncio.Event()
    tasks = Tasks()

    async def reload() -> None:
        await is_up.wait()
        await gate.reload(file)

    # Before the gate says that it is ready: from then on it may be sent SIGHUP, which would end it where nobody listens.
    tasks.supervise(lambda: watch(file, reload, seen=seen), "config watch")
    try:
        await gate.start()
        spare_collections()
        gate.audit.use_thread()
        is_up.set()
        await stop.wait()
        _log.info("stopping")
    finally:
        if is_up.is_set():
            # SECURITY: it still answers: a key that is revoked meanwhile ends (tests/commands/test_winding_down.py).
            await gate.wind_down()
        await tasks.stop()
        if is_up.is_set() and not await gate.stop():
            lines.close()
            os._exit(Exit.UNENDED)  # the end of the loop would wait for what did not end


def stop_event() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, event.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(event.set))
    return event
