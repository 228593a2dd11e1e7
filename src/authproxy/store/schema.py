"""The tables, as numbered migrations that are only ever added to.

`{text}`, `{int}`, `{bytes}`, `{serial}` and `{strict}` are the words that differ between databases. A change
must leave the previous release able to read and write (E13): add columns with defaults, never rename or drop within
one release.
"""

from __future__ import annotations

from typing import Final

from authproxy.core.errors import StoreUnavailable

SEALED: Final = (
    ("meta", "sealed"),
    ("connections", "access_token"),
    ("connections", "refresh_token"),
    ("flows", "verifier"),
    ("flows", "held"),
    ("revocations", "tokens"),
    ("approvals", "input"),
)
"""Every column that holds sealed bytes; a test holds this against the tables (E02)."""

_FIRST: Final = (
    """CREATE TABLE meta (
        name {text} PRIMARY KEY,
        value {text},
        sealed {bytes}
    ){strict}""",
    # One row for each key, for ever: a disconnect leaves it as a tombstone and a reconnect revives it, so the
    # index can be over all rows, not only the live ones, and the id is stable (E14).
    """CREATE TABLE connections (
        id {text} PRIMARY KEY,
        tenant {text} NOT NULL,
        user_id {text} NOT NULL,
        provider {text} NOT NULL,
        account {text} NOT NULL,
        state {text} NOT NULL,
        reason {text},
        client_id {text} NOT NULL,
        grant_id {text} NOT NULL,
        generation {int} NOT NULL,
        scopes {text} NOT NULL,
        requested_scopes {text} NOT NULL,
        expires_at {int},
        lifetime {int},
        refresh_expires_at {int},
        extra {text} NOT NULL,
        provider_account {text},
        consented_at {int} NOT NULL,
        obtained_at {int} NOT NULL,
        failures {int} NOT NULL DEFAULT 0,
        retry_at {int},
        last_error {text},
        access_token {bytes},
        refresh_token {bytes},
        refresh_digest {text},
        lease_holder {text},
        lease_fence {int} NOT NULL DEFAULT 0,
        lease_until {int},
        intent_digest {text},
        intent_at {int},
        intent_by {text}
    ){strict}""",
    "CREATE UNIQUE INDEX connections_key ON connections (tenant, user_id, provider, account)",
    "CREATE INDEX connections_due ON connections (expires_at) WHERE state = 'active'",
    """CREATE TABLE spent (
        connection_id {text} NOT NULL REFERENCES connections (id),
        digest {text} NOT NULL,
        generation {int} NOT NULL,
        PRIMARY KEY (connection_id, digest)
    ){strict}""",
    """CREATE TABLE flows (
        id {text} PRIMARY KEY,
        tenant {text} NOT NULL,
        user_id {text} NOT NULL,
        provider {text} NOT NULL,
        account {text} NOT NULL,
        agent {text} NOT NULL,
        scopes {text} NOT NULL,
        status {text} NOT NULL,
        reason {text},
        client_id {text} NOT NULL,
        redirect_uri {text} NOT NULL,
        next_uri {text},
        created_at {int} NOT NULL,
        expires_at {int} NOT NULL,
        ended_at {int},
        state_digest {text},
        browser_digest {text},
        forced {int} NOT NULL DEFAULT 0,
        connection_id {text},
        verifier {bytes},
        held {bytes}
    ){strict}""",
    "CREATE UNIQUE INDEX flows_state ON flows (state_digest) WHERE state_digest IS NOT NULL",
    "CREATE INDEX flows_open ON flows (tenant, user_id, provider) WHERE ended_at IS NULL",
    "CREATE INDEX flows_expiry ON flows (expires_at) WHERE ended_at IS NULL",
    """CREATE TABLE agents (
        id {text} PRIMARY KEY,
        tenant {text} NOT NULL,
        name {text} NOT NULL,
        digest {text} NOT NULL,
        may_act_for {text} NOT NULL,
        operator {int} NOT NULL,
        created_at {int} NOT NULL,
        expires_at {int},
        revoked_at {int}
    ){strict}""",
    "CREATE UNIQUE INDEX agents_digest ON agents (digest)",
    """CREATE TABLE events (
        id {serial},
        kind {text} NOT NULL,
        at {int} NOT NULL,
        tenant {text} NOT NULL,
        user_id {text},
        provider {text},
        account {text},
        connection_id {text},
        agent {text},
        data {text} NOT NULL,
        audited {int} NOT NULL DEFAULT 0
    ){strict}""",
    "CREATE INDEX events_outbox ON events (id) WHERE audited = 0",
    "CREATE INDEX events_connection ON events (connection_id, id)",
    "CREATE INDEX events_key ON events (tenant, user_id, provider, account, id)",
    """CREATE TABLE audit (
        position {serial},
        chain {text} NOT NULL,
        seq {int} NOT NULL,
        at {int} NOT NULL,
        kind {text} NOT NULL,
        tenant {text},
        user_id {text},
        provider {text},
        agent {text},
        request_id {text},
        record {text} NOT NULL,
        hash {text} NOT NULL
    ){strict}""",
    "CREATE UNIQUE INDEX audit_chain ON audit (chain, seq)",
    "CREATE INDEX audit_at ON audit (at)",
    "CREATE INDEX audit_user ON audit (tenant, user_id, position)",
    "CREATE INDEX audit_request ON audit (request_id) WHERE request_id IS NOT NULL",
    # The head of each chain, sealed with the store's own key: a tail cannot be cut off unseen.
    """CREATE TABLE chains (
        chain {text} PRIMARY KEY,
        begun {int} NOT NULL,
        seq {int} NOT NULL,
        hash {text} NOT NULL,
        seal {text} NOT NULL,
        worth {int} NOT NULL,
        anchored {int} NOT NULL DEFAULT 0
    ){strict}""",
    "CREATE INDEX chains_tips ON chains (chain) WHERE worth > anchored",
    "CREATE INDEX chains_begun ON chains (begun)",
)

