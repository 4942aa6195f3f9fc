"""ComfyUIs that leave: taken out of the configuration, and followed until they have no jobs. So a gate that is restarted meanwhile knows them still."""

from __future__ import annotations

from proxy.persistence.operations import Operation, Statement


def note_leaving(comfyui: str, settings: str) -> Operation[None]:
    """settings: by which it is followed, as JSON."""
    yield Statement(
        "INSERT INTO leaving_comfyuis VALUES (?, ?) ON CONFLICT (comfyui) DO UPDATE SET settings = excluded.settings",
        (comfyui, settings),
    )


def forget_leaving(comfyui: str) -> Operation[None]:
    """It has gone, or stays."""
    yield Statement("DELETE FROM leaving_comfyuis WHERE comfyui = ?", (comfyui,))


def leaving() -> Operation[dict[str, str]]:
    """Their settings, by name."""
    return dict((yield Statement("SELECT comfyui, settings FROM leaving_comfyuis ORDER BY comfyui")))
