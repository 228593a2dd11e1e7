"""The drill after a sealing key was seen by somebody: another key while all runs, and nothing left of the old one."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from authproxy.core.model import ConnectionKey, Environment, NewGrant, TokenSet
from authproxy.core.secret import Secret
from authproxy.store.keys import read_keys
from authproxy.store.sealing import Keyring, generate_key
from authproxy.store.vault import Vault
from tests.cli.conftest import Run
from tests.kit.process import Proxy
from tests.kit.provider import Provider

SEEDED = 1500


class Api:
    """Answers 200 to the tokens that the provider gave out last, and 401 to all others."""

    def __init__(self, provider: Provider) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
                good = any(shown in grant.access[-2:] for grant in provider.grants)
                self.send_response(200 if good else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Load:
    """Calls through the proxy for some users, again and again; keeps what was not 200."""

    def __init__(self, proxy: Proxy, users: list[str]) -> None:
        self.proxy, self.users = proxy, users
        self.good = 0
        self.bad: list[tuple[str, int, bytes]] = []
        self.down = threading.Event()  # the proxy is down on purpose
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(user,), daemon=True) for user in users]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join()

    def _run(self, user: str) -> None:
        while not self._end.wait(0.02):
            try:
                self.call(user)
            except (OSError, http.client.HTTPException) as error:
                if not self.down.is_set():
                    self.bad.append((user, 0, repr(error).encode()))

    def call(self, user: str) -> None:
        headers = {"X-User-ID": user, "Host": f"127.0.0.1:{self.proxy.listen}"}
        status, _, body = self.proxy.fetch(self.proxy.listen, "GET", "/kit/x", headers=headers)
        if status == 200:
            self.good += 1
        elif not self.down.is_set():
            self.bad.append((user, status, body))


def until(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # polls another process, which has no other way to tell


def place(proxy: Proxy) -> tuple[str, ...]:
    return ("--config", str(proxy.file), "--store", f"sqlite:///{proxy.store}")


def state_of(proxy: Proxy) -> dict[str, Any]:
    done = proxy.run("keys", "status", "--json", *place(proxy))
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cells(state: dict[str, Any], key_id: str) -> int:
    return sum(one["cells"] for one in state["keys"] if one["key"] == key_id)


def sealed_under(store: Path, ring: Keyring) -> int:
    """How many connections the newest key has sealed, at a glance: a command would take longer than the work does."""
    prefix = ring.newest_prefix
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as looked:
        sql = "SELECT count(*) FROM connections WHERE substr(access_token, 1, ?) = ?"
        return int(looked.execute(sql, (len(prefix), prefix)).fetchone()[0])


async def seed(store: Path, ring: Keyring, number: int) -> None:
    """Many connections at rest, so that bringing them under another key takes its time."""
    vault = await Vault.open(f"sqlite:///{store}", keyring=ring, environment=Environment.DEVELOPMENT)
    for n in range(number):
        held = TokenSet(
            access_token=Secret(f"at-{n}"), refresh_token=Secret(f"rt-{n}"), expires_at=4_000_000_000
        )
        await vault.keep_grant(
            NewGrant(
                key=ConnectionKey("default", f"resting-{n}", "kit"),
                client_id="kit-client",
                grant_id=f"grant-{n}",
                tokens=held,
                requested_scopes=("read",),
                provider_account=None,
                at=1_700_000_000,
            ),
            [],
        )
    await vault.close()


async def all_open(store: Path, ring: Keyring) -> int:
    """How many connections there are; each is opened with these keys alone."""
    vault = await Vault.open(f"sqlite:///{store}", keyring=ring, environment=Environment.DEVELOPMENT)
    try:
        listed = await vault.list(tenant=None, limit=10_000)
        assert [one.last_error for one in listed if one.reason == "unreadable"] == []
        assert await vault.stale_cells() == 0
        return len(listed)
    finally:
        await vault.close()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[tuple[Proxy, Provider, Path]]:
    provider = Provider(life=2)
    api = Api(provider)
    keys = tmp_path / "authproxy.keys"
    keys.touch(mode=0o640)
    keys.write_text(generate_key() + "\n")
    config = {
        "providers": {"kit": {**provider.choice(), "api_hosts": [f"127.0.0.1:{api.port}"]}},
        "routes": {
            "kit": {"upstream": f"http://127.0.0.1:{api.port}", "provider": "kit", "scopes": ["read"]}
        },
        "egress": {"allow": [f"127.0.0.1:{provider.port}", f"127.0.0.1:{api.port}"]},
    }
    proxy = Proxy(tmp_path / "proxy", config, env={"AUTHPROXY_KEYS_FILE": str(keys)})
    asyncio.run(seed(proxy.store, read_keys(keys), SEEDED))
    with proxy:
        yield proxy, provider, keys
    api.close()
    provider.close()


@pytest.mark.scenario("E02", "E01", "N23")
@pytest.mark.timeout(180)
def test_the_drill(installation: tuple[Proxy, Provider, Path]) -> None:
    proxy, provider, keys = installation
    users = ["alice", "bob", "carol"]
    for user in users:
        proxy.connect(user)
    old = read_keys(keys)
    load = Load(proxy, users)
    with load.on():
        told = proxy.run("keys", "rotate", *place(proxy))
        assert told.returncode == 0, told.stderr
        new = read_keys(keys)
        assert (new.ids[1:], stat.S_IMODE(keys.stat().st_mode)) == (old.ids, 0o600)

        # Killed in the middle of the background batch.
        until(lambda: sealed_under(proxy.store, new) > 0, "the new key seals")
        assert proxy.process is not None
        load.down.set()
        proxy.process.kill()
        proxy.process.wait()
        state = state_of(proxy)
        assert cells(state, old.newest) > 0, "killed too late"
        assert state["canary"] == "opens"
        proxy.start()
        load.down.clear()

        # It goes on by itself; a command beside it does no harm.
        assert proxy.run("keys", "reseal", "--batch", "20", *place(proxy)).returncode in (0, 1)
        until(lambda: state_of(proxy)["left"] == 0, "everything is under the new key")
        pruned = proxy.run("keys", "prune", *place(proxy))
        assert pruned.returncode == 0, pruned.stderr
        assert read_keys(keys).ids == (new.newest,)
        gone = f'"removed": ["{old.newest}"]'
        until(lambda: gone in proxy.words(), "serve has seen that the old key is gone")
        before = [grant.asked for grant in provider.grants]
        until(
            lambda: all(grant.asked > asked for grant, asked in zip(provider.grants, before, strict=False)),
            "tokens go on being refreshed",
        )
    assert load.bad == []
    assert load.good > 100
    proxy.stop()
    left = b"".join(file.read_bytes() for file in proxy.directory.glob("authproxy.db*"))
    assert b"\xa7\x01" + bytes.fromhex(old.newest) not in left, "old ciphertext in the files"
    assert b"\xa7\x01" + bytes.fromhex(new.newest) in left

    # With the new key alone.
    assert asyncio.run(all_open(proxy.store, read_keys(keys))) == SEEDED + len(users)
    proxy.start()
    for user in users:
        load.call(user)
    assert load.bad == []
    assert {len(grant.refresh) - grant.asked for grant in provider.grants} == {1}, (
        "no token was lost or spent twice"
    )


@pytest.mark.scenario("E02")
def test_rotate_and_reseal_at_once(installation: tuple[Proxy, Provider, Path]) -> None:
    """A script does one right after the other: what the second seals, the running serve can open."""
    proxy, _, keys = installation
    proxy.connect("alice")
    load = Load(proxy, ["alice"])
    with load.on():
        assert proxy.run("keys", "rotate", *place(proxy)).returncode == 0
        for _ in range(10):  # until the running serve has taken the new key, it seals under the old one
            done = proxy.run("keys", "reseal", "--json", *place(proxy))
            if done.returncode == 0:
                break
            assert "run again" in done.stderr
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["key"] == read_keys(keys).newest
    assert state_of(proxy)["left"] == 0
    assert load.bad == []


def test_a_key_that_is_still_needed_is_not_let_go(installation: tuple[Proxy, Provider, Path]) -> None:
    proxy, _, keys = installation
    kept = keys.read_text()
    keys.write_text(generate_key() + "\n")
    until(lambda: "keys_refused" in proxy.words(), "serve refuses the file")
    assert read_keys(keys).newest not in json.dumps(proxy.words().split("keys_refused")[0])
    proxy.connect("alice")  # which seals and opens
    wrong = proxy.run("keys", "status", "--json", *place(proxy))
    assert wrong.returncode == 1
    assert json.loads(wrong.stdout)["canary"].startswith("does not open")
    assert proxy.run("keys", "prune", *place(proxy)).returncode == 1
    keys.write_text(kept)
    until(lambda: state_of(proxy)["left"] == 0, "as before")


@pytest.mark.scenario("E02")
def test_rotate_without_a_file_says_what_to_set(command: Run, tmp_path: Path) -> None:
    told = command("keys", "rotate", AUTHPROXY_KEYS=generate_key())
    assert told.returncode == 0
    assert "LAST" in told.stdout
    none = command("keys", "rotate")
    assert none.returncode == 2
    assert "AUTHPROXY_KEYS_FILE" in none.stderr
    file = tmp_path / "broken.keys"
    file.write_text("not a key")
    broken = command("keys", "rotate", AUTHPROXY_KEYS_FILE=str(file))
    assert (broken.returncode, file.read_text()) == (2, "not a key")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(command: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    file = folder / "keys"
    file.write_text(generate_key())
    folder.chmod(0o500)
    told = command("keys", "rotate", AUTHPROXY_KEYS_FILE=str(file))
    folder.chmod(0o700)
    assert told.returncode == 2
    assert "cannot be written" in told.stderr


def test_two_that_rotate_at_once_lose_no_key(tmp_path: Path) -> None:
    from authproxy.store.keys import add_key

    file = tmp_path / "keys"
    first = generate_key()
    file.write_text(first)
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(add_key(file).newest)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_keys(file).ids) == {*made, Keyring.parse(first).newest}
    assert [one.name for one in tmp_path.iterdir()] == ["keys"]
