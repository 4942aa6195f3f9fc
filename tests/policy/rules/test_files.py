from __future__ import annotations

import pytest

from policy.namespace import Folder
from policy.rules.files import find_file, find_plain, find_shared, find_source, view
from policy.violation import Reason
from tests.policy.names import HOSTILE
from tests.policy.tenants import Jobs, caller_of, is_refused, request_of

TEMP = "ComfyUI_temp_abcde_00001_.png"
HEX = "0123456789abcdef" * 2
ALICE = caller_of("alice", jobs=Jobs(temp={TEMP, "api_logs/a.txt", f"preview3d_{HEX}.glb"}))
OWN = "filename=x.png&subfolder=tenants/alice"


def target(**query: str) -> str:
    return view(request_of(ALICE, query=query)).target


@pytest.mark.parametrize(
    ("query", "upstream"),
    [
        ({"filename": "x.png"}, f"{OWN}&type=output"),
        ({"filename": "x.png", "type": "input", "rand": "0.25"}, f"{OWN}&type=input"),
        ({"filename": "x.png", "subfolder": "a/b"}, f"{OWN}/a/b&type=output"),
        ({"filename": "x.png", "subfolder": ""}, f"{OWN}&type=output"),
        ({"filename": "x.png [output]", "type": "input"}, f"{OWN}&type=output"),
        ({"filename": "x.png [input]", "subfolder": "a"}, f"{OWN}/a&type=input"),
        ({"filename": "x.png", "type": "temp"}, f"{OWN}&type=temp"),
        ({"filename": TEMP, "type": "temp"}, f"filename={TEMP}&subfolder=&type=temp"),
        ({"filename": f"{TEMP} [temp]"}, f"filename={TEMP}&subfolder=&type=temp"),
        ({"filename": "a.txt", "subfolder": "api_logs", "type": "temp"}, "filename=a.txt&subfolder=api_logs&type=temp"),
        ({"filename": TEMP}, f"filename={TEMP}&subfolder=tenants/alice&type=output"),
        ({"filename": f"preview3d_{HEX}.glb"}, f"filename=preview3d_{HEX}.glb&subfolder=&type=output"),
        ({"filename": "example.png", "type": "input"}, "filename=example.png&subfolder=&type=input"),
        ({"filename": "a.png", "subfolder": "shared", "type": "input"}, "filename=a.png&subfolder=shared&type=input"),
        ({"filename": "example.png"}, "filename=example.png&subfolder=tenants/alice&type=output"),
        ({"filename": "100% a&b.png"}, "filename=100%25%20a%26b.png&subfolder=tenants/alice&type=output"),
        ({"filename": "x.png", "subfolder": "foo/"}, f"{OWN}/foo&type=output"),
        ({"filename": "x.png", "subfolder": "."}, f"{OWN}&type=output"),
        ({"filename": "x.png", "subfolder": "foo\\bar"}, f"{OWN}/foo/bar&type=output"),
        ({"filename": "x.png", "subfolder": "tenants/alice/a"}, f"{OWN}/a&type=output"),
        ({"filename": "blake3:00"}, "filename=~%3Dblake3%3D3A00&subfolder=tenants/alice&type=output"),
        ({"filename": "16:9\uff1f.png"}, "filename=16:9%EF%BC%9F.png&subfolder=tenants/alice&type=output"),
        ({"filename": "x.png", "preview": "webp;80"}, f"{OWN}&type=output&preview=webp%3B80"),
        ({"filename": "x.png", "preview": "jpeg"}, f"{OWN}&type=output&preview=jpeg%3B90"),
        ({"filename": "x.png", "preview": ""}, f"{OWN}&type=output&preview=webp%3B90"),
        ({"filename": "x.png", "preview": "tiff;1"}, f"{OWN}&type=output&preview=webp%3B1"),
        ({"filename": "x.png", "preview": "jpeg;0"}, f"{OWN}&type=output&preview=jpeg%3B0"),
        ({"filename": "x.png", "preview": "jpeg;080"}, f"{OWN}&type=output&preview=jpeg%3B80"),
        ({"filename": "x.png", "preview": "jpeg;q=80"}, f"{OWN}&type=output&preview=jpeg%3B90"),
        ({"filename": "x.png", "preview": "jpeg;\u00b2"}, f"{OWN}&type=output&preview=jpeg%3B90"),
        ({"filename": "x.png", "preview": "JPEG;5;70"}, f"{OWN}&type=output&preview=webp%3B70"),
        ({"filename": "x.png", "preview": "50"}, f"{OWN}&type=output&preview=webp%3B50"),
        ({"filename": "x.png", "channel": "rgb"}, f"{OWN}&type=output&channel=rgb"),
        ({"filename": "x.png", "channel": "evil"}, f"{OWN}&type=output"),
    ],
)
def test_a_view_is_of_ones_own(query: dict[str, str], upstream: str) -> None:
    assert target(**query) == f"/view?{upstream}"


