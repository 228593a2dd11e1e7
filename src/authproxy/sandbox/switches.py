"""The switches: every way in which the provider can be made to misbehave, changed while it runs."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints


class SwitchError(ValueError):
    """A switch that does not exist or a value that it cannot take; the text is for the person who asked."""


def switch(doc: str, default: Any, *, group: str, minimum: float | None = None, maximum: float = 1e9) -> Any:
    """One switch: its sentence, where it starts, and which part of the provider it belongs to."""
    metadata = {"doc": doc, "group": group, "minimum": minimum, "maximum": maximum}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(slots=True)
class Switches:
    """All switches. Set attributes in process; from outside `update`, which is strict."""

    # The life of tokens and grants
    access_token_life: float | None = switch(
        "seconds an access token lives; null: the settings' or the dialect's own",
        None,
        group="life",
        minimum=0,
    )
    tokens_expire: bool | None = switch(
        "false: tokens never expire and no refresh token exists; null: as the dialect does",
        None,
        group="life",
    )
    rotate: bool | None = switch(
        "each refresh gives a new refresh token and spends the old; null: as the dialect does",
        None,
        group="life",
    )
    revoke_family_on_reuse: bool | None = switch(
        "a spent refresh token coming back revokes its whole family; null: as the dialect does",
        None,
        group="life",
    )
    grace_s: float = switch(
        "seconds after its use in which a spent refresh token is still answered", 0.0, group="life", minimum=0
    )
    grace_mode: Literal["same_successor", "sibling"] = switch(
        "what is answered in the grace time: the same successor again, or a new sibling",
        "same_successor",
        group="life",
    )
    revoke_old_access: bool | None = switch(
        "a refresh kills the older access tokens of the grant; null: as the dialect does", None, group="life"
    )
    refresh_idle_s: float = switch(
        "seconds after which an unused refresh token dies; 0: never", 0.0, group="life", minimum=0
    )
    refresh_absolute_s: float = switch(
        "seconds from consent to the end of the grant; 0: none", 0.0, group="life", minimum=0
    )
    test_mode_s: float = switch(
        "grants made while this is set die so many seconds after consent, whatever happens later "
        "(Google's Testing status: 604800); 0: off",
        0.0,
        group="life",
        minimum=0,
    )
    max_grants: int | None = switch(
        "live grants per user and client, the oldest is dropped silently; 0: no limit; null: as the dialect does",
        None,
        group="life",
        minimum=0,
    )

    # Consent and callback
    pkce: Literal["required", "optional", "refused"] | None = switch(
        "a S256 code challenge is required, optional or refused; null: as the dialect does",
        None,
        group="consent",
    )
    iss: Literal["normal", "missing", "wrong"] = switch(
        "the iss parameter of the callback (RFC 9207)", "normal", group="consent"
    )
    narrow_scopes: tuple[str, ...] | None = switch(
        "of the scopes asked for, grant only these at consent; null: all", None, group="consent"
    )

    # The shape of token answers
    omit_refresh_token: bool = switch(
        "no answer carries a refresh token (and none is spent)", False, group="answer"
    )
    omit_refresh_token_at_consent: bool = switch(
        "the answer to a code carries no refresh token", False, group="answer"
    )
    refresh_token_value: Literal["normal", "null", "empty", "blank", "same"] = switch(
        "what stands for the refresh token in a refresh answer; all but normal spend nothing",
        "normal",
        group="answer",
    )
    expires_in: Literal[
        "normal",
        "missing",
        "string",
        "string_float",
        "float",
        "zero",
        "negative",
        "huge",
        "null",
        "true",
        "empty",
        "word",
    ] = switch("the form of expires_in", "normal", group="answer")
    narrow_scopes_at_refresh: tuple[str, ...] | None = switch(
        "from the next refresh on the grant keeps only these scopes; null: all", None, group="answer"
    )
    scope_echo: Literal["normal", "absent", "reordered", "comma", "array", "superset"] = switch(
        "how granted scopes are told", "normal", group="answer"
    )
    token_type: str | None = switch("token_type of token answers; null: absent", "Bearer", group="answer")
    extra: Mapping[str, Any] = switch(
        "further members of token answers, such as another instance_url", {}, group="answer"
    )
    form_encoded: bool = switch("token answers are form-encoded instead of JSON", False, group="answer")

    # Who may call the token endpoint, and how
    require_auth: Literal["basic", "post"] | None = switch(
        "the only client authentication taken; null: what each client is registered for", None, group="client"
    )
    basic_decoding: Literal["rfc6749", "raw", "lenient"] = switch(
        "how Basic credentials are read: form-decoded, as they are, or both tried", "rfc6749", group="client"
    )
    spend_on_refusal: bool = switch(
        "a refused client authentication spends the refresh token all the same", False, group="client"
    )
    invalid_client: bool = switch("every client is refused with invalid_client", False, group="client")
    reject_scope_at_refresh: bool = switch(
        "a refresh that carries a scope parameter is refused with invalid_scope", False, group="client"
    )
    min_interval_s: float = switch(
        "seconds between two refreshes of one grant, or 429", 0.0, group="client", minimum=0
    )

    # Faults of the token endpoint
    next_calls: int = switch(
        "the token faults apply to the next so many token calls and are then taken back; 0: until reset",
        0,
        group="token",
        minimum=0,
    )
    faults_for: Literal["all", "refresh", "code"] = switch(
        "which token calls the faults apply to", "all", group="token"
    )
    delay_s: float = switch("wait before a token call is worked on", 0.0, group="token", minimum=0)
    delay_after_s: float = switch(
        "wait after it was worked on, before its answer", 0.0, group="token", minimum=0
    )
    drip_bytes: int = switch(
        "send the answer's body in pieces of so many bytes; 0: whole", 0, group="token", minimum=0
    )
    drip_interval_s: float = switch("wait between the pieces", 1.0, group="token", minimum=0)
    drop: Literal["no", "before", "after", "midway"] = switch(
        "reset the connection before anything was done, after the work but before its answer, or midway through it",
        "no",
        group="token",
    )
    status: int | None = switch("answer with this status", None, group="token", minimum=200, maximum=599)
    retry_after: str | None = switch("Retry-After of such an answer, any text", None, group="token")
    error: str | None = switch("answer with this error code", None, group="token")
    error_in_200: bool = switch("errors, real ones too, come with status 200", False, group="token")
    html: bool = switch("answer with an HTML error page (status 502 unless set)", False, group="token")
    empty: bool = switch("answer with an empty body (status 200 unless set)", False, group="token")
    body: str | None = switch("answer with this body", None, group="token")
    content_type: str | None = switch("content type of such an answer", None, group="token")
    headers: Mapping[str, str] = switch("further headers of such an answer", {}, group="token")
    work_first: bool = switch(
        "the call is worked on (a refresh token spent) before its answer is replaced by the above",
        False,
        group="token",
    )

    # Faults of userinfo and of the API
    only_user: str | None = switch(
        "token and API faults hit only this user; null: everybody", None, group="everywhere"
    )
    userinfo_status: int | None = switch(
        "userinfo fails with this status", None, group="api", minimum=300, maximum=599
    )
    api_next_calls: int = switch(
        "the API faults apply to the next so many API calls and are then taken back; 0: until reset",
        0,
        group="api",
        minimum=0,
    )
    api_unauthorized: bool = switch("the API refuses every token with 401", False, group="api")
    api_challenge: str | None = switch(
        'WWW-Authenticate of 401s; "" for none; null: as the dialect does', None, group="api"
    )
    api_insufficient_scope: bool = switch("the API answers 403 insufficient_scope", False, group="api")
    api_status: int | None = switch(
        "the API answers with this status (429, 500, …)", None, group="api", minimum=200, maximum=599
    )
    api_retry_after: str | None = switch("Retry-After of such an answer, any text", None, group="api")
    api_delay_s: float = switch("wait before each API answer", 0.0, group="api", minimum=0)
    api_reflect: bool = switch(
        "answers carry the Authorization header back, in a header and in the body", False, group="api"
    )
    api_redirect: str | None = switch("the API redirects to this URL", None, group="api")
    api_set_cookie: bool = switch("answers set a cookie", False, group="api")
    api_drop: bool = switch("the API resets the connection after doing the work", False, group="api")

    def update(self, values: Mapping[str, Any]) -> None:
        """Changes what `values` names, all or nothing; raises SwitchError."""
        known = self.known()
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise SwitchError(f"unknown switch {name!r}; known: {', '.join(sorted(known))}")
            checked[name] = _checked(name, value, _hints()[name], known[name].metadata)
        for name, value in checked.items():
            setattr(self, name, value)

    def take_back(self, group: str, initial: Switches) -> None:
        """Returns one group to where it began."""
        for name, one in self.known().items():
            if one.metadata["group"] == group:
                setattr(self, name, getattr(initial, name))

    def copy(self) -> Switches:
        """These positions, as a value of their own."""
        return Switches(**{name: getattr(self, name) for name in self.known()})

    def describe(self, initial: Switches) -> dict[str, dict[str, Any]]:
        """All switches with their position, their start, what they take and what they mean."""
        return {
            name: {
                "value": getattr(self, name),
                "default": getattr(initial, name),
                "takes": _takes(_hints()[name]),
                "group": one.metadata["group"],
                "meaning": one.metadata["doc"],
            }
            for name, one in self.known().items()
        }

    @staticmethod
    def known() -> dict[str, Field[Any]]:
        """The switches by name."""
        return {one.name: one for one in fields(Switches)}


def position(text: str) -> tuple[str, Any]:
    """A switch as written on a command line, `name=value`: the value is JSON, or else text."""
    name, given, value = text.partition("=")
    if not given or not name.strip():
        raise SwitchError(f"{text!r}: write name=value")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


_HINTS: dict[str, Any] = {}


def _hints() -> dict[str, Any]:
    if not _HINTS:
        _HINTS.update(get_type_hints(Switches))
    return _HINTS


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, `Literal`s spread out."""
    members = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    spread: list[Any] = []
    for member in members:
        spread.extend(get_args(member) if get_origin(member) is Literal else (member,))
    return tuple(spread)


