"""Around work that needs a connection: the link is shown, its end waited for, and the work done, or done again."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from authproxy.client.refusals import ConnectionRequired, refusal_of
from authproxy.client.values import Authorization

if TYPE_CHECKING:
    from authproxy.client.asynchronous import AsyncClient
    from authproxy.client.blocking import Client

P = ParamSpec("P")
R = TypeVar("R")
ROUNDS = 3
"""How often work is begun again before what stands in its way is handed on."""


class Wanted:
    """What is asked for, and whether a failure is one that the user's consent mends."""

    def __init__(
        self,
        user: str,
        provider: str,
        *,
        scopes: tuple[str, ...],
        next_uri: str | None,
        account: str | None,
        deadline: float | None,
    ) -> None:
        self.user = user
        self.provider = provider
        self.scopes = scopes
        self.next_uri = next_uri
        self.account = account
        self.deadline = deadline

    def lacking(self, error: BaseException) -> ConnectionRequired | None:
        """What the user can mend, where it is about this user and this provider; else None."""
        found = refusal_of(error)
        if not isinstance(found, ConnectionRequired):
            return None
        mine = found.user in (None, self.user) and found.provider in (None, self.provider)
        return found if mine else None

    def with_missing(self, missing: tuple[str, ...]) -> tuple[str, ...]:
        """All scopes to ask for."""
        return tuple(dict.fromkeys((*self.scopes, *missing)))


class Attempt:
    """One go at the work: a failure that the user can mend ends here, every other goes on."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.missing: tuple[str, ...] = ()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        lacking = None if error is None else self._wanted.lacking(error)
        if lacking is None:
            return False
        self.missing = lacking.missing_scopes
        return True


class Connected:
    """Made by `Client.connected`."""

    def __init__(
        self,
        client: Client,
        user: str,
        provider: str,
        *,
        show: Callable[[Authorization], object],
        **wanted: Any,
    ) -> None:
        self._client = client
        self._show = show
        self._wanted = Wanted(user, provider, **wanted)

    def __enter__(self) -> Authorization:
        return self._connect(())

    def __exit__(self, *_: object) -> None:
        """What fails inside is whose it is."""

    def __call__(self, work: Callable[P, R]) -> Callable[P, R]:
        """`work` as ever; where it fails because the connection is missing, has ended or lacks scopes, the user is
        shown the link, and once they have consented it is done again, from its beginning."""

        @functools.wraps(work)
        def done(*args: P.args, **kwargs: P.kwargs) -> R:
            for _ in range(ROUNDS):
                with Attempt(self._wanted) as attempt:
                    return work(*args, **kwargs)
                self._connect(attempt.missing)
            return work(*args, **kwargs)

        return done

    def _connect(self, missing: tuple[str, ...]) -> Authorization:
        wanted = self._wanted
        one = self._client.start(
            wanted.user,
            wanted.provider,
            wanted.with_missing(missing),
            next_uri=wanted.next_uri,
            account=wanted.account,
        )
        if one.completed:
            return one
        self._show(one)
        return self._client.wait(one, deadline=wanted.deadline)


class AsyncConnected:
    """Made by `AsyncClient.connected`. `show` may be a coroutine function."""

    def __init__(
        self,
        client: AsyncClient,
        user: str,
        provider: str,
        *,
        show: Callable[[Authorization], object],
        **wanted: Any,
    ) -> None:
        self._client = client
        self._show = show
        self._wanted = Wanted(user, provider, **wanted)

    def __await__(self) -> Generator[Any, None, Authorization]:
        return self._connect(()).__await__()

    async def __aenter__(self) -> Authorization:
        return await self._connect(())

    async def __aexit__(self, *_: object) -> None:
        """What fails inside is whose it is."""

    def __call__(self, work: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        """The same as `Connected`'s."""

        @functools.wraps(work)
        async def done(*args: P.args, **kwargs: P.kwargs) -> R:
            for _ in range(ROUNDS):
                with Attempt(self._wanted) as attempt:
                    return await work(*args, **kwargs)
                await self._connect(attempt.missing)
            return await work(*args, **kwargs)

        return done

    async def _connect(self, missing: tuple[str, ...]) -> Authorization:
        wanted = self._wanted
        one = await self._client.start(
            wanted.user,
            wanted.provider,
            wanted.with_missing(missing),
            next_uri=wanted.next_uri,
            account=wanted.account,
        )
        if one.completed:
            return one
        shown = self._show(one)
        if isawaitable(shown):
            await shown
        return await self._client.wait(one, deadline=wanted.deadline)
