"""`authproxy bench`: what the proxy costs on this machine, beside the same calls made directly."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import NamedTuple

from authproxy import __version__
from authproxy.cli.console import DONE, NOT_WELL, Stop, facts, say, say_json, status, table
from authproxy.cli.load import LoadFault, get, keep_busy, keep_pace, listen
from authproxy.cli.options import json_option
from authproxy.cli.session import run_loop
from authproxy.cli.settle import settle

_RATE = 300.0
_CONNECTIONS = 32
_ROUNDS = 3
_USER = "X-User-ID: bench"
_CONFIG = """
version: 1
environment: development
identity: {{callers: [{{kind: loopback, agent: bench}}]}}
providers:
  bench:
    client_id: bench
    client_auth: none
    endpoints: {{authorization: "http://127.0.0.1:{port}/authorize", token: "http://127.0.0.1:{port}/token"}}
    api_hosts: ["127.0.0.1:{port}"]
routes:
  bench:
    upstream: "http://127.0.0.1:{port}"
    provider: bench
    allow: [{{methods: [GET], paths: ["/v1/*"]}}, {{methods: [POST], paths: ["/v1/items/**"]}}]
egress: {{allow: ["127.0.0.1:{port}"]}}
"""


class Measured(NamedTuple):
    """One round of one contender. Times are in seconds, `cpu` is per request; None for the direct call."""

    p50: float
    p99: float
    rate: float
    cpu: float | None


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    json_option(parser)
    parser.add_argument(
        "--seconds", type=_seconds, default=1.0, help="for each single measurement (default: 1)", metavar="S"
    )


def run(args: argparse.Namespace) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="authproxy-bench-") as directory,
        _child(_upstream) as (_, upstream),
        _child(_proxy, directory, upstream) as (pipe, proxy),
    ):
        before = _ask(pipe)
        try:
            rounds = _interleaved(upstream, proxy, pipe, args.seconds)
        except (LoadFault, OSError, TimeoutError) as fault:
            raise Stop(
                f"the measurement broke off: {str(fault) or type(fault).__name__}", code=NOT_WELL
            ) from None
        after = _ask(pipe)
    direct, proxied = (_median(list(side)) for side in zip(*rounds, strict=True))
    figures = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "authproxy": __version__,
        "python": platform.python_version(),
        "loop": _loop_name(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "rounds": _ROUNDS,
        "direct": direct._asdict(),
        "proxied": proxied._asdict(),
        "memory_idle_mb": before[1],
        "memory_loaded_mb": after[1],
    }
    if args.json:
        say_json(figures)
    else:
        _tell(figures, direct, proxied)
    return DONE


def _tell(figures: Mapping[str, object], direct: Measured, proxied: Measured) -> None:
    assert proxied.cpu is not None
    rows = [
        (f"p50 at {_RATE:.0f} requests/s, ms", direct.p50 * 1e3, proxied.p50 * 1e3),
        (f"p99 at {_RATE:.0f} requests/s, ms", direct.p99 * 1e3, proxied.p99 * 1e3),
    ]
    table(
        ("", "direct", "proxied", "added"),
        [(name, f"{a:.2f}", f"{b:.2f}", f"{b - a:+.2f}") for name, a, b in rows]
        + [(f"requests/s, {_CONNECTIONS} connections", f"{direct.rate:.0f}", f"{proxied.rate:.0f}", "")],
    )
    say()
    memory = f"{figures['memory_idle_mb']:.0f} MB idle, {figures['memory_loaded_mb']:.0f} MB at most"
    facts(
        {
            "CPU of the proxy": f"{proxied.cpu * 1e3:.3f} s per 1,000 requests",
            "requests/s per core": f"{1 / proxied.cpu:.0f}",
            "memory": memory,
            "machine": f"{figures['cpus']} CPUs, {figures['system']}, load average {figures['load_average']:.2f}",
            "software": f"authproxy {__version__}, Python {figures['python']}, {figures['loop']}",
        }
    )
    say()
    say(
        f"Medians of {_ROUNDS} interleaved rounds. Load, upstream and proxy share this machine: trust the CPU per\n"
        "request and what is added, not requests/s. `python -m bench` of the repository compares with other proxies."
    )


def _interleaved(upstream: int, proxy: int, pipe: Pipe, length: float) -> list[tuple[Measured, Measured]]:
    """All rounds: direct and proxied in turn, so that a change of weather on the machine meets both."""
    rounds: list[tuple[Measured, Measured]] = []

    async def work() -> int:
        for number in range(_ROUNDS + 1):
            status(f"round {number} of {_ROUNDS}" if number else "warming up")
            seconds = length if number else length / 3
            direct = await _measure(upstream, "/v1/x", seconds, lambda: None)
            proxied = await _measure(proxy, "/bench/v1/x", seconds, lambda: _ask(pipe)[0])
            if number:
                rounds.append((direct, proxied))
        status("")
        return DONE

    run_loop(work())
    return rounds


async def _measure(port: int, path: str, seconds: float, cpu: Callable[[], float | None]) -> Measured:
    request = get(path, _USER)
    paced = await keep_pace(port, request, rate=_RATE, seconds=seconds)
    before = cpu()
    busy = await keep_busy(port, request, connections=_CONNECTIONS, seconds=seconds)
    after = cpu()
    spent = None if before is None or after is None else (after - before) / busy.requests
    return Measured(paced.quantile(0.5), paced.quantile(0.99), busy.requests / busy.seconds, spent)


def _median(rounds: list[Measured]) -> Measured:
    cpu = [each.cpu for each in rounds if each.cpu is not None]
    return Measured(
        statistics.median(each.p50 for each in rounds),
        statistics.median(each.p99 for each in rounds),
        statistics.median(each.rate for each in rounds),
        statistics.median(cpu) if cpu else None,
    )


# --- the processes that are measured


@contextmanager
def _child(work: Callable[..., None], *args: object) -> Iterator[tuple[Pipe, int]]:
    """A process of its own that runs `work(pipe, *args)`; it tells its port, and ends when the pipe is closed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=work, args=(theirs, *args), daemon=True)
    child.start()
    theirs.close()
    try:
        try:
            port = ours.recv()
        except EOFError:
            raise Stop("a process of the measurement did not start", code=NOT_WELL) from None
        yield ours, port
    finally:
        ours.close()
        child.join(10)
        if child.is_alive():
            child.kill()


