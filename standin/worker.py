"""The one thread that runs prompts, one after the other. A prompt that fails outside of a node ends as failed, and the next one is taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

from standin.events import Events
from standin.execution import Executor, Report
from standin.folders import Folders
from standin.nodes.runner import Interrupt
from standin.promptqueue import Item, PromptQueue

logger = logging.getLogger(__name__)


class Worker:
    def __init__(self, folders: Folders, events: Events, queue: PromptQueue, log: Callable[[str], None]) -> None:
        self.interrupt = Interrupt()
        self.is_alive = False
        self._queue = queue
        self._events = events
        self._log = log
        self._executor = Executor(folders, events, self.interrupt)
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.is_alive = True
        self._thread = threading.Thread(target=self._run, args=(loop,), name="standin-worker", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Asks the thread to end; it drops what it is doing."""
        self._queue.close()
        self.interrupt.close()

    async def stop(self) -> None:
        self.leave()
        if self._thread is not None:
            await self._ended.wait()
            self._thread.join()
            self._thread = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while not self._queue.is_closed:
                try:
                    self._turn()
                except Exception:
                    logger.exception("the prompt worker failed")
        finally:
            self.is_alive = False
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._ended.set)

    def _turn(self) -> None:
        taken = self._queue.take()
        if taken is not None:
            item, ticket = taken
            try:
                report = self._execute(item)
            except Exception:
                self._queue.finish(ticket, {}, {"status_str": "error", "completed": False, "messages": []})
                raise
            if self._queue.is_closed:
                return
            self._queue.finish(ticket, report.result, report.status)
            if self._events.current_client is not None:
                message = {"node": None, "prompt_id": item[1]}
                self._events.send("executing", message, self._events.current_client)
            self._log("Prompt executed")
        flags = self._queue.take_flags()
        if flags.get("free_memory"):
            self._executor.forget()

    def _execute(self, item: Item) -> Report:
        extra_data = item[3] | item[5]
        return self._executor.run(item[2], item[1], extra_data, item[4])
