"""The tables, as numbered migrations that are only ever added to.

`{bytes}`, `{serial}` and `{strict}` are the words that differ between databases. A change must leave the
previous release able to read and write (E13): add columns with defaults, never rename or drop within one release.
"""

from __future__ import annotations

from typing import Final

SEALED: Final = (
    ("meta", "sealed"),
    ("connections", "access_token"),
    ("connections", "refresh_token"),
    ("flows", "verifier"),
    ("flows", "held"),
)
"""Every column that holds sealed bytes; a test holds this against the tables (E02)."""

_FIRST: Final = (
    """CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value TEXT,
        sealed {bytes}
    ){strict}""",
    # One row for each key, for ever: a disconnect leaves it as a tombstone and a reconnect revives it, so the
    # index can be over all rows, not only the live ones, and the id is stable (E14).
    """CREATE TABLE connections (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        user_id TEXT NOT NULL,
        provider TEXT NOT NULL,
        account TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        client_id TEXT NOT NULL,
        grant_id TEXT NOT NULL,
        generation {int} NOT NULL,
        scopes TEXT NOT NULL,
        requested_scopes TEXT NOT NULL,
        expires_at {int},
        lifetime {int},
        refresh_expires_at {int},
        extra TEXT NOT NULL,
        provider_account TEXT,
        consented_at {int} NOT NULL,
        obtained_at {int} NOT NULL,
        failures {int} NOT NULL DEFAULT 0,
        retry_at {int},
        last_error TEXT,
        access_token {bytes},
        refresh_token {bytes},
        refresh_digest TEXT,
        lease_holder TEXT,
        lease_fence {int} NOT NULL DEFAULT 0,
        lease_until {int},
        intent_digest TEXT,
        intent_at {int},
        intent_by TEXT
    ){strict}""",
    "CREATE UNIQUE INDEX connections_key ON connections (tenant, user_id, provider, account)",
    "CREATE INDEX connections_due ON connections (expires_at) WHERE state = 'active'",
    """CREATE TABLE spent (
        connection_id TEXT NOT NULL REFERENCES connections (id),
        digest TEXT NOT NULL,
        generation {int} NOT NULL,
        PRIMARY KEY (connection_id, digest)
    ){strict}""",
    """CREATE TABLE flows (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        user_id TEXT NOT NULL,
        provider TEXT NOT NULL,
        account TEXT NOT NULL,
        agent TEXT NOT NULL,
        scopes TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT,
        client_id TEXT NOT NULL,
        redirect_uri TEXT NOT NULL,
        next_uri TEXT,
        created_at {int} NOT NULL,
        expires_at {int} NOT NULL,
        ended_at {int},
        state_digest TEXT,
        browser_digest TEXT,
        forced {int} NOT NULL DEFAULT 0,
        connection_id TEXT,
        verifier {bytes},
        held {bytes}
    ){strict}""",
    "CREATE UNIQUE INDEX flows_state ON flows (state_digest) WHERE state_digest IS NOT NULL",
    "CREATE INDEX flows_open ON flows (tenant, user_id, provider) WHERE ended_at IS NULL",
    "CREATE INDEX flows_expiry ON flows (expires_at) WHERE ended_at IS NULL",
    """CREATE TABLE agents (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        may_act_for TEXT NOT NULL,
        operator {int} NOT NULL,
        created_at {int} NOT NULL,
        expires_at {int},
        revoked_at {int}
    ){strict}""",
    "CREATE UNIQUE INDEX agents_digest ON agents (digest)",
    """CREATE TABLE events (
        id {serial},
        kind TEXT NOT NULL,
        at {int} NOT NULL,
        tenant TEXT NOT NULL,
        user_id TEXT,
        provider TEXT,
        account TEXT,
        connection_id TEXT,
        agent TEXT,
        data TEXT NOT NULL,
        audited {int} NOT NULL DEFAULT 0
    ){strict}""",
    "CREATE INDEX events_outbox ON events (id) WHERE audited = 0",
    "CREATE INDEX events_connection ON events (connection_id, id)",
    "CREATE INDEX events_key ON events (tenant, user_id, provider, account, id)",
    """CREATE TABLE audit (
        position {serial},
        chain TEXT NOT NULL,
        seq {int} NOT NULL,
        at {int} NOT NULL,
        kind TEXT NOT NULL,
        tenant TEXT,
        user_id TEXT,
        provider TEXT,
        agent TEXT,
        request_id TEXT,
        record TEXT NOT NULL,
        hash TEXT NOT NULL
    ){strict}""",
    "CREATE UNIQUE INDEX audit_chain ON audit (chain, seq)",
    "CREATE INDEX audit_at ON audit (at)",
    "CREATE INDEX audit_user ON audit (tenant, user_id, position)",
    "CREATE INDEX audit_request ON audit (request_id) WHERE request_id IS NOT NULL",
    # The head of each chain, sealed with the store's own key: a tail cannot be cut off unseen.
    """CREATE TABLE chains (
        chain TEXT PRIMARY KEY,
        begun {int} NOT NULL,
        seq {int} NOT NULL,
        hash TEXT NOT NULL,
        seal TEXT NOT NULL,
        worth {int} NOT NULL,
        anchored {int} NOT NULL DEFAULT 0
    ){strict}""",
    "CREATE INDEX chains_tips ON chains (chain) WHERE worth > anchored",
    "CREATE INDEX chains_begun ON chains (begun)",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_FIRST,)
"""Migration n brings a store from schema n to schema n + 1."""
