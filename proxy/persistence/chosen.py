"""Which database the configuration names: a file in state_dir, or PostgreSQL."""

from __future__ import annotations

from proxy.config import Config, ConfigError, Mistake
from proxy.config.postgres_url import read_postgres_url
from proxy.persistence.operations import Database, StateError
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE, look_at_file


def chosen_database(config: Config, *, is_guest: bool = False) -> Database:
    """Not open yet. is_guest: for a command beside the gate: opened as a gate left it, or not at all. Raises ConfigError."""
    url = _url_of(config)
    if not url:
        return SqliteDatabase(config.resolve(config.server.state_dir) / STATE_FILE, is_guest=is_guest)
    from proxy.persistence.postgres import PostgresDatabase  # a gate with a file does without it

    return PostgresDatabase(url, is_guest=is_guest)


def place_of_postgres(config: Config) -> str | None:
    """Without the password; None where it is a file. Raises ConfigError."""
    url = _url_of(config)
    return read_postgres_url(url).place if url else None


def setting_of(config: Config) -> str:
    """What to correct when the database cannot be used."""
    if config.jobs.database_file is not None:
        return "jobs.database_file"
    return "jobs.database" if config.jobs.database else "server.state_dir"


async def try_database(config: Config) -> list[str]:
    """What is dangerous about it, in words; nothing is made or changed. Raises ConfigError where the gate would not start with it."""
    url = _url_of(config)
    try:
        if not url:
            look_at_file(config.resolve(config.server.state_dir) / STATE_FILE)
            return []
        from proxy.persistence.postgres import try_postgres

        await try_postgres(url)
    except StateError as error:
        raise ConfigError(config.file, [Mistake(setting_of(config), None, f"cannot be used: {error}")]) from None
    address = read_postgres_url(url)
    if not address.is_open_to_the_network:
        return []
    return [
        f"{setting_of(config)}: what goes to {address.place} crosses the network without a proof of who answers: "
        "add ?sslmode=verify-full and, for an authority of your own, &sslrootcert=/path/to/ca.pem"
    ]


def _url_of(config: Config) -> str:
    """SECURITY: it may hold a password, so it may come from a file of its own; it is never logged (test_chosen.py)."""
    file = config.jobs.database_file
    if file is None:
        return config.jobs.database
    try:
        text = config.resolve(file).read_text(encoding="utf-8").strip()
        read_postgres_url(text)
    except (OSError, ValueError) as error:
        words = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
        raise ConfigError(config.file, [Mistake("jobs.database_file", None, words)]) from None
    return text
