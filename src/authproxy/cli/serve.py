"""`authproxy serve`: runs the proxy and its control plane until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING

from authproxy import __version__
from authproxy.cli.console import DONE, NOT_WELL, Stop
from authproxy.cli.options import option, store_options, switch
from authproxy.cli.settle import settle

if TYPE_CHECKING:
    from authproxy.app import Address, App
    from authproxy.cli.reload import Reloader
    from authproxy.cli.worker import Place
    from authproxy.core.config import Config
    from authproxy.core.strict import Reading

_MOST_WORKERS = 64
_LEVELS = ("debug", "info", "warning", "error")


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.description = (
        "Run the proxy and its control plane. SIGHUP reads the configuration again, with the files that it names for "
        "secrets: it is taken over as a whole, or refused with every fault in the log. What is in the environment, "
        "listeners, limits, timeouts, refresh, audit, webhooks and the store change with a restart only. A changed "
        "key file is taken over by itself, within seconds. SIGTERM drains and ends."
    )
    store_options(parser, environ)
    option(
        parser,
        "--listen",
        environ,
        says="where agents reach the proxy: HOST:PORT or unix:/path (default: 127.0.0.1:8700)",
        default="127.0.0.1:8700",
        metavar="ADDRESS",
    )
    option(
        parser,
        "--control",
        environ,
        says="where browsers and operators reach the control plane (default: 127.0.0.1:8701)",
        default="127.0.0.1:8701",
        metavar="ADDRESS",
    )
    option(
        parser,
        "--log-level",
        environ,
        says=f"{', '.join(_LEVELS)} (default: info)",
        default="info",
        read=_level,
    )
    option(
        parser,
        "--workers",
        environ,
        says="processes that share the listeners, for more than one core; the store must not be in memory (default: 1)",
        default=1,
        read=_workers,
        metavar="N",
    )
    switch(
        parser,
        "--allow-plaintext",
        environ,
        says="listen beyond this machine without TLS: agent keys and answers then cross the network as they are",
    )
    switch(
        parser,
        "--expect-data",
        environ,
        says="refuse to start on a store without connections (a lost volume)",
    )
    switch(
        parser,
        "--restored",
        environ,
        says="the store was put back from a backup: its grants are refreshed only when a request needs them, since "
        "their tokens may have been spent. Beside a SQLite file this is noticed by itself; say it once for postgresql://",
    )


def run(args: argparse.Namespace) -> int:
    import authproxy.log  # before all others: it says what structlog loads
    from authproxy.app import Address
    from authproxy.cli.configuration import load
    from authproxy.cli.session import demand_store, run_loop
    from authproxy.cli.worker import place_of

    place = place_of(os.environ)
    authproxy.log.configure(args.log_level, None, **({} if place is None else {"worker": place.number}))
    try:
        listen, control = Address.parse(args.listen), Address.parse(args.control)
    except ValueError as error:
        raise Stop(str(error)) from None
    reading = load(args)
    _demand_safe(reading.config, listen, args)
    if args.expect_data:
        demand_store(args.store)
    if place is None and args.workers > 1:
        from authproxy.cli.workers import supervise

        return supervise(args, reading.config, listen, control)
    return run_loop(_serve(args, reading, listen, control, place))


async def _serve(
    args: argparse.Namespace, reading: Reading, listen: Address, control: Address, place: Place | None
) -> int:
    import structlog

    from authproxy.app import App
    from authproxy.cli.configuration import text_of
    from authproxy.cli.reload import Reloader, digest_of
    from authproxy.cli.worker import Line

    log = structlog.get_logger()
    config = reading.config
    again = asyncio.Event()
    stop = _told_to_stop(again)
    digest = digest_of(text_of(args.config)[1])
    log.info(
        "starting",
        version=__version__,
        environment=str(config.environment),
        config=args.config,
        sha256=digest,
    )
    first = place is None or place.first  # what is the same for all workers is said by one
    for fault in reading.warnings if first else ():
        log.warning(
            "config_warning", file=fault.file, line=fault.line, path=fault.path, message=fault.message
        )
    for warning in _doubts(config, control) if first else ():
        log.warning("config_warning", file=args.config, message=warning)
    async with await App.open(
        config, store=args.store, environ=os.environ, announce=lambda text: log.warning("keys", message=text)
    ) as app:
        connections = sum((await app.control.counts()).values())
        if args.expect_data and connections == 0:
            raise Stop(
                "the store has no connections, and --expect-data says that it should: is its volume mounted?"
            )
        log.info(
            "store_open",
            **await app.vault.backend.describe(),
            connections=connections,
            sealing_key=app.vault.keyring.newest,
        )
        await app.run(restored=args.restored and first)
        for name in config.providers if first else ():
            log.info(
                "redirect_uri", provider=name, register=f"{config.public_url.rstrip('/')}/callback/{name}"
            )
        line = None if place is None else Line(place, app.metrics, stop)
        if line is not None and place is not None:
            app.handed = place.handed()
            await line.open()
        await _listen(app, listen, control)
        log.info(
            "serving",
            listen=str(listen),
            control=str(control),
            public_url=config.public_url,
            callers=[choice.kind for choice in config.identity.callers],
            routes=[route.name for route in app.routes],
        )
        settle()
        if line is not None:
            line.serving()
        reloader = Reloader(
            app, args.config, args.environment, check=lambda config: _demand_safe(config, listen, args)
        )
        await _until(stop, again, reloader, app)
        log.info("stopping")
    if line is not None:
        await line.close()
    log.info("stopped")
    return DONE


async def _listen(app: App, listen: Address, control: Address) -> None:
    """The data plane first: when the control plane's /readyz answers, both are there (J08)."""
    for name, address, start in (
        ("--listen", listen, app.listen_data),
        ("--control", control, app.listen_control),
    ):
        try:
            await start(address)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Stop(f"{name} {address} cannot be listened on: {reason}", code=NOT_WELL) from None


