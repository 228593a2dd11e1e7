"""`authproxy run` and `authproxy ca`: what a command finds in its environment, and clients of other kinds."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from authproxy.cli.run import BUNDLES, PROXIES, environment
from tests.kit.lanes import CONNECT, Lane
from tests.kit.raw import reply
from tests.tunnel.conftest import Yard

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
needs_java = pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK")


def behind(
    yard: Yard, *command: str, options: tuple[str, ...] = ("--user", "alice"), **env: str
) -> subprocess.CompletedProcess[str]:
    """A command behind the proxy."""
    where = ["--config", str(yard.proxy.file), "--store", f"sqlite:///{yard.proxy.store}"]
    words = ["run", *where, "--proxy", yard.proxy.url, *options, "--", *command]
    boot = "import sys; from authproxy.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", boot, *words],
        env={**yard.proxy.env, **env},
        cwd=yard.proxy.directory,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


# --- the environment -----------------------------------------------------------------------------------------


def test_what_was_said_of_proxies_and_roots_before_is_gone(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    inherited = {
        "PATH": "/bin",
        "HTTP_PROXY": "http://old",
        "https_proxy": "http://old",
        "No_Proxy": "*",
        "SSL_CERT_FILE": "/old",
        "SSL_CERT_DIR": "/old",
        "ssl_cert_file": "/old",
        "REQUESTS_CA_BUNDLE": "/old",
        "AUTHPROXY_KEYS": "the sealing key",
        "AUTHPROXY_STORE": "postgresql://user:password@db",
        "GIT_EDITOR": "vi",
    }
    made = environment(inherited, "http://127.0.0.1:8700", roots, user="al ice@x", key="apx_k")
    assert made["PATH"] == "/bin"
    assert made["GIT_EDITOR"] == "vi"
    for name in PROXIES:
        assert made[name] == made[name.lower()] == "http://al%20ice%40x:apx_k@127.0.0.1:8700"
    assert made["NO_PROXY"] == made["no_proxy"] == "localhost,127.0.0.1,::1"
    assert {made[name] for name in BUNDLES} == {str(roots)}
    assert {"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} <= set(BUNDLES)
    assert {"GIT_SSL_CAINFO", "DENO_CERT", "HTTPLIB2_CA_CERTS", "AWS_CA_BUNDLE"} <= set(BUNDLES)
    assert made["NODE_USE_ENV_PROXY"] == "1"
    assert "old" not in str(made)
    assert not [name for name in made if name.startswith("AUTHPROXY_")]
    assert "JAVA_TOOL_OPTIONS" not in made


@pytest.mark.parametrize(
    ("user", "key", "url"),
    [
        (None, "", "http://proxy.internal:8700"),
        ("alice", "", "http://alice:-@proxy.internal:8700"),
        (None, "apx_k", "http://:apx_k@proxy.internal:8700"),
    ],
)
def test_the_proxys_url_says_who_asks(tmp_path: Path, user: str | None, key: str, url: str) -> None:
    made = environment({}, "http://proxy.internal:8700", tmp_path, user=user, key=key)
    assert made["HTTPS_PROXY"] == url
    assert made["NO_PROXY"].endswith(",proxy.internal")


def test_the_command_takes_the_place_of_run(yard: Yard) -> None:
    assert behind(yard, "sh", "-c", "exit 7").returncode == 7
    assert behind(yard, "sh", "-c", "kill -TERM $$").returncode == -15
    missing = behind(yard, "no-such-command")
    assert (missing.returncode, missing.stdout) == (127, "")
    assert "no-such-command" in missing.stderr
    assert behind(yard).returncode == 2
    assert behind(yard, "true", options=("--proxy", "socks5://x")).returncode == 2
    shown = behind(yard, "sh", "-c", 'echo "$0|$1"; echo to-stderr >&2', "a b", "--user")
    assert (shown.stdout, shown.stderr) == ("a b|--user\n", "to-stderr\n")


def test_the_key_comes_from_the_environment_and_goes_no_further(yard: Yard) -> None:
    key, _ = yard.key("runner", "alice")
    shown = behind(
        yard, "env", AUTHPROXY_AGENT_KEY=key, AUTHPROXY_KEYS="", GOOGLE="kept", SSL_CERT_DIR="/nowhere"
    )
    found = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    assert found["HTTPS_PROXY"] == f"http://alice:{key}@127.0.0.1:{yard.proxy.listen}"
    assert found["GOOGLE"] == "kept"
    assert "AUTHPROXY_AGENT_KEY" not in found
    assert Path(found["SSL_CERT_FILE"]).stat().st_mode & 0o777 == 0o644


def test_the_bundle_has_the_systems_roots_and_ours(yard: Yard, tmp_path: Path) -> None:
    own = yard.run("ca", "show").stdout.strip()
    printed = yard.run("ca", "bundle").stdout
    target = tmp_path / "bundle.pem"
    yard.run("ca", "bundle", "--output", str(target))
    assert target.read_text() == printed
    assert own in printed
    system = ssl.create_default_context().cert_store_stats()["x509_ca"]
    assert ssl.create_default_context(cafile=str(target)).cert_store_stats()["x509_ca"] == system + 1
    told = json.loads(yard.run("ca", "show", "--json").stdout)
    assert told["pem"].strip() == own
    assert "localhost" in told["names"]


def test_a_bundle_made_elsewhere_needs_no_store(yard: Yard, tmp_path: Path) -> None:
    target = tmp_path / "bundle.pem"
    yard.run("ca", "bundle", "--output", str(target))
    options = (
        "--ca-bundle",
        str(target),
        "--store",
        "sqlite:///nowhere/at-all.db",
        "--config",
        "/nowhere.yaml",
    )
    shown = behind(yard, "env", options=options)
    assert f"SSL_CERT_FILE={target}\n" in shown.stdout
    missing = behind(yard, "env", options=("--ca-bundle", str(tmp_path / "none.pem")))
    assert missing.returncode == 2
    assert "authproxy ca bundle" in missing.stderr


def test_a_home_that_cannot_be_written_to_is_no_obstacle(yard: Yard, tmp_path: Path) -> None:
    look = 'test -s "$SSL_CERT_FILE" && echo well'
    shown = behind(yard, "sh", "-c", look, HOME="/proc", XDG_CACHE_HOME="/proc/x", TMPDIR=str(tmp_path))
    assert shown.stdout == "well\n", shown.stderr


# --- clients of other kinds ----------------------------------------------------------------------------------


async def seen(lane: Lane, yard: Yard, *command: str, answer: bytes | None = None, **how: object) -> str:
    """Run a client that calls the lane, and hold it to having reached it with the token."""
    async with lane.upstream([answer or reply(body=b'{"well": true}')]) as upstream:
        done = await asyncio.to_thread(behind, yard, *command, **how)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stdout + done.stderr
    assert upstream.requests, done.stdout + done.stderr
    for request in upstream.requests:
        assert request.head.one(b"authorization") == lane.bearer
        assert not {b"proxy-authorization", b"x-user-id"} & set(request.head.names)
    return done.stdout


@pytest.mark.scenario("G24")
async def test_curl(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    assert "well" in await seen(lane, yard, "curl", "-sS", f"https://{lane.host}/x")
    # and plain http of the same host, matched in absolute form
    assert "well" in await seen(lane, yard, "curl", "-sS", f"http://127.0.0.1:{lane.port}/x", "--noproxy", "")


_NODE = """
const http = require('http'), https = require('https'), { URL } = require('url');
const proxy = new URL(process.env.HTTPS_PROXY), target = new URL(process.argv[1]);
const headers = { 'Proxy-Authorization': 'Basic ' + Buffer.from(
    decodeURIComponent(proxy.username) + ':' + decodeURIComponent(proxy.password)).toString('base64') };
