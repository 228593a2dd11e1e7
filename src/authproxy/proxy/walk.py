"""One request: caller, target, route, decision, token, upstream, replay, record.

Values go in and values come out; the target that policy judged is the very value that is sent. Whatever
happens, exactly one audit record is written, and every ending has a code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from authproxy.broker.registrations import Registrations
from authproxy.broker.tokens import Tokens
from authproxy.callers.desk import Desk
from authproxy.core import message
from authproxy.core.answers import ApiSign
from authproxy.core.config import Config
from authproxy.core.errors import (
    BadRequest,
    BodyTooLarge,
    EgressBlocked,
    HeaderTooLarge,
    Internal,
    Overloaded,
    PolicyDenied,
    Refusal,
)
from authproxy.core.message import RequestFields
from authproxy.core.model import ConnectionKey, Usable
from authproxy.core.oauth import instance_upstream
from authproxy.core.providers import Provider
from authproxy.core.rewriting import Base
from authproxy.core.routes import Route, RouteTable
from authproxy.metrics import Metrics
from authproxy.proxy.intake import reader
from authproxy.proxy.lasting import Lasting
from authproxy.proxy.limits import Turnstile
from authproxy.proxy.pauses import Pauses
from authproxy.proxy.place import Place
from authproxy.proxy.reception import Reception, account_of
from authproxy.proxy.record import Entry
from authproxy.proxy.relay import Reply, refuse, relay
from authproxy.proxy.said import LONG, Said
from authproxy.proxy.server import Incoming, Sent
from authproxy.proxy.sign import PEEK, sign_of, silent
from authproxy.proxy.spool import Body, SpoolBudget
from authproxy.proxy.tunnel import VIA, Tunnels
from authproxy.proxy.upload import AT_ONCE
from authproxy.proxy.upstream import Answer, Exchange, Origin, Upstream
from authproxy.proxy.ways import Ways
from authproxy.proxy.websocket import switch
from authproxy.store.audit import Trail

log = structlog.get_logger()

_ROOM = 1.0  # seconds that a request waits for a place in the trail: agents that ask too fast are slowed down first
TOOL = "tool"  # the way in of what we ask ourselves, for a tool's call
_SAFE = frozenset(
    {"GET", "HEAD", "OPTIONS"}
)  # sent again on a stale connection without asking: RFC 9110 §9.2.2


class Walk:
    """The data plane's one path, shared by every way in."""

    def __init__(
        self,
        config: Config,
        *,
        desk: Desk,
        routes: RouteTable,
        providers: Registrations,
        tokens: Tokens,
        trail: Trail,
        upstream: Upstream,
        metrics: Metrics,
        tunnels: Tunnels,
        lasting: Lasting,
        turnstile: Turnstile,
        pauses: Pauses,
        own_authorities: Callable[[], frozenset[tuple[str, int]]],
        new_id: Callable[[], str],
        pseudonym: bytes | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = config.limits
        self._strict = config.audit.durability == "strict"
        self._user_field = config.identity.user_header.lower().encode("ascii")
        self._reception = Reception(desk, config.identity.user_header)
        self._tunnels = tunnels
        self._lasting = lasting
        lasting.recognise_by(self._reception)
        self._turnstile = turnstile
        self._pauses = pauses
        self._ways = Ways(routes, own_authorities)
        self._providers = providers
        self._tokens = tokens
        self._trail = trail
        self._upstream = upstream
        self._metrics = metrics
        self._new_id = new_id
        self._pseudonym = pseudonym
        self._clock = clock
        self._budget = SpoolBudget(config.limits.replay_total)
        self.active = 0

    async def __call__(self, incoming: Incoming) -> Sent:
        behalf = incoming.client.place.behalf
        make = Entry if behalf is None else behalf.entry
        entry = make(self._new_id(), incoming.method)
        reply = Reply(incoming, entry, self._limits.max_scrub if behalf is None else behalf.limit)
        self.active += 1
        try:
            if self._trail.full and self.active <= self._limits.max_requests:
                await self._trail.room(_ROOM)
            self._admit(entry)
            await self._serve(incoming, entry, reply)
        except Refusal as refusal:
            refuse(reply, refusal)
        except asyncio.CancelledError:
            entry.gone(incoming.client.ending)
            raise
        except ConnectionError:  # of the agent: those of upstreams are refusals
            entry.gone(incoming.client.ending)
            reply.keep_alive = False
        except Exception:
            # The listener's one edge: a fault of ours is logged whole and told as `internal`.
            log.exception("request.internal", request_id=entry.request_id, route=entry.route)
            refuse(reply, Internal("authproxy failed; the log has it under the request id"))
        finally:
            self.active -= 1
            if entry.lasts:
                self._lasting.end(entry)
            if entry.held:
                self._turnstile.leave(entry)
            if entry.probing:
                self._pauses.leave(entry)
            entry.write(self._trail, self._metrics)
        return Sent(reply.keep_alive)

    def _admit(self, entry: Entry) -> None:
        """Take a request on: first a place for its record, so that what is served can always be told."""
        entry.reserve(self._trail)
        if self.active > self._limits.max_requests:
            raise Overloaded(f"{self._limits.max_requests} requests are under way", reason="requests")

    async def _serve(self, incoming: Incoming, entry: Entry, reply: Reply) -> None:
        if incoming.fault is not None:
            raise incoming.fault
        fields = self._said(incoming).fields
        reply.read(fields)
        target = message.target_of(incoming.method, incoming.target)
        place = incoming.client.place
        entry.via = VIA if place.tunnel is not None or target.form == "authority" else target.form
        if place.behalf is not None:
            entry.via = TOOL
        if target.form == "authority":
            reply.keep_alive = False
            incoming.content.feed_eof()  # what follows is no body, and is not read as one
            inside = await self._reception.known(self._reception.connect, incoming, fields, target, entry)
            self._turnstile.enter_tunnel(entry)
            if self._strict:
                await self._trail.settled(entry.begin(self._trail))
            self._lasting.begin(entry, incoming)
            await self._tunnels.open(incoming, fields, entry, reply, inside)
            return
        caller, user = await self._reception.known(self._reception.welcome, incoming, fields, target, entry)
        route, path, _named = self._ways.find(place, caller, incoming.method, fields, target, entry)
        if target.form == "origin" and place.tunnel is None and place.behalf is None:
            reply.base = _base(place, route, fields)
            if route.rewrite_urls:
                fields = message.ask_identity(fields)
        if route.max_body and fields.content_length is not None and fields.content_length > route.max_body:
            raise BodyTooLarge(f"the request body is over {route.max_body} bytes")
        key = ConnectionKey(caller.tenant, user, route.provider, account_of(incoming.said))
        entry.concern(key)
        self._turnstile.enter(route.name, entry)
        self._pauses.enter(route, key, path, entry)
        scopes = route.scopes if place.behalf is None else place.behalf.scopes
        usable = await self._tokens.token(key, scopes=scopes, agent=caller.agent)
        if self._strict:
            await self._trail.settled(entry.begin(self._trail))
        body = self._body(incoming, fields, route)
        try:
            await self._forward(incoming, entry, reply, route, usable, fields, (path, target.query), body)
        finally:
            if body is not None:
                entry.bytes_in = body.size
                body.drop()

    def _said(self, incoming: Incoming) -> Said:
        """What the request says, and what its connection keeps of it for the next one."""
        client = incoming.client
        said: Said | None = client.said
        if said is None or not said.again(self, incoming.fields, incoming.version):
            size = sum([len(name) + len(value) + 4 for name, value in incoming.fields])
            if size > self._limits.max_header:
                raise HeaderTooLarge(f"the header section is over {self._limits.max_header} bytes")
            said = Said(self, incoming.fields, incoming.version, self._fields(incoming))
            client.said = said if size <= LONG else None
        incoming.said = said
        return said

    def _fields(self, incoming: Incoming) -> RequestFields:
        """The fields of a well-framed request; RFC 9112 §2.3, §3.2, §6.1."""
        if incoming.version not in ((1, 1), (1, 0)):
            raise BadRequest("only HTTP/1.1 and HTTP/1.0 are spoken", reason="version", status=505)
        fields = message.read_request_fields(incoming.fields, self._user_field)
        if self._pseudonym is not None:
            if any(self._pseudonym in value for value in message.values_of(fields.lines, b"via")):
                raise PolicyDenied("this request has been here before: a route leads back", reason="loop")
            message.add_field(fields, b"Via", b"1.%d %b" % (incoming.version[1], self._pseudonym))
        if incoming.version == (1, 0):
            if fields.chunked:
                raise BadRequest("HTTP/1.0 has no Transfer-Encoding", reason="framing")
            fields.expects_continue = fields.websocket = False
        if len(fields.hosts) > 1 or (not fields.hosts and incoming.version == (1, 1)):
            raise BadRequest("send exactly one Host header", reason="host")
        return fields

    def _body(self, incoming: Incoming, fields: RequestFields, route: Route) -> Body | None:
        if not fields.chunked and not fields.content_length:
            return None
        content, length = incoming.content, fields.content_length
        whole: bytes | None = None
        if length and length <= AT_ONCE and content.is_eof() and not content.exception():
            whole = content.read_nowait()  # goes out in one write with its head
        return Body(
            reader(incoming, fields.expects_continue, route.timeouts.idle or None),
            self._budget,
            keep=route.max_replay,
            memory=self._limits.replay_memory,
            limit=route.max_body,
            length=length,
            whole=whole,
        )

    async def _forward(
        self,
        incoming: Incoming,
        entry: Entry,
        reply: Reply,
        route: Route,
        usable: Usable,
        fields: RequestFields,
        target: tuple[bytes, bytes],
        body: Body | None,
    ) -> None:
        """Send; on an expired token renew once and replay once; hand the answer on."""
        provider = self._providers.resting(route.provider)
        if body is not None and body.whole is None and incoming.client.place.behalf is None:
            self._lasting.begin(entry, incoming, usable)
        answer = await self._send(incoming.method, entry, route, provider, usable, fields, target, body)
        try:
            sign, peeked = (
                (ApiSign.NONE, b"") if silent(provider, answer) else await sign_of(provider, answer)
            )
            if sign is ApiSign.EXPIRED:
                fresh = await self._tokens.renew(usable.key, usable, agent=entry.agent or "")
                if fresh is not None:
                    entry.refreshed = True
                if fresh is not None and (body is None or body.replayable):
                    await answer.discard(PEEK)
                    usable, peeked = fresh, b""
                    answer = await self._send(
                        incoming.method, entry, route, provider, usable, fields, target, body
                    )
                elif fresh is not None:
                    reply.resend = True
            if not answer.whole:
                self._lasting.begin(entry, incoming, usable, answer)
            if answer.status == 101:
                await switch(reply, answer, route, usable.needles)
            else:
                await relay(reply, answer, peeked, route, usable.needles)
        finally:
            answer.close()

    async def _send(
        self,
        method: str,
        entry: Entry,
        route: Route,
        provider: Provider,
        usable: Usable,
        fields: RequestFields,
        target: tuple[bytes, bytes],
        body: Body | None,
    ) -> Answer:
        origin, authority = _destination(route, provider, usable)
        if entry.named_host not in (None, origin.host):
            raise BadRequest(
                f"this user's {route.provider} is at {origin.host}", reason="instance", status=421
            )
        entry.host = origin.host
        entry.generation = usable.generation
        path, query = target
        head = message.request_head(
            method,
            path,
            query,
            authority,
            fields,
            usable.header,
            fields.cookies if route.send_cookies else (),
            provider.token_header.encode("ascii"),
        )
        exchange = Exchange(
            origin=origin,
            method=method.encode("ascii"),
            head=head,
            body=body if body is None or body.whole is None else body.whole,
            length=fields.content_length,
            chunked=fields.chunked,
            idempotent=method in _SAFE,
            partition=(usable.key.tenant, route.name) if route.share_connections else usable.key,
            expect_continue=fields.expects_continue and body is not None,
            timeouts=route.timeouts,
            upgrade=fields.websocket,
        )
        entry.leaves()
        try:
            answer = await self._upstream.send(exchange)
        finally:
            entry.attempts += max(1, exchange.attempts)  # its repetition on a fresh connection too
        entry.returns()
        self._pauses.heard(route, usable.key, path, entry, answer)
        return answer


def _base(place: Place, route: Route, fields: RequestFields) -> Base | None:
    """Where this agent finds the route, in its own words; None where it does not say (HTTP/1.0)."""
    if not fields.hosts:
        return None
    origin = (b"https://" if place.secure else b"http://") + fields.hosts[0]
    return Base(origin, b"" if place.route is not None else route.prefix)


def _destination(route: Route, provider: Provider, usable: Usable) -> tuple[Origin, bytes]:
    """Where this grant's requests go: the route's upstream, or the grant's own instance host.

    The last look before the credential leaves: it goes to no host that is not the provider's.
    """
    if not provider.upstream_from:
        return Origin(route.scheme, route.host, route.port), route.authority
    base = instance_upstream(provider, usable.extra)
    if base is None:
        raise EgressBlocked("the grant names no upstream of this provider", provider=route.provider)
    scheme, _, rest = base.partition("://")
    host, port = message.authority_of(rest.encode("ascii"))
    default = 443 if scheme == "https" else 80
    authority = host if port in (0, default) else f"{host}:{port}"
    return Origin(scheme, host, port or default), authority.encode("ascii")
