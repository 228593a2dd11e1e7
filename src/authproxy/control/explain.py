"""The timeline of one connection in plain words: what happened, how it stands, and what to do now."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from authproxy.core.causes import Party, advice, party
from authproxy.core.model import (
    DEFAULT_ACCOUNT,
    DEFAULT_TENANT,
    Connection,
    ConnectionKey,
    Event,
    State,
    UserStanding,
)

UNREADABLE: Final = "unreadable"  # what the store says of a row whose cells cannot be opened


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    at: int
    kind: str
    text: str
    agent: str | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A connection's story. `well` is false where somebody must act, and `act` says who."""

    key: ConnectionKey
    connection: Connection | None
    lines: tuple[Line, ...]
    standing: str
    advice: str
    well: bool
    act: Party = Party.NOBODY


def explain(
    key: ConnectionKey,
    connection: Connection | None,
    events: Sequence[Event],
    *,
    user: UserStanding | None = None,
    theirs: Sequence[Event] = (),
    now: int,
) -> Explanation:
    """Put what is stored into words. `events` are the key's, oldest first; `theirs` are its user's as a whole."""
    told = sorted([*events, *theirs], key=lambda event: event.at)
    lines = tuple(Line(event.at, event.kind, _text(event), event.agent, event.data) for event in told)
    standing, todo, well = _standing(key, connection, now)
    if connection is not None and connection.state is State.DISCONNECTED:
        standing += _given_back(events)
    if user is not None and user.disabled_at is not None:
        said = f"{_barred(user)} Beside that: {standing}"
        return Explanation(key, connection, lines, said, _enable(key), False, Party.OPERATOR)
    return Explanation(key, connection, lines, standing, todo, well, _act(connection, well))


def _act(one: Connection | None, well: bool) -> Party:
    if well or one is None:
        return Party.NOBODY if well else Party.USER
    if one.reason == UNREADABLE:
        return Party.OPERATOR
    match one.state:
        case State.MISCONFIGURED:
            return Party.OPERATOR
        case State.NEEDS_REAUTH | State.ROTATION_LOST:
            return party("connection.needs_reauth", {"reason": one.reason})
        case State.DISCONNECTED:
            return Party.USER
        case State.ACTIVE:
            return Party.PROVIDER if one.refreshable else Party.OPERATOR


def _given_back(events: Sequence[Event]) -> str:
    """How the revocation stands, which goes on after the end."""
    told = [event.data.get("revoked_upstream") for event in events if event.kind == "connection.revocation"]
    return f" Of the grant: {_REVOKED[str(told[-1])]}." if told and str(told[-1]) in _REVOKED else ""


def _standing(key: ConnectionKey, one: Connection | None, now: int) -> tuple[str, str, bool]:
    again = f"Let {key.user} connect again: {_command(key)}"
    if one is None:
        return f"{key.user} has never connected {key.provider}.", f"Let them connect: {_command(key)}", False
    if one.reason == UNREADABLE:
        return _unreadable(one, again)
    why = f" ({one.reason.replace('_', ' ')})" if one.reason and one.reason != "unknown" else ""
    match one.state:
        case State.ACTIVE:
            return _active(one, now)
        case State.NEEDS_REAUTH:
            known = advice(one.reason)
            return (
                f"{key.provider} has ended the grant{why}.",
                again if known is None else f"{known} {again}",
                False,
            )
        case State.ROTATION_LOST:
            return (
                f"A refresh was sent and its answer was lost{why}; the refresh token must be taken as spent.",
                again,
                False,
            )
        case State.DISCONNECTED:
            return f"It was disconnected{why}.", again, False
        case State.MISCONFIGURED if one.reason == "client_changed":
            made = f"The grant was made with another client id ({one.client_id}) and is not sent to the present one."
            return made, f"Put the old client_id back. If it is gone for good: {again}", False
        case State.MISCONFIGURED:
            return (
                f"{key.provider} refuses your app registration{why}, not the user's grant.",
                f"{advice(one.reason) or ''} Check client_id, client_secret and client_auth of {key.provider}; the "
                "user need do nothing.".lstrip(),
                False,
            )


