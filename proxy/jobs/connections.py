"""Counts the gate's connections to each ComfyUI: what was seen in an earlier one may be gone since."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Connections:
    """By the name of the ComfyUI; 0 before the first."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._since_s: dict[str, float] = {}

    def to(self, comfyui: str) -> int:
        return self._counts.get(comfyui, 0)

    def made(self, comfyui: str) -> None:
        self._counts[comfyui] = self.to(comfyui) + 1
        self._since_s[comfyui] = self._clock()

    def over(self, comfyui: str) -> None:
        """There is none."""
        self._since_s.pop(comfyui, None)

    def is_there(self, comfyui: str) -> bool:
        return comfyui in self._since_s

    def lasts_s(self, comfyui: str) -> float:
        """How long the one that is there has lasted."""
        return max(0.0, self._clock() - self._since_s.get(comfyui, math.inf))
