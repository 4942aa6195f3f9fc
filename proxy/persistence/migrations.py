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
    # 4: jobs. version: of the transaction that wrote the row last, counted in store_state, whose row each writer holds until it commits; so whoever
    # has read all up to a version misses nothing. rank: the job's own priority, negated. ended_at_s: NULL until it has ended.
    (
        """CREATE TABLE store_state (
            id INTEGER PRIMARY KEY,
            version INTEGER NOT NULL,
            virtual_time REAL NOT NULL,
            is_draining INTEGER NOT NULL
        )""",
        "INSERT INTO store_state VALUES (1, 0, 0.0, 0)",
        """CREATE TABLE fair_tags (
            tenant TEXT PRIMARY KEY,
            finish_tag REAL NOT NULL
        )""",
        """CREATE TABLE jobs (
            prompt_id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            subject TEXT NOT NULL,
            client_id TEXT NOT NULL,
            workflow TEXT NOT NULL,
            state TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            rank REAL NOT NULL,
            cost_s REAL NOT NULL,
            span REAL NOT NULL,
            number REAL NOT NULL,
            created_at_s REAL NOT NULL,
            started_at_s REAL,
            ended_at_s REAL,
            gpu_s REAL NOT NULL,
            error TEXT NOT NULL,
            failing_class TEXT NOT NULL,
            comfyui TEXT NOT NULL,
            gate TEXT NOT NULL,
            lease_until_s REAL NOT NULL,
            attempts TEXT NOT NULL,
            stopped_after_s INTEGER,
            wish TEXT NOT NULL,
            size INTEGER NOT NULL,
            version INTEGER NOT NULL
        )""",
        "CREATE INDEX jobs_by_order ON jobs (state, tenant, rank, sequence)",
        "CREATE INDEX jobs_by_end ON jobs (tenant, ended_at_s, size) WHERE ended_at_s IS NOT NULL",
        "CREATE INDEX jobs_by_version ON jobs (version)",
        """CREATE TABLE job_documents (
            prompt_id TEXT NOT NULL,
            kind TEXT NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (prompt_id, kind)
        )""",
        """CREATE TABLE forgotten_jobs (
            prompt_id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            version INTEGER NOT NULL
        )""",
        "CREATE INDEX forgotten_jobs_by_version ON forgotten_jobs (version)",
    ),
    # 5: labels of jobs, and files under an id. prompt_id: of the job that made it, "" for an upload; place: among all that it made. folder: "" for a
    # text, which is in body. hash: "" where it is not known. tags: a list, as JSON. stamp: see policy.v2.assets.Asset. job_assets: which of them a job's
    # workflow uses.
    # webhook_endpoints: of the configuration; switched_off_s: when it wanted no more. webhook_deliveries: one for each end of a job and endpoint, with
    # nothing of the job but its id, its state and its times. due_at_s: NULL when nothing more is to be sent; gate: which sends it just now, "" for none.
    (
        """CREATE TABLE job_labels (
            prompt_id TEXT NOT NULL,
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (prompt_id, name)
        )""",
        "CREATE INDEX job_labels_by_value ON job_labels (tenant, name, value)",
        """CREATE TABLE assets (
            asset_id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            prompt_id TEXT NOT NULL,
            node_id TEXT NOT NULL,
            place INTEGER NOT NULL,
            kind TEXT NOT NULL,
            folder TEXT NOT NULL,
            path TEXT NOT NULL,
            file_path TEXT NOT NULL,
            content_type TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            hash TEXT NOT NULL,
            created_at_s REAL NOT NULL,
            expires_at_s REAL,
            tags TEXT NOT NULL,
            stamp TEXT NOT NULL,
            body BLOB
        )""",
        "CREATE INDEX assets_by_hash ON assets (tenant, hash, created_at_s)",
        "CREATE INDEX assets_by_job ON assets (prompt_id, place)",
        "CREATE INDEX assets_by_file ON assets (tenant, folder, path)",
        "CREATE INDEX assets_by_expiry ON assets (tenant, expires_at_s)",
        "CREATE INDEX assets_by_tenant ON assets (tenant, prompt_id, asset_id)",
        """CREATE TABLE job_assets (
            prompt_id TEXT NOT NULL,
            asset_id TEXT NOT NULL,
            PRIMARY KEY (prompt_id, asset_id)
        )""",
        "CREATE INDEX job_assets_by_asset ON job_assets (asset_id)",
        "CREATE INDEX jobs_by_creation ON jobs (tenant, created_at_s, prompt_id)",
        """CREATE TABLE webhook_endpoints (
            name TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            events TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            since_s REAL NOT NULL,
            switched_off_s REAL
        )""",
        "CREATE INDEX webhook_endpoints_by_tenant ON webhook_endpoints (tenant)",
        """CREATE TABLE webhook_deliveries (
            id TEXT PRIMARY KEY,
            endpoint TEXT NOT NULL,
            tenant TEXT NOT NULL,
            prompt_id TEXT NOT NULL,
            state TEXT NOT NULL,
            created_at_s REAL NOT NULL,
            started_at_s REAL,
            ended_at_s REAL NOT NULL,
            due_at_s REAL,
            gate TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            tried_at_s REAL,
            note TEXT NOT NULL
        )""",
        "CREATE INDEX webhook_deliveries_by_due ON webhook_deliveries (endpoint, tenant, due_at_s) WHERE due_at_s IS NOT NULL",
        "CREATE INDEX webhook_deliveries_by_end ON webhook_deliveries (tenant, ended_at_s)",
    ),
    # 6: addresses that calls have named, to be told of their jobs: of a job, and of a delivery, where it is "" for one of an endpoint.
    (
        """CREATE TABLE job_webhooks (
            prompt_id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            url TEXT NOT NULL
        )""",
        "ALTER TABLE webhook_deliveries ADD COLUMN url TEXT NOT NULL DEFAULT ''",
        "DROP INDEX webhook_deliveries_by_due",
        "CREATE INDEX webhook_deliveries_by_due ON webhook_deliveries (endpoint, tenant, due_at_s, id) WHERE due_at_s IS NOT NULL",
    ),
    # 7: copies of what jobs made (policy.copies.CopyState). asset_id: "" for the job as a whole, until it is known what it made. folder, path, stamp, hash,
    # size_bytes, content_type: of the original, as of an asset. due_at_s: NULL when nothing more is to be done; gate: which does it just now, "" for none.
    (
        """CREATE TABLE copies (
            copy_id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL,
            prompt_id TEXT NOT NULL,
            asset_id TEXT NOT NULL,
            state TEXT NOT NULL,
            folder TEXT NOT NULL,
            path TEXT NOT NULL,
            stamp TEXT NOT NULL,
            hash TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            content_type TEXT NOT NULL,
            object_key TEXT NOT NULL,
            ended_at_s REAL NOT NULL,
            copied_at_s REAL,
            due_at_s REAL,
            gate TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            tried_at_s REAL,
            note TEXT NOT NULL
        )""",
        "CREATE INDEX copies_by_due ON copies (tenant, due_at_s) WHERE due_at_s IS NOT NULL",
        "CREATE INDEX copies_by_job ON copies (prompt_id, tenant)",
        "CREATE INDEX copies_by_asset ON copies (asset_id, tenant)",
        "CREATE INDEX copies_by_file ON copies (tenant, folder, path)",
        "CREATE INDEX copies_by_end ON copies (tenant, state, ended_at_s)",
    ),
    # 8: copies in another form than the job made the file: the recipe's mark, "" for the file itself, and what came of it.
    (
        "ALTER TABLE copies ADD COLUMN form TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE copies ADD COLUMN form_hash TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE copies ADD COLUMN form_bytes INTEGER NOT NULL DEFAULT 0",
    ),
    # 9: several ComfyUIs. What a job needs of the one that runs it (policy.needs), and which models each was given last, one to a line.
    (
        """CREATE TABLE job_needs (
            prompt_id TEXT PRIMARY KEY,
            needs BLOB NOT NULL
        )""",
        """CREATE TABLE comfyui_models (
            comfyui TEXT PRIMARY KEY,
            models TEXT NOT NULL
        )""",
    ),
    # 10: what has become of a job's copies, to be told: the event, and when it was; "" and NULL for the job's end.
    (
        "ALTER TABLE webhook_deliveries ADD COLUMN event TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE webhook_deliveries ADD COLUMN event_at_s REAL",
    ),
    # 11: which of several ComfyUIs are given no jobs, as the operator says. For all of them it is store_state.is_draining.
    ("CREATE TABLE drained_comfyuis (comfyui TEXT PRIMARY KEY)",),
    # 12: ComfyUIs that were taken out of the configuration and have jobs still, with the settings by which they are followed, as JSON.
    (
        """CREATE TABLE leaving_comfyuis (
            comfyui TEXT PRIMARY KEY,
            settings TEXT NOT NULL
        )""",
    ),
)
"""One tuple of statements for each version, oldest first; the version of a file is how many of them it has been through."""
