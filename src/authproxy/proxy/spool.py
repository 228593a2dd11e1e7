"""A request's body on its way through: streamed once, and kept within bounds so that it can be sent again."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import IO

from authproxy.core.errors import BodyTooLarge

_PIECE = 256 * 1024

ReadBody = Callable[[], Awaitable[bytes]]


class SpoolBudget:
    """Replay bytes of all requests together; a spool that finds it used up keeps nothing."""

    def __init__(self, total: int) -> None:
        self._left = total
        self.total = total

    @property
    def used(self) -> int:
        return self.total - self._left

    def take(self, size: int) -> bool:
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        self._left += size


class Body:
    """The body of one request: iterated for the first sending, and again for the replay.

    `read` gives the next bytes from the agent, b"" at the end. Up to `keep` bytes are kept, `memory` of them
    in memory and the rest in an unlinked temporary file; past that, or past the budget of all requests,
    nothing is kept and `replayable` is false from then on. Past `limit` bytes (0: none) BodyTooLarge is raised.
    `whole` is all of it where it had come before it was asked for: then it need not be iterated.
    """

    __slots__ = (
        "_budget",
        "_ended",
        "_file",
        "_keep",
        "_kept",
        "_limit",
        "_memory",
        "_read",
        "_tail",
        "size",
        "whole",
    )

    def __init__(
        self,
        read: ReadBody,
        budget: SpoolBudget,
        *,
        keep: int,
        memory: int,
        limit: int,
        length: int | None,
        whole: bytes | None = None,
    ) -> None:
        self._read = read
        self._budget = budget
        self._memory = memory
        self._limit = limit
        self._keep = keep if length is None or length <= keep else -1
        self._kept = 0
        self._tail: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._ended = whole is not None
        self.size = 0
        self.whole = whole
        if whole is not None:
            self.size = len(whole)
            if self.replayable and budget.take(self.size):
                self._kept = self.size
            else:
                self._keep = -1

    @property
    def replayable(self) -> bool:
        """Whether everything that was read so far is still here."""
        return self._keep >= 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The whole body: first what is kept, then the rest from the agent."""
        if self.size:
            async for piece in self._kept_pieces():
                yield piece
        while not self._ended:
            piece = await self._read()
            if not piece:
                self._ended = True
                return
            self.size += len(piece)
            if self._limit and self.size > self._limit:
                raise BodyTooLarge(f"the request body is over {self._limit} bytes")
            if self._keep >= 0:
                await self._save(piece)
            yield piece

    async def _kept_pieces(self) -> AsyncIterator[bytes]:
        if self._file is not None:
            file = self._file
            at = 0
            while piece := await asyncio.to_thread(_read_at, file, at):
                at += len(piece)
                yield piece
        for piece in tuple(self._tail):
            yield piece

    async def _save(self, piece: bytes) -> None:
        size = len(piece)
        if self._kept + size > self._keep or not self._budget.take(size):
            self.drop()
            return
        self._kept += size
        self._tail.append(piece)
        if self._kept > self._memory:
            tail, self._tail = b"".join(self._tail), []
            await self._put_away(tail)

    async def _put_away(self, tail: bytes) -> None:
        """Move `tail` to the file. A disk that does not take it costs the replay and not the request.

        Whoever is cancelled meanwhile waits all the same: no thread can be called back, and a replay that began
        before it is done would lack these bytes.
        """
        file, self._file = (
            self._file,
            None,
        )  # the thread's alone, so that drop() does not close it under its hands
        writing = asyncio.ensure_future(asyncio.to_thread(_append, file, tail))
        cancelled: asyncio.CancelledError | None = None
        while not writing.done():
            try:
                await asyncio.wait((writing,))
            except asyncio.CancelledError as error:
                cancelled = error
        try:
            self._file = writing.result()
        except OSError:
            self.drop()
        if self._keep < 0 and self._file is not None:  # dropped meanwhile
            self.drop()
        if cancelled is not None:
            raise cancelled

    def drop(self) -> None:
        """Keep nothing from here on, and give the budget back. The end of every request comes here."""
        self._keep = -1
        self._budget.give_back(self._kept)
        self._kept = 0
        self._tail = []
        self.whole = None
        if self._file is not None:
            _close(self._file)
            self._file = None


def _append(file: IO[bytes] | None, data: bytes) -> IO[bytes]:
    # TemporaryFile has no name on disk: nobody else can open it, and it is gone with the process.
    file = tempfile.TemporaryFile(prefix="authproxy-") if file is None else file  # noqa: SIM115 - closed by drop()
    try:
        file.seek(0, 2)
        file.write(data)
        file.flush()  # a full disk says so here, and not when somebody reads or closes
    except OSError:
        _close(file)
        raise
    return file


def _close(file: IO[bytes]) -> None:
    with contextlib.suppress(
        OSError
    ):  # what could not be written is tried once more, and not wanted any more
        file.close()


def _read_at(file: IO[bytes], at: int) -> bytes:
    file.seek(at)
    return file.read(_PIECE)
