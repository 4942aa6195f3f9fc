"""The file as a whole: every mistake at once, each with its key path and line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from proxy.config import Config, ConfigError, load_config
from proxy.config.reader import Mistake, check_config

ROOT = Path(__file__).resolve().parents[3]
HASH = "sha256:" + "0" * 64


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ or {})


def mistakes(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[tuple[int | None, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ)
    return [(mistake.line, mistake.path, mistake.message) for mistake in caught.value.mistakes]


def test_an_empty_file_is_closed(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert (config.keys, config.tenants, config.jwt, config.cloudflare_access) == ((), {}, {}, None)
    assert config.policies["default"].allow == ()
    assert (config.server.host, config.ops.host) == ("127.0.0.1", "127.0.0.1")
    assert config.limits.named["default"].requests == "600/minute"
    assert config.file == tmp_path / "config.toml"


def test_the_shipped_file_is_good_and_names_every_setting() -> None:
    text = (ROOT / "config.toml").read_text(encoding="utf-8")
    config = load_config(ROOT / "config.toml", {})
    assert config.server == Config().server
    assert config.ops == Config().ops
    assert config.upstream == Config().upstream
    assert config.limits.logins == Config().limits.logins
    for model in (
        config.server,
        config.ops,
        config.upstream,
        config.log,
        config.sessions,
        config.limits.named["default"],
        config.limits.logins,
    ):
        missing = [name for name in type(model).model_fields if f"{name} = " not in text]
        assert not missing, type(model).__name__


def test_it_is_frozen(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    for model, name in ((config, "keys"), (config.server, "port"), (config.limits.named["default"], "requests")):
        assert isinstance(model, BaseModel)
        with pytest.raises(ValidationError):
            setattr(model, name, None)


MANY = f"""\
colour = "red"
[server]
port = 99999
max_prompt_bytes = "8 parsecs"
trusted_proxies = ["10.0.0.0/8", "not a network"]
hots = "typo"
[ops]
port = "x"
[upstream]
url = "https://far.example/path"
[tenants.acme]
policy = "nonexistent"
limits = "nowhere"
[tenants.Bad]
[[keys]]
id = "7f3a9c21"
hash = "{HASH}"
tenant = "ghost"
[[keys]]
id = "7f3a9c21"
hash = "plain text"
tenant = "acme"
limits = "none such"
role = "root"
[limits.default]
requests = "often"
[policies.strict.inputs]
"KSampler.steps" = {{ max = "x" }}
[log]
level = "loud"
"""


def test_all_mistakes_are_told_at_once_with_path_and_line(tmp_path: Path) -> None:
    found = mistakes(tmp_path, MANY)
    lines = MANY.splitlines()
    expected = {
        "colour": "colour",
        "server.port": "port = 99999",
        "server.max_prompt_bytes": "max_prompt_bytes",
        "server.trusted_proxies[1]": "trusted_proxies",
        "server.hots": "hots",
        "ops.port": 'port = "x"',
        "upstream.url": "url",
        "tenants.acme.policy": "policy",
        "tenants.acme.limits": 'limits = "nowhere"',
        "tenants.Bad": "[tenants.Bad]",
        "keys[0].tenant": 'tenant = "ghost"',
        "keys[1].id": 'id = "7f3a9c21"',
        "keys[1].hash": 'hash = "plain',
        "keys[1].limits": 'limits = "none',
        "keys[1].role": "role",
        "limits.default.requests": "requests",
        "policies.strict.inputs.KSampler.steps.max": '"KSampler.steps"',
        "log.level": "level",
    }
    assert {path for _, path, _ in found} == set(expected)
    for line, path, message in found:
        begin = expected[path]
        assert line is not None
        assert message
        assert lines[line - 1].startswith(begin), (path, line)
    by_path = {path: (line, message) for line, path, message in found}
    assert by_path["keys[1].id"][0] == len(lines) - lines[::-1].index('id = "7f3a9c21"')
    assert by_path["colour"][1] == "unknown key"
    assert by_path["keys[0].tenant"][1] == "there is no [tenants.ghost]"


def test_values_of_secrets_are_not_told(tmp_path: Path) -> None:
    secret = "cg_7f3a9c21_" + "s" * 43
    found = mistakes(tmp_path, f'[tenants.acme]\n[[keys]]\nid = "{secret}"\nhash = "{secret}"\ntenant = "acme"\n')
    assert secret not in str(found)


@pytest.mark.parametrize("name", ["strict", "street", "str", "function-room", "named", "tuple"])
def test_names_of_the_operators_choice_stay_in_the_path(tmp_path: Path, name: str) -> None:
    found = mistakes(tmp_path, f'[policies.{name}]\nmax_nodes = "x"\n[tenants.{name}]\ncolour = 1\n')
    assert [(line, path) for line, path, _ in found] == [
        (4, f"tenants.{name}.colour"),
        (2, f"policies.{name}.max_nodes"),
    ]


@pytest.mark.parametrize(
    ("text", "path", "line", "words"),
    [
        ("[server\n", "", 1, "is not TOML"),
        ("a = 1\na = 2\n", "", 2, "is not TOML"),
        ('x = "\n', "", 1, "is not TOML"),
        ("server = 5\n", "server", 1, ""),
        ("[[server]]\n", "server", 1, ""),
        ("keys = 5\n", "keys", 1, ""),
        ("keys = [1]\n", "keys[0]", 1, ""),
        ("tenants = 5\n", "tenants", 1, ""),
        ("policies = 5\n", "policies", 1, ""),
        ("limits = 5\n", "limits", 1, ""),
        ("[limits.storage]\na = 1\n", "limits.storage", 1, ""),
        ('[limits]\nstorage = "disk"\n', "limits.storage", 2, "redis://"),
        ('[limits]\nstorage = "redis://x"\nstorage_file = "y"\n', "limits", 1, "not both"),
        ('[jobs]\ndatabase = "state.sqlite3"\n', "jobs.database", 2, "postgresql://"),
        ('[jobs]\ndatabase = "postgresql://h/d"\ndatabase_file = "y"\n', "jobs", 1, "not both"),
        ("[tenants]\nacme = 5\n", "tenants.acme", 2, ""),
        ('file = "x"\n', "file", 1, "unknown key"),
        ('[server]\nport = 8190\n[ops]\nport = 8190\n', "", None, "ops.port must differ"),
        ("[[keys]]\n", "keys[0].id", 1, "is missing"),
        ('[[keys]]\nid = ["x"]\nhash = 1\ntenant = ["a"]\n', "keys[0].id", 2, ""),
        ('[server]\npublic_url = "ftp://x"\n', "server.public_url", 2, "origin"),
        ("[server]\nkeepalive_timeout = 0\n", "server.keepalive_timeout", 2, "greater than 0"),
        ("[server]\nbody_timeout = inf\n", "server.body_timeout", 2, "duration"),
        ('[upstream]\nupload_types = ["exe"]\n', "upstream.upload_types[0]", 2, "'image'"),
        ('[cloudflare_access]\nteam_domain = "t.cloudflareaccess.com"\naudience = "x"\nemails = { "a@b" = "ghost" }\n',
         "cloudflare_access.emails.a@b", 4, "there is no [tenants.ghost]"),
        ('[jwt.main]\nissuer = "i"\naudience = "a"\njwks_url = "https://x"\ntenants = { "A" = "ghost" }\n',
         "jwt.main.tenants.A", 5, "there is no [tenants.ghost]"),
        ('[jwt.main]\nissuer = "i"\naudience = "a"\njwks_url = "https://x"\ntenants = { "A" = ["ghost"] }\n',
         "jwt.main.tenants.A", 5, ""),
        ('[jwt.main]\nissuer = "i"\naudience = 7\njwks_url = "https://x"\n', "jwt.main.audience", 3, ""),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_is(tmp_path: Path, text: str, path: str, line: int | None, words: str) -> None:
    found = mistakes(tmp_path, text)
    assert any((where, number) == (path, line) and words in message for number, where, message in found), found


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "missing.toml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, {})
    file = tmp_path / "latin.toml"
    file.write_bytes(b"[tenants.acme]\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(file, {})


def test_the_environment_stands_in_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"COMFYGATE_UPSTREAM_URL": "http://10.0.0.5:8188", "COMFYGATE_LIMITS_STORAGE": "redis://r:6379/0"}
    config = load(tmp_path, '[upstream]\nurl = "http://127.0.0.1:1"\nconnect_timeout = "2s"\n', environ)
    assert (config.upstream.url, config.upstream.connect_timeout) == ("http://10.0.0.5:8188", 2.0)
    assert config.limits.storage == "redis://r:6379/0"
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert load_config(tmp_path / "config.toml").upstream.url == "http://10.0.0.5:8188"


def test_the_environment_can_be_wrong_too(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "", {"COMFYGATE_UPSTREAM_URL": "ftp://x"})[0][1] == "upstream.url"
    assert mistakes(tmp_path, "upstream = 5\n", {"COMFYGATE_UPSTREAM_URL": "http://x"})[0][:2] == (1, "upstream")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config.resolve(Path("state")) == tmp_path / "state"
    assert config.resolve(Path("/var/lib/x")) == Path("/var/lib/x")


def test_a_mistake_in_words() -> None:
    assert str(Mistake("keys[0].id", 3, "is missing")) == "line 3: keys[0].id: is missing"
    assert str(Mistake("", 3, "is not TOML")) == "line 3: is not TOML"
    assert str(Mistake("a", None, "is odd")) == "a: is odd"
    error = ConfigError(Path("c.toml"), [Mistake("a", 1, "x"), Mistake("b", 2, "y")])
    assert str(error) == "c.toml: line 1: a: x\nc.toml: line 2: b: y"


def test_lines_are_found_however_keys_are_written(tmp_path: Path) -> None:
    text = '["server"]\n"port" = -1 # why\n[ policies . "a b" ] # c\n  max_nodes=0\n[[keys]]\n[[ keys ]]\nid=1\nlog.level = "x"\n'
    lines = {path: line for line, path, _ in mistakes(tmp_path, text)}
    assert (lines["server.port"], lines["policies.a b.max_nodes"], lines["keys[1].id"]) == (2, 4, 7)
    assert lines["keys[0].id"] == 5
    assert lines["keys[1].log"] == 8


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(allow_nan=True) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["default", "acme", "tenant", "id", "hash", "tenants", "policy", "limits", "x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
SECTIONS = st.dictionaries(st.sampled_from([*Config.model_fields, "other"]), VALUES, max_size=5)


def is_decided(document: dict[str, Any], text: str, environ: dict[str, str]) -> bool:
    """Whether the document is taken, or refused with words; anything else is an exception of its own."""
    try:
        return isinstance(check_config(document, Path("c.toml"), text, environ), Config)
    except ConfigError as error:
        return bool(error.mistakes)


@given(SECTIONS, st.booleans())
def test_a_document_of_any_shape_is_taken_or_refused(document: dict[str, Any], has_environ: bool) -> None:
    environ = {"COMFYGATE_UPSTREAM_URL": "http://x", "COMFYGATE_LIMITS_STORAGE": "memory"} if has_environ else {}
    assert is_decided(document, "", environ)


@given(st.text("[]=\".'#\nabk \\", max_size=60))
def test_text_of_any_shape_is_taken_or_refused(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert is_decided(document, text, {})
