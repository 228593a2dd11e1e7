"""`authproxy connect`: starts a flow, prints the link, waits for its end."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from authproxy.cli.console import DONE, NOT_WELL, Stop, complain, say, say_json, status
from authproxy.cli.options import json_option, store_options, tenant_option
from authproxy.cli.spans import seconds
from authproxy.core.model import DEFAULT_ACCOUNT, FlowStatus

if TYPE_CHECKING:
    from authproxy.app import App
    from authproxy.control.consent import Authorization

_WAITING = {
    FlowStatus.NOT_STARTED: "waiting for the link to be opened",
    FlowStatus.PENDING: "waiting for the decision at the provider",
    FlowStatus.EXCHANGING: "the provider has answered",
    FlowStatus.CONFIRMING: "waiting for your application to confirm the user",
}


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument("provider", help="a provider of the configuration")
    parser.add_argument("--user", required=True, help="whose account is connected")
    parser.add_argument("--account", default=DEFAULT_ACCOUNT, help="where a user has several at one provider")
    parser.add_argument(
        "--scope",
        action="append",
        default=[],
        dest="scopes",
        help="a scope to ask for; repeatable (default: those of the provider's routes)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SPAN",
        help="how long to wait: 5m, 300s (default: the link's life)",
    )
    store_options(parser, environ)
    tenant_option(parser)
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import with_app

    return with_app(args, lambda app: _connect(app, args), must_exist=False)


async def _connect(app: App, args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator
    from authproxy.control import views

    caller = operator(args.tenant)
    one = await app.control.consent.authorize(
        caller, user=args.user, provider=args.provider, scopes=tuple(args.scopes), account=args.account
    )
    if one.url is not None:
        await _demand_door(app, one.url)
        if args.json:
            say_json(views.authorization(one))
        else:
            say(f"Open this link as {args.user}:\n\n  {one.url}\n")
        one = await _wait(app, args, one)
    if args.json:
        say_json(views.authorization(one))
    elif one.status is FlowStatus.COMPLETED:
        say(f"{args.user} is connected to {args.provider} ({one.connection_id})")
    else:
        complain(f"{args.user} is not connected to {args.provider}: {_how(one)}")
    return DONE if one.status is FlowStatus.COMPLETED else NOT_WELL


async def _wait(app: App, args: argparse.Namespace, one: Authorization) -> Authorization:
    from authproxy.cli.session import operator

    caller = operator(args.tenant)
    began = time.monotonic()
    deadline = float("inf") if args.timeout is None else began + args.timeout
    try:
        while not one.status.ended and time.monotonic() < deadline:
            left = "" if one.expires_at is None else f" ({max(0, one.expires_at - int(time.time()))} s left)"
            status(_WAITING.get(one.status, str(one.status)), left)
            await app.flows.wait(one.id, min(1.0, max(0.0, deadline - time.monotonic())))
            one = await app.control.consent.status(caller, one.id)
    finally:
        status("")
    return one


async def _demand_door(app: App, link: str) -> None:
    """Somebody must answer at public_url, on this very store: a running `serve`, or else this command itself."""
    from authproxy.app import Address

    answer = await _looked_at(link)
    if answer == 200:
        return
    if answer is not None:
        raise Stop(
            f"{app.config.public_url} answers, but does not know this link (HTTP {answer}): it runs on another store, "
            "or something else listens there",
            code=NOT_WELL,
        )
    parts = urlsplit(app.config.public_url)
    address = Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    if parts.scheme != "http" or not address.is_local:
        raise Stop(
            f"nothing answers at {app.config.public_url}: start `authproxy serve` behind it first",
            code=NOT_WELL,
        )
    try:
        await app.run()
        await app.listen_control(address)
    except OSError as error:
        raise Stop(f"{address} cannot be listened on: {error.strerror}", code=NOT_WELL) from None
    complain(f"no `authproxy serve` is running: serving {app.config.public_url} until this is done")


async def _looked_at(link: str) -> int | None:
    """The status of the link's page (looking at it changes nothing), or None where nothing answers."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(link, allow_redirects=False) as response,
        ):
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return None


def _how(one: Authorization) -> str:
    from authproxy.control.consent import ending

    if not one.status.ended:
        return "the time to wait is over; the link still works while `authproxy serve` runs"
    reason = f" ({one.reason.replace('_', ' ')})" if one.reason else ""
    return f"the consent {ending(one.status)}{reason}"
