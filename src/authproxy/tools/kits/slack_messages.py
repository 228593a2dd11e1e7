"""Slack's messages: the times between which they are asked for, and their text as people read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from authproxy.tools.tool import Call, Json, bad_input

MOST_TEXT = 4000
_MOST_DEPTH = 6
_LONGEST_SPAN = 100  # characters; what is cut is no span either

_STAMP = re.compile(r"\d{1,12}\.\d{1,6}")
_LINK_STAMP = re.compile(r"p(\d{10})(\d{6})")
_CLOCK = re.compile(r"(\d{1,5}):(\d{1,3}):(\d{1,4})")
_AMOUNT = re.compile(r"(\d{1,6})\s*([a-z]+)")
_BETWEEN = re.compile(r"[\s,]*(?:and|ago|last|past|the)?[\s,]*")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "month": 2_592_000, "year": 31_536_000}
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
    **dict.fromkeys(("month", "months"), "month"),
    **dict.fromkeys(("y", "year", "years"), "year"),
}

_MARKUP = re.compile(r"<([^<>]{1,3000})>")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,20}:")
_MENTION = re.compile(r"<@([UW][A-Z0-9]{2,30})(?:\|[^<>]*)?>")


# Times


def window(call: Call) -> tuple[str | None, str | None]:
    """The arguments' oldest and latest time, as Slack takes them, or None where they are open."""
    oldest, latest = _edge(call, "oldest"), _edge(call, "latest")
    if oldest is not None and latest is not None and oldest > latest:
        raise bad_input("The oldest time is later than the latest.")
    return _stamp(oldest), _stamp(latest)


def thread(stamp: str) -> str:
    """A thread's `ts`; also taken as it stands in a message's link (p1712345678123456)."""
    told = stamp.strip()
    linked = _LINK_STAMP.fullmatch(told)
    if linked:
        return f"{linked[1]}.{linked[2]}"
    if not _STAMP.fullmatch(told):
        raise bad_input(
            "thread_ts must be the `ts` of the thread's first message, like 1712345678.123456.",
            hint="GetMessages tells it with each message.",
        )
    return told


def _edge(call: Call, edge: str) -> float | None:
    relative, absolute = call.get(f"{edge}_relative"), call.get(f"{edge}_datetime")
    if relative and absolute:
        raise bad_input(f"Give {edge}_relative or {edge}_datetime, not both.")
    if relative:
        return max(0.0, call.now - _ago(relative, call.now))
    return max(0.0, _moment(absolute)) if absolute else None


def _stamp(moment: float | None) -> str | None:
    return None if moment is None else f"{moment:.6f}"


def _ago(text: str, now: int) -> float:
    """Seconds: from DD:HH:MM, from words like `3 days ago` or `1h 30m`, or now, today, yesterday."""
    told = text.strip().lower()[:_LONGEST_SPAN]
    clock = _CLOCK.fullmatch(told)
    if clock:
        days, hours, minutes = (int(part) for part in clock.groups())
        return timedelta(days=days, hours=hours, minutes=minutes).total_seconds()
    today = now % _SECONDS["d"]
    if told in ("now", "today", "yesterday"):
        return {"now": 0, "today": today, "yesterday": today + _SECONDS["d"]}[told]
    seconds, place = 0, 0
    for amount in _AMOUNT.finditer(told):
        if not _BETWEEN.fullmatch(told, place, amount.start()) or amount[2] not in _UNITS:
            break
        seconds += int(amount[1]) * _SECONDS[_UNITS[amount[2]]]
        place = amount.end()
    if not place or not _BETWEEN.fullmatch(told, place):
        raise bad_input(
            f"{text[:80]!r} is no span of time before now.",
            hint="Write it as DD:HH:MM (03:00:00 for three days), or like '3 days ago' or '1h 30m'.",
        )
    return seconds


