"""`[jobs]`: what it takes, and a sentence for each way of being wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config import Config, ConfigError, load_config

WHOLE_NUMBER = "input should be a valid integer"
SIZE = 'write a size such as "8MiB", "100MB" or a number of bytes'
DURATION = "write a duration such as 30s, 5m, 24h or 90d"


def read(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "config.toml"
    file.write_text(f"[jobs]\n{text}\n")
    return load_config(file, {})


def test_what_is_kept_and_given_by_default(tmp_path: Path) -> None:
    jobs = read(tmp_path, "").jobs

    assert (jobs.window, jobs.retry_interrupted) == (2, True)
    assert (jobs.history, jobs.history_jobs, jobs.history_bytes) == (30 * 86400, 10_000, 512 * 1024**2)


def test_what_the_operator_says(tmp_path: Path) -> None:
    jobs = read(
        tmp_path,
        'window = 1\nhistory = "12h"\nhistory_jobs = 1\nhistory_bytes = "2GiB"\nretry_interrupted = false',
    ).jobs

    assert (jobs.window, jobs.retry_interrupted) == (1, False)
    assert (jobs.history, jobs.history_jobs, jobs.history_bytes) == (43200, 1, 2 * 1024**3)


@pytest.mark.parametrize(
    ("name", "written", "words"),
    [
        ("window", "0", "input should be greater than or equal to 1"),
        ("window", "65", "input should be less than or equal to 64"),
        ("window", "1.5", WHOLE_NUMBER),
        ("window", '"2"', WHOLE_NUMBER),
        ("window", "true", WHOLE_NUMBER),
        ("history", '"30"', f'{DURATION}: "30" may mean 30d or 30s'),
        ("history", '"for ever"', DURATION),
        ("history", '"0s"', "input should be greater than 0"),
        ("history", "1e300", "input should be less than or equal to 3155760000"),
        ("history_jobs", "0", "input should be greater than or equal to 1"),
        ("history_jobs", "10000001", "input should be less than or equal to 10000000"),
        ("history_jobs", '"all"', WHOLE_NUMBER),
        ("history_bytes", '"lots"', SIZE),
        ("history_bytes", "-1", SIZE),
        ("history_bytes", "0", "input should be greater than or equal to 1"),
        ("history_bytes", '"2000TiB"', "input should be less than or equal to 1125899906842624"),
        ("retry_interrupted", '"yes"', "input should be a valid boolean"),
        ("retry_interrupted", "1", "input should be a valid boolean"),
        ("windows", "2", "unknown key"),
    ],
)
def test_each_way_of_being_wrong_has_a_sentence(tmp_path: Path, name: str, written: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, f"{name} = {written}")

    assert [(found.path, found.line, found.message) for found in error.value.mistakes] == [(f"jobs.{name}", 2, words)]


@pytest.mark.parametrize("written", ["5", '"x"', "[1]"])
def test_a_section_that_is_none(tmp_path: Path, written: Any) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"jobs = {written}\n")

    with pytest.raises(ConfigError) as error:
        load_config(file, {})

    assert [found.path for found in error.value.mistakes] == ["jobs"]
