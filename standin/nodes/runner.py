"""What a node class is to the executor, and what the executor offers to a node that runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from PIL import Image

from standin.events import Preview
from standin.folders import Folders

Pictures = list[Image.Image]


class Interrupted(Exception):
    """Somebody asked to stop the running job."""


class Interrupt:
    """The one interrupt flag of the process: whoever runs next is hit, unless the start of a prompt cleared it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._is_final = False

    def request(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    def close(self) -> None:
        """From now on everything is interrupted."""
        self._is_final = True

    def check(self) -> None:
        if self._event.is_set() or self._is_final:
            self._event.clear()
            raise Interrupted


@dataclass(frozen=True)
class Context:
    """`progress(value, total, preview)` and `check_interrupt()` raise Interrupted."""

    folders: Folders
    node_id: str
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    progress: Callable[[float, float, Preview | None], None]
    check_interrupt: Callable[[], None]
    tell_text: Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    values: tuple[Any, ...] = ()
    ui: dict[str, list[Any]] = field(default_factory=dict)


class Runner:
    """One instance lives per (node id, class) for as long as successive prompts contain that pair."""

    # Inputs that the class checks itself, in place of the list and range checks.
    validated: ClassVar[tuple[str, ...]] = ()
    # Whether `fingerprint` takes part in the cache key (IS_CHANGED, fingerprint_inputs).
    has_fingerprint: ClassVar[bool] = False
    has_lazy_inputs: ClassVar[bool] = False

    def __init__(self, folders: Folders) -> None:
        self.folders = folders

    @classmethod
    def validate(cls, folders: Folders, *args: Any, **values: Any) -> bool | str:
        return True

    @classmethod
    def fingerprint(cls, folders: Folders, *args: Any, **values: Any) -> Any:
        return False

    def wanted_inputs(self, **values: Any) -> list[str]:
        """Names of lazy inputs that are needed and not there yet."""
        return []

    def run(self, context: Context, *args: Any, **inputs: Any) -> Outcome:
        raise NotImplementedError
