"""A gate as `comfygate serve` runs it, which tells for each line on its standard input what it holds: `python -m bench.soakgate CONFIG`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from collections import Counter
from pathlib import Path

from proxy.app import Gate
from proxy.commands.serving import run, stop_event
from proxy.config import load_config
from proxy.config_watcher import watch
from proxy.observability.access_log import request_log, set_up_logging


async def _serve(file: Path) -> None:
    stop = stop_event()
    config = load_config(file)
    set_up_logging(config.log)
    gate = Gate(config, request_log("json"))
    await gate.start()

    async def reload() -> None:
        await gate.reload(file)

    watching = asyncio.get_running_loop().create_task(watch(file, reload), name="config watch")
    loop = asyncio.get_running_loop()
    threading.Thread(target=_answer, args=(loop, stop), daemon=True).start()
    print(json.dumps({"public": gate.public.url, "ops": gate.ops.url}), flush=True)
    await stop.wait()
    watching.cancel()
    await gate.stop()


def _answer(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    for _ in sys.stdin:
        print(asyncio.run_coroutine_threadsafe(_held(), loop).result(), flush=True)
    loop.call_soon_threadsafe(stop.set)


async def _held() -> str:
    gc.collect()
    tasks = Counter(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())
    named = Counter[str]()
    for name, count in tasks.items():
        named["(unnamed)" if name.startswith("Task-") else name] += count
    return json.dumps({"tasks": named, "descriptors": len(os.listdir("/proc/self/fd"))})


if __name__ == "__main__":
    run(lambda: _serve(Path(sys.argv[1])))
