"""The schema of the gate's database, as the steps that lead to it. A step that was released is never changed: the next one goes below it."""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    # 1: GPU seconds, one row for each run (Job.run_id). Files without a version may hold them as `jobs` already.
    (
        """CREATE TABLE IF NOT EXISTS jobs (
            prompt_id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            ended_at_s REAL NOT NULL,
            gpu_s REAL NOT NULL
        ) WITHOUT ROWID""",
        "DROP INDEX IF EXISTS jobs_by_tenant",
        "ALTER TABLE jobs RENAME TO gpu_usage",
        "ALTER TABLE gpu_usage RENAME COLUMN prompt_id TO run_id",
        "CREATE INDEX gpu_usage_by_tenant ON gpu_usage (tenant, ended_at_s, gpu_s)",
    ),
    # 2: browser sessions that were ended. A session id of "" stands for all that the key had until issued_until_s; a key id of "" for every key.
    (
        """CREATE TABLE revoked_sessions (
            key_id TEXT NOT NULL,
            session_id TEXT NOT NULL,
            issued_until_s INTEGER NOT NULL,
            expires_s INTEGER NOT NULL,
            PRIMARY KEY (key_id, session_id)
        ) WITHOUT ROWID""",
    ),
    # 3: submissions with an Idempotency-Key (its SHA-256). status 0: no answer is known. size: what the row is counted with, in bytes.
    (
        """CREATE TABLE idempotent_submissions (
            owner TEXT NOT NULL,
            key_hash BLOB NOT NULL,
            fingerprint BLOB NOT NULL,
            prompt_id TEXT NOT NULL,
            created_s REAL NOT NULL,
            status INTEGER NOT NULL,
            content_type TEXT NOT NULL,
            body BLOB NOT NULL,
            size INTEGER NOT NULL,
            PRIMARY KEY (owner, key_hash)
        )""",
        "CREATE INDEX idempotent_submissions_by_age ON idempotent_submissions (owner, created_s, size)",
        "CREATE INDEX idempotent_submissions_by_time ON idempotent_submissions (created_s)",
    ),
)
"""One tuple of statements for each version, oldest first; the version of a file is how many of them it has been through."""
