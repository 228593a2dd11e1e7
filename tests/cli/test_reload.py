"""The configuration read again while everything runs: all of it, or nothing and every fault."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_key_rotation import Api, Load, place, until
from tests.kit.process import Proxy
from tests.kit.provider import Grant, Provider


class House:
    """A running serve on a file that is rewritten."""

    def __init__(self, directory: Path) -> None:
        self.provider = Provider(life=3600)
        self.api = Api(self.provider)
        self.config: dict[str, Any] = {
            "providers": {"kit": {**self.provider.choice(), "api_hosts": [f"127.0.0.1:{self.api.port}"]}},
            "routes": {
                "kit": {
                    "upstream": f"http://127.0.0.1:{self.api.port}",
                    "provider": "kit",
                    "scopes": ["read"],
                }
            },
            "egress": {"allow": [f"127.0.0.1:{self.provider.port}", f"127.0.0.1:{self.api.port}"]},
        }
        self.proxy = Proxy(directory, self.config)
        self.said = 0

    def close(self) -> None:
        self.proxy.stop()
        self.api.close()
        self.provider.close()

    def reload(self, text: str | None = None, *, taken: bool = True) -> str:
        """Another text and SIGHUP; what was logged from then on."""
        self.proxy.file.write_text(json.dumps(self.proxy.config, indent=1) if text is None else text)
        return self.hup(taken=taken)

    def hup(self, *, taken: bool = True) -> str:
        before = len(self.proxy.words())
        assert self.proxy.process is not None
        self.proxy.process.send_signal(signal.SIGHUP)
        word = '"config_reloaded"' if taken else '"config_rejected"'
        until(lambda: word in self.proxy.words()[before:], self.proxy.words()[before:])
        return self.proxy.words()[before:]

    def get(self, user: str = "alice", path: str = "/kit/x") -> tuple[int, Any]:
        status, _, body = self.proxy.fetch(self.proxy.listen, "GET", path, headers={"X-User-ID": user})
        return status, json.loads(body) if body else None

    def gauge(self) -> float:
        _, _, page = self.proxy.fetch(self.proxy.control, "GET", "/metrics")
        line = next(
            line
            for line in page.decode().splitlines()
            if line.startswith("authproxy_config_last_reload_success")
        )
        return float(line.split()[1])

    def events(self, kind: str) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            status, told = self.proxy.ask("GET", f"/v1/audit?kind={kind}")
            assert status == 200, told
            records: list[dict[str, Any]] = told["items"] if isinstance(told, dict) else told
            return records

        until(lambda: bool(found()), f"no {kind}")
        return found()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.proxy.start()
    yield house
    house.close()


@pytest.mark.scenario("J11")
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[:-20], "config_fault"),
        (lambda text: text.replace('"routes"', '"routse"'), "did you mean `routes`"),
        (lambda text: text.replace("http://127.0.0.1", "127.0.0.1"), "must be a URL"),
        (
            lambda text: text.replace(
                '"version": 1', '"version": 1, "replicas": 2, "flows": {"lifetime": 60}'
            ),
            "restart it",
        ),
    ],
    ids=["syntax", "unknown key", "bad value", "for a restart"],
)
def test_a_fault_keeps_the_old_configuration(house: House, spoil: Callable[[str], str], words: str) -> None:
    house.proxy.connect("alice")
    good = house.proxy.file.read_text()
    said = house.reload(spoil(good), taken=False)
    assert words in said
    faults = [json.loads(line) for line in said.splitlines() if '"config_fault"' in line]
    assert all(fault["file"] == str(house.proxy.file) and fault["line"] >= 1 for fault in faults)
    assert house.gauge() == 0
    assert house.get()[0] == 200, "the old one still serves"
    record = house.events("config.rejected")[0]
    assert record["data"]["sha256"] == hashlib.sha256(spoil(good).encode()).hexdigest()
    assert record["data"]["count"] == len(faults)
    house.reload(good)
    assert house.gauge() == 1
    assert house.events("config.reloaded")[0]["data"]["sha256"] == hashlib.sha256(good.encode()).hexdigest()


@pytest.mark.scenario("J11")
def test_no_file_and_a_listener_that_would_have_to_move(house: House) -> None:
    text = house.proxy.file.read_text()
    house.proxy.file.unlink()
    assert "there is no" in house.hup(taken=False)
    house.proxy.config["routes"]["kit"]["listen"] = "127.0.0.1:1"
    house.proxy.config["timeouts"] = {"idle": 5}
    said = house.reload(taken=False)
    assert "routes.kit.listen" in said
    assert '"timeouts"' in said
    lines = [json.loads(line)["line"] for line in said.splitlines() if '"config_fault"' in line]
    written = house.proxy.file.read_text().splitlines()
    assert ["listen" in written[n - 1] or "timeouts" in written[n - 1] for n in lines] == [True, True]
    house.reload(text)


@pytest.mark.scenario("J11")
def test_routes_rules_and_callers_change_under_load(house: House) -> None:
    """Every request is served by one configuration or the other, on connections that stand."""
    users = ["alice", "bob"]
    for user in users:
        house.proxy.connect(user)
    route = house.proxy.config["routes"]["kit"]
    load = Load(house.proxy, users)
    with load.on():
        for number in range(6):
            house.proxy.config["routes"][f"more-{number}"] = {**route, "scopes": ["read"]}
            house.reload()
            assert house.get(path=f"/more-{number}/x")[0] == 200
    assert load.bad == []
    assert load.good > 10
    route["allow"] = [{"methods": ["POST"], "paths": ["/**"]}]
    house.reload()
    assert house.get()[1]["code"] == "policy_denied"
    house.proxy.config["identity"] = {"callers": [{"kind": "api_key"}]}
    house.reload()
    assert house.get()[0] == 407
    status, _ = house.proxy.ask("GET", "/v1/connections?user_id=alice")
    assert status == 401, "the control plane as well"
    made = house.proxy.run("agents", "create", "one", "--json", *place(house.proxy))
    key = json.loads(made.stdout)["key"]
    headers = {"X-User-ID": "alice", "Proxy-Authorization": f"Bearer {key}"}
    until(
        lambda: house.proxy.fetch(house.proxy.listen, "POST", "/kit/x", b"", headers=headers)[0] != 407,
        "key known",
    )


@pytest.mark.scenario("J11")
def test_a_request_under_way_keeps_what_it_began_with(house: House) -> None:
    house.proxy.connect("alice")
    entered, go = threading.Event(), threading.Event()

    def slow(grant: Grant, form: dict[str, str]) -> tuple[int, str, bytes] | None:
        if form["grant_type"] == "refresh_token":
            entered.set()
            assert go.wait(20)
        return None

    house.provider.twist = slow
    house.provider.grants[0].access.extend(["gone", "gone"])  # so the API answers 401, and a refresh begins
    answers: list[tuple[int, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(house.get()), daemon=True)
    asking.start()
    assert entered.wait(20)
    route = house.proxy.config["routes"].pop("kit")
    house.proxy.config["routes"]["other"] = route
    house.reload()
    assert house.get()[1]["code"] == "no_route"
    go.set()
    asking.join()
    assert answers == [(200, None)]


@pytest.mark.scenario("J11", "C04")
def test_a_provider_that_is_taken_out_and_another_client(house: House) -> None:
    house.proxy.connect("alice")
    provider, route = dict(house.proxy.config["providers"]), dict(house.proxy.config["routes"])
    house.proxy.config["providers"], house.proxy.config["routes"] = {}, {}
    house.reload()
    listed = json.loads(house.proxy.run("connections", "list", "--json", *place(house.proxy)).stdout)
    assert [(one["user_id"], one["state"]) for one in listed] == [("alice", "active")], "kept"
    status, told = house.proxy.ask("POST", f"/v1/connections/{listed[0]['id']}/refresh")
    assert (status, told["code"]) == (502, "provider_misconfigured")
    house.proxy.config["providers"], house.proxy.config["routes"] = provider, route
    house.reload()
    assert house.get()[0] == 200
    # Another client id: the grant is not this client's, and nothing of it is sent.
    asked = house.provider.grants[0].asked
    house.proxy.config["providers"]["kit"]["client_id"] = "another"
    house.reload()
    status, told = house.proxy.ask("POST", f"/v1/connections/{listed[0]['id']}/refresh")
    assert (status, told["reason"]) == (502, "client_changed")
    assert house.provider.grants[0].asked == asked
    house.proxy.config["providers"]["kit"]["client_id"] = "kit-client"
    house.reload()
    assert house.proxy.ask("POST", f"/v1/connections/{listed[0]['id']}/refresh")[0] == 200


@pytest.mark.scenario("J11", "C05")
def test_a_new_client_secret_heals_at_once(tmp_path: Path) -> None:
    """The secret is in a mounted file, which is swapped by a link as Kubernetes does it."""
    house = House(tmp_path)
    for version, secret in (("v1", "first"), ("v2", "second")):
        folder = tmp_path / version
        folder.mkdir()
        (folder / "secret").write_text(secret)
    (tmp_path / "data").symlink_to("v1")
    kit = house.proxy.config["providers"]["kit"]
    kit |= {"client_auth": "client_secret_post", "client_secret": "file:data/secret"}
    house.proxy.config["refresh"] = {"forced_interval": 0}
    right = "first"

    def judge(_: Grant, form: dict[str, str]) -> tuple[int, str, bytes] | None:
        if form.get("client_secret") == right:
            return None
        return 401, "application/json", b'{"error":"invalid_client"}'

    house.provider.twist = judge
    house.proxy.start()
    try:
        house.proxy.connect("alice")
        right = "second"
        house.provider.grants[0].access.extend(["gone", "gone"])
        assert house.get()[1]["code"] == "provider_misconfigured"
        asked = house.provider.grants[0].asked
        assert house.get()[1]["code"] == "provider_misconfigured"
        assert house.provider.grants[0].asked == asked, "left alone meanwhile"
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").replace(tmp_path / "data")
        began = time.monotonic()
        house.hup()
        assert house.get()[0] == 200
        assert time.monotonic() - began < 5
    finally:
        house.close()


@pytest.mark.scenario("C05")
def test_two_secrets_overlap_and_no_refresh_fails(tmp_path: Path) -> None:
    """As the README says: the second is made beside the first, written, taken over, and only then the first ends."""
    house = House(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    kit = house.proxy.config["providers"]["kit"]
    kit |= {"client_auth": "client_secret_post", "client_secret": "file:secret"}
    house.proxy.config["refresh"] = {"forced_interval": 0}
    valid, used = {"first"}, []

    def judge(_: Grant, form: dict[str, str]) -> tuple[int, str, bytes] | None:
        used.append(form.get("client_secret"))
        if used[-1] in valid:
            return None
        return 401, "application/json", b'{"error":"invalid_client"}'

    def renewed() -> str | None:
        house.provider.grants[0].access.extend(
            ["gone", "gone"]
        )  # so that the API refuses what the proxy holds
        assert house.get()[0] == 200
        return used[-1]

    house.provider.twist = judge
    house.proxy.start()
    try:
        house.proxy.connect("alice")
        assert renewed() == "first"
        valid.add("second")
        secret.write_text("second\n")
        assert renewed() == "first", "written, and not taken over yet"
        house.hup()
        print("USED", used, house.provider.grants[0].access)
        r = renewed()
        print("USED", used, house.provider.grants[0].access)
        assert r == "second", (used, house.proxy.words()[-1500:])
        valid.remove("first")
        assert renewed() == "second"
        assert [one["state"] for one in house.proxy.ask("GET", "/v1/connections")[1]["items"]] == ["active"]
        _, _, page = house.proxy.fetch(house.proxy.control, "GET", "/metrics")
        assert b'outcome="misconfigured"' not in page
    finally:
        house.close()


@pytest.mark.scenario("J11")
def test_a_file_behind_a_link(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.proxy.start()
    try:
        text = house.proxy.file.read_text()
        for version in ("v1", "v2"):
            (tmp_path / version).mkdir()
            (tmp_path / version / "routes.yaml").write_text(text)
        (tmp_path / "data").symlink_to("v1")
        house.proxy.file.unlink()
        house.proxy.file.symlink_to("data/routes.yaml")
        house.hup()
        changed = json.loads(text)
        changed["routes"]["other"] = changed["routes"]["kit"]
        (tmp_path / "v2" / "routes.yaml").write_text(json.dumps(changed))
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").replace(tmp_path / "data")
        house.hup()
        assert house.get(path="/other/x")[1]["code"] == "connection_required"
    finally:
        house.close()