def _moment(text: str) -> float:
    told = text.strip()
    if _STAMP.fullmatch(told):
        return float(told)
    try:
        moment = datetime.fromisoformat(told)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise bad_input(
            f"{text[:80]!r} is no time.",
            hint="Write it as YYYY-MM-DD HH:MM:SS (UTC), or with an offset as 2026-01-31T09:00:00+01:00.",
        ) from None


# Messages


def people_in(messages: Iterable[dict[str, Any]]) -> list[str]:
    """The ids of those who wrote these messages or are mentioned in them."""
    ids: dict[str, None] = {}
    for message in messages:
        if isinstance(message.get("user"), str):
            ids[message["user"]] = None
        ids |= dict.fromkeys(_MENTION.findall(str(message.get("text", ""))))
    return list(ids)


def shape(message: dict[str, Any], names: Mapping[str, str]) -> Json:
    """A message in plain words: when, who, what, and what hangs on it."""
    text = plain(str(message.get("text") or "") or _beside(message), names)
    told = {
        "ts": message.get("ts"),
        "time": _time(message.get("ts")),
        "user_id": message.get("user") or message.get("bot_id"),
        "user_name": names.get(str(message.get("user"))) or _bot(message),
        "text": text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}… [cut]",
        "subtype": message.get("subtype"),
        "thread_ts": message.get("thread_ts"),
        "reply_count": message.get("reply_count"),
        "edited": bool(message.get("edited")),
        "files": [_file(one) for one in _dicts(message.get("files"))],
        "reactions": {
            str(one.get("name")): one.get("count") or len(one.get("users") or ())
            for one in _dicts(message.get("reactions"))
        },
    }
    return {key: value for key, value in told.items() if value or key == "text"}


def plain(text: str, names: Mapping[str, str]) -> str:
    """Slack's markup as people see it: names for ids, links as label and address, no escapes."""
    shown = _MARKUP.sub(lambda found: _shown(found[1], names), text)
    return shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _shown(inside: str, names: Mapping[str, str]) -> str:
    target, _, label = inside.partition("|")
    if target.startswith("@"):
        return f"@{names.get(target[1:]) or label or target[1:]}"
    if target.startswith("#"):
        return f"#{label or target[1:]}"
    if target.startswith("!"):
        return label or f"@{target[1:].partition('^')[0]}"
    if not _ADDRESS.match(target):
        return f"<{inside}>"
    address = target.removeprefix("mailto:")
    return address if label in ("", address, target) else f"{label} ({address})"


def _time(stamp: object) -> str | None:
    if not isinstance(stamp, str) or not _STAMP.fullmatch(stamp):
        return None
    try:
        return datetime.fromtimestamp(int(stamp.partition(".")[0]), UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None


def _bot(message: dict[str, Any]) -> str | None:
    profile = message.get("bot_profile")
    name = message.get("username") or (profile.get("name") if isinstance(profile, dict) else None)
    return name if isinstance(name, str) else None


def _file(file: dict[str, Any]) -> Json:
    told = {key: file.get(key) for key in ("id", "name", "mimetype", "size")}
    return {key: value for key, value in told.items() if value}


def _beside(message: dict[str, Any]) -> str:
    """The words of a message that has no text of its own: those of its attachments or blocks."""
    words: list[str] = []
    for one in _dicts(message.get("attachments")):
        parts = [one.get(key) for key in ("pretext", "title", "text")]
        words += [str(part) for part in parts if part] or [str(one.get("fallback") or "")]
    if not any(words):
        _gather(message.get("blocks"), words, _MOST_DEPTH)
    return "\n".join(word for word in words if word)


def _gather(part: object, words: list[str], depth: int) -> None:
    if depth == 0:
        return
    if isinstance(part, list):
        for one in part:
            _gather(one, words, depth - 1)
    elif isinstance(part, dict):
        text = part.get("text")
        if isinstance(text, str):
            words.append(text)
        else:
            _gather(text, words, depth - 1)
        for key in ("elements", "fields"):
            _gather(part.get(key), words, depth - 1)


def _dicts(told: object) -> list[dict[str, Any]]:
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
