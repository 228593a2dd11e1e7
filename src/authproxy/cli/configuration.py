"""Reads routes.yaml for a command, and says every fault of it at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from authproxy.cli.console import USAGE, Stop
from authproxy.core.known import Known, catalogue
from authproxy.core.model import Environment
from authproxy.core.strict import ConfigFaults, Fault, Reading, read
from authproxy.core.tool_faults import KnownTool


def load(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Reading:
    """The configuration that `--config` names, with `--environment` over it. Raises Stop."""
    try:
        return reading(args.config, args.environment, environ)
    except ConfigFaults as found:
        raise Stop(*(line(fault) for fault in found.faults), code=USAGE) from None


def reading(
    file: str, environment: Environment | None = None, environ: Mapping[str, str] = os.environ
) -> Reading:
    """One file as values. Raises ConfigFaults, or Stop where there is no such file."""
    path, text = text_of(file)
    return read(
        text, file=file, environ=environ, read_file=beside(path), environment=environment, known=known()
    )


def known() -> Known:
    """What a configuration is read against: the catalogue, and the tools by name."""
    return catalogue()._replace(tools=_tools)


def _tools() -> list[KnownTool]:
    from authproxy.tools.loading import toolbox  # only where there are rules for tools: it reads all of them

    return [
        KnownTool(
            tool.qualified_name,
            tool.marks.read_only,
            tool.marks.destructive,
            tool.marks.idempotent,
            frozenset(one.name for one in tool.parameters),
        )
        for tool in toolbox()
    ]


def text_of(file: str) -> tuple[Path, str]:
    """The file's path and its text. Raises Stop where there is none."""
    path = Path(file)
    try:
        return path, path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Stop(
            f"there is no {path}: name the configuration with --config or AUTHPROXY_CONFIG "
            "(`authproxy demo` needs none)"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Stop(f"{path}:{line}: is not UTF-8") from None
    except OSError as error:
        raise Stop(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None


def line(fault: Fault) -> str:
    """`file:line: path: message`, as editors and compilers understand it; what only warns says so."""
    severity = "" if fault.severity == "error" else f"{fault.severity}: "
    path = f"{fault.path}: " if fault.path else ""
    return f"{fault.file}:{fault.line}: {severity}{path}{fault.message}"


def beside(config: Path) -> Callable[[str], str]:
    """Files named by `file:` hang below the configuration's own folder."""
    return lambda name: (config.parent / name).read_text(encoding="utf-8")
