"""How stored things look from outside: plain JSON values, the same on every face, without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authproxy.control.consent import Authorization
from authproxy.control.explain import Explanation
from authproxy.control.users import Disabled
from authproxy.control.watch import Seen
from authproxy.core.model import AgentKey, Approval, Connection, FlowStatus, Session, State, UserStanding

# The public client knows four words; the others are told in `reason` and `detail`.
_CLIENT_STATUS: Mapping[FlowStatus, str] = {
    FlowStatus.NOT_STARTED: "not_started",
    FlowStatus.PENDING: "pending",
    FlowStatus.EXCHANGING: "pending",
    FlowStatus.CONFIRMING: "pending",
    FlowStatus.COMPLETED: "completed",
}


def authorization(one: Authorization) -> dict[str, Any]:
    """The fields of arcadepy's AuthorizationResponse (no token in `context`, ever), and ours."""
    return {
        "id": one.id,
        "url": one.url,
        "status": _CLIENT_STATUS.get(one.status, "failed"),
        "provider_id": one.key.provider,
        "scopes": list(one.scopes),
        "user_id": one.key.user,
        "context": {},
        "state": str(one.status),
        "reason": (one.reason or str(one.status)) if one.failed else None,
        "account": one.key.account,
        "expires_at": one.expires_at,
        "connection_id": one.connection_id,
    }


def connection(one: Connection) -> dict[str, Any]:
    """All that is known of a connection but its tokens."""
    return {
        "id": one.id,
        "tenant": one.key.tenant,
        "user_id": one.key.user,
        "provider_id": one.key.provider,
        "account": one.key.account,
        "state": str(one.state),
        "reason": one.reason,
        "provider_account": one.provider_account,
        "scopes": list(one.scopes),
        "requested_scopes": list(one.requested_scopes),
        "environment": str(one.environment),
        "client_id": one.client_id,
        "generation": one.generation,
        "refreshable": one.refreshable,
        "consented_at": one.consented_at,
        "obtained_at": one.obtained_at,
        "expires_at": one.expires_at,
        "refresh_expires_at": one.refresh_expires_at,
        "failures": one.failures,
        "retry_at": one.retry_at,
        "last_error": one.last_error,
    }


def user_connection(one: Connection) -> dict[str, Any]:
    """The fields of arcadepy's UserConnectionResponse."""
    return {
        "id": one.id,
        "connection_id": one.id,
        "connection_status": "connected" if one.state is State.ACTIVE else str(one.state),
        "provider_id": one.key.provider,
        "provider_type": "oauth2",
        "provider_description": one.key.provider,
        "provider_user_info": {"account": one.provider_account} if one.provider_account else {},
        "scopes": list(one.scopes),
        "user_id": one.key.user,
    }


def agent(one: AgentKey) -> dict[str, Any]:
    """An agent key without its digest."""
    return {
        "id": one.id,
        "tenant": one.tenant,
        "name": one.name,
        "may_act_for": list(one.may_act_for),
        "operator": one.operator,
        "created_at": one.created_at,
        "expires_at": one.expires_at,
        "revoked_at": one.revoked_at,
    }


def session(one: Session, now: float) -> dict[str, Any]:
    """A session without its digest. `routes` and `tools` are None where all may be used."""
    state = "revoked" if one.revoked_at is not None else "expired" if now >= one.expires_at else "active"
    return {
        "id": one.id,
        "tenant": one.tenant,
        "agent": one.agent,
        "label": one.label,
        "user_id": one.user,
        "state": state,
        "routes": None if one.routes is None else list(one.routes),
        "tools": None if one.tools is None else list(one.tools),
        "ttl": one.ttl,
        "created_at": one.created_at,
        "expires_at": one.expires_at,
        "renewable_until": one.renewable_until,
        "revoked_at": one.revoked_at,
        "minted_by": one.minted_by,
    }


def user(one: UserStanding) -> dict[str, Any]:
    """Whether a user may be acted for."""
    return {
        "tenant": one.tenant,
        "user_id": one.user,
        "disabled": one.disabled_at is not None,
        "disabled_at": one.disabled_at,
        "grants_kept": one.grants_kept,
        "reason": one.reason,
        "changed_by": one.changed_by,
        "changed_at": one.changed_at,
        "connections": one.connections,
        "revocations_pending": one.revocations,
    }


def disabled(one: Disabled) -> dict[str, Any]:
    """The same, with what being disabled has ended: of each grant only what its provider has confirmed is claimed."""
    report = one.report
    return user(one.standing) | {
        "changed": report.changed,
        "known": one.known,
        "similar": list(one.similar),
        "flows_ended": report.flows,
        "disconnected": len(report.returned),
        "revoked_upstream": {str(word): count for word, count in report.counts.items()},
        "ended": [
            {
                "id": done.connection_id,
                "provider_id": done.key.provider,
                "account": done.key.account,
                "revoked_upstream": str(done.revoked_upstream),
            }
            for done in report.returned
        ],
    }


def approval(one: Approval) -> dict[str, Any]:
    """A yes that is asked for, without what it is asked for."""
    return {
        "id": one.id,
        "status": str(one.status),
        "approver": one.approver,
        "tool": one.tool,
        "user_id": one.user,
        "account": one.account,
        "agent": one.agent,
        "session": one.session,
        "created_at": one.created_at,
        "expires_at": one.expires_at,
        "decided_at": one.decided_at,
        "decided_by": one.decided_by,
    }


def seen(one: Seen) -> dict[str, Any]:
    """How a connection stands, for whoever waits for it."""
    connection = one.connection
    return {
        "id": connection.id,
        "user_id": connection.key.user,
        "provider_id": connection.key.provider,
        "account": connection.key.account,
        "state": str(connection.state),
        "reached": one.reached,
        "reason": connection.reason,
        "generation": connection.generation,
        "scopes": list(connection.scopes),
    }


def explanation(one: Explanation) -> dict[str, Any]:
    """A connection's story."""
    return {
        "tenant": one.key.tenant,
        "user_id": one.key.user,
        "provider_id": one.key.provider,
        "account": one.key.account,
        "connection": None if one.connection is None else connection(one.connection),
        "well": one.well,
        "who_must_act": str(one.act),
        "standing": one.standing,
        "advice": one.advice,
        "timeline": [
            {
                "at": line.at,
                "kind": line.kind,
                "text": line.text,
                "agent": line.agent,
                "data": dict(line.data),
            }
            for line in one.lines
        ],
    }
