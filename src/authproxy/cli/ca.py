"""`authproxy ca`: the local certificate authority that agents must trust for HTTPS_PROXY and TLS listeners."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from authproxy.cli.console import DONE, Stop, facts, say, say_json
from authproxy.cli.options import json_option, store_options


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    show = actions.add_parser(
        "show", help="the root's certificate as PEM, and on a terminal what it may speak for"
    )
    json_option(show)
    bundle = actions.add_parser(
        "bundle", help="the system's roots and ours in one file, as SSL_CERT_FILE and its kin need it"
    )
    bundle.add_argument(
        "--output", type=Path, metavar="FILE", help="write it there (default: standard output)"
    )
    for one in (show, bundle):
        store_options(one, environ)


def run(args: argparse.Namespace) -> int:
    from authproxy.app import App
    from authproxy.cli.roots import bundle, write
    from authproxy.cli.session import with_app

    async def show(app: App) -> int:
        authority = await app.authority()
        until = authority.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        if args.json:
            say_json({"pem": authority.pem, "names": list(authority.names), "not_after": until})
            return DONE
        if sys.stdout.isatty():
            facts({"may speak for": " ".join(authority.names), "good until": until})
        say(authority.pem.rstrip())
        return DONE

    async def whole(app: App) -> int:
        text = bundle((await app.authority()).pem)
        if args.output is None:
            say(text.rstrip())
            return DONE
        try:
            write(args.output, text.encode("utf-8"))
        except OSError as error:
            raise Stop(f"{args.output} cannot be written: {error.strerror or type(error).__name__}") from None
        return DONE

    return with_app(args, show if args.action == "show" else whole, must_exist=False)