async def _until(stop: asyncio.Event, again: asyncio.Event, reloader: Reloader, app: App) -> None:
    """Read configuration and keys again whenever that is asked for, until told to stop."""
    told = asyncio.create_task(stop.wait())
    while not stop.is_set():
        asked = asyncio.create_task(again.wait())
        await asyncio.wait([told, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if again.is_set() and not stop.is_set():
            again.clear()
            if app.keywatch is not None:
                app.keywatch.wake()
            await reloader.reload()


def _told_to_stop(again: asyncio.Event) -> asyncio.Event:
    """Set by SIGTERM and SIGINT; `again` is set by SIGHUP."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, again.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _demand_safe(config: Config, listen: Address, args: argparse.Namespace) -> None:
    """Raises Stop where this configuration would leave a listener open."""
    from authproxy.app import Address

    _demand_callers(f"--listen {listen}", listen, config, plain=not config.listener.tls, args=args)
    for name, choice in config.routes.items():
        if choice.listen is not None:
            where = f"routes.{name}.listen {choice.listen}"
            _demand_callers(where, Address.parse(choice.listen), config, plain=not choice.tls, args=args)


def _demand_callers(
    where: str, listen: Address, config: Config, *, plain: bool, args: argparse.Namespace
) -> None:
    """Whoever reaches the data plane from elsewhere must show a credential, and not in the clear by accident."""
    if listen.is_local:
        return
    if all(choice.kind == "loopback" for choice in config.identity.callers):
        raise Stop(
            f"{where} is open to other machines, but identity.callers knows loopback callers only: "
            "add `kind: api_key`, or listen on 127.0.0.1"
        )
    if plain and not args.allow_plaintext:
        raise Stop(
            f"{where} is open to other machines and speaks no TLS: say `tls: true`, put a TLS terminator in front and "
            "listen on 127.0.0.1, or say --allow-plaintext if the network itself is trusted"
        )


def _doubts(config: Config, control: Address) -> list[str]:
    """What works, but is probably not meant."""
    doubts = []
    if not config.identity.callers:
        doubts.append("identity.callers is empty: every request will be refused")
    if not control.is_local and not config.public_url.startswith("https:"):
        doubts.append(
            f"the control plane listens on {control}, but public_url has no https: consents cross in the clear"
        )
    return doubts


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= _MOST_WORKERS):
        raise ValueError(f"say a number from 1 to {_MOST_WORKERS}")
    return int(text)


def _level(text: str) -> str:
    if text.lower() not in _LEVELS:
        raise ValueError(f"say one of {', '.join(_LEVELS)}")
    return text.lower()
