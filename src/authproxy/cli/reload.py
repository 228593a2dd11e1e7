"""Reads the configuration again while `serve` runs: all of it is taken over, or nothing and every fault is said."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from authproxy.cli.configuration import beside, known, text_of
from authproxy.cli.console import Stop
from authproxy.core.changes import fixed, line_of
from authproxy.core.errors import Refusal, StoreUnavailable
from authproxy.core.strict import ConfigFaults, Fault, read

if TYPE_CHECKING:
    from authproxy.app import App
    from authproxy.core.config import Config
    from authproxy.core.model import Environment
    from authproxy.core.strict import Reading

log = structlog.get_logger()

TOLD = 20  # faults in one record of the trail; the log has them all


class Reloader:
    """`file` is opened by its path each time, so that a mounted file that is swapped is seen; `check` raises Stop
    where this process could not have started so."""

    def __init__(
        self, app: App, file: str, environment: Environment | None, *, check: Callable[[Config], None]
    ) -> None:
        self._app = app
        self._file = file
        self._environment = environment
        self._check = check

    async def reload(self) -> bool:
        """Whether the file has been taken over."""
        digest = ""
        try:
            path, text = await asyncio.to_thread(text_of, self._file)
            digest = digest_of(text)
            found = await asyncio.to_thread(self._read, path, text)
            self._demand_changeable(text, found.config)
            self._check(found.config)
            await self._app.take(found.config)
        except ConfigFaults as faults:
            await self._rejected(digest, faults.faults)
        except Stop as stop:
            await self._rejected(digest, [Fault(self._file, 1, "", sentence) for sentence in stop.lines])
        except Refusal as refusal:
            await self._rejected(digest, [Fault(self._file, 1, "", f"not now: {refusal.title}")])
        except ValueError as error:  # what only shows when routes are put together
            await self._rejected(digest, [Fault(self._file, 1, "routes", str(error))])
        else:
            await self._taken(digest, found)
            return True
        return False

    def _read(self, path: Path, text: str) -> Reading:
        return read(
            text,
            file=self._file,
            environ=os.environ,
            read_file=beside(path),
            environment=self._environment,
            known=known(),
        )

    def _demand_changeable(self, text: str, config: Config) -> None:
        paths = fixed(self._app.config, config)
        if not paths and not self._app.may_certify(config):
            paths = ["routes"]
        said = "cannot change while authproxy runs: restart it to take this over"
        if paths:
            raise ConfigFaults([Fault(self._file, line_of(text, path), path, said) for path in paths])

    async def _taken(self, digest: str, found: Reading) -> None:
        for fault in found.warnings:
            log.warning(
                "config_warning", file=fault.file, line=fault.line, path=fault.path, message=fault.message
            )
        self._app.metrics.reload_success.set(1)
        log.info("config_reloaded", file=self._file, sha256=digest, routes=list(found.config.routes))
        await self._note("config.reloaded", {"file": self._file, "sha256": digest})

    async def _rejected(self, digest: str, faults: list[Fault] | tuple[Fault, ...]) -> None:
        self._app.metrics.reload_success.set(0)
        for fault in faults:
            log.error(
                "config_fault",
                file=fault.file,
                line=fault.line,
                path=fault.path,
                message=fault.message,
                severity=fault.severity,
            )
        log.error("config_rejected", file=self._file, sha256=digest, faults=len(faults))
        told = [str(fault) for fault in faults[:TOLD]]
        await self._note(
            "config.rejected", {"file": self._file, "sha256": digest, "faults": told, "count": len(faults)}
        )

    async def _note(self, kind: str, data: dict[str, object]) -> None:
        try:
            await self._app.note(kind, data)
        except StoreUnavailable as error:
            log.error("event_not_kept", kind=kind, reason=error.reason)


def digest_of(text: str) -> str:
    """By which a version of the file is known in the log and in the trail."""
    return hashlib.sha256(text.encode()).hexdigest()
