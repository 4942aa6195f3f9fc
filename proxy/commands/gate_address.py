"""The address of a gate, as a person types it for a command."""

from __future__ import annotations

from yarl import URL


def read_gate_address(text: str) -> URL:
    """Without a slash at its end. Raises ValueError, whose text says what to write."""
    try:
        address = URL(text.rstrip("/"))
    except ValueError:
        address = URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError(
            f"{text!r} is no address of a gate. Give it alone, as in https://comfy.example.com, or http://127.0.0.1:8190 on its own machine."
        )
    return address
