"""A proxy that is told to stop does not wait for agents who are only connected."""

import http.client
import time
from pathlib import Path

from tests.kit.process import Proxy


def test_an_idle_connection_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Proxy(tmp_path, {}) as proxy:
        agent = http.client.HTTPConnection("127.0.0.1", proxy.listen, timeout=10)
        agent.request("GET", "/nowhere", headers={"X-User-ID": "alice"})
        answer = agent.getresponse()
        assert answer.status == 404
        answer.read()
        assert agent.sock is not None, "the connection is kept alive"
        began = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - began < 5
        assert agent.sock.recv(1) == b""
        agent.close()
