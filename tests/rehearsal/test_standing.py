"""A proxy and a sandbox that run already: driven, left as they were, and never mistaken for others."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.kit.process import Proxy
from tests.rehearsal.conftest import Rehearse

pytestmark = pytest.mark.timeout(120)


def routes(sandbox: str) -> dict[str, Any]:
    host = sandbox.removeprefix("http://")
    provider = {"issuer": sandbox, "client_id": "authproxy-dev", "client_auth": "none", "api_hosts": [host]}
    route = {"upstream": f"{sandbox}/api", "provider": "sandbox", "scopes": ["read", "write"]}
    return {
        "providers": {"sandbox": provider},
        "routes": {"sandbox": route},
        "egress": {"allow": [host]},
        "refresh": {"leash": 1.0, "backoff_max": 2.0},
    }


def asked(url: str, method: str = "GET", body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def switched(sandbox: str) -> dict[str, Any]:
    told = asked(f"{sandbox}/admin/switches")
    return {name: one["value"] for name, one in told.items() if one["value"] != one["default"]}


def test_a_running_proxy_is_rehearsed_with_and_left_as_it_was(
    rehearse: Rehearse, sandbox: str, tmp_path: Path
) -> None:
    asked(f"{sandbox}/admin/switches", "POST", {"api_delay_s": 0.01})
    with Proxy(tmp_path / "proxy", routes(sandbox)) as proxy:
        where = ["--config", str(proxy.file), "--route", "sandbox", "--provider", "sandbox"]
        where += ["--listen", proxy.url, "--sandbox", sandbox]  # the control plane is where public_url says
        done = rehearse(
            *where, "--scene", "revocation", "invalid-client", "two-replicas", "--calls", "5", "--json"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(done.stdout)
        assert [scene["verdict"] for scene in told["scenes"]] == ["kept", "kept", "skipped"]
        assert "was running" in told["environment"]["proxy"]
        assert switched(sandbox) == {"api_delay_s": 0.01}
        states = {one["state"] for one in asked(f"{proxy.control_url}/v1/connections")["items"]}
        assert states <= {"disconnected"}
        assert asked(f"{sandbox}/admin/stats")["grants"]["live"] == 0


def test_replicas_without_a_common_store_are_found_out(
    rehearse: Rehearse, sandbox: str, tmp_path: Path
) -> None:
    """Two listeners that do not share a store: the same user is known to one of them only."""
    with Proxy(tmp_path / "one", routes(sandbox)) as one, Proxy(tmp_path / "two", routes(sandbox)) as two:
        where = ["--config", str(one.file), "--route", "sandbox", "--sandbox", sandbox]
        done = rehearse(*where, "--listen", one.url, "--listen", two.url, "--scene", "two-replicas")
        assert done.returncode == 1
        assert f"{two.url}/sandbox/me is not served after a consent" in done.stderr


def test_what_is_no_sandbox_is_never_touched(rehearse: Rehearse, sandbox: str, tmp_path: Path) -> None:
    """The route leads to one place, --sandbox says another: nothing is sent to either."""
    config = {"version": 1, **routes("http://127.0.0.1:9")}
    file = tmp_path / "routes.yaml"
    file.write_text(json.dumps(config))
    done = rehearse("--config", str(file), "--route", "sandbox", "--sandbox", sandbox)
    assert done.returncode == 1
    assert "route sandbox leads to 127.0.0.1:9, not to the sandbox" in done.stderr
    assert asked(f"{sandbox}/admin/stats")["calls"] == {}
