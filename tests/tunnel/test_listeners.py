"""The main listener in TLS: as a base URL, as an HTTPS proxy with a tunnel inside, and with names of its own."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.lanes import Lane, lanes
from tests.kit.ports import free_port
from tests.kit.process import LOOPBACK, Proxy
from tests.kit.raw import Wire, reply


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    directory = tmp_path_factory.mktemp("secure")
    listener = {"tls": True, "names": ["authproxy.internal", "10.9.8.7"]}
    with lanes(directory, 1, {"moving": {"rewrite_urls": True}}, listener=listener) as (_, special):
        (directory / "ca.pem").write_text(_pem(special["moving"].proxy))
        yield special["moving"]


def _pem(proxy: Proxy) -> str:
    shown = proxy.run("ca", "show", "--config", str(proxy.file), "--store", f"sqlite:///{proxy.store}")
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


async def curl(lane: Lane, *words: str) -> subprocess.CompletedProcess[str]:
    authority = str(lane.proxy.directory / "ca.pem")
    command = ["curl", "-sS", "--max-time", "10", "--cacert", authority, "--proxy-cacert", authority, *words]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=30, check=False
    )


async def test_a_base_url_may_be_https(lane: Lane) -> None:
    body = json.dumps({"url": f"http://127.0.0.1:{lane.port}/y"}).encode()
    async with lane.upstream([reply("200 OK", body, "Content-Type: application/json")]) as upstream:
        base = f"https://localhost:{lane.proxy.listen}{lane.prefix.decode()}"
        done = await curl(lane, "-H", "X-User-ID: alice", f"{base}/x")
        assert json.loads(done.stdout) == {"url": f"{base}/y"}, done.stderr
    assert upstream.requests[0].head.one(b"authorization") == lane.bearer


async def test_a_tunnel_may_be_inside_tls(lane: Lane) -> None:
    proxy = f"https://alice:-@127.0.0.1:{lane.proxy.listen}"
    async with lane.upstream([reply(body=b"well")]) as upstream:
        done = await curl(lane, "--proxy", proxy, f"https://{lane.host}/x")
        assert done.stdout == "well", done.stderr
        absolute = await curl(lane, "--proxy", proxy, "--noproxy", "", f"http://127.0.0.1:{lane.port}/x")
        assert absolute.stdout == "well", absolute.stderr
    assert {one.head.one(b"authorization") for one in upstream.requests} == {lane.bearer}


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "authproxy.internal", "10.9.8.7"])
async def test_its_certificate_has_its_names(lane: Lane, name: str) -> None:
    trust = lane.proxy.trust
    wire = await Wire.dial(lane.proxy.listen)
    await wire.secure(trust, name)
    await wire.close()


async def test_it_has_no_others(lane: Lane) -> None:
    trust = lane.proxy.trust
    wire = await Wire.dial(lane.proxy.listen)
    with pytest.raises(ssl.SSLCertVerificationError):
        await wire.secure(trust, lane.host)
    await wire.close()


# --- what may not be configured ------------------------------------------------------------------------------


def check(directory: Path, **config: object) -> subprocess.CompletedProcess[str]:
    proxy = Proxy(directory, {"identity": {"callers": [LOOPBACK]}, **config})
    proxy.file.write_text(json.dumps(proxy.config))
    return proxy.run("check", "--config", str(proxy.file))


def test_listeners_are_checked(tmp_path: Path) -> None:
    base = {"provider": "kit", "upstream": "https://api.example.com"}
    providers = {"kit": {"client_id": "x", "client_auth": "none", "issuer": "https://id.example.com"}}
    providers["kit"]["api_hosts"] = ["api.example.com"]  # type: ignore[assignment]

    def said(**routes: dict[str, object]) -> str:
        done = check(
            tmp_path, providers=providers, routes={name: {**base, **own} for name, own in routes.items()}
        )
        return done.stderr

    port = free_port()
    assert "already" in said(
        a={"listen": f"127.0.0.1:{port}"}, b={"listen": f"127.0.0.1:{port}", "prefix": "/b"}
    )
    assert "say `listen` too" in said(a={"tls": True})
    assert "loopback callers only" in said(a={"listen": "0.0.0.0:9102"})
    assert "must be `host:port`" in said(a={"listen": "9102"})
    assert "must be `host:port`" in said(a={"listen": "127.0.0.1:99999"})
    assert said(a={"listen": f"127.0.0.1:{port}", "tls": True}) == ""
    wrong = check(
        tmp_path, listener={"names": ["Upper.example", "127.1"]}, tunnel={"unrouted": "maybe", "ports": [0]}
    )
    assert wrong.returncode == 2
    for path in ("tunnel.unrouted", "tunnel.ports[0]"):
        assert path in wrong.stderr
    names = check(tmp_path, listener={"names": ["Upper.example", "127.1"]}).stderr
    assert "listener.names[0]" in names
    assert "listener.names[1]" in names


def test_a_listener_for_others_needs_keys_and_tls(tmp_path: Path) -> None:
    for listen, tls, keys, word in (
        ("0.0.0.0:9102", False, True, "speaks no TLS"),
        ("0.0.0.0:9102", True, False, "loopback callers only"),
    ):
        callers = [{"kind": "api_key"}, LOOPBACK] if keys else [LOOPBACK]
        proxy = Proxy(
            tmp_path / word.split()[0],
            {
                "identity": {"callers": callers},
                "providers": {
                    "kit": {
                        "client_id": "x",
                        "client_auth": "none",
                        "issuer": "https://id.example.com",
                        "api_hosts": ["api.example.com"],
                    }
                },
                "routes": {
                    "a": {
                        "provider": "kit",
                        "upstream": "https://api.example.com",
                        "listen": listen,
                        "tls": tls,
                    }
                },
            },
        )
        proxy.file.write_text(json.dumps(proxy.config))
        done = proxy.run("serve", "--config", str(proxy.file), "--store", f"sqlite:///{proxy.store}")
        assert done.returncode == 2
        assert word in done.stderr
