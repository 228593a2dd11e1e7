"""What toolkits say that a route must allow; `House.call` looks whether each request of each test is among it."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy.core.routes import RouteTable
from authproxy.core.strict import read
from authproxy.tools.loading import Kit, toolbox

OURS = Path(__file__).parents[2] / "routes.yaml"


@pytest.mark.parametrize("kit", toolbox().kits.values(), ids=lambda kit: kit.name)
def test_our_routes_yaml_allows_what_the_tools_need(kit: Kit) -> None:
    config = read(OURS.read_text(), file="routes.yaml", environ={}, read_file=str).config
    route = RouteTable.build(config).get(kit.route)
    assert route is not None
    assert kit.reads
    assert kit.writes
    for rule in (*kit.reads, *kit.writes):
        for method in rule.methods:
            for glob in rule.paths:
                path = glob.replace("**", "x/y").replace("*", "x")
                assert route.rules.judge(method, [path.encode()]).allowed, (method, glob)
