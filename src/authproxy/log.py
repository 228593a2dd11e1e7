"""One JSON line per event on standard error; what looks like a credential is masked on its way out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Inside, a module that nobody has loaded yet cannot be imported, as if it were not installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what the import system itself writes there
    try:
        yield
    finally:
        del sys.modules[name]


# For colours on a console, which nothing here uses; where it is installed it would cost 3 MB and 50 ms.
with _without("rich"):
    import structlog

# The shapes of tokens that providers issue, of our own keys, and of fields that carry one. This is the second
# line: call sites log no secrets to begin with, but a library's exception text may quote a header.
_SHAPES = re.compile(
    r"(?i)(?:bearer|basic|token)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){1,4}"
    r"|\b(?:ya29\.|1//|xox[a-z]-|xoxe[.-]|gh[opsur]_|github_pat_|apx_|apk_|sk_live_|sk_test_)[A-Za-z0-9._-]{6,}"
    r"|(?:access_token|refresh_token|client_secret|code_verifier|code|state|password)=[^&\s\"']{4,}"
)
_MASK = "[masked]"


def mask(text: str) -> str:
    """`text` with everything that has the shape of a credential replaced."""
    return _SHAPES.sub(_MASK, text)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def _mask_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _masked(value) for key, value in event.items()}


def configure(level: str = "info", stream: TextIO | None = None, **always: Any) -> None:
    """Send structlog and the standard library's loggers to `stream` (standard error), one JSON line each, with what is
    `always` in it.

    Tracebacks are rendered without local variables: locals hold tokens.
    """

    def signed(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**event, **always}

    shared: list[Any] = [
        *([signed] if always else []),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _mask_event,
                structlog.processors.JSONRenderer(default=repr),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
