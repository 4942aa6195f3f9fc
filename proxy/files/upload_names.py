"""How many files of one name each tenant has uploaded, as far as ComfyUI's answers tell it."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from policy.principal import TenantId
from policy.upload_names import MASK_BYTES, MAX_COPIES, Namesakes, number_of, unnumbered

MAX_NAMES: Final = 1000
"""Of one tenant: names that more than one file has. The longest unused is forgotten, and learned again from the next answer."""


@dataclass(slots=True)
class TenantUploads:
    """SECURITY: an upload that is compared with many others keeps ComfyUI from everybody (tests/security/test_uploads.py)."""

    _names: OrderedDict[str, Namesakes] = field(default_factory=OrderedDict)
    _numbered: OrderedDict[str, dict[int, int]] = field(default_factory=OrderedDict)
    """Of files that came under a name with a number in it: bytes by number, by the name without."""

    def token(self, name: str, size_bytes: int, *, is_mask: bool) -> str | None:
        """What sets a name apart that so many files have that ComfyUI takes long to compare them all; None when it may keep it."""
        numbered = self._numbered.get(name, {})
        known = self._names.get(name, Namesakes()).beside(numbered.values())
        if not known.is_crowded(MASK_BYTES if is_mask else size_bytes):
            return None
        for names in (self._names, self._numbered):
            if name in names:
                names.move_to_end(name)
        return secrets.token_hex(4)

    def stored(self, sent: str, told: str, size_bytes: int, *, is_mask: bool) -> None:
        """ComfyUI stored a file that was sent under a name, and told under which."""
        size_bytes = MASK_BYTES if is_mask else size_bytes
        number = number_of(sent, told)
        if number:
            known = self._names.pop(sent, Namesakes())
            self._names[sent] = known.after(number, size_bytes)
        elif (copy := unnumbered(told)) is not None and copy[1] <= MAX_COPIES:
            numbered = self._numbered.pop(copy[0], {})
            numbered[copy[1]] = max(size_bytes, numbered.get(copy[1], 0))  # there may be one in several folders
            self._numbered[copy[0]] = numbered
        for names in (self._names, self._numbered):
            if len(names) > MAX_NAMES:
                names.popitem(last=False)


@dataclass(slots=True)
class UploadNames:
    _tenants: dict[TenantId, TenantUploads] = field(default_factory=dict)

    def of(self, tenant: TenantId) -> TenantUploads:
        return self._tenants.setdefault(tenant, TenantUploads())
