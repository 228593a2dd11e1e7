"""An answer that is no success, as the failure that a model and a developer are told: our words, never the raw body."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from authproxy.core.policy import compile_glob
from authproxy.core.scrub import is_text
from authproxy.proxy.inner import Heard
from authproxy.tools.loading import Kit
from authproxy.tools.tool import Json, Kind, ToolError

MAX_PAUSE = 24 * 3600  # seconds; a longer one is no pause
PERHAPS = "; it may have been done all the same: look before trying again"
_WORDS = 200
CONSENT = frozenset({"connection_required", "connection_expired", "scope_missing"})
"""Codes of refusals that the user can mend, by a link."""
_NO_RULE = frozenset({"no_rule_for_method", "no_rule_for_path", "ambiguous_path"})
_LATER = {"upstream_timeout": Kind.TIMEOUT, "upstream_unreachable": Kind.UNREACHABLE}
_LIMITED = frozenset(
    {
        *("ratelimitexceeded", "userratelimitexceeded", "rate_limit_exceeded", "quotaexceeded"),
        *(
            "dailylimitexceeded",
            "resource_exhausted",
            "request_limit_exceeded",
            "rate_limited",
            "ratelimited",
        ),
    }
)

_SAID: Mapping[int, tuple[Kind, str]] = {
    400: (Kind.BAD_REQUEST, "{kit} says that the request is wrong"),
    401: (Kind.AUTH_ERROR, "{kit} does not accept the user's grant"),
    403: (Kind.AUTH_ERROR, "{kit} does not let this user do that"),
    404: (Kind.NOT_FOUND, "{kit} has no such thing, or this user may not see it"),
    409: (Kind.VALIDATION_ERROR, "{kit} says that this conflicts with how things stand"),
    410: (Kind.NOT_FOUND, "{kit} says that this is gone"),
    412: (Kind.VALIDATION_ERROR, "{kit} says that it has been changed meanwhile"),
    422: (Kind.VALIDATION_ERROR, "{kit} does not accept these values"),
    429: (Kind.RATE_LIMIT, "{kit} asks to slow down"),
}


def failure_of(heard: Heard, kit: Kit, *, now: float, repeatable: bool) -> ToolError:
    """An upstream's answer of 3xx to 5xx. `repeatable` says that sending it again does no harm."""
    status = heard.status
    said = read_json(heard)
    words = safe_words(kit.error_words(status, said)) if kit.error_words is not None else None
    if status == 429 or (status in (403, 503) and is_limit(heard.fields, said)):
        pause = pause_of(heard.fields, now)
        return ToolError(
            Kind.RATE_LIMIT,
            _sentence(f"{kit.name} asks to slow down", words),
            can_retry=True,
            retry_after_ms=pause,
            status=status,
        )
    if status >= 500:
        text = f"{kit.name} failed ({status})"
        if not repeatable:
            text += PERHAPS
        return ToolError(
            Kind.SERVER_ERROR,
            _sentence(text, words),
            can_retry=repeatable,
            retry_after_ms=pause_of(heard.fields, now),
            status=status,
        )
    kind, text = _SAID.get(status, (Kind.UNMAPPED, "{kit} answered with something unexpected"))
    return ToolError(
        kind,
        _sentence(text.format(kit=kit.name), words),
        developer_message=f"{heard.entry.method} on route {heard.entry.route} answered {status}",
        status=status,
    )


