"""Every mistake in keys, sessions, issuers, policies and pinned workflows is one of the file's, and all are told together."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.compiled_config import compile_config, compile_policies
from proxy.config import ConfigError, load_config

ISSUER = '[jwt.main]\nissuer = "https://i"\naudience = "a"\n'


def mistakes(folder: Path, text: str) -> list[tuple[str, str]]:
    file = folder / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        compile_config(load_config(file, {}))
    assert caught.value.file == file
    return [(mistake.path, mistake.message) for mistake in caught.value.mistakes]


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('[policies.p]\nallow = ["@nothing"]\n', "policies.p", "nothing"),
        ('[policies.p]\nextend = "ghost"\n', "policies.p", "ghost"),
        ('[policies.p]\nworkflows = [{ file = "none.json" }]\n', "policies.p.workflows", "none.json cannot be read"),
        ('[policies.p]\nworkflows = [{ file = "config.toml" }]\n', "policies.p.workflows", "config.toml cannot be read"),
        (f'{ISSUER}public_key_file = "none.pem"\n', "", "none.pem"),
        (f'{ISSUER}secret_file = "none"\nalgorithms = ["HS256"]\n', "", "none"),
        ('[sessions]\nsecret_file = "none"\n', "sessions", "none"),
    ],
)  # fmt: skip
def test_a_mistake_is_the_files(tmp_path: Path, text: str, path: str, words: str) -> None:
    found = mistakes(tmp_path, text)
    assert any(where == path and words in message for where, message in found), found


def test_all_are_told_together(tmp_path: Path) -> None:
    text = f'[sessions]\nsecret_file = "none"\n[policies.p]\nextend = "ghost"\n{ISSUER}public_key_file = "none.pem"\n'
    assert {path for path, _ in mistakes(tmp_path, text)} == {"sessions", "policies.p", ""}


def test_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[tenants.alice]\npolicy = "p"\n[policies.p]\nallow = ["KSampler"]\n[cloudflare_access]\n'
        'team_domain = "t.cloudflareaccess.com"\naudience = "a"\nemails = { "a@b.c" = "alice" }\n'
    )
    config = load_config(file, {})
    book = compile_config(config)
    assert set(book.policies) == {"alice"}
    assert set(compile_policies(config)) == {"default", "p"}
    assert book.access is not None
    assert book.tokens is None
    again = compile_config(config, book)
    assert again.access is not None


def test_policies_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[policies.p]\nextend = "ghost"\n')
    with pytest.raises(ConfigError, match=r"policies\.p"):
        compile_policies(load_config(file, {}))
