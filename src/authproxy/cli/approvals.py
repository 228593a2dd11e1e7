"""`authproxy approvals`: calls of tools that wait for a yes; give it or refuse it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from authproxy.cli.console import DONE, facts, instant, json_text, plain, say, say_json, table
from authproxy.cli.options import json_option, store_options, tenant_option

PAGE = 1000


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    listing = actions.add_parser("list", help="those that wait, oldest first")
    listing.add_argument("--user", help="those for this user")
    listing.add_argument("--all", action="store_true", help="decided and expired ones too")
    show = actions.add_parser("show", help="one of them, with what the call would be made with")
    approve = actions.add_parser("approve", help="let the call be made, once")
    deny = actions.add_parser("deny", help="refuse it")
    for one in (show, approve, deny):
        one.add_argument("id", help="apr_…")
    for one in (listing, show, approve, deny):
        store_options(one, environ)
        tenant_option(one)
        json_option(one)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator, with_control
    from authproxy.control import views
    from authproxy.control.panel import Control
    from authproxy.core.model import Approval, ApprovalStatus

    caller = operator(args.tenant)

    async def listing(control: Control) -> int:
        found: list[Approval] = []
        page: list[Approval] | None = None
        while page is None or len(page) == PAGE:
            page = await control.approvals.list(
                caller,
                user=args.user,
                status=None if args.all else ApprovalStatus.PENDING,
                limit=PAGE,
                after=found[-1].id if found else None,
            )
            found += page
        if args.json:
            say_json([views.approval(one) for one in found])
            return DONE
        table(
            ("id", "tool", "user", "agent", "approver", "status", "until"),
            [
                (
                    one.id,
                    one.tool,
                    one.user,
                    one.agent,
                    one.approver,
                    str(one.status),
                    instant(one.expires_at),
                )
                for one in found
            ],
        )
        return DONE

    async def show(control: Control) -> int:
        shown = await control.approvals.show(caller, args.id)
        view = views.approval(shown.approval)
        if args.json:
            say_json(view | {"input": shown.input})
            return DONE
        view |= {
            name: instant(view[name]) for name in ("created_at", "expires_at", "decided_at") if view[name]
        }
        facts({name: str(value) for name, value in view.items() if value is not None})
        if shown.input is not None:
            say("\nIt would be called with:")
            say(json_text(shown.input, indent=2))
        return DONE

    async def decide(control: Control) -> int:
        decided = await control.approvals.decide(caller, args.id, approve=args.action == "approve", user=None)
        if args.json:
            say_json(views.approval(decided))
        elif args.action == "approve":
            said = f"{decided.tool} for {decided.user} may be called once until {instant(decided.expires_at)}"
            say(plain(said))
        else:
            say(plain(f"{decided.tool} for {decided.user} is refused"))
        return DONE

    work = {"list": listing, "show": show, "approve": decide, "deny": decide}[args.action]
    return with_control(args, work, records=args.action in ("approve", "deny"))
