"""`authproxy doctor`: what is wrong between configuration, stored connections and the providers' rules."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import textwrap
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authproxy.cli.console import DONE, NOT_WELL, USAGE, Stop, complain, say, say_json, table
from authproxy.cli.options import environment_option, json_option, option
from authproxy.core.model import Environment

if TYPE_CHECKING:
    from authproxy.doctor.case import Case
    from authproxy.doctor.finding import Finding

_STORE = "sqlite:///authproxy.db"
_WIDEST = 110


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    option(
        parser, "--config", environ, says="configuration file (default: routes.yaml)", default="routes.yaml"
    )
    option(
        parser,
        "--store",
        environ,
        says=f"the store whose connections are looked at (default: {_STORE}, if it is there)",
        metavar="URL",
    )
    environment_option(parser, environ)
    parser.add_argument("--against", metavar="FILE", help="a second configuration to compare with")
    parser.add_argument("--against-store", metavar="URL", help="the store of that second configuration")
    parser.add_argument(
        "--online",
        action="store_true",
        help="also ask the providers: discovery, clock, a made-up refresh token, the authorization page. "
        "Never sends a stored token",
    )
    parser.add_argument("--provider", metavar="NAME", help="of this provider only")
    parser.add_argument("--explain", metavar="CODE", help="say what a check looks at, and stop")
    parser.add_argument("--list", action="store_true", help="list all checks, with what each needs, and stop")
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import run_loop
    from authproxy.log import configure

    if args.explain is not None:
        return _explain(args.explain)
    configure("error")
    if args.list and not Path(args.config).exists():
        return _list(None, args)
    case = _case(args.config, args.environment)
    if args.provider is not None and args.provider not in case.registrations:
        raise Stop(f"{args.config} has no provider {args.provider!r}; it has {', '.join(case.registrations)}")
    if args.against_store is not None and args.against is None:
        raise Stop("--against-store belongs to the configuration of --against")
    other = None if args.against is None else _case(args.against, None)
    return run_loop(_run(args, case, other))


async def _run(args: argparse.Namespace, case: Case, other: Case | None) -> int:
    from authproxy.doctor.registry import examine

    case = await _with_store(case, args.store)
    if other is not None:
        # without a store of its own there is nothing to compare; the default one is not the other's
        other = other if args.against_store is None else await _with_store(other, args.against_store)
        case = replace(case, other=other)
    if args.list:
        return _list(case, args)
    if args.online:
        case = await _asked(case, args.provider)
    findings = [one for one in examine(case) if args.provider in (None, one.provider)]
    bad = any(one.severity == "error" for one in findings)
    if args.json:
        say_json(_as_json(case, findings))
    else:
        _report(case, findings)
    return NOT_WELL if bad else DONE


# --- what is looked at


def _case(file: str, environment: Environment | None) -> Case:
    from authproxy.cli.configuration import beside, line, text_of
    from authproxy.core.strict import ConfigFaults
    from authproxy.doctor.setup import read_setup

    path, text = text_of(file)
    try:
        setup = read_setup(
            text, file=file, environ=os.environ, read_file=beside(path), environment=environment
        )
    except ConfigFaults as found:
        raise Stop(*(line(fault) for fault in found.faults), code=USAGE) from None
    return setup.case(int(time.time()))


async def _with_store(case: Case, store: str | None) -> Case:
    """The case with the store's rows; without them where no store was named and none is in the usual place."""
    from authproxy.cli.session import demand_store
    from authproxy.core.errors import KeyMissing, StoreUnavailable
    from authproxy.doctor.setup import disabled, stored
    from authproxy.store.keys import load_keyring
    from authproxy.store.sqlite import sqlite_path
    from authproxy.store.vault import Vault

    url = store or _STORE
    path = sqlite_path(url) if url.startswith("sqlite:") else None
    if store is not None:
        demand_store(store)
    kind = url.partition(":")[0]
    if path is not None and (not path.exists() or path.stat().st_size == 0):
        return replace(case, store=kind)  # an empty file is not made a store by being looked at
    try:
        keyring = load_keyring(os.environ, store_path=path, environment=case.environment, announce=complain)
        vault = await Vault.open(url, keyring=keyring, environment=case.environment)
    except (StoreUnavailable, KeyMissing) as trouble:
        return replace(case, store=kind, store_trouble=trouble.reason or trouble.code)
    try:
        connections, ended = await stored(vault)
        barred = await disabled(vault)
    finally:
        await vault.close()
    return replace(case, store=kind, connections=connections, ended=ended, disabled=barred)


async def _asked(case: Case, provider: str | None) -> Case:
    from authproxy.broker.endpoint import Endpoint
    from authproxy.doctor.online import observe
    from authproxy.egress import EgressGuard, GuardedResolver

    guard = EgressGuard(case.config.egress.allow)
    endpoint = Endpoint(resolver=GuardedResolver(guard), check=guard.check, deadline=10.0)
    try:
        return await observe(
            case,
            endpoint,
            clock=time.time,
            randomness=secrets.token_urlsafe,
            only=None if provider is None else (provider,),
        )
    finally:
        await endpoint.close()


