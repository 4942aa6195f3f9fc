"""Where an asset's bytes are asked for: in the tenant's own folder, whatever its record says."""

from __future__ import annotations

import pytest

from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.v2.asset_files import stored_file
from policy.v2.assets import Asset

NAMES = Namespace(TenantId("alice"))


def asset(folder: Folder, path: str) -> Asset:
    return Asset("id", "shown.png", "image/png", 3, None, 0.0, folder=folder, path=path, stamp="1-3")


@pytest.mark.parametrize(
    ("folder", "path", "upstream"),
    [
        (Folder.INPUT, "api-v2/x/a.png", "tenants/alice/api-v2/x/a.png"),
        (Folder.OUTPUT, "a_00001_.png", "tenants/alice/a_00001_.png"),
        (Folder.OUTPUT, "tenants/mallory/a.png", "tenants/alice/tenants/mallory/a.png"),
        (Folder.TEMP, "hers.png", "hers.png"),
        (Folder.TEMP, "foreign.png", "tenants/alice/foreign.png"),
    ],
)
def test_the_file_is_the_tenants_own(folder: Folder, path: str, upstream: str) -> None:
    found = stored_file(asset(folder, path), NAMES, {"hers.png"}.__contains__, "HEAD")
    assert (found.folder, found.path, found.stamp) == (folder, upstream, "1-3")
    where, _, name = upstream.rpartition("/")
    assert (found.call.method, found.call.segments) == ("HEAD", ("view",))
    assert dict(found.call.query) == {"filename": name, "subfolder": where, "type": folder.value}


def test_a_text_is_no_file() -> None:
    with pytest.raises(AssertionError):
        stored_file(Asset("id", "text.txt", "text/plain", 3, None, 0.0), NAMES, bool, "GET")
