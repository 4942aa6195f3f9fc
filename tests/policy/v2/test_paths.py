"""Which requests get the API's envelope. ComfyUI's /api/v2/userdata is none of them, nor is whatever begins alike."""

from __future__ import annotations

import pytest

from policy.v2.paths import is_v2


@pytest.mark.parametrize(
    "path",
    [
        *("/api/v2/jobs", "/api/v2/jobs/", "/api/v2/jobs?limit=1", "/api/v2/jobs/1/events", "/api/v2/jobs//"),
        *("/api/v2/assets", "/api/v2/assets/by-hash/blake3:00", "/api/v2/assets?x", "/api/v2/jobs/../userdata"),
    ],
)
def test_these_are_of_the_api(path: str) -> None:
    assert is_v2(path)


@pytest.mark.parametrize(
    "path",
    [
        *("/api/v2/userdata", "/api/v2/userdata?path=jobs", "/api/v2x", "/api/v2", "/api/v2/", "/api/v2/jobsx"),
        *("/api/v2/assetsx/", "/api/v2/job", "/v2/jobs", "/v2/manager/queue", "/api/jobs", "/api/assets", "/", ""),
        *("//api/v2/jobs", "/x/api/v2/jobs", "/api/v2/x/jobs", "/api/v2/jobs;x", "/api/v2/jobs\n", "/API/v2/jobs"),
    ],
)
def test_these_are_not(path: str) -> None:
    assert not is_v2(path)
