"""proxy/files/makers.py: which ComfyUI is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.call import Opaque, UpstreamCall, UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from policy.rules.files import view_of
from proxy.files.makers import Makers
from proxy.jobs.registry import JobRegistry

OTHERS = ("gpu-2", "gpu-3")


@pytest.fixture
def registry() -> JobRegistry:
    found = JobRegistry()
    for comfyui, name in (("gpu-2", "two.png"), ("gpu-1", "one.png"), ("gone", "gone.png")):
        job = found.claim(TenantId("alice"), None)
        job.comfyui = comfyui
        found.add_temp_files(job.prompt_id, (name,))
    return found


@pytest.mark.parametrize(
    ("folder", "path", "expected"),
    [
        (Folder.OUTPUT, "tenants/alice/@gpu-2/x.png", "gpu-2"),
        (Folder.OUTPUT, "tenants/alice/@gpu-3/x.png", ""),
        (Folder.TEMP, "tenants/alice/@gpu-3/x.png", "gpu-3"),
        (Folder.INPUT, "tenants/alice/@gpu-2/x.png", ""),
        (Folder.OUTPUT, "tenants/alice/x.png", ""),
        (Folder.OUTPUT, "tenants/alice/deep/@gpu-2/x.png", ""),
        (Folder.OUTPUT, "tenants/alice/@gone/x.png", ""),
        (Folder.OUTPUT, "@gpu-2/x.png", ""),
        (Folder.TEMP, "two.png", "gpu-2"),
        (Folder.OUTPUT, "two.png", "gpu-2"),
        (Folder.TEMP, "one.png", ""),
        (Folder.TEMP, "gone.png", ""),
        (Folder.TEMP, "nobodys.png", ""),
    ],
)
def test_a_file_is_asked_of_the_one_that_made_it(
    registry: JobRegistry, folder: Folder, path: str, expected: str
) -> None:
    makers = Makers(registry, OTHERS, sharing=("gpu-3",))
    assert makers.of_file(folder, path) == expected
    assert makers.of_call(view_of("GET", folder, UpstreamPath(path))) == expected
    assert Makers(registry).of_file(folder, path) == "", "there is one ComfyUI"


@pytest.mark.parametrize(
    "segments", [("view",), ("tenants", "alice", "@gpu-2"), ("interrupt",), ("http:", "", "elsewhere")]
)
def test_what_a_client_writes_itself_leads_nowhere(registry: JobRegistry, segments: tuple[str, ...]) -> None:
    """A call that no rule has found a file or a job for goes to the first, whatever stands in it."""
    query = (("filename", Opaque("x.png")), ("subfolder", Opaque("tenants/alice/@gpu-2")), ("type", Opaque("output")))
    assert Makers(registry, OTHERS).of_call(UpstreamCall("GET", tuple(map(Opaque, segments)), query)) == ""


def test_a_call_about_a_job_goes_to_the_one_that_has_it(registry: JobRegistry) -> None:
    job = registry.claim(TenantId("alice"), None)
    call = UpstreamCall("POST", (Opaque("interrupt"),), jobs=(job.prompt_id,))
    makers = Makers(registry, OTHERS)
    assert makers.of_call(call) == "", "it is nowhere yet"
    for comfyui, expected in (("gpu-2", "gpu-2"), ("gpu-1", ""), ("gone", "")):
        job.comfyui = comfyui
        assert makers.of_call(call) == expected
    assert makers.of_call(replace(call, jobs=("unknown",))) == ""


@pytest.mark.parametrize(("named", "asked"), [("gpu-2", "gpu-2"), ("gpu-1", ""), ("gone", ""), ("", "")])
def test_a_call_may_name_one_of_them(registry: JobRegistry, named: str, asked: str) -> None:
    assert Makers(registry, OTHERS).of_call(UpstreamCall("GET", (Opaque("models"),), comfyui=named)) == asked


@pytest.mark.parametrize(
    ("folder", "path", "expected"),
    [
        (Folder.OUTPUT, "tenants/alice/@gone/x.png", "gone"),
        (Folder.OUTPUT, "tenants/alice/@never/x.png", ""),
        (Folder.OUTPUT, "tenants/alice/@gpu-2/x.png", ""),
        (Folder.OUTPUT, "tenants/alice/x.png", ""),
        (Folder.OUTPUT, "@gone/x.png", ""),
        (Folder.INPUT, "tenants/alice/@gone/x.png", ""),
    ],
)
def test_what_one_made_that_has_gone_is_known_by_its_name(
    registry: JobRegistry, folder: Folder, path: str, expected: str
) -> None:
    makers = Makers(registry, OTHERS, absent_for={("gone", "alice")})
    assert makers.absent_maker_of(view_of("GET", folder, UpstreamPath(path))) == expected
    assert makers.absent_maker_of(UpstreamCall("GET", (Opaque("view"),))) == ""


@pytest.mark.parametrize(
    ("path", "comfyui", "is_told"),
    [
        ("tenants/alice/@gpu-2/x.png", "gpu-2", True),
        ("tenants/mallory/@gpu-2/x.png", "gpu-2", False),
        ("tenants/alice/@gpu-3/x.png", "gpu-3", False),
        ("tenants/mallory/@gpu-3/x.png", "gpu-3", True),
        ("two.png", "gpu-2", True),
    ],
)
def test_that_one_is_away_is_told_to_those_whose_jobs_it_runs_or_ran(
    registry: JobRegistry, path: str, comfyui: str, is_told: bool
) -> None:
    makers = Makers(registry, OTHERS)
    call = view_of("GET", Folder.OUTPUT, UpstreamPath(path))
    assert makers.is_told(call, comfyui), "each runs everybody's jobs"
    makers.is_open = lambda comfyui, tenant: (comfyui, tenant) == ("gpu-3", "mallory")
    assert makers.is_told(call, comfyui) is is_told
    assert makers.is_told(replace(call, jobs=("some",)), comfyui)
    assert makers.is_told(replace(call, file=None), comfyui)
