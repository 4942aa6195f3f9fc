"""Sizes in bytes as people write them. Read when the configuration is, for every section alike."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ByteSize, TypeAdapter

# ByteSize alone takes more than it should: of "1,5MiB" it reads the 1, and it knows units of bits.
_SIZE: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?\s*([KMGT]i?B|B)?", re.IGNORECASE)
_BYTES: Final = TypeAdapter(ByteSize)


def parse_size(text: Any) -> int:
    """Bytes from "8MiB", "1.5 GB" or a whole number; what is left of a byte is dropped. Raises ValueError."""
    if type(text) is int and text >= 0:
        return text
    written = text.strip() if isinstance(text, str) else ""
    if not _SIZE.fullmatch(written):
        raise ValueError('write a size such as "8MiB", "100MB" or a number of bytes')
    return int(_BYTES.validate_python(written))


Size = Annotated[int, BeforeValidator(parse_size)]
"""Bytes."""