http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: target.host + ':443', headers })
  .on('connect', (answer, socket) => {
    if (answer.statusCode !== 200) { console.error(answer.statusCode); process.exit(1); }
    https.get(target, { agent: new https.Agent({ socket }) }, (r) => {
      let body = ''; r.on('data', (d) => body += d); r.on('end', () => { console.log(r.statusCode, body); });
    }).on('error', (e) => { console.error(e.message); process.exit(1); });
  }).on('error', (e) => { console.error(e.message); process.exit(1); }).end();
"""
_FETCH = """
fetch(process.argv[1]).then(async (r) => console.log(r.status, await r.text()))
  .catch((e) => { console.error(e, e.cause); process.exit(1); });
"""


@needs_node
@pytest.mark.scenario("G24")
async def test_node_through_connect(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    said = await seen(lane, yard, "node", "-e", _NODE, f"https://{lane.host}/x")
    assert said.startswith("200 ")


@needs_node
@pytest.mark.scenario("G24")
async def test_nodes_fetch_where_it_knows_proxies(yard: Yard) -> None:
    version = (await asyncio.to_thread(subprocess.check_output, ["node", "--version"], text=True)).strip()
    if int(version.lstrip("v").split(".")[0]) < 24:
        pytest.skip(f"fetch of Node {version} knows no proxy variables (24 does)")
    lane = yard.lane(CONNECT)
    said = await seen(lane, yard, "node", "-e", _FETCH, f"https://{lane.host}/x")
    assert said.startswith("200 ")


@needs_git
@pytest.mark.scenario("G24")
async def test_git(yard: Yard) -> None:
    lane = yard.lane(CONNECT)
    ref = "0123456789012345678901234567890123456789 refs/heads/main"
    lines = [f"{ref}\0agent=x\n"]
    body = (
        "001e# service=git-upload-pack\n0000" + "".join(f"{len(one) + 4:04x}{one}" for one in lines) + "0000"
    )
    answer = reply("200 OK", body.encode(), "Content-Type: application/x-git-upload-pack-advertisement")
    command = ("git", "-c", "credential.helper=", "ls-remote", f"https://{lane.host}/o/r.git")
    said = await seen(lane, yard, *command, answer=answer, GIT_TERMINAL_PROMPT="0")
    assert said.split() == ref.split()


_JAVA = """
import java.net.*; import java.io.*;
public class Main { public static void main(String[] a) throws Exception {
  HttpURLConnection c = (HttpURLConnection) new URL(a[0]).openConnection();
  c.setRequestProperty("X-User-ID", "alice");
  System.out.println(c.getResponseCode() + " " + new String(c.getInputStream().readAllBytes()));
} }
"""


@needs_java
@pytest.mark.scenario("G24")
async def test_java(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "Main.java").write_text(_JAVA)
    lane = yard.lane(CONNECT)
    command = ("java", "-Xshare:auto", str(tmp_path / "Main.java"), f"https://{lane.host}/x")
    said = await seen(lane, yard, *command, options=("--java",))
    assert said.startswith("200 ")


async def test_a_client_behind_run_in_a_run(yard: Yard) -> None:
    """The inner one's roots are the outer one's and ours, which are the same."""
    lane = yard.lane(CONNECT)
    where = ["--config", str(yard.proxy.file), "--store", f"sqlite:///{yard.proxy.store}"]
    boot = "import sys; from authproxy.cli import main; sys.exit(main())"
    inner = ["run", *where, "--proxy", yard.proxy.url, "--user", "alice", "--"]
    keys = os.environ.get("AUTHPROXY_KEYS", "")
    said = await seen(
        lane,
        yard,
        sys.executable,
        "-c",
        boot,
        *inner,
        "curl",
        "-sS",
        f"https://{lane.host}/x",
        AUTHPROXY_KEYS=keys,
    )
    assert "well" in said
