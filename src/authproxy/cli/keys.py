"""`authproxy keys`: makes sealing keys."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from authproxy.cli.console import DONE, say


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    actions.add_parser(
        "generate",
        help="print a new 256-bit key, as AUTHPROXY_KEYS and AUTHPROXY_KEYS_FILE take it",
        description="Print a new 256-bit sealing key. Put it first in AUTHPROXY_KEYS and keep the older ones behind "
        "it: the first seals, all open.",
    )


def run(_args: argparse.Namespace) -> int:
    from authproxy.store.sealing import generate_key

    say(generate_key())
    return DONE
