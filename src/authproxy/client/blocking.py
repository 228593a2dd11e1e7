"""The client for programs that wait: standard library only, safe to share between threads."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from authproxy.client.address import MOST, Address, proxy_url, unreachable_at
from authproxy.client.connected import Connected
from authproxy.client.door import Door
from authproxy.client.refusals import Unexpected, Unreachable
from authproxy.client.talk import Call, Pause, Reply, Steps, Talk
from authproxy.client.values import Authorization, Connection, NewSession, Session, Tool, ToolResult

T = TypeVar("T")


class Client:
    """Speaks to a running authproxy.

    `control` is the control plane's URL (`http://127.0.0.1:8701`, `unix:/path`), `proxy` the data plane's; `key` an
    agent key or a session (`apx_…`), where one is needed. `timeout` is in seconds, for one answer; what is waited for
    on purpose comes on top. No proxy of the environment is used, and no redirect is followed. Every method raises
    `Refused` (or one of its kinds), `Unreachable` or `Unexpected`.
    """

    def __init__(
        self,
        control: str | None = None,
        *,
        key: str | None = None,
        proxy: str | None = None,
        timeout: float = 30.0,
        user_header: str = "X-User-ID",
    ) -> None:
        self._address = Address.read(control, key)
        self._proxy = proxy_url(proxy)
        self._user_header = user_header
        self._timeout = timeout
        self._tls = self._address.tls()
        self._talk = Talk()
        self.tools = Tools(self._run, self._talk)
        self.sessions = Sessions(self._run, self._talk)

    # --- consent

    def start(
        self,
        user: str,
        provider: str,
        scopes: Sequence[str] = (),
        *,
        next_uri: str | None = None,
        account: str | None = None,
    ) -> Authorization:
        """Ask for a user's consent. Show `url` to the user; None: they are connected already.

        Without scopes those of the provider's routes are asked for. `next_uri` is where the browser goes afterwards.
        """
        return self._run(self._talk.start(user, provider, scopes, next_uri=next_uri, account=account))

    def wait(self, authorization: Authorization | str, *, deadline: float | None = None) -> Authorization:
        """Wait until the user is connected, at most `deadline` seconds (default: as long as the link is good).

        Raises Denied, Failed, Expired, Superseded or DeadlinePassed.
        """
        return self._run(self._talk.wait(authorization, deadline))

    def status(self, authorization: Authorization | str) -> Authorization:
        """How it stands now."""
        return self._run(self._talk.status(authorization))

    def confirm_user(self, flow_id: str, user: str) -> str | None:
        """Say who sat at the browser that came to your `verifier_url` with this `flow_id`; `user` is from your own
        session with it. Returns where to send it on."""
        return self._run(self._talk.confirm_user(flow_id, user))

    def connected(
        self,
        user: str,
        provider: str,
        *,
        show: Callable[[Authorization], object],
        scopes: Sequence[str] = (),
        next_uri: str | None = None,
        account: str | None = None,
        deadline: float | None = None,
    ) -> Connected:
        """Around work that needs a connection: `with client.connected(…)` waits for it first; as a decorator it also
        runs the work again where the connection has ended in the middle. `show` is given each link."""
        return Connected(
            self,
            user,
            provider,
            show=show,
            scopes=tuple(scopes),
            next_uri=next_uri,
            account=account,
            deadline=deadline,
        )

    # --- connections

    def connections(
        self, *, user: str | None = None, provider: str | None = None, state: str | None = None
    ) -> list[Connection]:
        """The tenant's connections; for operators' keys."""
        return self._run(self._talk.connections(user, provider, state))

    def disconnect(self, connection: Connection | str) -> str:
        """End one, here at once and then at the provider: `yes`, `pending`, `failed` or `unsupported` says how far
        that has come. For operators' keys."""
        return self._run(self._talk.disconnect(connection if isinstance(connection, str) else connection.id))

    def wait_for_connection(
        self, connection: Connection | str, *, state: str = "active", deadline: float = 3600.0
    ) -> Connection:
        """Wait until a connection is in this state: a job that was told `ConnectionExpired` goes on when the user has
        reconnected. Raises DeadlinePassed after `deadline` seconds."""
        name = connection if isinstance(connection, str) else connection.id
        return self._run(self._talk.wait_for_connection(name, state, deadline))

    # --- the data plane

    def door(
        self, route: str, user: str | None = None, *, account: str | None = None, prefix: str | None = None
    ) -> Door:
        """Base URL and headers of a route as this user, ready for each vendor's library. A session needs no user."""
        return Door(
            self._proxy + (f"/{route}" if prefix is None else prefix.rstrip("/")),
            user=user,
            account=account,
            key=self._address.key,
            user_header=self._user_header,
        )

    def healthy(self) -> bool:
        """Whether store and key are there."""
        return self._run(self._talk.healthy())

    def _run(self, steps: Steps[T]) -> T:
        reply: Reply | None = None
        fault: Unreachable | None = None
        while True:
            try:
                step = steps.send(reply) if fault is None else steps.throw(fault)
            except StopIteration as end:
                value: T = end.value
                return value
            reply = fault = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                continue
            try:
                reply = self._send(step)
            except Unreachable as unreachable:
                fault = unreachable

    def _send(self, call: Call) -> Reply:
        """One exchange on a connection of its own."""
        connection = _Connection(self._address, self._tls, self._timeout + call.hold)
        body = None if call.body is None else json.dumps(call.body).encode()
        try:
            connection.request(call.method, self._address.target(call), body, self._address.headers(call))
            answer = connection.getresponse()
            data = answer.read(MOST + 1)
            headers = {name.lower(): value for name, value in answer.getheaders()}
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(unreachable_at(self._address, error)) from error
        finally:
            connection.close()
        if len(data) > MOST:
            raise Unexpected("the answer is longer than any of authproxy's")
        return Reply(answer.status, headers, data)