def _barred(user: UserStanding) -> str:
    since = f"{datetime.fromtimestamp(user.disabled_at or 0, UTC):%Y-%m-%d %H:%M} UTC"
    why = f": {user.reason}" if user.reason else ""
    return (
        f"{user.user} is disabled since {since} (by {user.changed_by}{why}), and every request for them is answered "
        "user_disabled."
    )


def _enable(key: ConnectionKey) -> str:
    words = ["authproxy", "users", "enable", key.user]
    words += ["--tenant", key.tenant] if key.tenant != DEFAULT_TENANT else []
    return f"Nothing, if that is meant. If it is not: {shlex.join(words)}"


def _command(key: ConnectionKey) -> str:
    """What to type, ready to be pasted."""
    words = ["authproxy", "connect", key.provider, "--user", key.user]
    words += ["--account", key.account] if key.account != DEFAULT_ACCOUNT else []
    words += ["--tenant", key.tenant] if key.tenant != DEFAULT_TENANT else []
    return shlex.join(words)


def _unreadable(one: Connection, again: str) -> tuple[str, str, bool]:
    so = "every request is answered key_missing, and nothing was deleted"
    if one.last_error == "key_unknown":
        said = f"Its tokens are sealed under a key that is not at hand: {so}."
        todo = "Give that key too; `authproxy keys status` says which are at hand."
    else:
        said = f"What is stored of it cannot be opened ({(one.last_error or 'damaged').replace('_', ' ')}): {so}."
        todo = "Find out what wrote to the store beside authproxy, and bring back a sound copy."
    return said, f"{todo} If it is lost: {again}", False


def _active(one: Connection, now: int) -> tuple[str, str, bool]:
    if one.failures and one.last_error:
        return _failing(one, now)
    if one.expires_at is None:
        life = "its access token has no known end"
    elif one.expires_at > now:
        life = f"its access token is good for another {one.expires_at - now} s"
    elif one.refreshable:
        life = "its access token has ended and is refreshed at the next request"
    else:
        return (
            "The access token has ended, and there is no refresh token.",
            f"Let {one.key.user} connect again, and ask the provider for offline access: {_command(one.key)}",
            False,
        )
    kept = "it can be refreshed" if one.refreshable else "it cannot be refreshed"
    return f"It works: {life}, and {kept}.", "Nothing to do.", True


def _failing(one: Connection, now: int) -> tuple[str, str, bool]:
    """After a refresh that decided nothing."""
    doubt, _, cause = (one.last_error or "").partition(":")
    match doubt:
        case "maybe_sent":
            said = (
                f"The last refresh was sent, and no answer came ({cause}): whether its refresh token is still good "
                "is not known until the next one is answered"
            )
        case "never_sent":
            said = f"The grant is good, but {one.key.provider} could not be reached for a refresh ({cause})"
        case _:
            said = f"The last refresh failed ({doubt.replace('_', ' ')}), which says nothing of the grant"
    served = one.expires_at is None or one.expires_at > now
    meanwhile = "its access token is still used" if served else "its access token has ended"
    wait = 0 if one.retry_at is None else one.retry_at - now
    again = f"in {wait} s at the earliest" if wait > 0 else "when the next request or the keeper wants it"
    return (
        f"{said}. It is tried again {again}; {meanwhile}.",
        "Nothing for the user to do. If it goes on, look at the provider's status page and at the log.",
        served,
    )


def _text(event: Event) -> str:
    said = _SAID.get(event.kind, event.kind.replace(".", ": ").replace("_", " "))
    if event.kind.startswith("refresh."):
        said += _WHY.get(str(event.data.get("why")), "")
    must = _MUST.get(party(event.kind, event.data))
    return "; ".join([said, *_details(event.data), *([must] if must else [])])


