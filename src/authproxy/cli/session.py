"""A command's own look at the store: opens an App without listeners, asks its Control, closes it."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from authproxy.app import App
from authproxy.cli.configuration import load
from authproxy.cli.console import Stop, complain
from authproxy.control.panel import Control
from authproxy.core.model import Caller
from authproxy.log import configure
from authproxy.store.sqlite import sqlite_path


def operator(tenant: str) -> Caller:
    """Whoever can read the configuration, the store and its key is an operator already."""
    return Caller(tenant=tenant, agent="command-line", kind="cli", may_act_for=("*",), operator=True)


def with_app(
    args: argparse.Namespace,
    work: Callable[[App], Awaitable[int]],
    *,
    must_exist: bool = True,
    records: bool = False,
) -> int:
    """Run `work` on the configured store. `records`: what it does goes into the trail before this returns."""
    configure("warning")
    config = load(args).config
    if must_exist:
        demand_store(args.store)

    async def inside() -> int:
        async with await App.open(config, store=args.store, environ=os.environ, announce=complain) as app:
            if records:
                await app.trail.start()
            return await work(app)

    return run_loop(inside())


def with_control(
    args: argparse.Namespace,
    work: Callable[[Control], Awaitable[int]],
    *,
    must_exist: bool = True,
    records: bool = False,
    makes_key: bool = False,
) -> int:
    """The same for work that needs Control alone. `makes_key`: it is said where nobody would take the key."""

    async def inside(app: App) -> int:
        code = await work(app.control)
        if makes_key and not any(one.kind == "api_key" for one in app.config.identity.callers):
            complain("warning: no key is accepted yet: add `- kind: api_key` to identity.callers")
        return code

    return with_app(args, inside, must_exist=must_exist, records=records)


def demand_store(store: str) -> None:
    """A mistyped path must not look like an empty store."""
    if store.startswith("sqlite:"):
        path = sqlite_path(store)
        if path is not None and not path.exists():
            raise Stop(f"there is no store at {path}: name it with --store, or run `authproxy serve` first")


def run_loop(work: Coroutine[Any, Any, int]) -> int:
    """On uvloop where it is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        from uvloop import new_event_loop as factory
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
