"""`authproxy check`: validates the configuration alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from authproxy.cli.console import DONE, USAGE, complain, say, say_json
from authproxy.cli.options import environment_option, json_option, option


def arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    option(
        parser, "--config", environ, says="configuration file (default: routes.yaml)", default="routes.yaml"
    )
    environment_option(parser, environ)
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of routes.yaml and stop")
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    from authproxy.cli.configuration import line, reading
    from authproxy.core.strict import ConfigFaults, Fault, json_schema

    if args.schema:
        say_json(json_schema())
        return DONE
    faults: tuple[Fault, ...]
    try:
        config, faults = reading(args.config, args.environment)
    except ConfigFaults as found:
        config, faults = None, found.faults
    if args.json:
        said: dict[str, Any] = {"well": config is not None, "faults": [fault._asdict() for fault in faults]}
        say_json(said)
        return DONE if config is not None else USAGE
    for fault in faults:
        complain(line(fault))
    if config is None:
        return USAGE
    base = config.public_url.rstrip("/")
    say(
        f"{args.config}: well for {config.environment} "
        f"({len(config.providers)} providers, {len(config.routes)} routes, {len(faults)} warnings)"
    )
    for name in config.providers:
        say(f"redirect URI to register at {name}: {base}/callback/{name}")
    return DONE
