"""Two names of one ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config.reader import Config, check_config
from proxy.upstream import aliases
from proxy.upstream.aliases import find_aliases
from tests.ports import listening_everywhere

TABLE = "  sl  local_address rem_address   st tx_queue\n"


def read(folder: Path, *urls: str, directories: tuple[str, ...] = ()) -> Config:
    rows: list[dict[str, Any]] = [{"name": f"gpu-{number}", "url": url} for number, url in enumerate(urls, 1)]
    for row, directory in zip(rows, directories, strict=False):
        row["directory"] = directory
    return check_config({"comfyui": rows}, folder / "config.toml")


@pytest.mark.parametrize(
    ("urls", "place"),
    [
        (("http://localhost:8188", "http://127.0.0.1:8188"), "127.0.0.1:8188"),
        (("http://0.0.0.0:8188", "http://127.0.0.1:8188"), "127.0.0.1:8188"),
        (("http://[::ffff:127.0.0.1]:8188", "http://127.0.0.1:8188"), "127.0.0.1:8188"),
        (("http://[::1]", "http://[0:0::1]:80"), "[::1]:80"),
        (("http://127.0.0.1:8188", "http://127.0.0.1:8189"), None),
        (("http://127.0.0.1:8188", "http://127.0.0.2:8188"), None),
        (("http://127.0.0.1:8188", "http://nowhere.invalid:8188"), None),
    ],
)
async def test_two_urls_that_lead_to_one_place(tmp_path: Path, urls: tuple[str, ...], place: str | None) -> None:
    told = await find_aliases(read(tmp_path, *urls), ())
    if place is None:
        assert told == []
    else:
        assert told == [
            f"gpu-1 and gpu-2 are one ComfyUI: both urls lead to {place}. "
            "Leave one of them out: each takes the other's jobs out of the queue"
        ]


@pytest.mark.parametrize(
    ("row", "is_one"),
    [
        ("   0: 00000000:{port:04X} 00000000:0000 0A 0", True),
        ("   0: 00000000000000000000000000000000:{port:04X} 00000000000000000000000000000000:0000 0A 0", True),
        ("   0: 0100007F:{port:04X} 00000000:0000 0A 0", False),
        ("   0: 00000000:{port:04X} 00000000:0000 01 0", False),
        ("no table", False),
    ],
)
async def test_one_listener_for_all_addresses_of_this_machine(tmp_path: Path, row: str, is_one: bool) -> None:
    table, port = tmp_path / "tcp", 8188
    table.write_text(TABLE + row.format(port=port) + "\n", encoding="ascii")
    config = read(tmp_path, f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}", f"http://192.0.2.1:{port}")
    told = await find_aliases(config, (tmp_path / "missing", table))
    assert [each.partition(" are ")[0] for each in told] == (["gpu-1 and gpu-2"] if is_one else [])


async def test_what_the_system_says_of_its_listeners(tmp_path: Path) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("the system does not tell")
    with listening_everywhere() as listener:
        port = listener.getsockname()[1]
        told = await find_aliases(read(tmp_path, f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"))
    assert len(told) == 1


async def test_one_directory(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "two").mkdir()
    urls = tuple(f"http://127.0.0.1:{port}" for port in (8188, 8189, 8190, 8191))
    config = read(tmp_path, *urls, directories=("one", "link", "two", "missing"))
    [told] = await find_aliases(config, ())
    assert told.startswith("gpu-1 and gpu-2 have one directory, link: leave one of them out")


async def test_a_name_that_is_not_resolved_in_time_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases, "LIMIT_S", 0.0)
    assert await find_aliases(read(tmp_path, "http://localhost:8188", "http://127.0.0.1:8188"), ()) == []


async def test_one_alone_is_no_alias(tmp_path: Path) -> None:
    assert await find_aliases(read(tmp_path, "http://localhost:8188"), ()) == []