# --- what is said


def _report(case: Case, findings: list[Finding]) -> None:
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    for severity in ("error", "warning", "info"):
        those = [one for one in findings if one.severity == severity]
        if those:
            title = {"error": "errors", "warning": "warnings", "info": "worth knowing"}[severity]
            say(f"{title.upper()} ({len(those)})")
            say()
            for one in those:
                _tell(one, width)
    say(_summary(case, findings))


def _tell(one: Finding, width: int) -> None:
    about = f"{one.provider}: " if one.provider else ""
    say(_wrapped(f"{one.code}  ", about + one.title, width))
    for name, text in (("what", one.wrong), ("why", one.why), ("do", one.do), ("sure", str(one.sure))):
        say(_wrapped(f"     {name:<5} ", text, width))
    for index, text in enumerate(one.evidence):
        say(_wrapped("     seen  " if index == 0 else " " * 11, text, width))
    say()


def _wrapped(head: str, text: str, width: int) -> str:
    """Names come from outside: no control character of theirs reaches the terminal."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return textwrap.fill(
        plain,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(case: Case, findings: list[Finding]) -> str:
    from authproxy.doctor.case import plural
    from authproxy.doctor.registry import CHECKS

    counts = Counter(str(one.severity) for one in findings)
    told = ", ".join(
        f"{counts[each]} {word if counts[each] == 1 else words}"
        for each, word, words in (
            ("error", "error", "errors"),
            ("warning", "warning", "warnings"),
            ("info", "note", "notes"),
        )
    )
    looked = [f"{case.file} ({case.environment}, {plural(len(case.registrations), 'provider')})"]
    if case.connections is not None:
        looked.append(plural(len(case.connections), "stored connection"))
    if case.other is not None:
        looked.append(f"{case.other.file} ({case.other.environment})")
    if case.seen:
        looked.append(f"{plural(len(case.seen), 'provider')} asked")
    left = sum(bool(one.missing(case)) for one in CHECKS)
    rest = f"; {left} of {len(CHECKS)} checks were left out (`authproxy doctor --list`)" if left else ""
    return f"{told} in {', '.join(looked)}{rest}"


def _as_json(case: Case, findings: list[Finding]) -> dict[str, Any]:
    from authproxy.doctor.registry import CHECKS

    counts = Counter(str(one.severity) for one in findings)
    return {
        "well": counts["error"] == 0,
        "config": case.file,
        "environment": str(case.environment),
        "against": case.other.file if case.other else None,
        "connections": None if case.connections is None else len(case.connections),
        "asked": list(case.seen),
        "counts": {each: counts[each] for each in ("error", "warning", "info")},
        "findings": [asdict(one) for one in findings],
        "left_out": [
            {"code": one.code, "title": one.title, "needs": list(one.missing(case))}
            for one in CHECKS
            if one.missing(case)
        ],
    }


def _list(case: Case | None, args: argparse.Namespace) -> int:
    """The table of checks; nobody is asked for it."""
    from authproxy.doctor.registry import CHECKS, ELSEWHERE, NEEDS

    rows: list[dict[str, str]] = []
    for one in sorted(CHECKS, key=lambda each: each.code):
        missing = one.needs if case is None else one.missing(case)
        lacking = [NEEDS[need] for need in missing if not (need == "online" and args.online)]
        status = f"left out: needs {', '.join(lacking)}" if lacking else "looked at"
        rows.append(
            {
                "code": one.code,
                "looks at": one.title,
                "kind": "online" if "online" in one.needs else "offline",
                "status": f"{status}; not decided: {one.leaves}" if one.leaves else status,
            }
        )
    rows += [{"code": code, "looks at": "", "kind": "-", "status": why} for code, why in ELSEWHERE.items()]
    rows.sort(key=lambda row: (row["code"][0] not in "D", row["code"]))
    if args.json:
        say_json(rows)
    else:
        table(("code", "looks at", "kind", "status"), [tuple(row.values()) for row in rows])
    return DONE


def _explain(code: str) -> int:
    from authproxy.doctor.registry import CHECKS, ELSEWHERE, NEEDS

    asked = code.upper()
    found = [one for one in CHECKS if one.code == asked]
    if not found and asked not in ELSEWHERE:
        raise Stop(f"there is no check {code!r}; `authproxy doctor --list` has them all")
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    if asked in ELSEWHERE:
        say(f"{asked}  {ELSEWHERE[asked]}")
    for one in found:
        say(_wrapped(f"{one.code}  ", one.title, width))
        say(_wrapped("     ", one.looks_at, width))
        if one.needs:
            say(_wrapped("     ", f"Needs {', '.join(NEEDS[need] for need in one.needs)}.", width))
        if one.leaves:
            say(_wrapped("     ", f"Does not decide: {one.leaves}.", width))
        say()
    return DONE
