"""What a stranger is told of a connection: never that all is well where it is not, and always who must act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authproxy.control.connections import Connections
from authproxy.control.explain import Explanation, explain
from authproxy.core.causes import Party
from authproxy.core.model import Caller, Connection, ConnectionKey, Environment, State
from tests.broker.house import house_at, key_of

NOW = 1_800_000_000
KEY = ConnectionKey("default", "alice", "acme")
AGAIN = "authproxy connect acme --user alice"


def connection(**fields: Any) -> Connection:
    values: dict[str, Any] = {
        "id": "con_1",
        "key": KEY,
        "environment": Environment.PRODUCTION,
        "state": State.ACTIVE,
        "reason": None,
        "client_id": "client-1",
        "grant_id": "grant_1",
        "generation": 3,
        "scopes": ("read",),
        "requested_scopes": ("read",),
        "expires_at": NOW + 3000,
        "lifetime": 3600,
        "refresh_expires_at": None,
        "refreshable": True,
        "extra": {},
        "provider_account": None,
        "consented_at": NOW - 10_000,
        "obtained_at": NOW - 600,
        "failures": 0,
        "retry_at": None,
        "last_error": None,
    }
    return Connection(**(values | fields))


def told(**fields: Any) -> Explanation:
    return explain(KEY, connection(**fields), [], now=NOW)


def failing(error: str, **fields: Any) -> Explanation:
    return told(failures=1, last_error=error, **fields)


@pytest.mark.scenario("J04", "J13")
@pytest.mark.parametrize(
    ("story", "well", "who", "words"),
    [
        (told(), True, Party.NOBODY, ["It works", "good for another 3000 s", "Nothing to do."]),
        (told(expires_at=NOW - 5), True, Party.NOBODY, ["is refreshed at the next request"]),
        (told(expires_at=None), True, Party.NOBODY, ["no known end"]),
        (
            told(expires_at=NOW - 5, refreshable=False),
            False,
            Party.OPERATOR,
            ["no refresh token", "offline access", AGAIN],
        ),
        # The pause after a failure is over, and nobody has come since: it is a failure still.
        (
            failing("maybe_sent:timeout", retry_at=NOW - 60),
            True,
            Party.NOBODY,
            ["was sent, and no answer came (timeout)", "not known", "when the next request", "still used"],
        ),
        (
            failing("maybe_sent:timeout", retry_at=NOW + 20, expires_at=NOW - 5),
            False,
            Party.PROVIDER,
            ["in 20 s at the earliest", "its access token has ended"],
        ),
        (
            failing("never_sent:dns", retry_at=NOW + 20),
            True,
            Party.NOBODY,
            ["The grant is good", "acme could not be reached for a refresh (dns)"],
        ),
        (
            failing("rate_limited", retry_at=NOW + 20),
            True,
            Party.NOBODY,
            ["says nothing of the grant"],
        ),
        (
            told(state=State.NEEDS_REAUTH, reason="unknown"),
            False,
            Party.USER,
            ["acme has ended the grant.", "without saying why", AGAIN],
        ),
        (
            told(state=State.NEEDS_REAUTH, reason="session_policy"),
            False,
            Party.ADMIN,
            ["(session policy)", "An administrator limits", AGAIN],
        ),
        (
            told(state=State.ROTATION_LOST, reason="rotation_lost"),
            False,
            Party.USER,
            ["answer was lost", AGAIN],
        ),
        (
            told(state=State.MISCONFIGURED, reason="client_credentials"),
            False,
            Party.OPERATOR,
            ["refuses your app registration", "not the user's grant", "the user need do nothing"],
        ),
        (
            told(state=State.MISCONFIGURED, reason="client_changed"),
            False,
            Party.OPERATOR,
            ["another client id (client-1)", "Put the old client_id back.", AGAIN],
        ),
        (
            told(reason="unreadable", last_error="key_unknown"),
            False,
            Party.OPERATOR,
            ["under a key that is not at hand", "key_missing", "keys status", AGAIN],
        ),
        (
            told(reason="unreadable", last_error="tampered"),
            False,
            Party.OPERATOR,
            ["cannot be opened (tampered)", "nothing was deleted", AGAIN],
        ),
        (
            told(state=State.MISCONFIGURED, reason="unreadable", last_error="row_damaged"),
            False,
            Party.OPERATOR,
            ["cannot be opened (row damaged)"],
        ),
        (told(state=State.DISCONNECTED, reason=None), False, Party.USER, ["was disconnected", AGAIN]),
        (explain(KEY, None, [], now=NOW), False, Party.USER, ["has never connected acme", AGAIN]),
    ],
)
def test_how_it_stands(story: Explanation, well: bool, who: Party, words: list[str]) -> None:
    said = f"{story.standing} {story.advice}"
    assert (story.well, story.act) == (well, who), said
    for one in words:
        assert one in said
    assert well or "Nothing to do" not in said
    assert "(unknown)" not in said


@pytest.mark.scenario("E03", "J13")
@pytest.mark.parametrize("column", ["access_token", "refresh_token", "extra"])
async def test_a_row_that_cannot_be_opened_does_not_look_well(tmp_path: Path, column: str) -> None:
    """Every request is refused with key_missing: neither the story nor the row may say that it works."""

    async def damage(tx: Any) -> None:
        await tx.run(f"UPDATE connections SET {column} = ?", b"\xa7\x01damaged" if "token" in column else "{")

    async with house_at(tmp_path) as house:
        broker = await house.broker()
        row = await house.connect(broker)
        operator = Caller("default", "ops", "loopback", ("*",), operator=True)
        control = Connections(broker.vault, broker.grants, clock=house.clock.wall)
        assert (await control.explain_key(operator, key_of())).well
        await broker.vault.backend.write(damage)
        for story in (await control.explain_key(operator, key_of()), await control.explain(operator, row.id)):
            assert not story.well
            assert "cannot be opened" in story.standing or "not at hand" in story.standing
            assert story.act is Party.OPERATOR
        assert (await control.show(operator, row.id)).reason == "unreadable"
