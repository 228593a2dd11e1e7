"""`authproxy connections`: list, show, wait, import, refresh or disconnect; never prints a token."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from authproxy.cli.console import DONE, NOT_WELL, Stop, complain, facts, instant, say, say_json, span, table
from authproxy.cli.options import count, json_option, store_options, tenant_option
from authproxy.cli.spans import seconds
from authproxy.core.errors import BadRequest
from authproxy.core.model import DEFAULT_ACCOUNT, Connection, ConnectionKey, State
from authproxy.core.secret import Secret

if TYPE_CHECKING:
    from authproxy.control.panel import Control

_LONGEST = 65536


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    listing = actions.add_parser("list", help="connections, newest tokens' ends, and states")
    listing.add_argument("--user", help="of this user only")
    listing.add_argument("--provider", help="at this provider only")
    listing.add_argument("--state", choices=[str(state) for state in State], help="in this state only")
    listing.add_argument(
        "--limit", type=count(1), default=1000, metavar="N", help="at most so many (default: 1000)"
    )
    show = actions.add_parser("show", help="all that is known of one connection")
    refresh = actions.add_parser("refresh", help="refresh its token now")
    refresh.add_argument(
        "--probe",
        action="store_true",
        help="also one that needs_reauth: ask the provider once more with the refresh token that is still here, "
        "after an outage in which it refused good ones",
    )
    disconnect = actions.add_parser("disconnect", help="end it here, and give the grant back to the provider")
    wait = actions.add_parser(
        "wait", help="return when it works again, such as after its user has reconnected"
    )
    wait.add_argument("--timeout", type=seconds, metavar="SPAN", help="how long: 30s, 2h (default: for ever)")
    for one in (show, refresh, disconnect, wait):
        one.add_argument("id", help="con_…")
    take = actions.add_parser("import", help="take over a refresh token, read from standard input")
    take.add_argument("provider")
    take.add_argument("--user", required=True, help="whose it is")
    take.add_argument("--account", default=DEFAULT_ACCOUNT, help="where a user has several at one provider")
    take.add_argument(
        "--scope", action="append", default=[], dest="scopes", help="a scope it was granted; repeatable"
    )
    take.add_argument("--replace", action="store_true", help="also where the user is connected already")
    for one in (listing, show, refresh, disconnect, wait, take):
        store_options(one, environ)
        tenant_option(one)
        json_option(one)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import with_control

    work = {
        "list": _list,
        "show": _show,
        "refresh": _refresh,
        "disconnect": _disconnect,
        "wait": _wait,
        "import": _import,
    }
    reads = args.action in ("list", "show", "wait")
    secret = _standard_input() if args.action == "import" else None
    return with_control(
        args,
        lambda control: work[args.action](control, args, secret),
        must_exist=args.action != "import",
        records=not reads,
    )


async def _list(control: Control, args: argparse.Namespace, _secret: Secret | None) -> int:
    from authproxy.cli.session import operator
    from authproxy.control import views

    found = await control.connections.list(
        operator(args.tenant),
        user=args.user,
        provider=args.provider,
        state=None if args.state is None else State(args.state),
        limit=args.limit,
    )
    if args.json:
        say_json([views.connection(one) for one in found])
        return DONE
    now = int(time.time())
    table(
        ("id", "user", "provider", "account", "state", "token", "scopes"),
        [
            (
                one.id,
                one.key.user,
                one.key.provider,
                one.key.account,
                str(one.state) + (f" ({one.reason})" if one.reason else ""),
                _life(one, now),
                " ".join(one.scopes),
            )
            for one in found
        ],
    )
    return DONE


async def _show(control: Control, args: argparse.Namespace, _secret: Secret | None) -> int:
    from authproxy.cli.session import operator

    connection = await control.connections.show(operator(args.tenant), args.id)
    revoked = await control.connections.revoked_upstream(operator(args.tenant), args.id)
    return _shown(connection, args, revoked=revoked)


async def _refresh(control: Control, args: argparse.Namespace, _secret: Secret | None) -> int:
    from authproxy.cli.session import operator

    connection = await control.connections.refresh(operator(args.tenant), args.id, probe=args.probe)
    return _shown(connection, args)


async def _disconnect(control: Control, args: argparse.Namespace, _secret: Secret | None) -> int:
    from authproxy.broker.revocation import Revoked
    from authproxy.cli.session import operator

    done = await control.connections.disconnect(operator(args.tenant), args.id)
    if args.json:
        say_json(
            {
                "id": done.connection.id,
                "state": "disconnected",
                "revoked_upstream": str(done.revoked_upstream),
            }
        )
    else:
        key = done.connection.key
        told = {
            Revoked.YES: f"{key.provider} has revoked the grant",
            Revoked.PENDING: f"{key.provider} has not confirmed the revocation yet: `serve` goes on trying for a week",
            Revoked.FAILED: f"it could not be given back to {key.provider}: {key.user} should remove the app there",
            Revoked.UNSUPPORTED: f"{key.provider} has no revocation endpoint: {key.user} can remove the app there",
        }[done.revoked_upstream]
        say(f"{done.connection.id} ({key.user} at {key.provider}) is disconnected; {told}")
    return NOT_WELL if done.revoked_upstream is Revoked.FAILED else DONE


async def _wait(control: Control, args: argparse.Namespace, _secret: Secret | None) -> int:
    from authproxy.cli.session import operator

    patience = float("inf") if args.timeout is None else float(args.timeout)
    seen = await control.watch.wait(operator(args.tenant), args.id, State.ACTIVE, patience)
    return _shown(seen.connection, args)


async def _import(control: Control, args: argparse.Namespace, secret: Secret | None) -> int:
    from authproxy.broker.grants import SOLE_OWNER
    from authproxy.cli.session import operator

    assert secret is not None
    key = ConnectionKey(args.tenant, args.user, args.provider, args.account)
    try:
        connection = await control.connections.import_(
            operator(args.tenant), key, secret, scopes=tuple(args.scopes), replace=args.replace
        )
    except BadRequest as refusal:
        hint = "; --replace takes the new token instead" if refusal.reason == "already_connected" else ""
        raise Stop(f"{refusal.title}{hint}") from None
    complain(SOLE_OWNER)
    return _shown(connection, args)


def _standard_input() -> Secret:
    """Standard input, not an argument: arguments are in the process list and in shell histories."""
    if sys.stdin.isatty():
        sys.stderr.write("refresh token, then Enter (not from a shared terminal): ")
    text = sys.stdin.readline(_LONGEST)
    if len(text) >= _LONGEST:
        raise Stop("standard input does not look like a refresh token: its line is too long")
    text = text.strip()
    if not text:
        raise Stop("standard input has no refresh token: authproxy connections import … < file")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise Stop("standard input does not look like a refresh token: one line of visible characters")
    return Secret(text)


def _shown(one: Connection, args: argparse.Namespace, *, revoked: str | None = None) -> int:
    from authproxy.control import views

    if args.json:
        say_json(views.connection(one) | ({} if revoked is None else {"revoked_upstream": revoked}))
    else:
        now = int(time.time())
        facts(
            {
                "id": one.id,
                "user": one.key.user,
                "provider": one.key.provider,
                "account": one.key.account,
                "provider's account": one.provider_account,
                "state": str(one.state) + (f" ({one.reason})" if one.reason else ""),
                "revoked by the provider": revoked,
                "scopes": " ".join(one.scopes) or None,
                "token": _life(one, now),
                "refreshable": "yes" if one.refreshable else "no",
                "refresh token ends": None
                if one.refresh_expires_at is None
                else instant(one.refresh_expires_at),
                "generation": str(one.generation),
                "consented": instant(one.consented_at),
                "obtained": instant(one.obtained_at),
                "failures": str(one.failures) if one.failures else None,
                "last error": one.last_error,
                "next try": None if one.retry_at is None else instant(one.retry_at),
            }
        )
    return DONE if one.state is State.ACTIVE else NOT_WELL


def _life(one: Connection, now: int) -> str:
    if one.state is State.DISCONNECTED:
        return "-"
    if one.state is State.NEEDS_REAUTH or one.reason == "unreadable":
        return "not used"  # whatever its life would have been
    if one.expires_at is None:
        return "no known end"
    left = one.expires_at - now
    return f"good for {span(left)}" if left > 0 else f"ended {span(left)} ago"
