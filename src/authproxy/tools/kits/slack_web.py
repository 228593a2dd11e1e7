"""Slack's Web API as the tools use it: one call, its refusals in words, and a bounded walk over pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from authproxy.tools.tool import Answer, Call, Json, Kind, ToolError, bad_input

MOST_PAGES = 10
PAGE = 999  # Slack takes a limit below 1000

_ERROR = re.compile(r"[a-z0-9_.]{1,64}")
_SCOPES = re.compile(r"[a-z0-9_.:, ]{1,200}")

_GONE = "Slack no longer accepts the connection of this user ({error}): it has to be made anew."
_FAILURES: Mapping[str, tuple[Kind, str]] = {
    "channel_not_found": (
        Kind.NOT_FOUND,
        "There is no such conversation, or this user cannot see it. ListConversations shows which there are.",
    ),
    "not_in_channel": (
        Kind.BAD_REQUEST,
        "This user is no member of the conversation: somebody in it has to invite them first.",
    ),
    "is_archived": (Kind.BAD_REQUEST, "The conversation is archived: nothing can be changed in it."),
    "user_not_found": (Kind.NOT_FOUND, "There is no such user in this workspace."),
    "users_not_found": (Kind.NOT_FOUND, "No user of this workspace has that e-mail address."),
    "user_not_visible": (Kind.NOT_FOUND, "This user may not see that person."),
    "thread_not_found": (
        Kind.NOT_FOUND,
        "There is no such thread: thread_ts must be the `ts` of the thread's first message, in this conversation.",
    ),
    "message_not_found": (Kind.NOT_FOUND, "There is no such message in the conversation."),
    "already_in_channel": (Kind.BAD_REQUEST, "The person is already a member of the conversation."),
    "cant_invite_self": (Kind.BAD_REQUEST, "Nobody can invite themselves."),
    "cant_invite": (Kind.BAD_REQUEST, "That person cannot be invited to this conversation."),
    "ura_max_channels": (Kind.BAD_REQUEST, "That guest may be in no more conversations."),
    "method_not_supported_for_channel_type": (
        Kind.BAD_REQUEST,
        "Slack does not offer this for conversations of that type.",
    ),
    "cannot_dm_bot": (Kind.BAD_REQUEST, "Slack allows no direct messages to that bot."),
    "user_disabled": (Kind.BAD_REQUEST, "The person's account is deactivated."),
    "msg_too_long": (Kind.BAD_INPUT, "The message is too long for Slack: split it."),
    "no_text": (Kind.BAD_INPUT, "Slack refuses empty messages."),
    "too_many_users": (Kind.BAD_INPUT, "That are too many people at once."),
    "users_list_not_supplied": (Kind.BAD_INPUT, "Name at least one person other than the user."),
    "invalid_cursor": (
        Kind.BAD_INPUT,
        "next_cursor is not, or no longer, valid: start again without it.",
    ),
    "invalid_ts_latest": (Kind.BAD_INPUT, "The latest time is not valid."),
    "invalid_ts_oldest": (Kind.BAD_INPUT, "The oldest time is not valid."),
    "invalid_arguments": (Kind.VALIDATION_ERROR, "Slack does not accept these arguments."),
    "limit_required": (Kind.VALIDATION_ERROR, "Slack wants a smaller limit for this."),
    "missing_scope": (
        Kind.AUTH_ERROR,
        "The user has not allowed this application to do that in Slack.",
    ),
    "no_permission": (Kind.AUTH_ERROR, "The user may not do that in this workspace."),
    "not_allowed_token_type": (
        Kind.AUTH_ERROR,
        "Slack does not offer this to connections of this sort (a bot's where a user's is needed, or the reverse).",
    ),
    "restricted_action": (Kind.AUTH_ERROR, "The workspace's rules do not allow this user to do that."),
    "access_denied": (Kind.AUTH_ERROR, "The workspace's rules deny that."),
    "ekm_access_denied": (Kind.AUTH_ERROR, "The workspace's administrators have suspended access."),
    "team_access_not_granted": (Kind.AUTH_ERROR, "The application has no access to that workspace."),
    "two_factor_setup_required": (
        Kind.AUTH_ERROR,
        "The user has to set up two-factor sign-in at Slack first.",
    ),
    **{
        error: (Kind.AUTH_ERROR, _GONE.format(error=error))
        for error in ("invalid_auth", "not_authed", "token_expired", "token_revoked", "account_inactive")
    },
    "ratelimited": (Kind.RATE_LIMIT, "Slack asks to slow down: wait, then try again."),
    "rate_limited": (Kind.RATE_LIMIT, "Slack asks to slow down: wait, then try again."),
    **dict.fromkeys(
        ("internal_error", "fatal_error", "service_unavailable", "request_timeout"),
        (Kind.SERVER_ERROR, "Slack could not do this just now."),
    ),
    **dict.fromkeys(
        ("team_added_to_org", "org_login_required"),
        (Kind.SERVER_ERROR, "The workspace is being moved: Slack does nothing in it until that is done."),
    ),
}
_RETRIED = (Kind.RATE_LIMIT, Kind.SERVER_ERROR, Kind.BAD_INPUT)


class SlackRefusal(ToolError):
    """Slack's answer `ok: false`. `error` is its own name of the reason; `each` what it said of single users."""

    def __init__(self, error: str, kind: Kind, message: str, **more: Any) -> None:
        each = more.pop("each", {})
        super().__init__(kind, message, **more)
        self.error = error
        self.each: Mapping[str, str] = each


