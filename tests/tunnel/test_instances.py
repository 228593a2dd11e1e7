"""A provider whose grants name their own hosts (Salesforce): by CONNECT each user reaches their own and no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.kit.lanes import assert_problem
from tests.kit.process import Proxy
from tests.kit.provider import Grant, Provider
from tests.kit.raw import Message, Wire


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    provider = Provider()

    def at_acme(grant: Grant, _form: dict[str, str]) -> tuple[int, str, bytes]:
        status, kind, body = provider.issue(grant)
        reply = {**json.loads(body), "instance_url": "https://acme.my.salesforce.com"}
        return status, kind, json.dumps(reply).encode()

    provider.twist = at_acme
    choice = {name: value for name, value in provider.choice().items() if name != "api_hosts"}
    config = {
        "providers": {"salesforce": choice},
        "routes": {"salesforce": {"scopes": ["read"]}},
        "egress": {"allow": ["127.0.0.0/8"]},
    }
    try:
        with Proxy(tmp_path_factory.mktemp("instances"), config) as running:
            running.connect("alice", "salesforce")
            yield running
    finally:
        provider.close()


async def ask(proxy: Proxy, host: str) -> Message:
    async with await Wire.dial(proxy.listen) as wire:
        tls = await asyncio.to_thread(lambda: proxy.trust)
        await wire.send(
            f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nX-User-ID: alice\r\n\r\n".encode()
        )
        head = await wire.head()
        if head.status != 200:
            return Message(head, await wire.exactly(int(head.one(b"content-length") or b"0")))
        await wire.secure(tls, host)
        await wire.send(f"GET /services/data HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return await wire.response()


@pytest.mark.scenario("G22")
async def test_a_users_own_instance_is_dialled_and_no_other(proxy: Proxy) -> None:
    own = await ask(proxy, "acme.my.salesforce.com")
    # It is the right one, and there is none of that name to be found from here.
    assert_problem(own, "upstream_unreachable")
    other = await ask(proxy, "globex.my.salesforce.com")
    assert other.status == 421
    assert_problem(other, "bad_request")
    assert json.loads(other.body)["reason"] == "instance"
    for host in ("salesforce.com.evil.example", "my.salesforce.com.evil", "evilsalesforce.com"):
        assert_problem(await ask(proxy, host), "no_route")
