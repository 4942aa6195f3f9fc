"""Makes the bucket that the configuration names. obstore is loaded here, and only where there is one."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import orjson

from proxy.config import Config, Mistake
from proxy.config.storage import StorageSettings
from proxy.copies.bucket import Bucket

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

INSTALL: Final = "pip install 'comfygate[storage]', or 'obstore>=0.12,<1' into the gate's environment"
MAX_FILE_BYTES: Final = 64 * 1024
_PROFILE: Final = "default"
_NAMES: Final = {
    "s3": {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
    },
    "az": {"account_key": "account_key", "sas_token": "sas_key"},
}
_NEEDED: Final = {"s3": ("aws_access_key_id", "aws_secret_access_key"), "az": ()}
_CLIENT: Final[dict[str, Any]] = {"connect_timeout": "5s", "timeout": "30s", "user_agent": "comfygate"}
_RETRY: Final[dict[str, Any]] = {"max_retries": 2}


def find_mistakes(config: Config) -> list[Mistake]:
    """What is wrong with `[storage]` beside what its settings say of themselves."""
    settings = config.storage
    if not settings.is_on:
        return []
    if find_spec("obstore") is None:
        return [Mistake("storage.url", None, f"needs the package obstore, which is not installed: {INSTALL}")]
    if settings.kind == "file" and not os.access(_folder(settings), os.W_OK | os.X_OK):
        # Not made here: where a disk is not mounted, everything would land on another one.
        return [Mistake("storage.url", None, f"{_folder(settings)} is no folder that the gate may write to: make it")]
    try:
        _make(settings, _credentials(config))
    except ValueError as error:
        return [Mistake("storage.credentials_file", None, str(error))]
    except Exception as error:  # obstore's own have no common class; its first line says which setting
        return [Mistake("storage", None, str(error).partition("\n")[0])]
    return []


def open_bucket(config: Config) -> Bucket:
    """Of a configuration without mistakes that has one; nothing is asked yet."""
    settings = config.storage
    store, signer = _make(settings, _credentials(config))
    return Bucket(store, signer, f"{settings.url} at {settings.endpoint}" if settings.endpoint else settings.url)


def _make(
    settings: StorageSettings, credentials: dict[str, Any]
) -> tuple[S3Store | GCSStore | AzureStore | LocalStore, S3Store | GCSStore | AzureStore | None]:
    from obstore.store import LocalStore

    if settings.kind == "file":
        return LocalStore(_folder(settings)), None
    store = _open(settings, settings.endpoint, credentials)
    public = settings.public_endpoint
    return store, store if public is None else _open(settings, public, credentials)


def _open(
    settings: StorageSettings, endpoint: str | None, credentials: dict[str, Any]
) -> S3Store | GCSStore | AzureStore:
    from obstore.store import AzureStore, GCSStore, S3Store

    parts = urlsplit(settings.url)
    first, _, rest = parts.path.strip("/").partition("/")
    prefix = parts.path.strip("/") or None
    # The endpoint is the operator's own, and may be on this machine: http is for those who say so.
    client: Any = {**_CLIENT, "allow_http": endpoint is not None and endpoint.startswith("http://")}
    retry: Any = _RETRY
    more: dict[str, Any] = dict(credentials)
    if settings.kind == "gs":
        more |= {} if endpoint is None else {"base_url": endpoint}
        return GCSStore(parts.netloc, prefix=prefix, client_options=client, retry_config=retry, **more)
    more |= {} if endpoint is None else {"endpoint": endpoint}
    if settings.kind == "az":
        return AzureStore(
            first, account_name=parts.netloc, prefix=rest or None, client_options=client, retry_config=retry, **more
        )
    more |= {} if settings.region is None else {"region": settings.region}
    return S3Store(parts.netloc, prefix=prefix, client_options=client, retry_config=retry, **more)


def _folder(settings: StorageSettings) -> Path:
    return Path(unquote(urlsplit(settings.url).path))


def _credentials(config: Config) -> dict[str, Any]:
    """What the file holds; without one the environment and the machine say it, as obstore finds it. Raises ValueError."""
    settings = config.storage
    if settings.credentials_file is None:
        return {}
    file = config.resolve(settings.credentials_file)
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_FILE_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text") from None
    if len(text) > MAX_FILE_BYTES:
        raise ValueError(f"{file} is too large to be credentials")
    return _google(file, text) if settings.kind == "gs" else _profile(file, text, settings.kind)


def _google(file: Path, text: str) -> dict[str, Any]:
    try:
        account = orjson.loads(text)
    except orjson.JSONDecodeError:
        account = None
    if not isinstance(account, dict) or "private_key" not in account:
        raise ValueError(f"{file} is no key of a service account: make one as JSON")
    return {"service_account_key": text}


def _profile(file: Path, text: str, kind: str) -> dict[str, Any]:
    """As the AWS command line keeps them: `name = value` below `[default]`."""
    from configparser import ConfigParser  # for those who have such a file
    from configparser import Error as ConfigParserError

    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        found = dict(parser[_PROFILE])
    except (ConfigParserError, KeyError):
        found = {}
    names = _NAMES[kind]
    wanted = " and ".join(_NEEDED[kind] or ("account_key or sas_token",))
    if not found or any(not found.get(name) for name in _NEEDED[kind]) or not found.keys() & names.keys():
        raise ValueError(f"{file} must have a section [{_PROFILE}] with {wanted}")
    return {names[name]: text for name, text in found.items() if name in names and text}
