"""What an API key of a gate looks like. Pure: it knows no key."""

from __future__ import annotations

import re
from typing import Final

KEY_FORM: Final = re.compile(r"cg_([0-9a-f]{8,32})_[A-Za-z0-9_-]{43}")
"""Group 1 is the id, which is not secret."""
