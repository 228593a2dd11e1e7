"""What is said, without a socket: waits that always end, what is sent again and what never is, and refusals as told."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy import client
from authproxy.client import (
    ConnectionExpired,
    ConnectionRequired,
    DeadlinePassed,
    Denied,
    Expired,
    Failed,
    NotConnected,
    Refused,
    RetryLater,
    ScopeMissing,
    Superseded,
    ToolFailed,
    Unreachable,
    raise_for_refusal,
    refusal_of,
)
from authproxy.client.refusals import AuthproxyError
from authproxy.client.talk import TRIES, Call, Pause, Reply, Steps, Talk
from authproxy.client.values import Authorization
from authproxy.core.errors import every_refusal

T = TypeVar("T")
FLOW = {"id": "flow_1", "user_id": "alice", "provider_id": "google", "url": "https://a/connect/flow_1"}


def ok(**said: Any) -> Reply:
    return Reply(200, {}, json.dumps(said).encode())


def flow(state: str, **more: Any) -> Reply:
    return ok(**FLOW, state=state, status="pending", **more)


def no(code: str, status: int = 403, **more: Any) -> Reply:
    problem = {"code": code, "status": status, "title": "no", **more}
    return Reply(status, {"x-authproxy-error": code}, json.dumps(problem).encode())


class Script:
    """Plays the other side: each reply (or fault) takes so many seconds, and a pause takes what it takes."""

    def __init__(self, *replies: Reply | AuthproxyError, takes: float = 0.0) -> None:
        self.replies = list(replies)
        self.takes = takes
        self.now = 1000.0
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        self.talk = Talk(clock=lambda: self.now, tick=lambda: self.now)

    def play(self, steps: Steps[T]) -> T:
        reply: Reply | None = None
        fault: AuthproxyError | None = None
        try:
            while True:
                step = steps.send(reply) if fault is None else steps.throw(fault)
                reply = fault = None
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    continue
                self.calls.append(step)
                self.now += min(self.takes, step.hold)
                said = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if isinstance(said, Reply):
                    reply = said
                else:
                    fault = said
        except StopIteration as end:
            value: T = end.value
            return value


def begun(state: str = "not_started", expires_at: int | None = 1900) -> Authorization:
    return Authorization("flow_1", state, "alice", "google", expires_at=expires_at)


# --- waits


@pytest.mark.scenario("H04")
@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("denied", Denied),
        ("failed", Failed),
        ("expired", Expired),
        ("superseded", Superseded),
        ("completed", None),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
def test_every_end_of_a_consent_ends_the_wait(
    state: str, kind: type[NotConnected] | None, refused: bool
) -> None:
    """Also where the control plane refuses to wait for what has failed."""
    end = flow(state, reason="because")
    replies = [flow("pending"), *([no("connection_required", reason="because")] if refused else []), end]
    script = Script(*replies, takes=45)
    if kind is None:
        assert script.play(script.talk.wait(begun(), None)).completed
        return
    with pytest.raises(kind) as ended:
        script.play(script.talk.wait(begun(), None))
    assert ended.value.reason == "because"
    assert ended.value.authorization is not None
    assert ended.value.authorization.state == state


def test_a_wait_by_id_looks_first() -> None:
    script = Script(flow("pending"), flow("completed"))
    assert script.play(script.talk.wait("flow_1", 10)).completed
    assert [dict(call.query) for call in script.calls] == [{"id": "flow_1"}, {"id": "flow_1", "wait": "10"}]


@pytest.mark.parametrize("deadline", [0, 0.25, 1, 44.5, 100])
def test_a_deadline_ends_the_wait_on_time(deadline: float) -> None:
    script = Script(flow("pending"), takes=45)
    with pytest.raises(DeadlinePassed):
        script.play(script.talk.wait(begun(), deadline))
    assert script.now == pytest.approx(1000 + deadline, abs=0.001)
    assert all(call.hold <= 45 for call in script.calls)


def test_without_a_deadline_the_links_own_end_is_it() -> None:
    script = Script(flow("pending", expires_at=1900), takes=45)
    with pytest.raises(DeadlinePassed):
        script.play(script.talk.wait(begun(), None))
    assert 1900 <= script.now <= 1931
    script = Script(flow("pending"), takes=45)
    with pytest.raises(DeadlinePassed):
        script.play(script.talk.wait(begun(expires_at=None), None))
    assert script.now <= 1000 + 3600


def test_a_wait_outlives_a_restart_of_authproxy_and_not_its_own_deadline() -> None:
    script = Script(
        flow("pending"),
        Unreachable("gone"),
        Unreachable("gone"),
        Unreachable("gone"),
        no("overloaded", 503, act="retry_later", retry_after=7),
        flow("pending"),
        flow("completed"),
        takes=1,
    )
    assert script.play(script.talk.wait(begun(), 60)).completed
    script = Script(Unreachable("gone"))
    with pytest.raises(DeadlinePassed):
        script.play(script.talk.wait(begun(), 30))
    assert script.now == pytest.approx(1030, abs=0.001)
    assert len(script.calls) < 150


@pytest.mark.parametrize("what", ["flow", "connection"])
def test_who_holds_nothing_back_is_not_asked_without_end(what: str) -> None:
    script = Script(flow("pending") if what == "flow" else ok(id="con_1", state="disconnected"), takes=0)
    talk = script.talk
    with pytest.raises(DeadlinePassed):
        script.play(
            talk.wait(begun(), 60) if what == "flow" else talk.wait_for_connection("con_1", "active", 60)
        )
    assert len(script.calls) <= 122
    assert script.now == pytest.approx(1060, abs=0.001)


def test_a_wait_ends_where_its_caller_is_no_longer_known() -> None:
    script = Script(flow("pending"), no("caller_unknown", 401, act="fix_request", reason="revoked_key"))
    with pytest.raises(client.CallerUnknown):
        script.play(script.talk.wait(begun(), 60))


def test_waiting_for_a_connection() -> None:
    one = {"id": "con_1", "user_id": "alice", "provider_id": "google", "reached": False}
    dead, good = ok(**one, state="needs_reauth", reason="revoked"), ok(**one, state="active")
    script = Script(dead, Unreachable("x"), dead, good, takes=45)
    assert script.play(script.talk.wait_for_connection("con_1", "active", 300)).active
    assert {call.path for call in script.calls} == {"/v1/connections/con_1/wait"}
    script = Script(dead, takes=45)
    with pytest.raises(DeadlinePassed) as ended:
        script.play(script.talk.wait_for_connection("con_1", "active", 100.5))
    assert script.now == pytest.approx(1100.5, abs=0.001)
    assert ended.value.connection is not None
    assert (ended.value.connection.state, ended.value.reason) == ("needs_reauth", "revoked")
    script = Script(Unreachable("x"))
    with pytest.raises(Unreachable):
        script.play(script.talk.wait_for_connection("con_1", "active", 0))
    script = Script(no("not_found", 404, act="fix_request"))
    with pytest.raises(client.NotFound):
        script.play(script.talk.wait_for_connection("con_1", "active", 100))


# --- what is sent again


@pytest.mark.parametrize(
    "fault", [Unreachable("gone"), no("store_unavailable", 503, act="retry_later", retry_after=1)]
)
def test_only_what_reads_is_sent_again(fault: Any) -> None:
    talk = Script().talk
    changes: Iterable[Steps[Any]] = (
        talk.start("alice", "google", (), next_uri=None, account=None),
        talk.execute("Gmail.SendEmail", {}, "alice", None, 1),
        talk.mint("alice", agent=None, label=None, routes=None, tools=None, ttl=None, renewable_for=None),
        talk.renew("ses_1", None),
        talk.revoke("ses_1"),
        talk.disconnect("con_1"),
        talk.confirm_user("ticket", "alice"),
        talk.authorize_tool("Gmail.SendEmail", "alice", None),
    )
    for steps in changes:
        script = Script(fault)
        with pytest.raises((Unreachable, RetryLater)):
            script.play(steps)
        assert len(script.calls) == 1, script.calls
    for reads in (talk.status("flow_1"), talk.connections(None, None, None), talk.tools(None, None, ())):
        script = Script(fault)
        with pytest.raises((Unreachable, RetryLater)):
            script.play(reads)
        assert len(script.calls) == TRIES
        assert sum(script.pauses) <= 10


def test_a_long_pause_is_the_callers_to_take() -> None:
    script = Script(no("overloaded", 503, act="retry_later", retry_after=60))
    with pytest.raises(RetryLater) as later:
        script.play(script.talk.status("flow_1"))
    assert (later.value.retry_after, script.pauses) == (60, [])


def test_pages_are_read_to_their_end() -> None:
    one = {"user_id": "a", "provider_id": "p", "state": "active"}
    script = Script(
        ok(items=[{**one, "id": "con_1"}], after="con_1"), ok(items=[{**one, "id": "con_2"}], after=None)
    )
    found = script.play(script.talk.connections("a", None, "active"))
    assert [it.id for it in found] == ["con_1", "con_2"]
    assert dict(script.calls[1].query) == {
        "user_id": "a",
        "state": "active",
        "limit": "100",
        "after": "con_1",
    }
    script = Script(
        ok(items=[{"qualified_name": "A.B"}], total_count=2),
        ok(items=[{"qualified_name": "A.C"}], total_count=2),
    )
    assert [it.name for it in script.play(script.talk.tools(None, None, ("openai",)))] == ["A.B", "A.C"]


# --- tools


def test_what_a_tool_says() -> None:
    done = ok(id="tc_1", success=True, duration=12.5, output={"value": {"emails": []}})
    script = Script(done)
    result = script.play(script.talk.execute("Gmail.ListEmails", {"n_emails": 1}, "alice", None, 60))
    assert (result.id, result.value, result.duration) == ("tc_1", {"emails": []}, 0.0125)
    assert script.calls[0].body == {
        "tool_name": "Gmail.ListEmails",
        "input": {"n_emails": 1},
        "user_id": "alice",
    }
    error = {
        "kind": "UPSTREAM_RUNTIME_RATE_LIMIT",
        "message": "Gmail asks to slow down",
        "can_retry": True,
        "retry_after_ms": 1500,
        "additional_prompt_content": "try fewer",
        "developer_message": "429",
        "status_code": 429,
        "extra": {},
    }
    script = Script(ok(id="tc_2", success=False, output={"error": error, "authorization": None}))
    with pytest.raises(ToolFailed) as failed:
        script.play(script.talk.execute("Gmail.ListEmails", {}, "alice", None, 60))
    assert str(failed.value) == "Gmail asks to slow down"
    assert (failed.value.can_retry, failed.value.retry_after, failed.value.status) == (True, 1.5, 429)


@pytest.mark.parametrize(
    "asks", [{**FLOW, "status": "pending", "state": "not_started", "connection_id": None}, None]
)
def test_a_tool_that_lacks_the_users_consent_has_the_link(asks: Any) -> None:
    error = {
        "kind": "TOOL_REQUIREMENTS_NOT_MET",
        "message": "alice has to connect google first",
        "extra": {"code": "scope_missing", "connect_url": "https://a/connect/flow_1"},
    }
    script = Script(ok(id="tc_3", success=False, output={"error": error, "authorization": asks}))
    with pytest.raises(ScopeMissing) as lacking:
        script.play(script.talk.execute("Gmail.ListEmails", {}, "alice", None, 60))
    assert lacking.value.connect_url == "https://a/connect/flow_1"
    assert (lacking.value.authorization is None) == (asks is None)
    if asks is not None:
        assert (lacking.value.user, lacking.value.provider) == ("alice", "google")


# --- refusals


def test_every_refusal_of_the_server_has_its_kind_here() -> None:
    for kind in every_refusal():
        problem = kind("told").problem("req_1")
        with pytest.raises(Refused) as raised:
            raise_for_refusal(kind.status, {"X-Authproxy-Error": kind.code}, json.dumps(problem))
        assert type(raised.value) is not Refused, kind.code
        assert (raised.value.code, raised.value.act, raised.value.status) == (
            kind.code,
            str(kind.act),
            kind.status,
        )
        assert isinstance(raised.value, RetryLater) == (kind.act == "retry_later")


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/problem+json"}, [], None])
def test_an_upstreams_own_answer_passes_whatever_it_says(headers: Any) -> None:
    body = {
        "code": "connection_required",
        "type": "urn:authproxy:error:connection_required",
        "connect_url": "https://evil/",
    }
    raise_for_refusal(403, headers, json.dumps(body))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Authproxy-Error": "connection_expired"},
        {"x-authproxy-error": "connection_expired"},
        [("a", "b"), ("X-AUTHPROXY-ERROR", "connection_expired")],
        [(b"x-authproxy-error", b"connection_expired")],
    ],
)
def test_headers_may_be_kept_in_any_way(headers: Any) -> None:
    body = {
        "connect_url": "https://a/connect/f",
        "connection_id": "con_1",
        "reason": "revoked",
        "missing_scopes": [],
    }
    for said in (json.dumps(body), json.dumps(body).encode(), body):
        with pytest.raises(ConnectionExpired) as raised:
            raise_for_refusal(403, headers, said)
        one = raised.value
        assert (one.connect_url, one.connection_id, one.reason) == ("https://a/connect/f", "con_1", "revoked")
        assert isinstance(one, ConnectionRequired)


@given(st.one_of(st.none(), st.binary(max_size=200), st.text(max_size=200)))
def test_a_marked_answer_is_a_refusal_whatever_its_body(body: Any) -> None:
    with pytest.raises(ConnectionRequired) as raised:
        raise_for_refusal(403, {"X-Authproxy-Error": "connection_required"}, body)
    assert raised.value.connect_url is None


@given(
    st.dictionaries(
        st.sampled_from(
            ["code", "title", "act", "connect_url", "missing_scopes", "retry_after", "user", "status"]
        ),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9)), st.lists, max_leaves=4
        ),
    )
)
def test_members_of_the_wrong_kind_are_not_taken(problem: dict[str, Any]) -> None:
    with pytest.raises(Refused) as raised:
        raise_for_refusal(403, {"X-Authproxy-Error": "scope_missing"}, problem)
    one = raised.value
    assert isinstance(one.title, str)
    assert one.retry_after is None or isinstance(one.retry_after, int)


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "file:///etc/passwd", "", 7, None, "//evil", "data:text/html,x"]
)
def test_a_link_that_is_none_is_not_shown(link: Any) -> None:
    with pytest.raises(ConnectionRequired) as raised:
        raise_for_refusal(403, {"X-Authproxy-Error": "connection_required"}, {"connect_url": link})
    assert raised.value.connect_url is None


def test_what_a_refusal_was_hidden_by_is_looked_behind() -> None:
    inner = ConnectionRequired({"code": "connection_required"})
    outer, beside = RuntimeError("a library's own"), RuntimeError("another's")
    outer.__cause__, beside.__context__ = inner, inner
    assert refusal_of(outer) is refusal_of(beside) is inner
    looped = RuntimeError("a")
    looped.__cause__ = looped
    assert refusal_of(looped) is None
    assert refusal_of(ValueError("x")) is None


def test_there_is_no_token_in_it() -> None:
    """No field of any value that the control plane tells can hold one: what is not known is not taken."""
    said = {
        **FLOW,
        "state": "completed",
        "context": {"token": "CANARY"},
        "access_token": "CANARY",
        "token": "CANARY",
    }
    assert "CANARY" not in repr(Authorization.of(said))
    for name in client.__all__:
        assert "token" not in name.lower()
        fields = getattr(getattr(client, name), "__dataclass_fields__", {})
        assert not [field for field in fields if "token" in field or "secret" in field]
