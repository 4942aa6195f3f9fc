"""Editing keys in config.toml: what changes, what must not, and what is refused."""

from __future__ import annotations

import stat
import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.principal import Role, Scope
from proxy.auth import key_file
from proxy.auth.api_keys import ApiKeyStore, hash_key
from proxy.auth.key_file import KeyFileError, create_key, list_keys, revoke_key, rotate_key
from proxy.http.errors import Unauthenticated

H1, H2, H3 = (f"sha256:{digit * 64}" for digit in "123")
TOML = f"""# The gate of the studio.
[server]
port = 8190   # behind the tunnel

[tenants.acme]
[tenants.beta]  # the others

# Alice's laptop
[[keys]]
id = "11111111"   # the first
hash = "{H1}"
tenant = "acme"
# role = "admin"

# Bob's key
[[keys]]
id = "22222222"
hash = "{H2}"
tenant = "beta"
role = "admin"
scopes = [
  "jobs:read", # only look
  "files:read",
]
limits = "slow"
note = '''
[[keys]]
# not a comment "'''

# How much
[limits.slow]
requests = "1/minute"

[[keys]]
id = "33333333"
hash = "{H3}"
tenant = "acme"
"""
INLINE = f"""keys = [
  # the first
  {{ id = "11111111", hash = "{H1}", tenant = "acme" }}, # Alice
  {{ id = "22222222", hash = "{H2}", tenant = "acme" }},
]
[tenants.acme] # end
"""
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TOML, encoding="utf-8", newline="")
    return path


def ids_in(file: Path) -> list[str]:
    return [key.id for key in list_keys(file)]


def without_keys(text: str) -> dict[str, object]:
    document = tomllib.loads(text)
    document.pop("keys", None)
    return document


