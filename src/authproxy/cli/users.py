"""`authproxy users`: disable a user, enable one again, or list them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from authproxy.cli.console import DONE, NOT_WELL, complain, instant, plain, say, say_json, table
from authproxy.cli.options import count, json_option, store_options, tenant_option

if TYPE_CHECKING:
    from authproxy.control.users import Disabled
    from authproxy.core.model import UserStanding

PAGE = 1000


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    disable = actions.add_parser(
        "disable",
        help="refuse everything for a user within seconds, and give their grants back to the providers; also for one "
        "who is not known yet",
    )
    disable.add_argument(
        "--keep-grants",
        action="store_true",
        help="only refuse: the connections stay, unused and unrefreshed, for when the user is enabled again",
    )
    enable = actions.add_parser(
        "enable", help="let a user be acted for again; what was disconnected has to be connected anew"
    )
    for one in (disable, enable):
        one.add_argument("user", help="by every letter as agents say it")
        one.add_argument(
            "--reason", metavar="TEXT", help="for the trail and for other operators; no agent sees it"
        )
    listing = actions.add_parser("list", help="users who ever had a connection or were disabled")
    listing.add_argument("--disabled", action="store_true", help="those who are disabled")
    listing.add_argument(
        "--limit", type=count(1), default=PAGE, metavar="N", help=f"at most so many (default: {PAGE})"
    )
    for one in (disable, enable, listing):
        store_options(one, environ)
        tenant_option(one)
        json_option(one)


def run(args: argparse.Namespace) -> int:
    from authproxy.broker.revocation import Revoked
    from authproxy.cli.session import operator, with_control
    from authproxy.control import views
    from authproxy.control.panel import Control

    caller = operator(args.tenant)

    async def disable(control: Control) -> int:
        done = await control.users.disable(
            caller, args.user, reason=args.reason, keep_grants=args.keep_grants
        )
        if args.json:
            say_json(views.disabled(done))
        else:
            _report(done, keep=args.keep_grants)
        for line in _doubts(done):
            complain(line)
        return NOT_WELL if done.report.counts[Revoked.FAILED] else DONE

    async def enable(control: Control) -> int:
        done = await control.users.enable(caller, args.user, reason=args.reason)
        if args.json:
            say_json(views.user(done.standing) | {"changed": done.changed})
            return DONE
        name = plain(done.standing.user)
        say(f"{name} is enabled" + (" again" if done.changed else ", and was"))
        if done.changed and not done.standing.connections:
            say("Nothing of theirs is connected: they connect anew when an agent asks for it.")
        return DONE

    async def listing(control: Control) -> int:
        found: list[UserStanding] = []
        page: list[UserStanding] | None = None
        while (page is None or len(page) == PAGE) and len(found) < args.limit:
            page = [
                *await control.users.list(
                    caller,
                    disabled=True if args.disabled else None,
                    limit=min(PAGE, args.limit - len(found)),
                    after=found[-1].user if found else None,
                )
            ]
            found += page
        if args.json:
            say_json([views.user(one) for one in found])
            return DONE
        table(
            ("user", "state", "connections", "owed back", "since", "by", "reason"),
            [
                (
                    one.user,
                    "enabled"
                    if one.disabled_at is None
                    else "disabled" + (", grants kept" * one.grants_kept),
                    str(one.connections),
                    str(one.revocations) if one.revocations else "-",
                    instant(one.changed_at if one.disabled_at is None else one.disabled_at),
                    one.changed_by or "-",
                    one.reason or "-",
                )
                for one in found
            ],
        )
        return DONE

    work = {"disable": disable, "enable": enable, "list": listing}[args.action]
    return with_control(args, work, records=args.action != "list")


def _report(done: Disabled, *, keep: bool) -> None:
    one, report = done.standing, done.report
    say(f"{plain(one.user)} is disabled" + ("" if report.changed else f" since {instant(one.disabled_at)}"))
    if report.flows:
        say(f"Consents in progress that were ended: {report.flows}")
    if keep:
        say(f"Connections that are kept, and not used: {one.connections}")
        return
    counts = ", ".join(f"{word} {count}" for word, count in report.counts.items() if count)
    say(
        f"Connections that were ended: {len(report.returned)}"
        + (f" (revoked by the provider: {counts})" if counts else "")
    )
    if report.returned:
        table(
            ("id", "provider", "account", "revoked by the provider"),
            [
                (end.connection_id, end.key.provider, end.key.account, str(end.revoked_upstream))
                for end in report.returned
            ],
        )


def _doubts(done: Disabled) -> list[str]:
    """What must not be taken for done."""
    from authproxy.broker.revocation import Revoked

    doubts = []
    counts = done.report.counts
    if not done.known:
        near = f": was {' or '.join(map(plain, done.similar))} meant?" if done.similar else ""
        doubts.append(f"nothing of a user of this very name is known here yet{near}")
    if counts[Revoked.PENDING]:
        doubts.append(
            f"{counts[Revoked.PENDING]} revocations are not confirmed yet: `serve` goes on trying for a week, and "
            "`authproxy users list` shows how many are owed"
        )
    if missing := counts[Revoked.FAILED] + counts[Revoked.UNSUPPORTED]:
        doubts.append(
            f"{missing} grants could not be given back: {plain(done.standing.user)} can remove the app there"
        )
    return doubts