def _details(data: Mapping[str, Any]) -> Iterator[str]:
    """What was kept beside the kind: the verdict's words, and the decision that was taken (J04)."""
    reason, code, status = data.get("reason"), data.get("code"), data.get("status")
    if reason:
        yield f"reason: {str(reason).replace('_', ' ').replace(':', ': ')}"
    if code and code != reason:
        yield f"the provider said {code}"
    if isinstance(status, int):
        yield f"HTTP {status}"
    if (attempt := data.get("attempt")) not in (None, 1):
        yield f"attempt {attempt}"
    if isinstance(generation := data.get("generation"), int):
        yield f"generation {generation}"
    if data.get("rotated"):
        yield "with a new refresh token"
    for name, words in (
        ("scopes", "scopes"),
        ("scopes_lost", "scopes lost"),
        ("scopes_lacking", "not granted"),
    ):
        if scopes := data.get(name):
            yield f"{words}: {' '.join(scopes)}"
    if outcome := data.get("revoked_upstream"):
        yield _REVOKED.get(str(outcome), str(outcome))
    yield from _course(data)
    if decision := data.get("decision"):
        yield f"decided: {decision}"


def _course(data: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(ends_at := data.get("ends_at"), int):
        yield f"it ends at {datetime.fromtimestamp(ends_at, UTC):%Y-%m-%d %H:%M} UTC"
    if (failures := data.get("failures")) not in (None, 0, 1):
        yield f"{failures} failures in a row"


_SAID: Final[Mapping[str, str]] = {
    "flow.started": "a link was made",
    "flow.widened": "the link asks for more",
    "flow.opened": "the button was pressed, and the browser sent to the provider",
    "flow.completed": "the user consented",
    "flow.denied": "the user declined",
    "flow.failed": "the consent failed",
    "flow.expired": "the link was not used in time",
    "flow.repeated": "the provider gave no refresh token, and is asked once more",
    "flow.superseded": "the link was replaced by a newer one",
    "flow.refused": "a callback was refused",
    "flow.confirming": "the user consented; the application is asked who it was",
    "connection.connected": "connected",
    "connection.imported": "a refresh token was imported",
    "connection.put_back": "what was there before is in place again",
    "connection.needs_reauth": "the provider has ended the grant: only the user can mend it",
    "connection.rotation_lost": "a refresh token was sent and its successor lost: only the user can mend it",
    "connection.misconfigured": "the provider refuses the app registration: the operator must act",
    "connection.recovered": "it works again",
    "connection.reauth_due": "the grant will end although it is refreshed: let the user connect again before",
    "provider.suspected": "many users' grants were refused alike: the fault is probably ours",
    "provider.recovered": "the provider grants tokens again",
    "connection.disconnected": "disconnected",
    "connection.revocation": "the grant was given back",
    "user.disabled": "the user was disabled",
    "user.enabled": "the user was enabled again",
    "refresh.succeeded": "refreshed",
    "refresh.failed": "a refresh failed",
}
_REVOKED: Final[Mapping[str, str]] = {
    "yes": "the provider has revoked it",
    "pending": "the provider has not confirmed it yet, and is asked again",
    "failed": "the provider did not confirm it, and is not asked any more",
    "unsupported": "the provider has no way to revoke it",
}
_WHY: Final[Mapping[str, str]] = {
    "ahead": " ahead of time, before the token ended",
    "keep_alive": " to keep a grant alive that nobody used",
    "over": " although nothing can refresh it",
    "operator": " at an operator's word",
    "import": " to prove an import",
}
_MUST: Final[Mapping[Party, str]] = {
    Party.USER: "the user must act",
    Party.ADMIN: "an administrator of the user's organisation must act",
    Party.OPERATOR: "the operator must act",
    Party.PROVIDER: "nobody must act: the provider is asked again",
}
