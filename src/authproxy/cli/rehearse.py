"""`authproxy rehearse`: plays the production failures against a sandbox, and tells what agents saw."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authproxy.cli.console import DONE, NOT_WELL, Stop, complain, say, say_json, status, table
from authproxy.cli.options import environment_option, json_option

if TYPE_CHECKING:
    from authproxy.rehearsal import Ground, Result, Scene

_MOST_CALLS = 300
_STANDING = ("config", "listen", "control", "sandbox", "route", "provider")


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument("--scene", nargs="+", action="extend", metavar="NAME", help="only these scenes")
    parser.add_argument("--list", action="store_true", help="list the scenes and stop")
    parser.add_argument(
        "--calls",
        type=_calls,
        default=20,
        metavar="N",
        help="agents' calls at once, each time a scene lets them call (default: 20)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="switches",
        metavar="SWITCH=VALUE",
        help="a habit of your provider: the first position of a switch of the embedded sandbox; repeatable",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report in Markdown")
    json_option(parser)
    mine = parser.add_argument_group(
        "a proxy that is already running",
        "Without these everything is embedded: a sandbox, and `authproxy serve` on a temporary store. Give an "
        "operator's key as AUTHPROXY_AGENT_KEY where loopback callers are no operators.",
    )
    mine.add_argument("--config", metavar="FILE", help="its routes.yaml")
    mine.add_argument("--route", metavar="NAME", help="the route that leads to the sandbox")
    mine.add_argument("--provider", metavar="NAME", help="its provider, to be sure")
    mine.add_argument(
        "--listen", action="append", metavar="URL", help="where agents reach it; once per replica"
    )
    mine.add_argument("--control", metavar="URL", help="its control plane (default: public_url)")
    mine.add_argument(
        "--sandbox", metavar="URL", help="the sandbox that it uses (default: http://127.0.0.1:8790)"
    )
    environment_option(parser, environ)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.session import run_loop
    from authproxy.log import configure
    from authproxy.rehearsal import SCENES

    scenes = _chosen(SCENES, args.scene)
    if args.list:
        _list(scenes, args)
        return DONE
    if args.report is not None and (args.report.is_dir() or not args.report.absolute().parent.is_dir()):
        raise Stop(f"--report {args.report} cannot be written: there is no such folder, or it is one itself")
    configure("error")
    return run_loop(_rehearse(args, scenes))


async def _rehearse(args: argparse.Namespace, scenes: Sequence[Scene]) -> int:
    from authproxy.rehearsal import Trouble, markdown, rehearse

    told = _Telling(len(scenes), silent=args.json)
    task = asyncio.current_task()
    assert task is not None
    # What was started is ended, and what was broken is mended, also when a CI job is cancelled.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        status("starting")
        async with _ground(args) as ground:
            at = datetime.now(UTC)
            environment = ground.environment
            results = await rehearse(
                ground,
                scenes,
                calls=args.calls,
                begins=told.begins,
                ended=told.ended,
                tidy=ground.reinforce is None,
            )
            status("ending")
    except Trouble as trouble:
        raise Stop(f"the rehearsal cannot go on: {trouble}", code=NOT_WELL) from None
    except asyncio.CancelledError:
        raise Stop("the rehearsal was broken off", code=NOT_WELL) from None
    finally:
        status("")
    if args.json:
        say_json(
            {
                "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "environment": dict(environment),
                "calls_at_once": args.calls,
                "kept": not any(one.broken for one in results),
                "scenes": [one.as_json() for one in results],
            }
        )
    else:
        _tell(results, time.monotonic() - told.began)
    if args.report is not None:
        page = markdown(results, environment, at=at, calls=args.calls)
        try:
            args.report.write_text(page, encoding="utf-8")
        except OSError as error:
            raise Stop(f"--report {args.report} cannot be written: {error.strerror}", code=NOT_WELL) from None
        complain(f"the report is in {args.report}")
    return NOT_WELL if any(one.broken for one in results) else DONE


def _ground(args: argparse.Namespace) -> AbstractAsyncContextManager[Ground]:
    from authproxy.cli.configuration import load
    from authproxy.rehearsal import embedded_ground, standing_ground
    from authproxy.sandbox import SwitchError, Switches, position

    given = [name for name in _STANDING if getattr(args, name) is not None]
    if not given:
        try:
            switches = dict(position(text) for text in args.switches)
            Switches().update(switches)
        except SwitchError as error:
            raise Stop(str(error)) from None
        return embedded_ground(switches)
    if args.switches:
        raise Stop("--set is for the embedded sandbox: start your own with `authproxy sandbox --set …`")
    if args.config is None or args.route is None:
        raise Stop(f"--{given[0]} means a proxy that is running: say --config and --route as well")
    config = load(args).config
    return standing_ground(
        config,
        provider=args.provider,
        route=args.route,
        listens=[_url(one) for one in args.listen or ["http://127.0.0.1:8700"]],
        control=_url(args.control or config.public_url),
        sandbox=_url(args.sandbox or "http://127.0.0.1:8790"),
        key=os.environ.get("AUTHPROXY_AGENT_KEY", "").strip() or None,
    )


class _Telling:
    """Progress: a live line on a terminal; a line for each scene that has ended elsewhere."""

    def __init__(self, total: int, *, silent: bool) -> None:
        self.began = time.monotonic()
        self._total = total
        self._number = 0
        self._silent = silent

    def begins(self, scene: Scene) -> None:
        status(f"{self._number + 1}/{self._total}  {scene.name}: {scene.broke}"[: _width() - 1])

    def ended(self, result: Result) -> None:
        self._number += 1
        if self._silent:
            return
        status("")
        took = "" if result.skipped else f"  ({result.seconds:.1f} s)"
        line = f"{self._number:>2}/{self._total}  {result.verdict:<7}  {result.scene.name}{took}"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _tell(results: Sequence[Result], seconds: float) -> None:
    from authproxy.rehearsal.report import row

    say()
    if sys.stdout.isatty():
        _cards(results)
    else:
        table(("scene", "verdict", "token calls", "spent twice", "survived", "agents saw", "broke"), [
            (one[0], one[6], one[3], one[4], one[5], one[2], one[1]) for one in map(row, results)
        ])  # fmt: skip
    say()
    played = [one for one in results if not one.skipped]
    broken = [one for one in played if one.broken]
    promises = sum(len(one.promises) for one in played)
    for result in broken:
        for promise in result.broken:
            say(f"{result.scene.name}: PROMISE BROKEN: {promise.text}")
            say(f"    found: {promise.found}")
    if broken:
        say(f"{len(broken)} of {len(played)} scenes did not go as promised, in {seconds:.0f} s.")
    else:
        scenes = "1 scene" if len(played) == 1 else f"{len(played)} scenes"
        say(f"{scenes}, {promises} promises, all kept, in {seconds:.0f} s.")


def _list(scenes: Sequence[Scene], args: argparse.Namespace) -> None:
    if args.json:
        say_json(
            [{"scene": one.name, "breaks": one.broke, "means": one.means, "do": one.do} for one in scenes]
        )
    else:
        table(("scene", "breaks"), [(one.name, one.broke) for one in scenes])


def _chosen(scenes: Sequence[Scene], names: Sequence[str] | None) -> list[Scene]:
    known = {one.name: one for one in scenes}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise Stop(f"there is no scene {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(scenes)


def _calls(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST_CALLS:
        raise argparse.ArgumentTypeError(f"say a number from 1 to {_MOST_CALLS}")
    return int(text)


def _url(text: str) -> str:
    """An address as `serve` takes it is good enough."""
    return text.rstrip("/") if "://" in text else f"http://{text}"


def _width() -> int:
    return shutil.get_terminal_size().columns


def _cards(results: Sequence[Result]) -> None:
    """The table as people read it on a terminal: a line for each scene, and what was broken below it."""
    from authproxy.rehearsal.report import row

    rows = [row(one) for one in results]
    names = max(len(one[0]) for one in rows)
    indent = " " * (names + 2)
    for name, broke, saw, calls, twice, survived, verdict in rows:
        say(f"{name.ljust(names)}  {verdict.upper() if verdict == 'broken' else verdict}")
        facts: dict[str, Any] = {"broke": broke, "agents saw": saw}
        if verdict != "skipped":
            facts["token calls"] = f"{calls}, {twice} refresh tokens spent twice"
            facts["grants kept"] = survived
        for what, text in facts.items():
            say(textwrap.fill(
                text, _width() - 1, initial_indent=f"{indent}{what.ljust(13)}", subsequent_indent=indent + " " * 13
            ))  # fmt: skip
