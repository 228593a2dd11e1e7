"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import timeit
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def facts() -> dict[str, str]:
    """Date, machine and versions, for the head of the results."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load average at start": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "CPUs": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, yardstick {yardstick():.3f} s "
        "(a fixed loop, best of five; a build without profile-guided optimisation takes half as long again)",
        **{name: _package(name) for name in ("authproxy", "aiohttp", "httptools", "uvloop", "mitmproxy")},
        "Envoy": _said([_path("envoy"), "--version"], r"/(\d+\.\d+\.\d+)/"),
        "nginx": _said([_path("nginx"), "-v"], r"nginx/(\S+)"),
        "wrk": _said([_path("wrk"), "-v"], r"wrk \S*?(\d+\.\d+\.\d+)"),
    }


def yardstick() -> float:
    """Seconds for a fixed piece of work of this Python: builds of one version differ by half."""
    return min(timeit.repeat(_work, number=1, repeat=5))


def _work() -> int:
    kept: dict[int, tuple[int, str]] = {}
    total = 0
    for number in range(200_000):
        kept[number % 100] = (number, str(number))
        total += len(kept)
    return total


def program(name: str) -> str | None:
    """Where a program is: beside this Python, in PATH, or where Debian keeps daemons."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
    return shutil.which(name, path=places)


def _path(name: str) -> str:
    return program(name) or ""


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1] if found else platform.machine()


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _said(command: Sequence[str], pattern: str) -> str:
    if not command[0]:
        return "absent"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "present"
