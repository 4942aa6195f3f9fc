"""A gate or a stand-in that measures its own event loop: `python -m bench.probed gate|standin FILE ...`; SIGUSR1 writes what was seen to FILE and starts over.

Three figures that hold on a loaded machine, where wall-clock times of answers are noise: how late the loop comes back to a timer, without what
the machine made it wait for a processor; how long one
step of a task keeps it, on the wall and in CPU time of its thread (the difference is waiting for the interpreter's lock or for the machine); and of
which kind of request that step was.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, Final

from proxy.app import Gate
from proxy.commands.serving import run, stop_event
from proxy.config import load_config
from proxy.http.request import Request
from proxy.memory import spare_collections
from proxy.observability.access_log import request_log, set_up_logging, standard_error
from proxy.pipeline import Pipeline
from standin import __main__ as standin

TICK_S: Final = 0.005
_KIND: contextvars.ContextVar[str] = contextvars.ContextVar("kind", default="other")


class Probe:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.start_over()

    def start_over(self) -> None:
        self._lags: list[float] = []
        self._own_lags: list[float] = []
        self._kinds: dict[str, list[float]] = {}  # kind: steps, CPU, longest on the wall, longest in CPU
        self._began = (time.perf_counter(), time.process_time(), time.thread_time())

    def stepped(self, wall_s: float, cpu_s: float) -> None:
        kind = self._kinds.setdefault(_KIND.get(), [0, 0.0, 0.0, 0.0])
        kind[0] += 1
        kind[1] += cpu_s
        kind[2] = max(kind[2], wall_s)
        kind[3] = max(kind[3], cpu_s)

    async def tick(self) -> None:
        machine = _RunQueue()
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late_s = max(0.0, time.perf_counter() - began_s - TICK_S)
            self._lags.append(late_s)
            self._own_lags.append(max(0.0, late_s - machine.waited_s()))

    def write(self) -> None:
        lags, own_lags = sorted(self._lags) or [0.0], sorted(self._own_lags) or [0.0]
        wall_s, process_s, loop_s = self._began
        in_all_s = time.process_time() - process_s
        of_loop_s = time.thread_time() - loop_s
        text = json.dumps(
            {
                "seconds": time.perf_counter() - wall_s,
                "lag_p99_s": lags[int(len(lags) * 0.99)],
                "lag_longest_s": lags[-1],
                "own_lag_p99_s": own_lags[int(len(own_lags) * 0.99)],
                "own_lag_longest_s": own_lags[-1],
                "loop_cpu_s": of_loop_s,
                "threads_cpu_s": in_all_s - of_loop_s,
                "kinds": self._kinds,
            }
        )
        whole = self._file.with_suffix(".part")
        whole.write_text(text, encoding="utf-8")
        whole.replace(self._file)
        self.start_over()


class _RunQueue:
    """How long this thread was ready and had no processor: /proc/PID/task/TID/schedstat, the second number, in ns. Elsewhere than on Linux: never."""

    def __init__(self) -> None:
        self._file = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._last_s = self._total_s()

    def _total_s(self) -> float:
        try:
            return int(self._file.read_text(encoding="ascii").split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def waited_s(self) -> float:
        """Since it was last asked."""
        last_s, self._last_s = self._last_s, self._total_s()
        return self._last_s - last_s


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are timed."""

    def __init__(self, inner: Coroutine[Any, Any, Any], probe: Probe) -> None:
        self._inner = inner
        self._probe = probe

    def send(self, value: Any) -> Any:
        began_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            return self._inner.send(value)
        finally:
            self._probe.stepped(time.perf_counter() - began_s, time.thread_time() - cpu_s)

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


async def probed(work: Coroutine[Any, Any, None], file: Path) -> None:
    """Runs it with a probe in its loop."""
    loop = asyncio.get_running_loop()
    probe = Probe(file)

    def make(loop: asyncio.AbstractEventLoop, inner: Any, **more: Any) -> asyncio.Task[Any]:
        return asyncio.Task(_Stepped(inner, probe), loop=loop, **more)

    loop.set_task_factory(make)
    loop.add_signal_handler(signal.SIGUSR1, probe.write)
    ticking = asyncio.Task(probe.tick(), loop=loop)
    try:
        await asyncio.Task(_Stepped(work, probe), loop=loop)
    finally:
        ticking.cancel()


class KnownPipeline(Pipeline):
    """Tells the probe what kind of request a step is of."""

    async def handle(self, request: Request) -> None:
        _KIND.set(f"{request.method} /{request.raw_path.partition('?')[0].split('/')[1][:20]}")
        await super().handle(request)


async def _gate(file: Path) -> None:
    stop = stop_event()
    config = load_config(file)
    lines = standard_error()
    set_up_logging(config.log, lines)
    gate = Gate(config, request_log("json", lines))
    gate.pipeline = KnownPipeline(gate.dependencies)
    await gate.start()
    spare_collections()
    gate.audit.use_thread()
    await stop.wait()
    await gate.stop()


def start(what: str, file: Path, *arguments: str) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        if what == "gate":
            run(lambda: probed(_gate(Path(arguments[0])), file))
        else:
            asyncio.run(probed(standin.run(arguments), file))


if __name__ == "__main__":
    start(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
