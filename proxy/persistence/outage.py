"""Tells the operator that the database cannot be used, and later that it can: once each, however many calls fail meanwhile."""

from __future__ import annotations

import logging

_log = logging.getLogger("comfygate")


class Outage:
    """place: of the database, without a password."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._is_out = False

    def begins(self, why: object) -> None:
        if not self._is_out:
            self._is_out = True
            _log.error("the database %s cannot be written: %s", self._place, why)

    def is_over(self) -> None:
        if self._is_out:
            self._is_out = False
            _log.warning("the database %s can be written again", self._place)