def read_failure(answer: Answer) -> ToolError | None:
    """What a 2xx answer of Slack's says went wrong, or None where nothing did."""
    said = answer.json
    if not isinstance(said, dict):
        return ToolError(Kind.BAD_OUTPUT, "Slack's answer was not JSON.", status=answer.status)
    if said.get("ok") is not False:
        return None
    error = _named(said.get("error")) or "unknown"
    kind, message = _FAILURES.get(error, (Kind.UNMAPPED, f"Slack refused: {error}."))
    needed = said.get("needed")
    if error == "missing_scope" and isinstance(needed, str) and _SCOPES.fullmatch(needed):
        message = f"{message} Missing: {needed}."
    return SlackRefusal(
        error,
        kind,
        message,
        developer_message=f"Slack answered ok:false with `{error}`",
        can_retry=kind in _RETRIED,
        retry_after_ms=_pause(answer) if kind is Kind.RATE_LIMIT else None,
        status=answer.status,
        each=_each(said.get("errors")),
    )


def error_words(_status: int, said: Json) -> str | None:
    """Slack's name of the error in an answer that is no success."""
    return _named(said.get("error")) if isinstance(said, dict) else None


def _named(error: object) -> str | None:
    return error if isinstance(error, str) and _ERROR.fullmatch(error) else None


def _pause(answer: Answer) -> int | None:
    seconds = answer.fields.get("retry-after", "")
    return int(seconds) * 1000 if seconds.isascii() and seconds.isdigit() and len(seconds) < 6 else None


def _each(errors: object) -> dict[str, str]:
    told = {}
    for one in errors if isinstance(errors, list) else ():
        if isinstance(one, dict) and isinstance(one.get("user"), str):
            told[one["user"]] = _named(one.get("error")) or "unknown"
    return told


async def read(call: Call, method: str, **arguments: Any) -> dict[str, Any]:
    """Call a method that reads; Slack takes the arguments of those as a form only. None is left out."""
    given = {
        name: ("true" if value else "false") if isinstance(value, bool) else value
        for name, value in arguments.items()
        if value is not None
    }
    answer = await call.api.call(
        "POST",
        f"/api/{method}",
        body=urlencode(given).encode(),
        content_type="application/x-www-form-urlencoded",
    )
    return _object(answer)


async def write(call: Call, method: str, **arguments: Any) -> dict[str, Any]:
    """Call a method that changes something, with JSON. None is left out."""
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return _object(await call.api.call("POST", f"/api/{method}", json=given))
    except SlackRefusal as refusal:
        if refusal.kind is Kind.SERVER_ERROR:  # of these Slack says that part of the work may have been done
            refusal.can_retry = False
            refusal.message += " It may have been done all the same: look before trying again."
        raise


def _object(answer: Answer) -> dict[str, Any]:
    return answer.json if isinstance(answer.json, dict) else {}


def next_cursor(said: Mapping[str, Any]) -> str | None:
    """Where the next page starts, or None after the last one."""
    told = said.get("response_metadata")
    cursor = told.get("next_cursor") if isinstance(told, dict) else None
    return cursor if isinstance(cursor, str) and cursor else None


def things(said: Mapping[str, Any], key: str) -> list[Any]:
    """The list under `key`, empty where there is none."""
    found = said.get(key)
    return found if isinstance(found, list) else []


async def collect(
    call: Call, method: str, key: str, *, limit: int, cursor: str | None, **arguments: Any
) -> tuple[list[Any], str | None]:
    """Up to `limit` things from `cursor` on, over at most ten pages, and where the rest starts."""
    found: list[Any] = []
    for _ in range(MOST_PAGES):
        asked = cursor
        said = await read(call, method, limit=min(limit - len(found), PAGE), cursor=asked, **arguments)
        found += things(said, key)
        cursor = next_cursor(said)
        if cursor is None or cursor == asked or len(found) >= limit:
            break
    return found, cursor


def limit_of(call: Call, most: int) -> int:
    """The argument `limit`, held to what one call may give."""
    limit = call.get("limit", most)
    if limit < 1:
        raise bad_input(f"limit must be between 1 and {most}.")
    return int(min(limit, most))