_UPKEEP: Final = (
    # Work that one process at a time does: who, and until when by the database's clock. `part` is of work in parts.
    """CREATE TABLE claims (
        name {text} PRIMARY KEY,
        work {text} NOT NULL,
        part {int},
        holder {text} NOT NULL,
        until {int} NOT NULL
    ){strict}""",
    "CREATE INDEX claims_work ON claims (work)",
    # The previous release writes events without knowing of webhooks; those are told as well.
    "ALTER TABLE events ADD COLUMN notified {int} NOT NULL DEFAULT 0",
    "UPDATE events SET notified = 1",
    "CREATE INDEX events_untold ON events (id) WHERE notified = 0",
    """CREATE INDEX events_client ON events (provider, id)
        WHERE kind IN ('connection.misconfigured', 'connection.recovered')""",
    """CREATE TABLE deliveries (
        webhook {text} NOT NULL,
        event {int} NOT NULL,
        created_at {int} NOT NULL,
        attempts {int} NOT NULL DEFAULT 0,
        next_at {int} NOT NULL,
        last_error {text},
        PRIMARY KEY (webhook, event)
    ){strict}""",
    """CREATE TABLE revocations (
        id {text} PRIMARY KEY,
        connection_id {text} NOT NULL,
        tenant {text} NOT NULL,
        user_id {text} NOT NULL,
        provider {text} NOT NULL,
        account {text} NOT NULL,
        client_id {text} NOT NULL,
        tokens {bytes},
        status {text} NOT NULL,
        attempts {int} NOT NULL DEFAULT 0,
        created_at {int} NOT NULL,
        next_at {int} NOT NULL,
        ended_at {int},
        last_error {text}
    ){strict}""",
    "CREATE INDEX revocations_pending ON revocations (next_at) WHERE status = 'pending'",
    "CREATE INDEX connections_ending ON connections (expires_at, id) WHERE state IN ('active', 'misconfigured')",
    "CREATE INDEX connections_unused ON connections (provider, obtained_at) WHERE state = 'active'",
)

_SESSIONS: Final = (
    # Of the credential only its digest. `routes` and `tools` are JSON lists, NULL: all of them.
    """CREATE TABLE sessions (
        id {text} PRIMARY KEY,
        tenant {text} NOT NULL,
        agent {text} NOT NULL,
        user_id {text} NOT NULL,
        digest {text} NOT NULL,
        minted_by {text} NOT NULL,
        routes {text},
        tools {text},
        ttl {int} NOT NULL,
        created_at {int} NOT NULL,
        expires_at {int} NOT NULL,
        renewable_until {int},
        revoked_at {int},
        label {text}
    ){strict}""",
    "CREATE UNIQUE INDEX sessions_digest ON sessions (digest)",
    "CREATE INDEX sessions_minter ON sessions (tenant, minted_by, expires_at) WHERE revoked_at IS NULL",
    "CREATE INDEX sessions_tenant ON sessions (tenant, id)",
    "CREATE INDEX sessions_expiry ON sessions (expires_at)",
)

_APPROVALS: Final = (
    """CREATE TABLE approvals (
        id {text} PRIMARY KEY,
        tenant {text} NOT NULL,
        agent {text} NOT NULL,
        session {text},
        user_id {text} NOT NULL,
        account {text} NOT NULL,
        tool {text} NOT NULL,
        fingerprint {text} NOT NULL,
        approver {text} NOT NULL,
        status {text} NOT NULL,
        input {bytes},
        created_at {int} NOT NULL,
        expires_at {int} NOT NULL,
        decided_at {int},
        decided_by {text}
    ){strict}""",
    """CREATE UNIQUE INDEX approvals_open ON approvals (tenant, fingerprint)
        WHERE status IN ('pending', 'approved', 'denied')""",
    "CREATE INDEX approvals_tenant ON approvals (tenant, id)",
    "CREATE INDEX approvals_pending ON approvals (tenant, agent) WHERE status = 'pending'",
    "CREATE INDEX approvals_expiry ON approvals (expires_at) WHERE status IN ('pending', 'approved', 'denied')",
)

_USERS: Final = (
    # Only those who were ever disabled. A row stays when its user is enabled again: `revision` grows with every change,
    # in the order of commits, so that processes need only read what is new. `disabled_at` NULL: not disabled.
    """CREATE TABLE users (
        tenant {text} NOT NULL,
        user_id {text} NOT NULL,
        disabled_at {int},
        grants_kept {int} NOT NULL DEFAULT 0,
        reason {text},
        changed_by {text} NOT NULL,
        changed_at {int} NOT NULL,
        revision {int} NOT NULL,
        PRIMARY KEY (tenant, user_id)
    ){strict}""",
    "CREATE UNIQUE INDEX users_revision ON users (revision)",
    "CREATE INDEX revocations_user ON revocations (tenant, user_id) WHERE status = 'pending'",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_FIRST, _UPKEEP, _SESSIONS, _APPROVALS, _USERS)
"""Migration n brings a store from schema n to schema n + 1."""


def refuse_newer(version: int, store: str) -> None:
    """A store that a later release has changed is left alone (E13)."""
    if version > len(MIGRATIONS):
        raise StoreUnavailable(
            f"{store} has schema {version}, and this version knows {len(MIGRATIONS)}; nothing was changed",
            reason="schema_newer",
        )
