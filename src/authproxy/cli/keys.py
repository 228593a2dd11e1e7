"""`authproxy keys`: makes sealing keys, changes them while `serve` runs, and says what is still under older ones."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from authproxy.cli.console import DONE, NOT_WELL, Stop, complain, facts, say, say_json, status, table
from authproxy.cli.options import json_option, store_options

if TYPE_CHECKING:
    from authproxy.app import App
    from authproxy.store.base import Backend
    from authproxy.store.rotation import Cells
    from authproxy.store.sealing import Keyring


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    actions.add_parser(
        "generate",
        help="print a new 256-bit key, as AUTHPROXY_KEYS and AUTHPROXY_KEYS_FILE take it",
        description="Print a new 256-bit sealing key. Put it first in AUTHPROXY_KEYS and keep the older ones behind "
        "it: the first seals, all open.",
    )
    rotate = actions.add_parser(
        "rotate",
        help="put a new key first in the key file; a running serve takes it over within seconds",
        description="Put a new key first in AUTHPROXY_KEYS_FILE (or in the key file beside a development store), "
        "whole or not at all, mode 0600. A running `serve` takes it over by itself and reseals what is stored in the "
        "background; the older keys go on opening. Where the keys are in AUTHPROXY_KEYS, says what to set instead.",
    )
    state = actions.add_parser(
        "status",
        help="how many stored cells each key still seals, and which keys can go",
        description="Count the sealed cells of every column by the key that sealed them. Exit code 1 while cells are "
        "left under another key than the first, or under one that is not at hand.",
    )
    reseal = actions.add_parser(
        "reseal",
        help="bring every stored cell under the first key; may be interrupted and run again, beside a running serve",
        description="Bring every stored cell under the first key. Each batch is one transaction and replaces only "
        "what is still as it was read: it may run beside `serve`, be killed, and be run again.",
    )
    reseal.add_argument(
        "--batch", type=_batch, default=100, metavar="N", help="cells in one transaction (default: 100)"
    )
    prune = actions.add_parser(
        "prune",
        help="take keys that seal nothing any more out of the key file",
        description="Take every key but the first out of the key file under which no cell of this store is left.",
    )
    for one in (rotate, state, reseal, prune):
        store_options(one, environ)
    for one in (state, reseal):
        json_option(one)


def run(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


def _generate(_args: argparse.Namespace) -> int:
    from authproxy.store.sealing import generate_key

    say(generate_key())
    return DONE


def _rotate(args: argparse.Namespace) -> int:
    from authproxy.store.keys import add_key
    from authproxy.store.sealing import generate_key

    if os.environ.get("AUTHPROXY_KEYS", "").strip():
        say(f"The keys are in AUTHPROXY_KEYS. A new one is:\n\n  {generate_key()}\n")
        say("1. Put it LAST in AUTHPROXY_KEYS and restart every process, so that all can open what it seals.")
        say("2. Put it FIRST and restart them again: it now seals, and each process reseals what is stored.")
        say("3. When `authproxy keys status` shows nothing under the older key, take that one away.")
        return DONE
    path = _file(args)
    ring = add_key(path)
    facts({"first key": ring.newest, "still open": " ".join(ring.ids[1:]), "file": str(path)})
    say(
        "A running `serve` that reads this file takes it over within seconds and reseals what is stored.\n"
        "Other copies of the file (replicas, mounted secrets) need the new key as well.\n"
        "Next: `authproxy keys status`, and when nothing is left under the older keys, `authproxy keys prune`."
    )
    return DONE


def _status(args: argparse.Namespace) -> int:
    async def work(backend: Backend, ring: Keyring, canary: str) -> int:
        from authproxy.store.rotation import inventory

        cells = await inventory(backend)
        well = canary == "opens" and all(one.key_id == ring.newest for one in cells)
        order = [*ring.ids, *sorted({one.key_id or "-" for one in cells} - {*ring.ids})]
        counts = {key_id: [one for one in cells if (one.key_id or "-") == key_id] for key_id in order}
        left = sum(one.number for one in cells if one.key_id != ring.newest)
        if args.json:
            keys = [
                {
                    "key": key_id,
                    "stands": _standing(key_id, ring, bool(mine)),
                    "cells": sum(one.number for one in mine),
                    "columns": {f"{one.table}.{one.column}": one.number for one in mine},
                }
                for key_id, mine in counts.items()
            ]
            say_json({"canary": canary, "left": left, "keys": keys})
            return DONE if well else NOT_WELL
        table(
            ("key", "stands", "cells", "where"),
            [
                (
                    key_id,
                    _standing(key_id, ring, bool(mine)),
                    str(sum(one.number for one in mine)),
                    _where(mine),
                )
                for key_id, mine in counts.items()
            ],
        )
        say(f"\ncanary: {canary}; left under other keys than the first: {left}")
        return DONE if well else NOT_WELL

    return _with_backend(args, work)


def _reseal(args: argparse.Namespace) -> int:
    from authproxy.cli.session import with_app

    async def work(app: App) -> int:
        vault = app.vault
        await _settled(args)
        done = 0
        total = await vault.stale_cells()
        async for cells in vault.resealing(args.batch):
            done += cells
            status(f"resealed {done} of {max(total, done)} cells")
        status("")
        left = await vault.stale_cells()
        if args.json:
            say_json({"resealed": done, "left": left, "key": vault.keyring.newest})
        else:
            say(f"{done} cells are now sealed under {vault.keyring.newest}; {left} are left under other keys")
        if left:
            complain(
                "what is left was written meanwhile by a process with other keys, or cannot be opened: run again"
            )
        return NOT_WELL if left else DONE

    return with_app(args, work)


def _prune(args: argparse.Namespace) -> int:
    from authproxy.store.keys import drop_keys

    path = _file(args)

    async def work(backend: Backend, ring: Keyring, canary: str) -> int:
        from authproxy.store.rotation import inventory

        if canary != "opens":
            raise Stop(f"nothing is changed: the store's canary {canary}", code=NOT_WELL)
        used = {one.key_id for one in await inventory(backend)}
        idle = [key_id for key_id in ring.ids[1:] if key_id not in used]
        kept = [key_id for key_id in ring.ids[1:] if key_id in used]
        if idle:
            drop_keys(path, idle)
        say(f"{len(idle)} keys are taken out of {path}{': ' if idle else ''}{' '.join(idle)}")
        if kept:
            complain(f"still needed: {' '.join(kept)} (`authproxy keys reseal`)")
        return NOT_WELL if kept else DONE

    return _with_backend(args, work)


_ACTIONS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "generate": _generate,
    "rotate": _rotate,
    "status": _status,
    "reseal": _reseal,
    "prune": _prune,
}


def _with_backend(args: argparse.Namespace, work: Callable[[Backend, Keyring, str], Awaitable[int]]) -> int:
    """Run `work` on the store as it is: also one that these keys do not open, and that is then left unchanged."""
    from authproxy.cli.configuration import load
    from authproxy.cli.session import demand_store, run_loop
    from authproxy.core.errors import KeyMissing
    from authproxy.store.keys import load_keyring
    from authproxy.store.stamp import check_stamp
    from authproxy.store.vault import open_backend

    environment = load(args).config.environment
    demand_store(args.store)
    ring = load_keyring(
        os.environ, store_path=_store_path(args.store), environment=environment, announce=complain
    )

    async def unchanged(_: Backend) -> None:
        raise Stop("the store is of an earlier version: start `authproxy serve` on it once", code=NOT_WELL)

    async def inside() -> int:
        backend = await open_backend(args.store, may_change=unchanged)
        try:
            try:
                await check_stamp(backend, ring, environment)
                canary = "opens"
            except KeyMissing as error:
                canary = f"does not open ({error.title})"
            return await work(backend, ring, canary)
        finally:
            await backend.close()

    return run_loop(inside())


async def _settled(args: argparse.Namespace) -> None:
    """Where the key file was changed just now, wait until running processes can open what its first key seals."""
    from authproxy.store.keys import keys_file
    from authproxy.store.keywatch import SETTLE

    path = keys_file(os.environ, _store_path(args.store))
    age = SETTLE if path is None else time.time() - path.stat().st_mtime
    if 0 <= age < SETTLE:
        status(f"{path} was changed just now: waiting until running processes know its first key")
        await asyncio.sleep(SETTLE - age)


def _file(args: argparse.Namespace) -> Path:
    from authproxy.store.keys import keys_file

    path = keys_file(os.environ, _store_path(args.store))
    if path is None:
        raise Stop(
            "there is no key file: name it with AUTHPROXY_KEYS_FILE, or the store that it is beside with --store"
        )
    return path


def _store_path(store: str) -> Path | None:
    from authproxy.store.sqlite import sqlite_path

    return sqlite_path(store) if store.startswith("sqlite:") else None


def _standing(key_id: str, ring: Keyring, used: bool) -> str:
    if key_id == ring.newest:
        return "seals"
    if key_id in ring.ids:
        return "opens" if used else "can go"
    return "unsealed" if key_id == "-" else "missing"


def _where(cells: list[Cells]) -> str:
    return ", ".join(f"{one.table}.{one.column} {one.number}" for one in cells) or "-"


def _batch(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError("say a number from 1 to 10000")
    return number
