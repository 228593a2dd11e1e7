"""A route as one user: its base URL and headers, and what each vendor's library needs to go through it.

Each method gives keyword arguments for the library's own client, or the object where arguments would not do; the
library is imported only then. The agent key stands where libraries keep a token (`Authorization`), since they all take
it off when they are redirected to another host; the proxy takes it off in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from authproxy.client.hooks import aiohttp_hook, httpx_async_hook, httpx_hook, requests_hook
from authproxy.client.refusals import raise_for_refusal

UNUSED = "unused"
"""For libraries that insist on a token where no agent key is needed: the proxy puts the user's in its place."""
_ELSEWHERE = "https://authproxy.invalid"


class Door:
    """Made by `Client.door`. `base_url` has no slash at its end."""

    def __init__(
        self, base_url: str, *, user: str | None, account: str | None, key: str | None, user_header: str
    ) -> None:
        self.base_url = base_url
        self._key = key
        named = {user_header: user, "X-Authproxy-Account": account}
        self._named = {name: value for name, value in named.items() if value is not None}

    def __repr__(self) -> str:
        return f"Door({self.base_url!r})"

    @property
    def headers(self) -> dict[str, str]:
        """For any HTTP client: who asks, and for whom."""
        return {**({} if self._key is None else {"Authorization": f"Bearer {self._key}"}), **self._named}

    def url(self, path: str) -> str:
        """The URL of a path of the provider's documentation."""
        return f"{self.base_url}/{path.lstrip('/')}"

    # --- HTTP clients

    def requests(self) -> Any:
        """A `requests.Session`: `session.get(door.url("/gmail/v1/users/me/messages"))`."""
        session = import_module("requests").Session()
        session.trust_env = (
            False  # a netrc entry would take the key's place, and a proxy of the environment ours
        )
        session.headers.update(self.headers)
        session.hooks["response"].append(self._requests_hook)
        return session

    def httpx(self) -> dict[str, Any]:
        """`httpx.Client(**door.httpx())`"""
        return {**self._httpx(), "event_hooks": {"response": [self._httpx_hook]}}

    def httpx_async(self) -> dict[str, Any]:
        """`httpx.AsyncClient(**door.httpx_async())`"""
        return {**self._httpx(), "event_hooks": {"response": [self._httpx_async_hook]}}

    def _httpx(self) -> dict[str, Any]:
        return {"base_url": self.base_url, "headers": self.headers, "trust_env": False}

    def aiohttp(self) -> dict[str, Any]:
        """`aiohttp.ClientSession(**door.aiohttp())`; its paths are relative, without a slash in front."""
        return {
            "base_url": f"{self.base_url}/",
            "headers": self.headers,
            "raise_for_status": self._aiohttp_hook,
            "trust_env": False,
        }

    # --- vendors' libraries

    def google(self, service: str, version: str, **more: Any) -> Any:
        """A service of google-api-python-client, uploads and batches included: `door.google("gmail", "v1")`. `more`
        goes to `build_from_document`."""
        discovery = import_module("googleapiclient.discovery")
        found = import_module("googleapiclient.discovery_cache").get_static_doc(service, version)
        if found is None:
            raise ValueError(f"google-api-python-client has no {service} {version}")
        document = import_module("json").loads(found)
        document["rootUrl"] = f"{self.base_url}/"
        document.pop("mtlsRootUrl", None)
        return discovery.build_from_document(document, http=self.google_http(), **more)

    def google_http(self) -> Any:
        """The `httplib2.Http` of the same, for whoever builds the service himself."""
        httplib2, said = import_module("httplib2"), self.headers

        def request(
            http: Any, uri: str, *args: Any, headers: Mapping[str, str] | None = None, **more: Any
        ) -> Any:
            sent = {**(headers or {}), **said}
            answer, content = httplib2.Http.request(http, uri, *args, headers=sent, **more)
            raise_for_refusal(answer.status, answer, content)
            return answer, content

        http = type("DoorHttp", (httplib2.Http,), {"request": request})(proxy_info=None)
        http.follow_redirects = False  # it would send these headers along
        return http

    def slack(self) -> dict[str, Any]:
        """`slack_sdk.WebClient(**door.slack())`, `AsyncWebClient` alike"""
        return {"token": self._token, "base_url": f"{self.base_url}/api/", "headers": dict(self._named)}

    def github(self) -> dict[str, Any]:
        """`github.Github(**door.github())`"""
        kind = import_module("github.Auth").Auth
        said = {"Authorization": f"Bearer {self._token}", **self._named}

        def authentication(_: Any, headers: dict[str, Any]) -> None:
            headers.update(said)

        parts = {"token_type": "Bearer", "token": self._token, "authentication": authentication}
        return {"base_url": self.base_url, "auth": type("DoorAuth", (kind,), parts)()}

    def salesforce(self) -> dict[str, Any]:
        """`simple_salesforce.Salesforce(**door.salesforce())`: it insists on https and on the root, so its session has
        an adapter that leads here."""
        adapter, base = import_module("requests.adapters").HTTPAdapter, self.base_url

        def send(self: Any, request: Any, **more: Any) -> Any:
            parts = urlsplit(request.url)
            request.url = base + parts.path + (f"?{parts.query}" if parts.query else "")
            return adapter.send(self, request, **more)

        session = self.requests()
        session.mount(_ELSEWHERE, type("DoorAdapter", (adapter,), {"send": send})())
        return {"instance_url": _ELSEWHERE, "session_id": self._token, "session": session}

    def hubspot(self) -> dict[str, Any]:
        """`hubspot.Client.create(**door.hubspot())`"""
        base = import_module("hubspot.discovery.discovery_base").DiscoveryBase
        build = base._default_api_factory  # noqa: SLF001 - there is no other way to have its own made, and then changed
        named = dict(self._named)

        def api_factory(package: Any, name: str, config: Mapping[str, Any]) -> Any:
            api = build(package, name, config)
            for header, value in named.items():
                api.api_client.set_default_header(header, value)
            return api

        return {"access_token": self._token, "host": self.base_url, "api_factory": api_factory}

    def openai(self, path: str = "/v1") -> dict[str, Any]:
        """`openai.OpenAI(**door.openai())`, `AsyncOpenAI` alike; `path` is what the route's upstream has not got."""
        return {
            "api_key": self._token,
            "base_url": self.base_url + path,
            "default_headers": dict(self._named),
        }

    def anthropic(self) -> dict[str, Any]:
        """`anthropic.Anthropic(**door.anthropic())`, `AsyncAnthropic` alike; from 2.0 on, which sends the key as a
        Bearer."""
        return {"api_key": self._token, "base_url": self.base_url, "default_headers": dict(self._named)}

    # --- a redirect may lead elsewhere, and whoever answers there has no say in which link is shown

    def _here(self, url: object) -> bool:
        return f"{url}/".startswith(f"{self.base_url}/")

    def _requests_hook(self, response: Any, *_: Any, **__: Any) -> None:
        if self._here(response.url):
            requests_hook(response)

    def _httpx_hook(self, response: Any) -> None:
        if self._here(response.url):
            httpx_hook(response)

    async def _httpx_async_hook(self, response: Any) -> None:
        if self._here(response.url):
            await httpx_async_hook(response)

    async def _aiohttp_hook(self, response: Any) -> None:
        if self._here(response.url):
            await aiohttp_hook(response)

    @property
    def _token(self) -> str:
        return self._key or UNUSED
