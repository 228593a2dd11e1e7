"""`authproxy explain`: the timeline of one connection, and what to do now."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from authproxy.cli.console import DONE, NOT_WELL, instant, say, say_json
from authproxy.cli.options import json_option, store_options, tenant_option
from authproxy.core.causes import Party
from authproxy.core.model import DEFAULT_ACCOUNT, ConnectionKey

if TYPE_CHECKING:
    from authproxy.app import App


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument("user")
    parser.add_argument("provider")
    parser.add_argument("--account", default=DEFAULT_ACCOUNT, help="where a user has several at one provider")
    store_options(parser, environ)
    tenant_option(parser)
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import operator, with_app
    from authproxy.control import views

    async def told(app: App) -> int:
        key = ConnectionKey(args.tenant, args.user, args.provider, args.account)
        story = await app.control.connections.explain_key(operator(args.tenant), key)
        if story.connection is None and not story.lines:
            app.registrations.asked(args.provider)
        if args.json:
            say_json(views.explanation(story))
        else:
            for line in story.lines:
                by = f"  [{line.agent}]" if line.agent else ""
                say(f"{instant(line.at)}  {line.text}{by}")
            if story.lines:
                say()
            say(f"Now:  {story.standing}")
            say(f"Do:   {story.advice}")
            if story.act is not Party.NOBODY:
                say(f"Who:  {story.act}")
        return DONE if story.well else NOT_WELL

    return with_app(args, told)
