"""What lasts is looked at again and again: who asked for it must still be somebody, and what it runs on still stand.

Answers that stream, uploads, WebSockets and tunnels of passed bytes are ended within the leash when the agent's key or
session is revoked, or the connection, or the user is disabled (I08, I10). One task looks at all of them, once for
each connection however many streams it has; a stream costs an entry in a table, and its bytes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from authproxy.core.errors import CallerUnknown, Refusal, UserNotAllowed
from authproxy.core.model import Usable
from authproxy.proxy.reception import Reception
from authproxy.proxy.record import Entry
from authproxy.proxy.server import Incoming
from authproxy.proxy.upstream import Answer
from authproxy.store.admission import disabled

log = structlog.get_logger()

_TOGETHER = 32  # connections that are looked up at once


class _One:
    """A request under way."""

    __slots__ = ("answer", "entry", "incoming", "usable")

    def __init__(
        self,
        entry: Entry,
        incoming: Incoming,
        usable: Usable | None,
        answer: Answer | None,
    ) -> None:
        self.entry = entry
        self.incoming = incoming
        self.usable = usable
        self.answer = answer

    def end(self, refusal: Refusal) -> None:
        """End it; its record says why. The agent is told as long as nothing of an answer has gone out."""
        self.entry.cause = refusal
        client, content = self.incoming.client, self.incoming.content
        if self.answer is None and self.usable is not None:
            if not content.is_eof():
                content.set_exception(refusal)  # whoever reads the upload ends in this
            return
        if self.answer is not None:
            self.answer.end(refusal)
        client.abort()


class Lasting:
    """Everything of one process that lasts. It outlives configurations."""

    def __init__(
        self,
        leash: float,
        standing: Callable[[Usable], Awaitable[None]],
        barred: Callable[[str, str], bool],
    ) -> None:
        """`leash` is in seconds; `standing` raises where a connection has ended; `barred` says whether a tenant's user
        is disabled."""
        # What is known of keys may be half a leash old, and so may the last look at the stream.
        self._period = leash / 2
        self._standing = standing
        self._barred = barred
        self._reception: Reception | None = None
        self._under_way: dict[Entry, _One] = {}
        self._looking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._under_way)

    def recognise_by(self, reception: Reception) -> None:
        """Who asks for what is under way is judged by this from now on."""
        self._reception = reception

    def begin(
        self,
        entry: Entry,
        incoming: Incoming,
        usable: Usable | None = None,
        answer: Answer | None = None,
    ) -> None:
        """Look at this request until `end`. `usable` is what it was sent with, None for bytes that are passed on;
        `answer` is there as soon as its head is. Called again it takes the place of what was said before."""
        entry.lasts = True
        self._under_way[entry] = _One(entry, incoming, usable, answer)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="lasting")
            self._looking.add_done_callback(_ended)

    def end(self, entry: Entry) -> None:
        """This request is over, whether or not it ever began to last."""
        self._under_way.pop(entry, None)

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))

    async def _look(self) -> None:
        while self._under_way:
            await asyncio.sleep(self._period)
            by_connection: dict[str, list[_One]] = {}
            doubtful = []
            for one in tuple(self._under_way.values()):
                if not self._known(one):
                    doubtful.append(one)
                elif one.usable is not None:
                    by_connection.setdefault(one.usable.connection_id, []).append(one)
            groups = list(by_connection.values())
            for at in range(0, len(groups), _TOGETHER):
                await asyncio.gather(*(self._stands(group) for group in groups[at : at + _TOGETHER]))
            # What is not known of may only not be known yet: asked together, it is read together.
            await asyncio.gather(*map(self._ask_again, doubtful))

    def _known(self, one: _One) -> bool:
        """Whether the agent is still who it was, and may still act for the user; as far as is known, and where not,
        it is asked again."""
        try:
            self._identify(one)
        except CallerUnknown:
            return False
        except Refusal as refusal:
            self._cut(one, refusal)
        return True

    async def _ask_again(self, one: _One) -> None:
        assert self._reception is not None
        try:
            await self._reception.known(lambda: self._identify(one))
        except Refusal as refusal:
            self._cut(one, refusal)

    def _identify(self, one: _One) -> None:
        user = one.entry.user
        if user is not None and self._barred(one.entry.tenant, user):
            raise disabled(user)
        if self._reception is None or one.incoming.client.place.behalf is not None:
            return
        found = self._reception.identify(one.incoming)
        if user is not None and not found.caller.allowed(user):
            raise UserNotAllowed("this caller may not act for that user any more", user=user)

    async def _stands(self, group: Sequence[_One]) -> None:
        assert group[0].usable is not None
        try:
            await self._standing(group[0].usable)
        except Refusal as refusal:
            for one in group:
                self._cut(one, refusal)

    def _cut(self, one: _One, refusal: Refusal) -> None:
        if self._under_way.get(one.entry) is one:  # it may be over by now
            one.end(refusal)


def _ended(task: asyncio.Task[None]) -> None:
    """It ends when there is nothing to look at; the next stream begins another."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("background_work_ended", error=type(error).__name__, exc_info=error)
