"""How many files the system lets the process open: each connection is one, and most have another one behind them, to ComfyUI or on the disk."""

from __future__ import annotations

import logging
import sys
from typing import Final

FILES_EACH: Final = 2
"""Of a connection."""
OWN_FILES: Final = 256
"""What the gate has open besides: databases, logs, listeners, other processes, sockets to each ComfyUI."""

_log = logging.getLogger("comfygate")


def connections_for(wanted: int) -> int:
    """How many connections there may be, as many as are wanted at most. Raises the soft limit of open files (RLIMIT_NOFILE) as far as they need it.

    SECURITY: a gate that may open no more files answers nobody, and shells and containers often permit 1,024 (tests/security/test_open_files.py).
    """
    if sys.platform == "win32":
        return wanted
    import resource

    needed = OWN_FILES + FILES_EACH * wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if most > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):  # macOS permits fewer than its hard limit says
            most = soft
    found = max(1, min(wanted, (max(most, soft) - OWN_FILES) // FILES_EACH))
    if found < wanted:
        _log.warning(
            "the system lets the gate open %d files, so it takes %d connections and not the %d of server.max_connections: "
            "raise LimitNOFILE of its unit, `ulimit -n` of its shell, or nofile of its container",
            max(most, soft),
            found,
            wanted,
        )
    return found
