"""`authproxy audit`: read, search, verify or export the trail."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from authproxy.cli.console import DONE, NOT_WELL, complain, instant, say, say_json
from authproxy.cli.options import count, json_option, store_options, tenant_option
from authproxy.cli.spans import instant as read_instant

if TYPE_CHECKING:
    from authproxy.control.panel import Control


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    tail = actions.add_parser("tail", help="the latest records, oldest first")
    tail.add_argument("-n", "--lines", type=count(0), default=20, metavar="N", help="so many (default: 20)")
    tail.add_argument("-f", "--follow", action="store_true", help="and then those that come")
    query = actions.add_parser("query", help="records that match, newest first")
    query.add_argument(
        "--limit", type=count(1), default=100, metavar="N", help="at most so many (default: 100)"
    )
    query.add_argument("--request-id", help="of one request")
    verify = actions.add_parser("verify", help="prove that no record was changed or removed")
    export = actions.add_parser("export", help="all matching records, oldest first, one JSON object per line")
    for one in (tail, query, export):
        one.add_argument("--user", help="of this user only")
        one.add_argument("--provider", help="at this provider only")
        one.add_argument("--agent", help="of this agent only")
        one.add_argument("--kind", help="of this kind only, such as request, refresh.failed or connection.*")
    for one in (query, export):
        one.add_argument("--since", type=_ago, metavar="WHEN", help="from 1h or 7d ago, or an ISO date, on")
        one.add_argument("--until", type=_ago, metavar="WHEN", help="before that")
    for one in (tail, query, verify, export):
        store_options(one, environ)
        tenant_option(one)
        json_option(one)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import with_control

    work = {"tail": _tail, "query": _query, "verify": _verify, "export": _export}[args.action]
    return with_control(args, lambda control: work(control, args))


async def _tail(control: Control, args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator

    caller = operator(args.tenant)
    if not args.follow:
        for entry in reversed(await control.audit.query(caller, limit=args.lines, **_filters(args))):
            _say_record(entry.record, args)
        return DONE
    following = control.audit.follow(
        caller, last=args.lines, pause=lambda: asyncio.sleep(0.5), **_filters(args)
    )
    async for entry in following:
        _say_record(entry.record, args)
    return DONE


async def _query(control: Control, args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator

    found = await control.audit.query(
        operator(args.tenant),
        limit=args.limit,
        request_id=args.request_id,
        since=args.since,
        until=args.until,
        **_filters(args),
    )
    for entry in found:
        _say_record(entry.record, args)
    return DONE


async def _export(control: Control, args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator

    lines = control.audit.export(operator(args.tenant), since=args.since, until=args.until, **_filters(args))
    async for line in lines:
        say(line)
    return DONE


async def _verify(control: Control, args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator

    report = await control.audit.verify(operator(args.tenant))
    if args.json:
        faults = [fault._asdict() for fault in report.faults]
        say_json(
            {"sound": report.sound, "chains": report.chains, "records": report.records, "faults": faults}
        )
    else:
        for fault in report.faults:
            where = fault.chain if fault.seq is None else f"{fault.chain} record {fault.seq}"
            complain(f"{where}: {fault.what}")
        word = "sound" if report.sound else "NOT sound"
        say(f"{word}: {report.records} records in {report.chains} chains")
    return DONE if report.sound else NOT_WELL


def _filters(args: argparse.Namespace) -> dict[str, Any]:
    return {"user": args.user, "provider": args.provider, "agent": args.agent, "kind": args.kind}


def _ago(text: str) -> int:
    return read_instant(text, int(time.time()))


def _say_record(record: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        say(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
        return
    parts = [instant(record.get("at")), str(record["kind"]).ljust(22)]
    for name in (
        "tenant",
        "agent",
        "user",
        "tool",
        "provider",
        "route",
        "method",
        "host",
        "path",
        "status",
        "outcome",
        "code",
        "ms",
        "scopes",
    ):
        value = record.get(name)
        if value is not None and not (name == "tenant" and value == args.tenant):
            parts.append(f"{name}={_short(value)}")
    data = record.get("data")
    if isinstance(data, dict):
        parts += [f"{name}={_short(value)}" for name, value in data.items() if value is not None]
    say("  ".join(parts))


def _short(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ",".join(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= 80 else text[:79] + "…"
