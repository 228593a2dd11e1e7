"""`authproxy demo`: the main job on embedded parts."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument(
        "--serve", action="store_true", help="stay up, and print what to open and what to curl"
    )


def run(args: argparse.Namespace) -> int:
    from authproxy.demo import demo

    return asyncio.run(demo(serve=args.serve))
