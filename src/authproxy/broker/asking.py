"""Who asks for a consent gets a flow: the open one if it will do, else a new one, never more than a few."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from authproxy.broker.consent import event_of
from authproxy.broker.flight import FlightLost, Flights
from authproxy.broker.registrations import Registrations
from authproxy.core.config import Config
from authproxy.core.errors import Overloaded
from authproxy.core.model import Connection, ConnectionKey, Flow, FlowStatus, State
from authproxy.core.secret import Secret
from authproxy.store.vault import Vault

OPEN = (FlowStatus.NOT_STARTED, FlowStatus.PENDING)
# Seconds in which a link is handed out again without a look at its row: its flow may end in another process.
LINK_BELIEVED = 5.0
LINKS = 10_000


class Asking:
    """Makes flows and links to them."""

    def __init__(
        self,
        vault: Vault,
        registrations: Registrations,
        config: Callable[[], Config],
        *,
        clock: Callable[[], float],
        token: Callable[[int], str],
        tell: Callable[[str], None],
    ) -> None:
        self._vault = vault
        self._registrations = registrations
        self._config = config
        self._clock = clock
        self._token = token
        self._tell = tell
        self._starting: Flights[tuple[object, ...], Flow] = Flights(deadline=20.0)
        self._links: OrderedDict[tuple[ConnectionKey, frozenset[str]], tuple[Flow, float]] = OrderedDict()

    async def link_for(self, key: ConnectionKey, scopes: Sequence[str], agent: str) -> str:
        """A link that lets the user connect with (at least) these scopes. A thousand refusals write one row."""
        name = (key, frozenset(scopes))
        known = self._links.get(name)
        now = self._clock()
        if known is not None and 0 < known[1] - now <= LINK_BELIEVED:  # more: the clock was set back (B16)
            self._links.move_to_end(name)
            return self.link(known[0])
        flow = await self.obtain(key, tuple(scopes), agent, None, refusal=True)
        self._links[name] = (flow, min(now + LINK_BELIEVED, flow.expires_at - 1.0))
        while len(self._links) > LINKS:
            self._links.popitem(last=False)
        return self.link(flow)

    def forget(self, flow_id: str) -> None:
        """The flow has ended, or may have: its link is no good to the next who is refused."""
        for name in [name for name, (flow, _) in self._links.items() if flow.id == flow_id]:
            del self._links[name]

    def link(self, flow: Flow) -> str:
        """Where the user opens this flow."""
        return f"{self._config().public_url.rstrip('/')}/connect/{flow.id}"

    async def drain(self, seconds: float) -> int:
        """Begin nothing new; how many were left."""
        return await self._starting.drain(seconds)

    async def obtain(
        self,
        key: ConnectionKey,
        scopes: tuple[str, ...],
        agent: str,
        next_uri: str | None,
        *,
        again: bool = False,
        refusal: bool = False,
    ) -> Flow:
        name = (key, frozenset(scopes), agent, next_uri, again, refusal)
        try:
            return await self._starting.share(
                name, lambda: self._open_or_create(key, scopes, agent, next_uri, again=again, refusal=refusal)
            )
        except FlightLost:
            raise Overloaded("too many consents are being started", reason="starting") from None

    async def _open_or_create(
        self,
        key: ConnectionKey,
        scopes: tuple[str, ...],
        agent: str,
        next_uri: str | None,
        *,
        again: bool,
        refusal: bool,
    ) -> Flow:
        client = self._registrations.client(key.provider)
        known = self._registrations.resting(key.provider)
        existing = await self._vault.find(key)
        had = existing.requested_scopes if existing is not None else ()
        wanted = tuple(dict.fromkeys((*known.scopes, *scopes, *had)))
        now = int(self._clock())
        config = self._config()
        spare = min(60, config.flows.lifetime // 2)
        there = [
            flow for flow in await self._vault.open_flows(key, now) if flow.client_id == client.client_id
        ]
        for flow in there:
            same = set(flow.scopes) == set(wanted) and (flow.agent, flow.next_uri) == (agent, next_uri)
            if flow.expires_at - now > spare and (same or (refusal and set(flow.scopes) >= set(wanted))):
                return flow
        for flow in there if not again else ():
            mine = (flow.agent, flow.next_uri) == (agent, next_uri) and flow.expires_at - now > spare
            if mine and (widened := await self._widened(flow, wanted, now)) is not None:
                return widened
        if refusal:  # so that two agents with different needs do not end each other's links for ever
            wanted = tuple(dict.fromkeys((*wanted, *(scope for flow in there for scope in flow.scopes))))
        flow = Flow(
            id=f"flow_{self._token(24)}",
            key=key,
            agent=agent,
            scopes=wanted,
            status=FlowStatus.NOT_STARTED,
            reason=None,
            client_id=client.client_id,
            redirect_uri=f"{config.public_url.rstrip('/')}/callback/{key.provider}",
            next_uri=next_uri,
            created_at=now,
            expires_at=now + config.flows.lifetime,
        )
        await self._supersede(key, now, there)
        events = [event_of(flow, "flow.started", now, {"scopes": list(wanted)})]
        verifier = Secret(self._token(48))
        if not await self._vault.create_flow(flow, verifier, events=events, most=config.flows.max_pending):
            raise Overloaded(
                f"{key.user} has {config.flows.max_pending} consents in progress already",
                reason="flows_pending",
                user=key.user,
                retry_after=60,
            )
        if (
            not again
            and not refusal
            and existing is not None
            and self._has_all(existing, client.client_id, wanted)
        ):
            done = await self._vault.move_flow(
                flow.id,
                expect=OPEN,
                to=FlowStatus.COMPLETED,
                reason="already_connected",
                connection_id=existing.id,
            )
            return done or flow
        return flow

    async def _widened(self, flow: Flow, wanted: Sequence[str], now: int) -> Flow | None:
        """The flow, asking for these scopes too: whoever was given its link, or waits for its end, has what they asked
        for with it. None where somebody has opened it, and read what it asks for."""
        found: Flow | None = flow
        while found is not None and found.status is FlowStatus.NOT_STARTED:
            union = tuple(dict.fromkeys((*found.scopes, *wanted)))
            if set(union) == set(found.scopes):
                return found
            told = [event_of(found, "flow.widened", now, {"scopes": list(union)})]
            widened = await self._vault.widen_flow(found, union, events=told)
            if widened is not None:
                return widened
            found = await self._vault.flow(flow.id)  # somebody else was first
        return None

    def _has_all(self, existing: Connection, client_id: str, wanted: tuple[str, ...]) -> bool:
        known = self._registrations.resting(existing.key.provider)
        sound = existing.state is State.ACTIVE and existing.client_id == client_id
        return sound and not known.lacking(existing.scopes, wanted)

    async def _supersede(self, key: ConnectionKey, now: int, there: Sequence[Flow]) -> None:
        for flow in there:
            moved = await self._vault.move_flow(
                flow.id,
                expect=OPEN,
                to=FlowStatus.SUPERSEDED,
                reason="newer_flow",
                events=[event_of(flow, "flow.superseded", now, {})],
            )
            if moved is not None:
                self._tell(flow.id)
        for name in [name for name in self._links if name[0] == key] if there else []:
            del self._links[name]
