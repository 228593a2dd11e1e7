"""A ground of our own: a sandbox in this process, and real `authproxy serve` processes on a temporary store."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from authproxy import __version__
from authproxy.core.config import Refresh
from authproxy.listening import port_set_aside
from authproxy.rehearsal.answers import Trouble
from authproxy.rehearsal.ground import Ground, Timing
from authproxy.sandbox import Sandbox, Settings
from authproxy.store.sealing import generate_key

_STARTS_WITHIN = 30.0
_ENDS_WITHIN = 15.0
# The first pause is longer than a burst takes on a slow machine: what comes in it is not one more token call.
_REFRESH = Refresh(deadline=2.0, lease=12.0, backoff=2.0, backoff_max=2.0, leash=1.0)
_ROUTES = """
version: 1
environment: development
public_url: {control}
identity:
  callers:
    - {{kind: loopback, agent: rehearsal, may_act_for: ["*"], operator: true}}
providers:
  sandbox:
    issuer: {sandbox}
    client_id: authproxy-demo
    client_secret: env:REHEARSAL_CLIENT_SECRET
    client_auth: client_secret_basic
    scopes: [openid, offline_access]
    api_hosts: ["{host}"]
routes:
  sandbox:
    upstream: {sandbox}/api
    provider: sandbox
    scopes: [read, write]
refresh:
  deadline: {refresh.deadline}
  lease: {refresh.lease}
  backoff: {refresh.backoff}
  backoff_max: {refresh.backoff_max}
  leash: {refresh.leash}
egress: {{allow: ["{host}"]}}
"""


@dataclass(slots=True)
class _Replicas:
    """The processes, the first of which is never killed."""

    folder: Path
    control: int
    environ: Mapping[str, str] = field(repr=False)
    running: list[asyncio.subprocess.Process] = field(default_factory=list)
    _count: int = 0

    async def start(self, http: aiohttp.ClientSession) -> str:
        """One more; returns where agents reach it."""
        listen, control = port_set_aside(), self.control if not self._count else port_set_aside()
        self._count += 1
        words = self.folder / f"replica-{self._count}.log"
        with words.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "authproxy", "serve", "--log-level", "warning"),
                *("--config", str(self.folder / "routes.yaml")),
                *("--store", f"sqlite:///{self.folder / 'authproxy.db'}"),
                *("--listen", f"127.0.0.1:{listen}", "--control", f"127.0.0.1:{control}"),
                env=self.environ,
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        self.running.append(process)
        try:
            async with asyncio.timeout(_STARTS_WITHIN):
                while not await _ready(http, control):
                    if process.returncode is not None:
                        last = words.read_text(encoding="utf-8", errors="replace").strip()[-600:]
                        raise Trouble(f"authproxy serve ended with {process.returncode}: {last}")
                    await asyncio.sleep(0.03)  # a process cannot tell otherwise that it is there
        except TimeoutError:
            raise Trouble(f"authproxy serve was not ready within {_STARTS_WITHIN:.0f} s") from None
        return f"http://127.0.0.1:{listen}"

    async def kill(self) -> None:
        """The last one, as a crash would."""
        process = self.running.pop()
        process.kill()
        await process.wait()

    async def close(self) -> None:
        """Ends all that run."""
        for process in self.running:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                async with asyncio.timeout(_ENDS_WITHIN):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def embedded_ground(switches: Mapping[str, Any]) -> AsyncIterator[Ground]:
    """Starts everything and ends it. `switches` is the position that the sandbox starts with. Raises Trouble, or
    SwitchError for a switch that does not exist."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authproxy-rehearsal-")))
        sandbox = Sandbox(Settings(switches=switches))
        base = await sandbox.start(port=0)
        control = port_set_aside()
        text = _ROUTES.format(
            control=f"http://127.0.0.1:{control}",
            sandbox=base,
            host=base.removeprefix("http://"),
            refresh=_REFRESH,
        )
        (folder / "routes.yaml").write_text(text, encoding="utf-8")
        replicas = _Replicas(folder, control, _environ())
        http = await stack.enter_async_context(session())
        stack.push_async_callback(replicas.close)
        stack.push_async_callback(sandbox.close)  # before the replicas: whoever waits for it is let go
        ground = Ground(
            http=http,
            listens=[await replicas.start(http)],
            control=f"http://127.0.0.1:{control}",
            sandbox=base,
            path="/sandbox",
            provider="sandbox",
            scopes=("read", "write"),
            timing=Timing.of(_REFRESH),
            environment={
                "proxy": "started for the rehearsal: `authproxy serve` on a temporary SQLite store",
                "provider": "the sandbox, standard dialect"
                + "".join(f", {name}={value!r}" for name, value in switches.items()),
                "refresh": f"deadline {_REFRESH.deadline:g} s, backoff at most {_REFRESH.backoff_max:g} s, "
                f"leash {_REFRESH.leash:g} s (shorter than the defaults, to compress time)",
                **machine(),
            },
            sends=True,
        )

        async def reinforce() -> None:
            ground.listens.append(await replicas.start(http))

        async def fell() -> None:
            await replicas.kill()
            ground.listens.pop()

        ground.reinforce, ground.fell = reinforce, fell
        yield ground


def session() -> aiohttp.ClientSession:
    """As many calls at once as are asked for, and no cookie of one user for another."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0))


def machine() -> dict[str, str]:
    """What the report says of where it was made."""
    return {
        "authproxy": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _environ() -> dict[str, str]:
    """Nothing of the surroundings' own settings, keys and proxies reaches the processes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AUTHPROXY_") and not name.upper().endswith("_PROXY")
    }
    return {
        **kept,
        "AUTHPROXY_KEYS": generate_key(),
        "REHEARSAL_CLIENT_SECRET": "authproxy-demo-secret",
    }


async def _ready(http: aiohttp.ClientSession, control: int) -> bool:
    try:
        async with http.get(f"http://127.0.0.1:{control}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