def refusal_of(heard: Heard, kit: Kit, *, base: str, repeatable: bool) -> ToolError:
    """A refusal of authproxy's own, by its code. `base` is the path that the route's upstream has; `repeatable` as
    above."""
    said = read_json(heard)
    problem: Mapping[str, Any] = said if isinstance(said, dict) else {}
    code, title = heard.entry.code or "internal", str(problem.get("title", "authproxy refused the request"))
    pause = problem.get("retry_after")
    more: dict[str, Any] = {"code": code, "developer_message": f"{title} (authproxy: {code})"}
    if code in CONSENT:
        link = problem.get("connect_url")
        return ToolError(
            Kind.REQUIREMENTS_NOT_MET,
            f"{title}. Give the user the link, and call the tool again once they have agreed.",
            hint=f"The link for the user: {link}" if link else None,
            connect_url=link,
            **more,
        )
    if problem.get("reason") in _NO_RULE:
        return ToolError(
            Kind.REQUIREMENTS_NOT_MET,
            f"The operator's rules for {heard.entry.route} do not allow what this tool does. Do not call it again.",
            code=code,
            developer_message=f"To allow it, add {_lacking(heard, kit, base)} to routes.{heard.entry.route}.allow in "
            "routes.yaml; the README has all that each toolkit needs",
        )
    match problem.get("act"):
        case "retry_later":
            harmless = repeatable or not heard.entry.attempts
            return ToolError(
                _LATER.get(code, Kind.RETRY),
                f"{title}. Try again in a moment." if harmless else f"{title}{PERHAPS}.",
                can_retry=harmless,
                retry_after_ms=pause * 1000 if isinstance(pause, int) and harmless else None,
                **more,
            )
        case "fix_request" if code in ("bad_request", "body_too_large", "header_too_large"):
            return ToolError(Kind.BAD_INPUT, f"An argument cannot be sent: {title}", **more)
        case _:
            return ToolError(Kind.REQUIREMENTS_NOT_MET, f"authproxy does not do that: {title}", **more)


def _lacking(heard: Heard, kit: Kit, base: str) -> str:
    """The rule that lets a refused request pass, as the toolkit says it, else for its very path."""
    method, path = heard.entry.method, heard.entry.path.partition(b"?")[0]
    own = path.removeprefix(base.encode())
    globs = (glob for rule in (*kit.reads, *kit.writes) if method in rule.methods for glob in rule.paths)
    found = next((base + glob for glob in globs if compile_glob(glob).fullmatch(own)), None)
    return f'{{methods: [{method}], paths: ["{found or path.decode("latin-1")}"]}}'


def is_limit(fields: Mapping[str, str], said: Json) -> bool:
    """Whether a refusal is one of rate: by its fields, or by the word that the provider gives as its reason."""
    if "retry-after" in fields or fields.get("x-ratelimit-remaining", "").strip() == "0":
        return True
    return any(word.lower() in _LIMITED for word in _reasons(said))


def _reasons(said: Json) -> list[str]:
    """The machine words of an error body, in the shapes of the providers that there are."""
    found: list[Any] = []
    for one in said if isinstance(said, list) else [said]:
        if not isinstance(one, dict):
            continue
        found += [one.get("errorCode"), one.get("category"), one.get("error")]
        error = one.get("error")
        if isinstance(error, dict):
            found.append(error.get("status"))
            for detail in [*_list(error.get("errors")), *_list(error.get("details"))]:
                if isinstance(detail, dict):
                    found.append(detail.get("reason"))
    return [word for word in found if isinstance(word, str)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def pause_of(fields: Mapping[str, str], now: float) -> int | None:
    """Milliseconds until the provider wants to be asked again; None where it does not say."""
    said = fields.get("retry-after", "").strip()
    seconds: float | None = None
    if re.fullmatch(r"[0-9]{1,9}", said):
        seconds = int(said)
    elif said:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - now
        except (ValueError, OverflowError):
            seconds = None
    elif fields.get("x-ratelimit-remaining", "").strip() == "0":
        reset = fields.get("x-ratelimit-reset", "").strip()
        seconds = int(reset) - now if re.fullmatch(r"[0-9]{1,12}", reset) else None
    if seconds is None:
        return None
    return int(min(max(seconds, 0), MAX_PAUSE) * 1000)


def safe_words(words: Any) -> str | None:
    """A provider's words, short and on one line; None where there are none."""
    if not isinstance(words, str):
        return None
    plain = " ".join("".join(c if c.isprintable() else " " for c in words[: 4 * _WORDS]).split())
    return plain[:_WORDS] or None


def read_json(heard: Heard) -> Json:
    """The body as JSON; None where it is none, or does not say that it is text: that was not searched for the token."""
    if not heard.body or not is_text(heard.fields.get("content-type", "")):
        return None
    try:
        return json.loads(heard.body)
    except (ValueError, RecursionError):
        return None


def is_page(heard: Heard) -> bool:
    """Whether a success is HTML, as portals and gateways answer in a provider's place."""
    return heard.fields.get("content-type", "").lower().startswith("text/html")


def _sentence(text: str, words: str | None) -> str:
    return f"{text}: {words}" if words else text
