"""Options that several commands share: command line beats environment beats file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from authproxy.core.model import DEFAULT_TENANT, Environment

MOST = 1_000_000
"""Rows that a command prints at most."""


def option(
    parser: argparse.ArgumentParser,
    name: str,
    environ: Mapping[str, str],
    *,
    says: str,
    default: Any = None,
    read: Callable[[str], Any] = str,
    metavar: str | None = None,
    variable: str | None = None,
) -> None:
    """An option that is also `AUTHPROXY_NAME`; a bad value in the environment is named as such."""
    variable = variable or "AUTHPROXY_" + name.lstrip("-").upper().replace("-", "_")
    given = environ.get(variable)
    if given is not None and given.strip():
        try:
            default = read(given.strip())
        except ValueError as error:
            parser.error(f"{variable}: {error}")
    parser.add_argument(
        name, type=_quiet(read), default=default, metavar=metavar, help=f"{says} [{variable}]"
    )


def switch(parser: argparse.ArgumentParser, name: str, environ: Mapping[str, str], *, says: str) -> None:
    """A yes/no option that is also `AUTHPROXY_NAME`."""
    variable = "AUTHPROXY_" + name.lstrip("-").upper().replace("-", "_")
    given = environ.get(variable, "").strip().lower()
    if given not in ("", "0", "1", "false", "true", "no", "yes"):
        parser.error(f"{variable}: say 1 or 0")
    parser.add_argument(
        name, action="store_true", default=given in ("1", "true", "yes"), help=f"{says} [{variable}]"
    )


def store_options(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Where configuration and state are; the same for every command that touches them."""
    option(
        parser, "--config", environ, says="configuration file (default: routes.yaml)", default="routes.yaml"
    )
    option(
        parser,
        "--store",
        environ,
        says="sqlite:///path, or postgresql://… (default: sqlite:///authproxy.db)",
        default="sqlite:///authproxy.db",
        read=_store,
        metavar="URL",
    )
    environment_option(parser, environ)


def environment_option(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Which environment this is, over what the file says."""
    option(
        parser,
        "--environment",
        environ,
        says="development, staging or production (default: what the file says)",
        read=_environment,
        metavar="NAME",
    )


def tenant_option(parser: argparse.ArgumentParser) -> None:
    """Whose connections and agents are meant."""
    parser.add_argument(
        "--tenant",
        type=_quiet(_tenant),
        default=DEFAULT_TENANT,
        help=f"the organisation (default: {DEFAULT_TENANT})",
    )


def count(least: int) -> Callable[[str], int]:
    """Reads how many of something are wanted."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:10]) <= MOST and len(text) < 10):
            raise argparse.ArgumentTypeError(f"say a number from {least} to {MOST}")
        return int(text)

    return read


def port(text: str) -> int:
    """Reads a TCP port; 0 for a free one."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise ValueError("say a port from 0 to 65535")
    return int(text)


def json_option(parser: argparse.ArgumentParser) -> None:
    """For machines."""
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")


def _tenant(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("say the name of an organisation")
    return text


def _store(text: str) -> str:
    if text.partition(":")[0] not in ("sqlite", "postgresql", "postgres"):
        raise ValueError(
            "say sqlite:///path or postgresql://host/database"
        )  # never the text: it may have a password
    return text


def _environment(text: str) -> Environment:
    try:
        return Environment(text)
    except ValueError:
        raise ValueError("say development, staging or production") from None


def _quiet(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse shows a reader's own words only from its own exception."""

    def reader(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reader