def test_a_created_key_opens_the_gate(file: Path) -> None:
    expires = datetime(2999, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    made = create_key(
        file,
        tenant="beta",
        role=Role.ADMIN,
        scopes=frozenset({Scope.JOBS_READ, Scope.FILES_READ}),
        expires=expires,
        limits="slow",
        note='say "hi"\n\x01é',
    )
    key = list_keys(file)[-1]
    assert (key.id, key.hash, key.tenant, key.role) == (made.id, hash_key(made.text), "beta", Role.ADMIN)
    assert key.scopes == {Scope.JOBS_READ, Scope.FILES_READ}
    assert (key.expires, key.limits, key.note) == (expires.replace(microsecond=0), "slow", 'say "hi"\n\x01é')
    assert ApiKeyStore(list_keys(file)).verify(made.text).tenant == "beta"
    assert made.text not in file.read_text(encoding="utf-8")
    assert made.text not in repr(made)


def test_creating_changes_no_other_byte(file: Path) -> None:
    made = create_key(file, tenant="acme")
    added = f'\n[[keys]]\nid = "{made.id}"\nhash = "{hash_key(made.text)}"\ntenant = "acme"\nrole = "user"\n'
    assert file.read_text(encoding="utf-8") == TOML + added


def test_revoking_removes_the_keys_table_alone(file: Path) -> None:
    assert revoke_key(file, "11111111").hash == H1
    table = f'[[keys]]\nid = "11111111"   # the first\nhash = "{H1}"\ntenant = "acme"\n# role = "admin"\n\n'  # its own comment
    assert file.read_text(encoding="utf-8") == TOML.replace(table, "")
    assert revoke_key(file, "22222222").tenant == "beta"
    text = file.read_text(encoding="utf-8")
    assert "# Bob's key\n# How much\n[limits.slow]" in text
    assert revoke_key(file, "33333333").id == "33333333"
    assert ids_in(file) == []
    assert without_keys(file.read_text(encoding="utf-8")) == without_keys(TOML)


def test_creating_and_revoking_leaves_the_file_as_it_was(file: Path) -> None:
    revoke_key(file, create_key(file, tenant="acme").id)
    assert file.read_text(encoding="utf-8") == TOML


def test_rotating_makes_a_like_key_and_ends_the_old_one(file: Path) -> None:
    made = rotate_key(file, "22222222")
    assert ids_in(file) == ["11111111", "33333333", made.id]
    key = list_keys(file)[-1]
    assert (key.tenant, key.role, key.limits) == ("beta", Role.ADMIN, "slow")
    assert key.scopes == {Scope.JOBS_READ, Scope.FILES_READ}
    assert key.note.startswith("[[keys]]")
    assert key.hash == hash_key(made.text)


def test_rotating_with_grace_lets_both_work_for_a_while(file: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    made = rotate_key(file, "22222222", grace_s=3600)
    keys = {key.id: key for key in list_keys(file)}
    assert list(keys) == ["11111111", "22222222", "33333333", made.id]
    ends = keys["22222222"].expires
    assert ends is not None
    assert before + timedelta(hours=1) <= ends <= datetime.now(UTC) + timedelta(hours=1)
    assert keys[made.id].expires is None
    assert "# Bob's key" in file.read_text(encoding="utf-8")
    assert '"jobs:read", # only look' in file.read_text(encoding="utf-8")


def test_grace_gives_the_old_key_no_more_time(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    soon = (datetime.now(UTC) + timedelta(minutes=5)).replace(microsecond=0)
    text = f'[tenants.a]\n[[keys]]\nid = "11111111"\nhash = "{H1}"\ntenant = "a"\nexpires = {soon:%Y-%m-%dT%H:%M:%SZ} # soon\n'
    file.write_text(text, encoding="utf-8")
    made = rotate_key(file, "11111111", grace_s=86400)
    assert [key.expires for key in list_keys(file)] == [soon, soon]
    assert made.expires == soon
    later = datetime(2999, 1, 1, tzinfo=UTC)
    assert rotate_key(file, "11111111", grace_s=60, expires=later).expires == later
    shortened = list_keys(file)[0].expires
    assert shortened is not None
    assert shortened < soon
    assert "Z # soon" in file.read_text(encoding="utf-8")


def test_an_expired_key_needs_a_new_expiry_to_be_rotated(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    text = f'[tenants.a]\n[[keys]]\nid = "11111111"\nhash = "{H1}"\ntenant = "a"\nexpires = 2001-01-01T00:00:00Z\n'
    file.write_text(text, encoding="utf-8")
    with pytest.raises(KeyFileError, match=r"expired at 2001-01-01 00:00 UTC"):
        rotate_key(file, "11111111")
    assert file.read_text(encoding="utf-8") == text
    assert rotate_key(file, "11111111", expires=datetime(2999, 1, 1, tzinfo=UTC)).tenant == "a"
    assert len(ids_in(file)) == 1


def test_inline_keys_stay_inline_with_their_comments(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(INLINE, encoding="utf-8")
    made = create_key(file, tenant="acme", note="third")
    assert ids_in(file) == ["11111111", "22222222", made.id]
    rotated = rotate_key(file, "11111111", grace_s=60)
    assert list_keys(file)[0].expires is not None
    revoke_key(file, "22222222")
    assert ids_in(file) == ["11111111", made.id, rotated.id]
    text = file.read_text(encoding="utf-8")
    assert "# the first" in text
    assert "# Alice" in text
    assert "[tenants.acme] # end" in text


@pytest.mark.parametrize("text", ["keys = []\n[tenants.a]\n", "# nothing\n[tenants.a]", "[tenants.a]\n\n# end\n"])
def test_the_first_key_of_a_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    made = create_key(file, tenant="a")
    assert ids_in(file) == [made.id]
    assert without_keys(file.read_text(encoding="utf-8")) == without_keys(text)


def test_comments_above_the_next_table_stay_there(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        f'[[keys]]\nid = "11111111"\nhash = "{H1}"\ntenant = "a"\n# Tenants\n[tenants.a]\n', encoding="utf-8"
    )
    create_key(file, tenant="a")
    text = file.read_text(encoding="utf-8")
    assert 'role = "user"\n\n# Tenants\n[tenants.a]\n' in text
    assert text.startswith(f'[[keys]]\nid = "11111111"\nhash = "{H1}"\ntenant = "a"\n\n[[keys]]\n')


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_line_endings_and_a_byte_order_mark_survive(tmp_path: Path, bom: bytes) -> None:
    file = tmp_path / "config.toml"
    before = bom + TOML.replace("\n", "\r\n").encode()
    file.write_bytes(before)
    made = rotate_key(file, "22222222", grace_s=60)
    content = file.read_bytes()
    assert content.startswith(bom + b"# The gate")
    assert content.count(b"\n") == content.count(b"\r\n")
    revoke_key(file, made.id)
    assert file.read_bytes() != before
    assert file.read_bytes().count(b"\n") == before.count(b"\n") + 1  # the expiry of the old key


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_mode_is_kept(file: Path, mode: int) -> None:
    file.chmod(mode)
    create_key(file, tenant="acme")
    assert stat.S_IMODE(file.stat().st_mode) == mode


@POSIX
def test_a_link_stays_and_its_target_is_edited(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = folder / "gate.toml"
    link.symlink_to("../config.toml")
    made = create_key(link, tenant="acme")
    assert link.is_symlink()
    assert ids_in(file)[-1] == made.id
    assert [path.name for path in folder.iterdir()] == ["gate.toml"]


def test_a_taken_id_is_not_given_twice(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([("11111111", "a"), ("33333333", "b"), ("44444444", "cg_44444444_" + "A" * 43)])
    monkeypatch.setattr(key_file, "generate_key", lambda: next(offered))
    assert create_key(file, tenant="acme").id == "44444444"


def test_of_many_writers_none_is_lost(file: Path) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> str:
        start.wait(240)
        made = create_key(file, tenant="acme", note=str(number))
        return rotate_key(file, made.id).id

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(work, range(8)))
    assert set(ids_in(file)) == {"11111111", "22222222", "33333333", *made}
    assert without_keys(file.read_text(encoding="utf-8")) == without_keys(TOML)


def test_a_revoked_key_is_refused_by_the_ring(file: Path) -> None:
    made = create_key(file, tenant="acme")
    revoke_key(file, made.id)
    with pytest.raises(Unauthenticated):
        ApiKeyStore(list_keys(file)).verify(made.text)


COMMENT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
NOTE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=60)
@given(
    st.lists(COMMENT, min_size=4, max_size=4),
    st.lists(st.tuples(NOTE, st.booleans()), max_size=4),
    st.lists(st.integers(0, 20), max_size=5),
    st.booleans(),
)
def test_comments_and_order_survive_any_edits(
    tmp_path_factory: pytest.TempPathFactory,
    comments: list[str],
    notes: list[tuple[str, bool]],
    edits: list[int],
    has_crlf: bool,
) -> None:
    file = tmp_path_factory.mktemp("edits") / "config.toml"
    one, two, three, four = comments
    text = f"#1{one}\n[server]\nport = 1 #2{two}\n#3{three}\n\n[tenants.a]\n#4{four}\n"
    file.write_bytes((text.replace("\n", "\r\n") if has_crlf else text).encode())
    expected = [create_key(file, tenant="a", note=note).id for note, _ in notes]
    for edit in edits:
        if not expected:
            break
        key_id = expected[edit % len(expected)]
        if edit % 3 == 0:
            revoke_key(file, key_id)
            expected.remove(key_id)
        else:
            made = rotate_key(file, key_id, grace_s=60 if edit % 3 == 1 else 0)
            if edit % 3 == 2:
                expected.remove(key_id)
            expected.append(made.id)
    content = file.read_bytes().decode()
    assert ids_in(file) == expected
    lines = content.replace("\r\n", "\n").split("\n")
    assert [line for line in lines if line.startswith(("#1", "[server", "port", "#3", "[ten", "#4"))] == [
        line for line in text.split("\n") if line
    ]
    assert not has_crlf or content.count("\n") == content.count("\r\n")