def _takes(hint: Any) -> list[str]:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    said: list[str] = []
    for one in _alternatives(hint):
        if isinstance(one, str):
            said.append(f'"{one}"')
        elif get_origin(one) is tuple:
            said.append("list of strings")
        else:
            said.append(names.get(one, "object"))
    return said


def _checked(name: str, value: Any, hint: Any, limits: Mapping[str, Any]) -> Any:
    for one in _alternatives(hint):
        taken = _taken(value, one)
        if taken is MISSING:
            continue
        if limits["minimum"] is not None and isinstance(taken, int | float) and not isinstance(taken, bool):
            if not limits["minimum"] <= taken <= limits["maximum"]:
                raise SwitchError(f"{name}: must be between {limits['minimum']:g} and {limits['maximum']:g}")
            return float(taken) if one is float else taken
        return taken
    raise SwitchError(f"{name}: takes {' or '.join(_takes(hint))}")


def _taken(value: Any, one: Any) -> Any:
    """`value` as `one` would have it, or MISSING."""
    if isinstance(one, str):  # a Literal's member
        return value if value == one else MISSING
    if one is float:
        return value if isinstance(value, int | float) and not isinstance(value, bool) else MISSING
    if one is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else MISSING
    if one is str:
        return value if isinstance(value, str) and _printable(value) else MISSING
    if get_origin(one) is tuple:
        good = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        return tuple(value) if good else MISSING
    if one in (bool, type(None)):
        return value if isinstance(value, one) else MISSING
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        texts = get_args(one)[1] is str
        if not texts or all(isinstance(item, str) and _printable(item) for item in value.values()):
            return dict(value)
    return MISSING


def _printable(text: str) -> bool:
    """No control characters: several switches end up in header fields."""
    return all((one >= " " and one != "\x7f") or one == "\t" for one in text)
