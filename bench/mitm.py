"""mitmproxy's part of the benchmark: an addon that sets the field."""

import os
from typing import Any

_VALUE = "Bearer " + os.environ["BENCH_TOKEN"]


def requestheaders(flow: Any) -> None:
    """A request's head is there."""
    flow.request.headers["Authorization"] = _VALUE
    flow.request.stream = True


def responseheaders(flow: Any) -> None:
    """An answer's head is there."""
    flow.response.stream = True
