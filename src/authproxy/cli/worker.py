"""One of several `serve` processes, as it speaks with the one that started it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from authproxy.cli.console import Stop

if TYPE_CHECKING:
    from authproxy.listening import Handed
    from authproxy.metrics import Metrics, Snapshot

log = structlog.get_logger()

VARIABLE = "AUTHPROXY_WORKER"
"""What a worker is told when it is started. It is for `serve` itself, and no setting of anybody's."""

LONGEST = 2**24  # bytes of one message: a page of metrics is the longest
PATIENCE = 2.0  # seconds that a scrape waits for the others


class Place(NamedTuple):
    """Which worker this is, and what it was given: its line to whoever started it, and listening sockets."""

    number: int
    first: bool
    line: int
    sockets: Mapping[str, Sequence[int]]

    def said(self) -> str:
        """For the environment of the process that it is for."""
        return json.dumps(self._asdict())

    def handed(self) -> Handed:
        """The sockets, made usable."""
        return {name: [socket.socket(fileno=fd) for fd in fds] for name, fds in self.sockets.items()}


def place_of(environ: MutableMapping[str, str]) -> Place | None:
    """What this process was told, once: whatever it starts itself is no worker. None: it serves alone. Raises Stop
    for what nobody told it so."""
    said = environ.pop(VARIABLE, None)
    try:
        return None if said is None else Place(**json.loads(said))
    except (ValueError, TypeError):
        raise Stop(f"{VARIABLE} is what authproxy tells its own workers: unset it") from None


class Line:
    """The line to whoever started this worker: says when it serves, tells and asks numbers, and ends with the other."""

    def __init__(self, place: Place, metrics: Metrics, stop: asyncio.Event) -> None:
        self._place = place
        self._metrics = metrics
        self._stop = stop
        self._writer: asyncio.StreamWriter | None = None
        self._heard: asyncio.Task[None] | None = None
        self._asked: asyncio.Future[Sequence[Snapshot]] | None = None

    async def open(self) -> None:
        """From here on a page of metrics is of all workers, and the end of the parent is the end of this process."""
        reader, self._writer = await asyncio.open_connection(
            sock=socket.socket(fileno=self._place.line), limit=LONGEST
        )
        self._heard = asyncio.create_task(self._hear(reader))
        self._metrics.others = self.others

    def serving(self) -> None:
        """The listeners are open."""
        self._say(serving=os.getpid())

    async def others(self) -> Sequence[Snapshot]:
        """The numbers of the other workers, those that have died included; none where nobody answers in time."""
        self._asked = asyncio.get_running_loop().create_future()
        self._say(ask=True)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._asked
        except TimeoutError:
            log.warning("other_workers_silent")
            return ()
        finally:
            self._asked = None
            # What is about to be shown of this one: should it be killed, the next page must not show less.
            self._say(told=0, numbers=self._metrics.snapshot())

    async def close(self) -> None:
        """Say the last numbers, which count on when this process is gone."""
        if self._heard is not None:
            self._heard.cancel()
            await asyncio.wait((self._heard,))
        self._say(told=0, numbers=self._metrics.snapshot())
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):  # who started us may be gone first
                await self._writer.wait_closed()

    @staticmethod
    def words(said: Mapping[str, Any]) -> bytes:
        """As they go over the line."""
        return json.dumps(said).encode() + b"\n"

    @staticmethod
    async def heard(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
        """What comes over the line, until its other end is gone, be it in the middle of a word."""
        with suppress(OSError):
            while (line := await reader.readline()).endswith(b"\n"):
                yield json.loads(line)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        async for said in self.heard(reader):
            if "tell" in said:
                self._say(told=said["tell"], numbers=self._metrics.snapshot())
            elif self._asked is not None and not self._asked.done():
                self._asked.set_result(said["others"])
        if not self._stop.is_set():
            log.error("started_by_nobody", message="the process that started the workers is gone: ending")
            self._stop.set()

    def _say(self, **words: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(self.words(words))
