"""A usable token for a connection: from memory while that may be believed, renewed when it must be."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from authproxy.broker.disabled import DisabledUsers
from authproxy.broker.flight import FlightLost, Flights
from authproxy.broker.outcome import Ended, Fresh, Later, Outcome, Want, Wrong, unavailable
from authproxy.broker.refresh import Refresher
from authproxy.broker.registrations import Registrations
from authproxy.core.config import Config
from authproxy.core.errors import (
    ConnectionExpired,
    ConnectionRequired,
    Overloaded,
    ProviderMisconfigured,
    ScopeMissing,
    StoreUnavailable,
)
from authproxy.core.model import Connection, ConnectionKey, State, Usable
from authproxy.core.providers import Provider
from authproxy.core.scrub import needles_of
from authproxy.core.secret import Secret
from authproxy.store.vault import Vault

log = structlog.get_logger()

LinkFor = Callable[[ConnectionKey, Sequence[str], str], Awaitable[str]]
NEVER = float("inf")
SERVED = frozenset({State.ACTIVE, State.MISCONFIGURED, State.ROTATION_LOST})  # while the access token lasts
RENEWED = frozenset({State.ACTIVE, State.MISCONFIGURED})


@dataclass(slots=True)
class _Entry:
    """An opened access token. `checked` is when its row was last looked at; `covers` the scopes that it was found to
    cover; `rest` until when nobody need ask for a refresh again, and `later` why."""

    connection: Connection
    usable: Usable
    ends: float
    ahead_from: float
    margin: float
    checked: float
    covers: set[tuple[str, ...]] = field(default_factory=set)
    rest: float = 0.0
    later: Later | None = None


class Tokens:
    """The table of opened access tokens. Its size is bounded, and no entry is believed longer than the leash: from
    half of it on the row's generation is looked at behind an answer's back, at its end before the answer. So a
    disconnect, a rotation or another consent anywhere is seen within the leash (I08)."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        refresher: Refresher,
        config: Callable[[], Config],
        *,
        link_for: LinkFor,
        disabled: DisabledUsers,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
        size: int = 20_000,
    ) -> None:
        self._vault = vault
        self._registrations = registrations
        self._refresher = refresher
        self._config = config
        self._link_for = link_for
        self._disabled = disabled
        self._clock = clock
        self._tick = tick
        self._size = size
        self._entries: OrderedDict[ConnectionKey, _Entry] = OrderedDict()
        self._ended: OrderedDict[ConnectionKey, tuple[Ended, float]] = OrderedDict()
        self._keys: dict[str, ConnectionKey] = {}
        self._forced: OrderedDict[str, float] = OrderedDict()
        self._loads: Flights[ConnectionKey, _Entry | Ended] = Flights(deadline=10.0, limit=10_000)
        self._looks: Flights[ConnectionKey, None] = Flights(deadline=10.0, limit=10_000)
        self._aheads: Flights[ConnectionKey, None] = Flights(deadline=600.0)

    async def token(self, key: ConnectionKey, *, scopes: Sequence[str], agent: str) -> Usable:
        """A token that may be sent now. Raises the refusal that says who must do what, link included."""
        leash = self._config().refresh.leash
        tick = self._tick()
        if (key.tenant, key.user) in self._disabled.users or not 0 <= tick - self._disabled.read_at < leash:
            await self._disabled.demand(key.tenant, key.user)
        if self._refresher.landings and (held := self._refresher.landings.held(key)) is not None:
            return await self._checked(self._entry_of(held.connection, held.access), scopes, agent)
        entry = self._entries.get(key)
        if entry is None:
            return await self._slow(key, scopes, agent)
        age = tick - entry.checked
        now = self._clock()
        if not 0 <= age < leash or entry.ends <= now or tuple(scopes) not in entry.covers:
            return await self._slow(key, scopes, agent)
        self._entries.move_to_end(key)
        if age >= leash / 2:
            self._look(key, entry)
        if now >= entry.ahead_from:
            self._ahead(key, entry)
        return entry.usable

    async def renew(self, key: ConnectionKey, rejected: Usable, *, agent: str) -> Usable | None:
        """After an API refused `rejected`: a newer token if there is one (D06), else one forced refresh, also of a
        token that has not expired by the clock (D07), but not again and again (D05). None: nothing can be done, so
        the API's answer stands. Raises ConnectionRequired, ConnectionExpired, UserDisabled or ProviderMisconfigured."""
        await self._disabled.demand(key.tenant, key.user)
        if (held := self._refresher.landings.held(key)) is not None:
            usable = self._entry_of(held.connection, held.access).usable
            return None if usable.generation == rejected.generation else usable
        entry = self._entries.get(key)
        if entry is None or entry.usable.generation <= rejected.generation:
            found = await self._load(key)
            if isinstance(found, Ended):
                raise await self._refusal(key, found, rejected.scopes, agent)
            entry = found
        now = self._clock()
        if entry.usable.generation != rejected.generation and entry.ends > now:
            return entry.usable
        connection = entry.connection
        if connection.state is State.ROTATION_LOST:
            raise await self._refusal(key, Ended(connection), connection.requested_scopes, agent)
        if not connection.refreshable or not self._may_force(connection, now):
            return None
        outcome = await self._refreshed(key, connection.id, Want(rejected=rejected.generation))
        if isinstance(outcome, Fresh) and outcome.connection.generation == rejected.generation:
            # The flight that was under way had been content with this very token.
            outcome = await self._refreshed(key, connection.id, Want(rejected=rejected.generation))
        match outcome:
            case Fresh(connection, access) if connection.generation != rejected.generation:
                return self._install(connection, access).usable
            case Ended():
                raise await self._refusal(key, outcome, connection.requested_scopes, agent)
            case Wrong(reason, advice):
                raise ProviderMisconfigured(advice, reason=reason, provider=key.provider, user=key.user)
            case _:
                return None

    async def standing(self, usable: Usable) -> None:
        """Raises ConnectionRequired where a connection was ended while something of it still streams (I08), and
        UserDisabled where it ended with its user (I10)."""
        try:
            seen = await self._vault.generation(usable.connection_id)
            gone = seen is None or seen[1] is State.DISCONNECTED
            if gone:
                await self._disabled.refresh()
        except StoreUnavailable:
            return  # nothing is known of it, so nothing is ended for it
        if gone:
            await self._disabled.demand(usable.key.tenant, usable.key.user)
            raise ConnectionRequired(
                f"{usable.key.user} has disconnected {usable.key.provider}",
                provider=usable.key.provider,
                user=usable.key.user,
                connection_id=usable.connection_id,
            )

    def forget(self, connection_id: str) -> None:
        """Look at the row again before this connection is used again."""
        key = self._keys.get(connection_id)
        if key is not None:
            self.forget_key(key)

    def forget_key(self, key: ConnectionKey) -> None:
        """The same by key, also where there was no connection."""
        self._ended.pop(key, None)
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._keys.pop(entry.connection.id, None)

    def forget_all(self) -> None:
        """The same for every connection: what is known of providers has changed."""
        for memory in (self._entries, self._keys, self._ended):
            memory.clear()

    async def drain(self, seconds: float) -> None:
        """Wait for what looks at the store; new looks are refused."""
        await asyncio.gather(*(one.drain(seconds) for one in (self._loads, self._looks, self._aheads)))

    # --- when memory is not enough

    async def _slow(self, key: ConnectionKey, scopes: Sequence[str], agent: str) -> Usable:
        ended = self._ended.get(key)
        if ended is not None:
            if 0 <= self._tick() - ended[1] < self._config().refresh.leash:
                raise await self._refusal(key, ended[0], scopes, agent)
            del self._ended[key]
        entry = self._entries.get(key)
        if entry is None or not 0 <= self._tick() - entry.checked < self._config().refresh.leash:
            found = await self._load(key)
            if isinstance(found, Ended):
                raise await self._refusal(key, found, scopes, agent)
            entry = found
        return await self._checked(entry, scopes, agent)

    async def _checked(self, entry: _Entry, scopes: Sequence[str], agent: str) -> Usable:
        """`entry`'s token, or its successor where it has expired: an expired one is never sent (B22)."""
        connection = entry.connection
        key = connection.key
        await self._demand(entry, scopes, agent)
        now = self._clock()
        if entry.ends > now:
            if now >= entry.ahead_from:
                self._ahead(key, entry)
            return entry.usable
        if connection.state not in RENEWED:
            raise await self._refusal(key, Ended(connection), scopes, agent)
        if entry.later is not None and self._tick() < entry.rest:
            outcome: Outcome = entry.later
        else:
            outcome = await self._refreshed(key, connection.id, Want(margin=entry.margin))
        match outcome:
            case Fresh(connection, access):
                entry = self._install(connection, access)
                await self._demand(entry, scopes, agent)  # the refresh may have narrowed them (B17)
                return entry.usable
            case Ended():
                raise await self._refusal(key, outcome, scopes, agent)
            case Wrong(reason, advice):
                raise ProviderMisconfigured(advice, reason=reason, provider=key.provider, user=key.user)
            case Later(reason, retry_after):
                self._rest(entry, outcome)
                raise unavailable(key, reason, retry_after)

    async def _demand(self, entry: _Entry, scopes: Sequence[str], agent: str) -> None:
        """Raises ScopeMissing where the token lacks some of these scopes."""
        key = entry.connection.key
        if missing := self._registrations.resting(key.provider).lacking(entry.usable.scopes, scopes):
            raise ScopeMissing(
                f"{key.user}'s connection to {key.provider} lacks scopes that this route needs",
                provider=key.provider,
                user=key.user,
                missing_scopes=missing,
                connect_url=await self._link(key, scopes, agent),
                connection_id=entry.connection.id,
            )
        if len(entry.covers) < 256:  # as many as there are routes
            entry.covers.add(tuple(scopes))

    async def _refreshed(self, key: ConnectionKey, connection_id: str, want: Want) -> Outcome:
        """Waits for the flight, as long as a request may; the flight does not mind being left."""
        try:
            async with asyncio.timeout(self._config().timeouts.token_wait):
                outcome = await self._refresher.refresh(key, connection_id, want)
        except TimeoutError:
            raise unavailable(key, "token_wait", 2) from None
        if isinstance(outcome, Ended):
            self._remember(key, outcome)
            await self._know_why(outcome)
        return outcome

    async def _load(self, key: ConnectionKey) -> _Entry | Ended:
        try:
            return await self._loads.share(key, lambda: self._read(key))
        except FlightLost:
            raise StoreUnavailable("the store does not answer", reason="slow") from None

    async def _read(self, key: ConnectionKey) -> _Entry | Ended:
        asked = self._tick()
        found = await self._vault.access(key)
        if found is None or found[0].state not in SERVED:
            ended = Ended(None if found is None else found[0])
            self._remember(key, ended, asked)
            await self._know_why(ended)
            return ended
        return self._install(*found, checked=asked)

    # --- behind an answer's back

    def _look(self, key: ConnectionKey, entry: _Entry) -> None:
        try:
            self._looks.begin(key, lambda: self._look_again(key, entry))
        except FlightLost:
            log.debug("leash.not_looked")  # then the leash ends, and the next answer waits for a look

    async def _look_again(self, key: ConnectionKey, entry: _Entry) -> None:
        asked = self._tick()
        seen = (entry.connection.generation, entry.connection.state)
        if await self._vault.generation(entry.connection.id) == seen:
            entry.checked = max(entry.checked, asked)
            return
        if self._entries.get(key) is entry:
            self.forget_key(key)
        await self._read(key)

    def _ahead(self, key: ConnectionKey, entry: _Entry) -> None:
        """Renew a token that is still good while it is being used."""
        if (
            self._tick() < entry.rest
            or entry.connection.state not in RENEWED
            or not entry.connection.refreshable
        ):
            return
        entry.rest = self._tick() + 1.0  # whatever comes of it, not again at once
        try:
            self._aheads.begin(key, lambda: self._renew_ahead(key, entry))
        except FlightLost:
            log.debug("refresh.not_begun")

    async def _renew_ahead(self, key: ConnectionKey, entry: _Entry) -> None:
        outcome = await self._refresher.refresh(key, entry.connection.id, Want(margin=entry.margin))
        match outcome:
            case Fresh(connection, access):
                self._install(connection, access)
            case Ended():
                # Whether the token may still be used depends on how it ended; the row says it.
                self.forget_key(key)
            case Later():
                self._rest(entry, outcome)
            case Wrong():
                entry.rest = self._tick() + self._config().refresh.leash

    # --- the table

    def _entry_of(self, connection: Connection, access: Secret, checked: float | None = None) -> _Entry:
        provider = self._registrations.resting(connection.key.provider)
        expires_at = connection.expires_at
        margin = self._margin(provider, connection)
        header = bearer(provider, access)
        usable = Usable(
            connection_id=connection.id,
            key=connection.key,
            generation=connection.generation,
            expires_at=expires_at,
            scopes=frozenset(connection.scopes),
            extra=connection.extra,
            header=header,
            secret=access,
            needles=needles_of(header.rpartition(b" ")[2]),
        )
        return _Entry(
            connection=connection,
            usable=usable,
            ends=NEVER if expires_at is None else float(expires_at),
            ahead_from=expires_at - margin if provider.early and expires_at is not None else NEVER,
            margin=margin,
            checked=self._tick() if checked is None else checked,
        )

    def _install(self, connection: Connection, access: Secret, checked: float | None = None) -> _Entry:
        key = connection.key
        entry = self._entry_of(connection, access, checked)
        there = self._entries.get(key)
        newer = there is not None and there.connection.generation > connection.generation
        if there is not None and newer and (checked is None or there.checked >= checked):
            return there  # a slower reader saw the older row
        self._ended.pop(key, None)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._keys[connection.id] = key
        while len(self._entries) > self._size:
            _, oldest = self._entries.popitem(last=False)
            self._keys.pop(oldest.connection.id, None)
        return entry

    def _remember(self, key: ConnectionKey, ended: Ended, checked: float | None = None) -> None:
        """So that a grant that is over costs nobody anything, for the leash at most (B11)."""
        self.forget_key(key)
        if ended.state is State.ROTATION_LOST:
            return  # its access token may still be good
        self._ended[key] = (ended, self._tick() if checked is None else checked)
        while len(self._ended) > self._size:
            self._ended.popitem(last=False)

    async def _know_why(self, ended: Ended) -> None:
        """What is gone may have ended with its user: that is to be known before anybody is told why."""
        if ended.connection is None or ended.state is State.DISCONNECTED:
            await self._disabled.refresh()

    def _rest(self, entry: _Entry, later: Later) -> None:
        """Not longer than the leash: another process may have had more luck."""
        entry.later = later
        entry.rest = self._tick() + min(later.retry_after, self._config().refresh.leash)

    def _margin(self, provider: Provider, connection: Connection) -> float:
        """Seconds before expiry from which a token is renewed; never more than a fifth of its life (B14)."""
        margin = provider.refresh_margin
        margin = self._config().refresh.margin if margin is None else margin
        lifetime = connection.lifetime
        if lifetime is None and connection.expires_at is not None:
            lifetime = connection.expires_at - connection.obtained_at
        return float(margin) if lifetime is None else min(float(margin), max(0, lifetime) * 0.2)

    def _may_force(self, connection: Connection, now: float) -> bool:
        """Whether a refresh would be more than a repetition. What the row says holds for every process; what this
        one remembers also covers refreshes that failed."""
        interval = self._config().refresh.forced_interval
        if self._refresher.busy(connection.id):
            return True  # joins what is under way
        if connection.obtained_at > connection.consented_at and 0 <= now - connection.obtained_at < interval:
            return False
        tick = self._tick()
        last = self._forced.get(connection.id)
        if last is not None and tick - last < interval:
            return False
        self._forced[connection.id] = tick
        self._forced.move_to_end(connection.id)
        while len(self._forced) > self._size:
            self._forced.popitem(last=False)
        return True

    # --- refusing

    async def _refusal(
        self, key: ConnectionKey, ended: Ended, scopes: Sequence[str] | frozenset[str], agent: str
    ) -> ConnectionRequired | ConnectionExpired:
        await self._disabled.demand(key.tenant, key.user)
        link = await self._link(key, sorted(scopes), agent)
        if ended.connection is None or ended.state is State.DISCONNECTED:
            return ConnectionRequired(
                f"{key.user} has not connected {key.provider}",
                provider=key.provider,
                user=key.user,
                connect_url=link,
                connection_id=None if ended.connection is None else ended.connection.id,
            )
        return ConnectionExpired(
            f"{key.provider} has ended {key.user}'s grant: connect again",
            reason=ended.connection.reason,
            provider=key.provider,
            user=key.user,
            connect_url=link,
            connection_id=ended.connection.id,
        )

    async def _link(self, key: ConnectionKey, scopes: Sequence[str], agent: str) -> str | None:
        try:
            return await self._link_for(key, scopes, agent)
        except (Overloaded, StoreUnavailable) as refusal:  # the refusal itself is still worth saying
            log.warning("link.not_made", provider=key.provider, code=refusal.code)
            return None


def bearer(provider: Provider, access: Secret) -> bytes:
    """The finished value of the field that carries the token to the provider's API."""
    return f"{provider.token_scheme} {access.reveal()}".strip().encode("ascii")
