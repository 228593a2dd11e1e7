"""Hooks by which HTTP libraries raise what authproxy refused, where an upstream's own answers pass as ever.

For clients that speak to the data plane and to nobody else: any other server could answer in authproxy's words, with a
link of its own. Those that `Door` gives look where an answer comes from.
"""

from __future__ import annotations

from typing import Any

from authproxy.client.refusals import marked, raise_for_refusal


def requests_hook(response: Any, *_: Any, **__: Any) -> None:
    """`session.hooks["response"].append(requests_hook)`"""
    if marked(response.headers) is not None:
        raise_for_refusal(response.status_code, response.headers, response.content)


def httpx_hook(response: Any) -> None:
    """`httpx.Client(event_hooks={"response": [httpx_hook]})`"""
    if marked(response.headers) is not None:
        raise_for_refusal(response.status_code, response.headers, response.read())


async def httpx_async_hook(response: Any) -> None:
    """`httpx.AsyncClient(event_hooks={"response": [httpx_async_hook]})`"""
    if marked(response.headers) is not None:
        raise_for_refusal(response.status_code, response.headers, await response.aread())


async def aiohttp_hook(response: Any) -> None:
    """`aiohttp.ClientSession(raise_for_status=aiohttp_hook)`"""
    if marked(response.headers) is not None:
        raise_for_refusal(response.status, response.headers, await response.read())