def _ask(pipe: Pipe) -> tuple[float, float]:
    """CPU seconds of the proxy's process so far, all threads, and the most memory that it had, in MB."""
    pipe.send(None)
    cpu, memory = pipe.recv()
    return cpu, memory


async def _attend(pipe: Pipe, port: int) -> None:
    """Tell the port, answer each question with what this process has used, end with the pipe."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), asked.set)
    pipe.send(port)
    while True:
        await asked.wait()
        asked.clear()
        try:
            pipe.recv()
            pipe.send((time.process_time(), _most_memory()))
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            return


def _upstream(pipe: Pipe) -> None:
    async def work() -> int:
        server, port = await listen()
        async with server:
            await _attend(pipe, port)
        return DONE

    run_loop(work())


def _proxy(pipe: Pipe, directory: str, upstream: int) -> None:
    from authproxy.log import configure

    configure("error")
    run_loop(_serve(pipe, Path(directory), upstream))


async def _serve(pipe: Pipe, directory: Path, upstream: int) -> int:
    """The data plane with all that it does in earnest: policy, sealed store, metrics, audit."""
    from authproxy.app import Address, App
    from authproxy.core.model import DEFAULT_TENANT, ConnectionKey, NewGrant, TokenSet
    from authproxy.core.secret import Secret
    from authproxy.core.strict import read_config
    from authproxy.store.sealing import generate_key

    environ = {"AUTHPROXY_KEYS": generate_key()}
    config = read_config(
        _CONFIG.format(port=upstream), file="bench", environ=environ, read_file=lambda path: path
    )
    store = f"sqlite:///{directory / 'bench.db'}"
    async with await App.open(config, store=store, environ=environ, announce=lambda _: None) as app:
        await app.run()
        now = int(app.clock())
        tokens = TokenSet(Secret("bench-access-" + "a" * 40), None, now + 86400, 86400)
        key = ConnectionKey(DEFAULT_TENANT, "bench", "bench")
        await app.vault.keep_grant(NewGrant(key, "bench", "bench", tokens, (), None, now), [])
        port = await app.listen_data(Address("127.0.0.1", 0))
        settle()
        await _attend(pipe, port)
    return DONE


def _seconds(text: str) -> float:
    if not 0.05 <= float(text) <= 60:
        raise argparse.ArgumentTypeError("say 0.05 to 60")
    return float(text)


def _most_memory() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def _loop_name() -> str:
    try:
        return f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        return "asyncio"
