"""A naive credential proxy on aiohttp: a handler, a session, a static token."""

from __future__ import annotations

import ssl
import sys

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "authorization"}


class Naive:
    """Sends each request on with the token."""

    def __init__(self, token: str, authority: str, plain: str, tls: str, events: str) -> None:
        self._value = f"Bearer {token}"
        self._authority = authority
        self._upstreams = {
            "plain": f"http://127.0.0.1:{plain}",
            "tls": f"https://127.0.0.1:{tls}",
            "events": f"http://127.0.0.1:{events}",
        }
        self._session: ClientSession

    async def begin(self, app: web.Application) -> None:
        """Make the session in the loop."""
        tls = ssl.create_default_context(cafile=self._authority)
        connector = TCPConnector(limit=0, ssl=tls)
        self._session = ClientSession(
            connector=connector, auto_decompress=False, timeout=ClientTimeout(total=None)
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        headers["Authorization"] = self._value
        url = f"{self._upstreams[request.match_info['way']]}/{request.match_info['rest']}"
        body = request.content if request.can_read_body else None
        async with self._session.request(
            request.method, url, headers=headers, data=body, params=request.query, allow_redirects=False
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            reply = web.StreamResponse(status=answer.status, headers=kept)
            await reply.prepare(request)
            async for piece in answer.content.iter_any():
                await reply.write(piece)
            await reply.write_eof()
            return reply


def main() -> None:
    """Serve on the port of the first argument."""
    port, *rest = sys.argv[1:]
    naive = Naive(*rest)
    app = web.Application(client_max_size=0)
    app.on_startup.append(naive.begin)
    app.router.add_route("*", "/{way}/{rest:.*}", naive.handle)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None, access_log=None)


if __name__ == "__main__":
    main()
