"""`authproxy sessions`: create, list or revoke sessions."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from authproxy.cli.console import DONE, facts, instant, say, say_json, table
from authproxy.cli.options import json_option, store_options, tenant_option
from authproxy.cli.spans import seconds

if TYPE_CHECKING:
    from authproxy.core.model import Session

PAGE = 1000


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    create = actions.add_parser(
        "create", help="make a credential for one agent and one user; it is shown once"
    )
    create.add_argument("agent", help="whom rules and the trail take it for")
    create.add_argument("--label", help="what you call it; means nothing")
    create.add_argument("--user", required=True, help="the one user that it may act for")
    create.add_argument(
        "--route", action="append", dest="routes", metavar="ROUTE", help="a route that it may use; repeatable"
    )
    create.add_argument(
        "--tool",
        action="append",
        dest="tools",
        metavar="PATTERN",
        help="tools that it may call: Gmail.ListEmails, 'Gmail.*', read_only, 'Gmail.*:read_only'; repeatable; "
        "without --route it may then use no route by itself",
    )
    create.add_argument("--ttl", type=seconds, metavar="SPAN", help="life: 12h, 30m (default: 1h)")
    create.add_argument(
        "--renewable-for",
        type=seconds,
        metavar="SPAN",
        help="within which it may be renewed (default: not at all)",
    )
    listing = actions.add_parser("list", help="sessions of the tenant, without their credentials")
    listing.add_argument("--user", help="those for this user")
    listing.add_argument("--all", action="store_true", help="ended ones too, as long as they are remembered")
    revoke = actions.add_parser("revoke", help="end one; every process refuses it within seconds")
    revoke.add_argument("id", help="ses_…")
    for one in (create, listing, revoke):
        store_options(one, environ)
        tenant_option(one)
        json_option(one)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator, with_control
    from authproxy.control import views
    from authproxy.control.panel import Control

    caller = operator(args.tenant)

    async def create(control: Control) -> int:
        made = await control.sessions.create(
            caller,
            user=args.user,
            agent=args.agent,
            label=args.label,
            routes=None if args.routes is None else tuple(args.routes),
            tools=None if args.tools is None else tuple(args.tools),
            ttl=args.ttl,
            renewable_for=args.renewable_for,
        )
        one = made.session
        if args.json:
            say_json({**views.session(one, time.time()), "key": made.key})
            return DONE
        facts(
            {
                "id": one.id,
                "agent": one.agent,
                "label": one.label,
                "user": one.user,
                "routes": _names(one.routes),
                "tools": _names(one.tools),
                "expires": instant(one.expires_at),
                "renewable until": instant(one.renewable_until, unknown="not renewable"),
                "key": made.key,
            }
        )
        say("\nThe key is shown this once. It needs no user beside it: give it to the agent as its API key.")
        return DONE

    async def listing(control: Control) -> int:
        found: list[Session] = []
        page: list[Session] | None = None
        while page is None or len(page) == PAGE:
            after = found[-1].id if found else None
            page = await control.sessions.list(caller, user=args.user, limit=PAGE, after=after)
            found += page
        shown = [views.session(one, time.time()) for one in found]
        shown = [one for one in shown if args.all or one["state"] == "active"]
        if args.json:
            say_json(shown)
            return DONE
        table(
            ("id", "agent", "label", "user", "routes", "tools", "state", "expires"),
            [
                (
                    one["id"],
                    one["agent"],
                    one["label"] or "",
                    one["user_id"],
                    _names(one["routes"]),
                    _names(one["tools"]),
                    one["state"],
                    instant(one["expires_at"]),
                )
                for one in shown
            ],
        )
        return DONE

    async def revoke(control: Control) -> int:
        one = await control.sessions.revoke(caller, args.id)
        if args.json:
            say_json(views.session(one, time.time()))
        else:
            say(f"{one.id} ({one.agent} as {one.user}) is revoked since {instant(one.revoked_at)}")
        return DONE

    work = {"create": create, "list": listing, "revoke": revoke}[args.action]
    makes, changes = args.action == "create", args.action != "list"
    return with_control(args, work, records=changes, makes_key=makes)


def _names(names: tuple[str, ...] | list[str] | None) -> str:
    return "all" if names is None else " ".join(names) or "none"
