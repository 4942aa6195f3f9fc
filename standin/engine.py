"""Everything that a restart of ComfyUI loses: queue, history, counter, running job, websockets and their ids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from standin.events import Events, SocketFrame
from standin.folders import Folders
from standin.logs import LogBuffer
from standin.promptqueue import PromptQueue
from standin.worker import Worker


@dataclass
class Life:
    """What lives from one start of ComfyUI to the next."""

    events: Events
    logs: LogBuffer
    queue: PromptQueue
    worker: Worker
    number: int = 0


class Engine:
    def __init__(self, folders: Folders, frames_received: list[SocketFrame]) -> None:
        self.folders = folders
        self.frames_received = frames_received
        self._retired: list[Life] = []
        self.life = self._new_life()

    def _new_life(self) -> Life:
        events = Events(lambda: queue.remaining(), self.frames_received)
        queue = PromptQueue(events.announce_queue)
        worker = Worker(self.folders, events, queue, self.log)
        return Life(events, LogBuffer(events), queue, worker)

    @property
    def events(self) -> Events:
        return self.life.events

    @property
    def logs(self) -> LogBuffer:
        return self.life.logs

    @property
    def queue(self) -> PromptQueue:
        return self.life.queue

    def log(self, message: str) -> None:
        self.logs.write(datetime.now().isoformat(), f"{message}\n")

    def next_number(self) -> int:
        number, self.life.number = self.life.number, self.life.number + 1
        return number

    def interrupt(self) -> None:
        self.life.worker.interrupt.request()

    def start(self) -> None:
        self.life.events.start()
        self.life.worker.start()

    async def stop(self) -> None:
        for life in (*self._retired, self.life):
            await life.worker.stop()
            await life.events.stop()
        self._retired.clear()

    def reset(self) -> None:
        """As after a restart of the process, except that plain HTTP connections stay."""
        self.life.worker.leave()
        self.life.events.retire()
        self._retired.append(self.life)
        self.folders.empty_temp()
        self.life = self._new_life()
        self.start()
