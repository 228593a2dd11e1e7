"""A ground that stands already: the user's own proxy and sandbox. What is not a sandbox is never touched."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from authproxy.core.config import Config
from authproxy.core.origin import Origin, read_base_url
from authproxy.core.providers import provider_of
from authproxy.core.routes import Route, RouteTable
from authproxy.rehearsal.answers import SERVED, Trouble
from authproxy.rehearsal.embedded import machine, session
from authproxy.rehearsal.ground import Ground, Timing

_API = b"/api"


@asynccontextmanager
async def standing_ground(
    config: Config,
    *,
    provider: str | None,
    route: str,
    listens: Sequence[str],
    control: str,
    sandbox: str,
    key: str | None,
) -> AsyncIterator[Ground]:
    """Looks at everything before anything is broken. `key` is that of an agent who is an operator, where loopback
    callers are not. Raises Trouble."""
    found = _route(config, route, provider, sandbox)
    scopes = (*config.providers[found.provider].scopes, *found.scopes)
    async with session() as http:
        ground = Ground(
            http=http,
            listens=[one.rstrip("/") for one in listens],
            control=control.rstrip("/"),
            sandbox=sandbox.rstrip("/"),
            path=found.prefix.decode("ascii").rstrip("/")
            + ("" if found.base_path.endswith(_API) else _API.decode()),
            provider=found.provider,
            scopes=found.scopes,
            timing=Timing.of(config.refresh),
            environment={
                "proxy": f"{', '.join(listens)} (was running), environment {config.environment}",
                "provider": f"the sandbox at {sandbox}, route {route}",
                "refresh": f"deadline {config.refresh.deadline:g} s, backoff at most "
                f"{config.refresh.backoff_max:g} s, leash {config.refresh.leash:g} s",
                **machine(),
            },
            headers={} if key is None else {"X-Authproxy-Key": key},
            user_header=config.identity.user_header,
        )
        ground.sends = await _probe(ground, "write" in scopes)
        yield ground


def _route(config: Config, name: str, provider: str | None, sandbox: str) -> Route:
    """The route, if it and its provider lead to this sandbox and nowhere else."""
    route = RouteTable.build(config).get(name) if name in config.routes else None
    if route is None:
        raise Trouble(
            f"the configuration has no route {name}: {', '.join(config.routes) or 'it has none at all'}"
        )
    if provider is not None and route.provider != provider:
        raise Trouble(f"route {name} belongs to provider {route.provider}, not {provider}")
    there = read_base_url(sandbox)
    if there is None:
        raise Trouble(f"--sandbox {sandbox} is no base URL")
    if _place(there) != (route.scheme, route.host, route.port):
        raise Trouble(
            f"route {name} leads to {route.authority.decode() or 'hosts of its grants'}, not to the sandbox at "
            f"{sandbox}: a rehearsal breaks what it touches, so it touches sandboxes only"
        )
    choice = config.providers[route.provider]
    url = provider_of(route.provider, choice).endpoints.token or choice.issuer
    issuing = read_base_url(url) if url is not None else None
    if issuing is None or _place(issuing) != _place(there):
        raise Trouble(f"provider {route.provider} is at {url}, not at the sandbox at {sandbox}")
    return route


def _place(origin: Origin) -> tuple[str, str, int]:
    return origin.scheme, origin.host, origin.port


async def _probe(ground: Ground, writes: bool) -> bool:
    """One user from end to end, before anything is broken; says whether messages can be sent as well."""
    await ground.admin("GET", "switches")
    await ground.ask("GET", "/v1/audit?limit=1")
    user = f"rehearsal-{secrets.token_hex(3)}-probe"
    for at, listen in enumerate(ground.listens):
        refused = await ground.call(user, at=at)
        if refused.code != "connection_required":
            raise Trouble(f"{listen}{ground.path}/me cannot be rehearsed with: {refused.words}")
    sends = writes and (await ground.call(user, text="probe")).code == "connection_required"
    await ground.connect(user)
    # A replica that has just refused the user may remember it for as long as its leash.
    until = time.monotonic() + ground.timing.leash + 2
    for at, listen in enumerate(ground.listens):
        answer = await ground.call(user, at=at)
        while answer.kind != SERVED and time.monotonic() < until:
            await asyncio.sleep(0.2)
            answer = await ground.call(user, at=at)
        if answer.kind != SERVED:
            raise Trouble(f"{listen}{ground.path}/me is not served after a consent: {answer.words}")
    seen = [one for one in (await ground.admin("GET", "ledger"))["calls"] if one["user"] == user]
    if not seen:
        raise Trouble(f"the calls did not reach the sandbox at {ground.sandbox}: another one answers them")
    one = await ground.connection(user)
    if one is not None:
        await ground.ask("DELETE", f"/v1/connections/{one['id']}")
    return sends
