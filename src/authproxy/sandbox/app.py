"""The sandbox as a whole: puts the desks on a real socket and offers what tests and demonstrations reach for."""

from __future__ import annotations

import functools
import json
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from authproxy.sandbox import answers
from authproxy.sandbox.admin import Admin
from authproxy.sandbox.api import Api
from authproxy.sandbox.consent import Consent
from authproxy.sandbox.dialects import DIALECTS
from authproxy.sandbox.grants import Grants, digest_of
from authproxy.sandbox.keys import Keys
from authproxy.sandbox.ledger import ApiCall, Ledger, TokenCall, Violation
from authproxy.sandbox.provider import Provider
from authproxy.sandbox.settings import DEMO_CLIENT, Registration, Settings
from authproxy.sandbox.stage import Place, Stage, is_loopback
from authproxy.sandbox.switches import Switches

Handler = Callable[[Place, web.Request], Awaitable[web.StreamResponse]]


class Sandbox:
    """A provider and its API. `start` it, use its base URL, `close` it."""

    def __init__(
        self,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self.settings = settings = settings or Settings()
        if settings.dialect not in DIALECTS:
            raise ValueError(f"unknown dialect {settings.dialect!r}; known: {', '.join(DIALECTS)}")
        if not settings.users:
            raise ValueError("a sandbox needs at least one user")
        self.initial = Switches()
        self.initial.update(settings.switches)
        self.switches = self.initial.copy()
        self.ledger = Ledger(settings.ledger_size)
        self.grants = Grants(
            self.switches,
            access_token_life=settings.access_token_life,
            code_life=settings.code_life,
            clock=clock,
            randomness=randomness,
        )
        clients = {one.client_id: one for one in settings.clients}
        self._stage = Stage(
            settings=settings,
            switches=self.switches,
            initial=self.initial,
            grants=self.grants,
            ledger=self.ledger,
            keys=Keys(),
            clock=clock,
            randomness=randomness,
            clients=clients,
        )
        self._runner: web.AppRunner | None = None

    # Life

    async def start(self, host: str = "127.0.0.1", port: int = 8790) -> str:
        """Listens, and returns the base URL. Port 0 takes a free one."""
        host = (
            "127.0.0.1" if host == "localhost" else host
        )  # one address: with port 0 two would get two ports
        if not self.settings.allow_remote and not is_loopback(host):
            raise ValueError("the sandbox listens on loopback only, unless its settings allow_remote")
        if self._runner is not None:
            raise RuntimeError("this sandbox is started already")
        self._stage.closing.clear()
        self._runner = web.AppRunner(
            self._application(), access_log=None, handle_signals=False, shutdown_timeout=5.0
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self.close()
            raise
        bound = self._runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        self._stage.base_url = self.settings.public_url or f"http://{shown}:{bound}"
        return self._stage.base_url

    async def close(self) -> None:
        """Stops; whoever waits for a slow answer is cut off."""
        self._stage.closing.set()
        self.release()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def base_url(self) -> str:
        """The issuer of the default dialect; others live at `/{dialect}` below it."""
        return self._stage.base_url

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=1024 * 1024)
        consent, provider, api = Consent(self._stage), Provider(self._stage), Api(self._stage)
        handlers: list[tuple[str, str, Handler]] = [
            ("GET", "/authorize", consent.authorize),
            ("POST", "/authorize/decision", consent.decide),
            ("POST", "/token", provider.token),
            ("POST", "/revoke", provider.revoke),
            ("DELETE", "/revoke", provider.revoke),
            ("POST", "/introspect", provider.introspect),
            ("GET", "/userinfo", provider.userinfo),
            ("POST", "/userinfo", provider.userinfo),
            ("GET", "/jwks", provider.jwks),
            ("GET", "/.well-known/openid-configuration", provider.metadata),
            ("GET", "/.well-known/oauth-authorization-server", provider.metadata),
        ]
        places = [Place("", DIALECTS[self.settings.dialect])]
        places += [Place(f"/{name}", dialect) for name, dialect in DIALECTS.items()]
        for place in places:
            for method, path, handler in handlers:
                app.router.add_route(method, place.prefix + path, functools.partial(handler, place))
            for operation in api.operations():
                bound = functools.partial(api.answer, place, operation)
                app.router.add_route(operation.method, place.prefix + operation.path, bound)
            if place.prefix:  # RFC 8414 section 3.1 puts the well-known part before the issuer's path
                path = f"/.well-known/oauth-authorization-server{place.prefix}"
                app.router.add_route("GET", path, functools.partial(provider.metadata, place))
        app.add_routes(Admin(self).routes())
        return app

    # What a provider's people and users do

    def reset(self, values: Mapping[str, Any] | None = None) -> None:
        """All switches to where they began, then `values`; nothing changes if those are wrong."""
        trial = self.initial.copy()
        trial.update(values or {})
        self.switches.update({name: getattr(trial, name) for name in Switches.known()})

    def register(self, client: Registration) -> None:
        """Adds or replaces a client."""
        self._stage.clients[client.client_id] = client

    def expire_access_tokens(self, user: str | None = None) -> int:
        """Ends all access tokens (of one user) now; the grants live on. Says how many."""
        return self.grants.expire_access(user)

    def revoke_user(self, user: str) -> int:
        """The user removes the app: all grants with all tokens end. Says how many grants."""
        return self.grants.revoke_all("revoked_by_user", user=user)

    def change_password(self, user: str) -> int:
        """The user's new password ends the user's grants. Says how many."""
        return self.grants.revoke_all("password_changed", user=user)

    def use_elsewhere(self, user: str) -> int:
        """Another holder of a copy redeems the user's refresh tokens, outside the ledger. Says how many."""
        held = [one for grant in self.grants.live() if grant.user == user for one in grant.refresh]
        copies = [one for one in held if self.grants.refresh_live(one)]
        for one in copies:
            self.grants.renew(one, DIALECTS[one.grant.dialect])
        return len(copies)

    # For tests in the same process, instead of waiting for time to pass

    def give(
        self,
        user: str = "alice",
        scopes: Sequence[str] = ("read", "write"),
        *,
        client_id: str = DEMO_CLIENT.client_id,
        dialect: str | None = None,
    ) -> dict[str, Any]:
        """The token answer of a consent that took place without a browser: for imports and for many at once."""
        spoken = DIALECTS[dialect or self.settings.dialect]
        place = Place(f"/{dialect}" if dialect else "", spoken)
        code = self.grants.keep_code(
            dialect=spoken.name,
            client_id=client_id,
            user=user,
            redirect_uri="",
            scopes=tuple(scopes),
            user_scopes=(),
            challenge=None,
            nonce=None,
            offline=True,
        )
        kept = self.grants.find_code(code)
        assert kept is not None
        answer = answers.tokens(self._stage, place, self.grants.redeem(kept, spoken), form=False)
        return dict(json.loads(answer.body))

    def hold(self, *, after: bool = False) -> None:
        """Token calls wait from now on: before they are worked on, or after it and before their answer."""
        (self._stage.after if after else self._stage.before).clear()

    def release(self) -> None:
        """Held token calls go on."""
        self._stage.before.set()
        self._stage.after.set()

    async def arrived(self, count: int) -> None:
        """Returns when so many token calls have presented themselves, since the start."""
        await self.ledger.arrived(count)

    # What was seen

    @property
    def requests(self) -> list[TokenCall]:
        """The token calls, in order of arrival."""
        return list(self.ledger.requests)

    @property
    def calls(self) -> list[ApiCall]:
        """The API calls, in order of arrival."""
        return list(self.ledger.calls)

    def refreshes(self, user: str | None = None) -> list[TokenCall]:
        """The refresh calls (for one user's tokens)."""
        return [call for call in self.ledger.refreshes() if user in (None, call.user)]

    def violations(self) -> list[Violation]:
        """What the client did and never should."""
        return list(self.ledger.found)

    def live_refresh_digests(self, user: str | None = None) -> set[str]:
        """Digests (`digest_of`) of the refresh tokens that would be taken now."""
        return {
            digest_of(one.token)
            for grant in self.grants.live()
            if user in (None, grant.user)
            for one in grant.refresh
            if self.grants.refresh_live(one)
        }

    def issued_tokens(self) -> set[str]:
        """Every token there ever was, in the clear: for whoever searches for one where none may be."""
        return self.grants.issued_tokens()

    def stats(self) -> dict[str, Any]:
        """Counts of calls, outcomes, grants and violations."""
        ended = Counter(grant.revoked for grant in self.grants.all if grant.revoked is not None)
        return {
            "calls": dict(sorted(self.ledger.totals.items())),
            "grants": {
                "made": len(self.grants.all),
                "live": sum(1 for _ in self.grants.live()),
                "ended": dict(ended),
            },
            "live_access_tokens": sum(1 for _ in self.grants.live_access()),
            "live_refresh_tokens": len(self.live_refresh_digests()),
            "violations": [asdict(one) for one in self.ledger.found],
        }
