"""Edits the keys in config.toml and nothing else of it: comments, order, line endings, link and mode stay. Trusts the file's owner.

Only the lines of the key in question change; that the rest means what it meant is checked before anything is written.
"""

from __future__ import annotations

import codecs
import errno
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from filelock import FileLock, Timeout

from policy.principal import ALL_SCOPES, Role, Scope
from proxy.auth.api_keys import generate_key, hash_key
from proxy.auth.atomic_file import replace_file
from proxy.auth.toml_keys import append_key, change_expiry, remove_key
from proxy.config.identity import KeySettings, as_utc
from proxy.config.reader import Config, ConfigError, check_config

LOCK_TIMEOUT_S: Final = 10.0
_BOM = codecs.BOM_UTF8
_Result = TypeVar("_Result")
_Table = dict[str, Any]


class KeyFileError(Exception):
    """The file was not changed. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """text: the key itself. It is nowhere else, so whoever gets this value shows it once and forgets it."""

    id: str
    text: str = field(repr=False)
    tenant: str
    expires: datetime | None


def create_key(
    file: Path,
    *,
    tenant: str,
    role: Role = Role.USER,
    scopes: frozenset[Scope] = ALL_SCOPES,
    expires: datetime | None = None,
    limits: str | None = None,
    note: str = "",
) -> NewKey:
    """Adds a key for a tenant of the file. Raises KeyFileError."""
    expires = _future(expires)

    def change(text: str, keys: list[_Table], config: Config) -> tuple[str, list[_Table], NewKey]:
        if tenant not in config.tenants:
            known = ", ".join(sorted(config.tenants)) or "none yet"
            raise KeyFileError(
                f"There is no tenant {tenant!r} in {file}: add a table [tenants.{tenant}] first (there is: {known})."
            )
        if limits is not None and limits not in config.limits.named:
            raise KeyFileError(f"There is no [limits.{limits}] in {file}: add it first.")
        key_id, secret = _generate(keys)
        table: _Table = {"id": key_id, "hash": hash_key(secret), "tenant": tenant, "role": role.value}
        if scopes != ALL_SCOPES:
            table["scopes"] = sorted(scope.value for scope in scopes)
        if expires is not None:
            table["expires"] = expires
        if limits is not None:
            table["limits"] = limits
        if note:
            table["note"] = note
        return append_key(text, table), [*keys, table], NewKey(key_id, secret, tenant, expires)

    return _edit(file, change)


def list_keys(file: Path) -> tuple[KeySettings, ...]:
    """The keys in the order of the file. Raises KeyFileError."""
    target = _resolve(file)
    return _check(file, _parse(file, _decode(file, _read(target))[1])).keys


def revoke_key(file: Path, key_id: str) -> KeySettings:
    """Removes a key and gives back what it was. Raises KeyFileError."""

    def change(text: str, keys: list[_Table], config: Config) -> tuple[str, list[_Table], KeySettings]:
        index = _index_of(file, keys, key_id)
        return remove_key(text, index), keys[:index] + keys[index + 1 :], config.keys[index]

    return _edit(file, change)


def rotate_key(file: Path, key_id: str, *, grace_s: float = 0.0, expires: datetime | None = None) -> NewKey:
    """Makes a successor with the same tenant, role, scopes, limits and note.

    grace_s: how long the old key works on; with 0 it goes at once, and it never gains time. expires: of the successor, by default what the old one had.
    Raises KeyFileError.
    """
    expires = _future(expires)
    now = datetime.now(UTC).replace(microsecond=0)

    def change(text: str, keys: list[_Table], config: Config) -> tuple[str, list[_Table], NewKey]:
        index = _index_of(file, keys, key_id)
        old = config.keys[index]
        new_expires = expires or old.expires
        if new_expires is not None and new_expires <= now:
            raise KeyFileError(
                f"The key {key_id} expired at {new_expires:%Y-%m-%d %H:%M} UTC: say when its successor is to expire."
            )
        new_id, secret = _generate(keys)
        table = {**keys[index], "id": new_id, "hash": hash_key(secret)}
        if new_expires is not None:
            table["expires"] = new_expires
        remaining = list(keys)
        if grace_s > 0:
            ends = expiry_after(grace_s, now)
            if old.expires is None or ends < old.expires:
                text = change_expiry(text, index, ends)
                remaining[index] = {**keys[index], "expires": ends}
        else:
            text = remove_key(text, index)
            del remaining[index]
        return append_key(text, table), [*remaining, table], NewKey(new_id, secret, old.tenant, new_expires)

    return _edit(file, change)


def expiry_after(seconds: float, now: datetime | None = None) -> datetime:
    """The moment so many seconds from now, in whole seconds UTC. Raises KeyFileError where the calendar ends."""
    try:
        ends = (now or datetime.now(UTC)) + timedelta(seconds=seconds)
    except OverflowError:
        raise KeyFileError(
            "That is too far in the future: leave the expiry out for a key that never expires."
        ) from None
    return ends.astimezone(UTC).replace(microsecond=0)


def _edit(file: Path, change: Callable[[str, list[_Table], Config], tuple[str, list[_Table], _Result]]) -> _Result:
    """Reads, changes, checks and replaces the file under its lock, so that of two writers none is lost."""
    target = _resolve(file)
    _check_writable(file, target)
    with _locked(file, target):
        bom, text = _decode(file, _read(target))
        document = _parse(file, text)
        config = _check(file, document, text)
        new_text, keys, result = change(text, document.get("keys", []), config)
        _verify(file, new_text, {**document, "keys": keys})
        try:
            replace_file(target, bom + new_text.encode("utf-8"))
        except OSError as error:
            raise _not_written(file, target, error) from None
    return result


def _verify(file: Path, text: str, wanted: _Table) -> None:
    """SECURITY: nothing is written that would not load, or that changes anything but the keys. tests/proxy/auth/test_key_file_refusals.py"""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        document = {}
    if not wanted["keys"] and "keys" not in document:
        del wanted["keys"]
    if document != wanted:
        raise KeyFileError(
            f"{file} is written in a way that its keys cannot be edited in: write each as a [[keys]] table."
        )
    _check(file, document)


def _resolve(file: Path) -> Path:
    """The file itself behind symbolic links: the link stays, what it points to is edited."""
    try:
        target = file.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise KeyFileError(f"{file} cannot be read: {_reason(error)}.") from None
    if not target.is_file():
        raise KeyFileError(f"{file} is not a file.")
    return target


def _check_writable(file: Path, target: Path) -> None:
    # The mode is asked too: replacing a read-only file works for its folder's owner and for root, against what its mode says.
    if not target.stat().st_mode & 0o222 or not os.access(target, os.W_OK):
        raise KeyFileError(f"{file} is not writable: change its mode or run this as its owner.")


@contextmanager
def _locked(file: Path, target: Path) -> Iterator[None]:
    lock = FileLock(target.with_name(f".{target.name}.lock"), timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout:
        raise KeyFileError(f"Another program is editing {file} (it holds {lock.lock_file}). Try again.") from None
    except OSError as error:
        raise _not_written(file, target, error) from None
    try:
        yield
    finally:
        lock.release()


def _read(target: Path) -> bytes:
    try:
        return target.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{target} cannot be read: {_reason(error)}.") from None


def _decode(file: Path, content: bytes) -> tuple[bytes, str]:
    """The byte order mark, if any, and the text with its line endings as they are."""
    bom = _BOM if content.startswith(_BOM) else b""
    try:
        return bom, content[len(bom) :].decode("utf-8")
    except UnicodeDecodeError:
        raise KeyFileError(f"{file} is not UTF-8 text.") from None


def _parse(file: Path, text: str) -> _Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise KeyFileError(f"{file} is not TOML: {error}. Correct it first.") from None


def _check(file: Path, document: _Table, text: str = "") -> Config:
    try:
        return check_config(document, file, text)
    except ConfigError as error:
        mistakes = "".join(f"\n  {mistake}" for mistake in error.mistakes)
        raise KeyFileError(f"{file} has mistakes, and the gate would not load it:{mistakes}") from None


def _index_of(file: Path, keys: list[_Table], key_id: str) -> int:
    for index, key in enumerate(keys):
        if key["id"].strip() == key_id:
            return index
    raise KeyFileError(f"There is no key {key_id!r} in {file}. `comfygate keys list` shows the ids.")


def _generate(keys: list[_Table]) -> tuple[str, str]:
    taken = {key["id"] for key in keys}
    while (key := generate_key())[0] in taken:
        pass
    return key


def _future(expires: datetime | None) -> datetime | None:
    if expires is None:
        return None
    moment: datetime = as_utc(expires).astimezone(UTC).replace(microsecond=0)
    if moment <= datetime.now(UTC):
        raise KeyFileError(f"{moment:%Y-%m-%d %H:%M} UTC is past: a key must expire in the future.")
    return moment


def _not_written(file: Path, target: Path, error: OSError) -> KeyFileError:
    if error.errno in (errno.EBUSY, errno.EXDEV):
        advice = "it is mounted as a single file, mount its folder instead"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = f"make the folder {target.parent} writable, since the file is replaced as a whole"
    else:
        advice = "nothing was changed"
    return KeyFileError(f"{file} cannot be written: {_reason(error)}; {advice}.")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
