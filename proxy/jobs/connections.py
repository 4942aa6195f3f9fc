"""Counts the gate's connections to each ComfyUI: what was seen in an earlier one may be gone since."""

from __future__ import annotations


class Connections:
    """By the name of the ComfyUI; 0 before the first."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def to(self, comfyui: str) -> int:
        return self._counts.get(comfyui, 0)

    def made(self, comfyui: str) -> None:
        self._counts[comfyui] = self.to(comfyui) + 1
