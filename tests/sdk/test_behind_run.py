"""`authproxy run`: programs that know nothing of authproxy, speaking https to their vendors' own names.

No base URL, no header of ours, no certificate option: the environment that `run` sets is all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.sdk.conftest import Bench

PROGRAMS = {
    "urllib": (
        "urllib",
        "import urllib.request as u; print(u.urlopen('https://api.plain.example/a%2Fb?c=d').read().decode())",
        "/a%2Fb?c=d",
    ),
    "requests": (
        "requests",
        "import requests; print(requests.post('https://api.plain.example/x', data=b'x' * 5000).text)",
        "/x",
    ),
    "httpx": ("httpx", "import httpx; print(httpx.get('https://api.plain.example/x?a=b').text)", "/x?a=b"),
    "aiohttp": (
        "aiohttp",
        (
            "import asyncio, aiohttp\n"
            "async def main():\n"
            "    async with aiohttp.ClientSession(trust_env=True) as s, s.get('https://api.plain.example/x') as r:\n"
            "        print(await r.text())\n"
            "asyncio.run(main())"
        ),
        "/x",
    ),
    "gmail": (
        "socks",
        (
            "import json, googleapiclient.discovery as d, google.auth.credentials as c\n"
            "g = d.build('gmail', 'v1', credentials=c.AnonymousCredentials(), static_discovery=True)\n"
            "print(json.dumps(g.users().messages().list(userId='me').execute()))"
        ),
        "/gmail/v1/users/me/messages?alt=json",
    ),
    "slack": (
        "slack_sdk",
        "import json, slack_sdk; print(json.dumps(slack_sdk.WebClient(token='dummy').auth_test().data))",
        "/api/auth.test",
    ),
    "github": (
        "github",
        "import github; print(github.Github(auth=github.Auth.Token('dummy')).get_user().login)",
        "/user",
    ),
    "github-pages": (
        "github",
        (
            "import github\n"
            "print([r.full_name for r in github.Github(auth=github.Auth.Token('dummy')).get_user().get_repos()])"
        ),
        "/user/repos?page=2",
    ),
    "salesforce": (
        "simple_salesforce",
        (
            "import json, simple_salesforce as s\n"
            "c = s.Salesforce(instance_url='https://acme.my.salesforce.com', session_id='dummy')\n"
            "print(json.dumps(c.query('SELECT Id FROM Account')))"
        ),
        "/services/data/v59.0/query/?q=SELECT+Id+FROM+Account",
    ),
    "hubspot": (
        "hubspot",
        (
            "import os, hubspot\n"
            "from urllib.parse import urlsplit\n"
            "from urllib3.util import make_headers\n"
            "p = urlsplit(os.environ['HTTPS_PROXY'])\n"
            "c = hubspot.Client.create(access_token='dummy', proxy=f'http://{p.hostname}:{p.port}',\n"
            "    proxy_headers=make_headers(proxy_basic_auth=f'{p.username}:{p.password}'),\n"
            "    ssl_ca_cert=os.environ['SSL_CERT_FILE'])\n"
            "print(c.crm.contacts.basic_api.get_page(limit=1).results[0].id)"
        ),
        "/crm/v3/objects/contacts?limit=1",
    ),
}


def _run(bench: Bench, *command: str) -> subprocess.CompletedProcess[str]:
    where = ["--config", str(bench.proxy.file), "--store", f"sqlite:///{bench.proxy.store}"]
    return bench.proxy.run("run", *where, "--proxy", bench.proxy.url, "--user", "alice", "--", *command)


@pytest.mark.scenario("G24", "D14")
@pytest.mark.parametrize("expired", [False, True], ids=["fresh", "expired"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_knows_nothing_works(bench: Bench, name: str, expired: bool) -> None:
    module, program, target = PROGRAMS[name]
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed (pip install authproxy[sdk])")
    bench.api.arrived.clear()
    bench.api.public = "https://api.github.com"
    if expired:
        bench.end()
    done = _run(bench, sys.executable, "-W", "ignore", "-c", program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CANARY" not in done.stdout + done.stderr
    assert bench.took()[-1].target == target


@pytest.mark.scenario("G24")
def test_curl_works_too(bench: Bench) -> None:
    bench.api.arrived.clear()
    done = _run(bench, "curl", "-sS", "--fail", "https://api.plain.example/c?d=e")
    if done.returncode in (126, 127):
        pytest.skip("curl is not installed")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "/c?d=e"
    bench.took()


@pytest.mark.scenario("D22", "G24")
def test_a_host_that_is_no_routes_is_refused_and_not_dialled(bench: Bench) -> None:
    bench.api.arrived.clear()
    done = _run(bench, "curl", "-sS", "https://other.example/x")
    if done.returncode in (126, 127):
        pytest.skip("curl is not installed")
    assert done.returncode != 0
    assert bench.api.arrived == []
