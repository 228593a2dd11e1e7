"""The words of Google's error answers that a model may be told."""

from __future__ import annotations

from authproxy.tools.tool import Json


def error_words(status: int, json: Json) -> str | None:
    """`error.message`, which says what was wrong with the request; None where there is none, or for 401, whose
    message speaks of tokens."""
    error = json.get("error") if isinstance(json, dict) else None
    if status == 401 or not isinstance(error, dict):
        return None
    message = error.get("message")
    return message if isinstance(message, str) and message else None
