"""What is raised when Redis cannot be asked; apart from what asks it, since a gate without Redis loads nothing of that."""

from __future__ import annotations


class StoreUnavailable(Exception):
    """Redis cannot be asked now: count in memory."""