class _Connection(http.client.HTTPConnection):
    """Dials what the address names, and nothing of the environment."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, timeout: float) -> None:
        super().__init__(address.host, address.port, timeout=timeout)
        self._address = address
        self._tls = tls

    def connect(self) -> None:
        if self._address.socket is not None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._address.socket)
            return
        super().connect()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._address.host)


class Tools:
    """The tools of a client."""

    def __init__(self, run: Callable[[Steps[Any]], Any], talk: Talk) -> None:
        self._run = run
        self._talk = talk

    def list(
        self, *, toolkit: str | None = None, user: str | None = None, formats: Sequence[str] = ()
    ) -> list[Tool]:
        """Those that may be called. With `user`, `met` says whether it can be done now; `formats` (`openai`,
        `anthropic`) adds `definition["formatted_schema"]`."""
        found: list[Tool] = self._run(self._talk.tools(toolkit, user, formats))
        return found

    def get(self, name: str, *, user: str | None = None) -> Tool:
        """One of them."""
        found: Tool = self._run(self._talk.tool(name, user))
        return found

    def authorize(self, name: str, user: str | None = None, *, next_uri: str | None = None) -> Authorization:
        """Ask for what this tool needs of the user."""
        found: Authorization = self._run(self._talk.authorize_tool(name, user, next_uri))
        return found

    def execute(
        self,
        name: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - as the tool API calls it
        *,
        user: str | None = None,
        account: str | None = None,
        timeout: float = 60.0,
    ) -> ToolResult:
        """Call it, once. Raises ConnectionRequired with the link where the user has to consent first, ToolFailed where
        the tool says why not."""
        done: ToolResult = self._run(self._talk.execute(name, input or {}, user, account, timeout))
        return done


class Sessions:
    """The sessions of a client: credentials for one agent and one user, each within what its own key may do."""

    def __init__(self, run: Callable[[Steps[Any]], Any], talk: Talk) -> None:
        self._run = run
        self._talk = talk

    def mint(
        self,
        user: str,
        *,
        agent: str | None = None,
        label: str | None = None,
        routes: Sequence[str] | None = None,
        tools: Sequence[str] | None = None,
        ttl: int | None = None,
        renewable_for: int | None = None,
    ) -> NewSession:
        """Make one. `agent` is the key's own, unless it is an operator's; `label` is for people. `ttl` and
        `renewable_for` are seconds; `tools` are names or patterns (`Gmail.*`, `read_only`), and where only they are
        said, it may use no route by itself."""
        made: NewSession = self._run(
            self._talk.mint(
                user,
                agent=agent,
                label=label,
                routes=routes,
                tools=tools,
                ttl=ttl,
                renewable_for=renewable_for,
            )
        )
        return made

    def renew(self, session: Session | NewSession | str, *, ttl: int | None = None) -> Session:
        """Let it live on for another `ttl` seconds, within its bound."""
        found: Session = self._run(self._talk.renew(session, ttl))
        return found

    def revoke(self, session: Session | NewSession | str) -> Session:
        """End it at once."""
        found: Session = self._run(self._talk.revoke(session))
        return found

    def get(self, session_id: str) -> Session:
        """One of them."""
        found: Session = self._run(self._talk.session(session_id))
        return found

    def list(self, *, user: str | None = None) -> list[Session]:
        """Those that this key has minted; for an operator's, the tenant's."""
        found: list[Session] = self._run(self._talk.sessions(user))
        return found