@pytest.mark.parametrize(
    "query",
    [
        {"filename": "secret.png", "subfolder": "tenants/bob"},
        {"filename": "secret.png [output]", "subfolder": "tenants/bob", "type": "input"},
        {"filename": "ComfyUI_temp_abcde_00002_.png", "type": "temp"},
        {"filename": "secret.png", "type": "input"},
    ],
)
def test_a_neighbours_file_is_asked_for_in_ones_own_folder(query: dict[str, str]) -> None:
    assert "subfolder=tenants/alice" in target(**query)


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\ud800" not in name])
def test_hostile_names_are_refused(name: str) -> None:
    for query in ({"filename": name}, {"filename": "x.png", "subfolder": name}):
        assert is_refused(view, request_of(ALICE, query=query), reason=Reason.NAME_REFUSED)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({}, Reason.QUERY_MALFORMED),
        ({"filename": ""}, Reason.QUERY_MALFORMED),
        ({"filename": "a/x.png"}, Reason.NAME_REFUSED),
        ({"filename": "x.pngZ[output]"}, Reason.NAME_REFUSED),
        ({"filename": "a\\x.png"}, Reason.NAME_REFUSED),
        ({"filename": "x.png", "type": "models"}, Reason.NAME_REFUSED),
        ({"filename": "x.png", "type": ""}, Reason.NAME_REFUSED),
        ({"filename": "x.png", "subfolder": "/srv/output"}, Reason.NAME_REFUSED),
        ({"filename": "x.png", "preview": "webp;101"}, Reason.QUERY_MALFORMED),
        ({"filename": "x.png", "preview": "webp;9999"}, Reason.QUERY_MALFORMED),
        ({"filename": "x.png", "preview": f"webp;{'9' * 5000}"}, Reason.QUERY_MALFORMED),
    ],
)
def test_other_queries_are_refused(query: dict[str, str], reason: Reason) -> None:
    assert is_refused(view, request_of(ALICE, query=query), reason=reason)


def test_the_method_stays() -> None:
    assert view(request_of(ALICE, method="HEAD", query={"filename": "x.png"})).method == "HEAD"


def test_the_file_is_told_for_reading_it_from_disk() -> None:
    request = request_of(ALICE, query={"filename": "x.png [temp]", "subfolder": "a"})
    assert find_file(request) == (Folder.TEMP, "tenants/alice/a/x.png")


@pytest.mark.parametrize(
    ("query", "is_plain"),
    [
        ({}, True),
        ({"channel": "rgba"}, True),
        ({"channel": "a"}, False),
        ({"channel": "rgb"}, False),
        ({"preview": "webp"}, False),
    ],
)
def test_only_plain_views_are_the_bytes_on_disk(query: dict[str, str], is_plain: bool) -> None:
    request = request_of(ALICE, query={"filename": "x.png"} | query)
    file = (Folder.OUTPUT, "tenants/alice/x.png")
    assert find_plain(request) == (file if is_plain else None)
    assert find_source(request) == (None if is_plain else file)


@pytest.mark.parametrize(
    ("query", "shared"),
    [
        ({"filename": TEMP, "type": "temp"}, TEMP),
        ({"filename": f"{TEMP} [temp]", "preview": "webp"}, TEMP),
        ({"filename": "a.txt", "subfolder": "api_logs", "type": "temp"}, "api_logs/a.txt"),
        ({"filename": "x.png", "type": "temp"}, None),
        ({"filename": TEMP}, None),
        ({"filename": "example.png", "type": "input"}, None),
    ],
)
def test_a_temp_file_among_everybodys_is_told(query: dict[str, str], shared: str | None) -> None:
    assert find_shared(request_of(ALICE, query=query)) == shared
