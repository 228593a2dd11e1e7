"""The control listener's edge on a real socket: names, refusals, headers, and who counts as local."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from authproxy.core.errors import CallerUnknown, StoreUnavailable
from authproxy.faces.edge import Names, application, is_local
from authproxy.faces.listener import Runner

PUBLIC = "https://auth.example.com"
NAMES = Names(PUBLIC)


async def _local(request: web.Request) -> web.Response:
    return web.json_response({"local": is_local(request, NAMES)})


async def _refused(_request: web.Request) -> web.Response:
    raise StoreUnavailable("The store is away")


async def _unknown(_request: web.Request) -> web.Response:
    raise CallerUnknown("Who are you")


async def _broken(_request: web.Request) -> web.Response:
    raise RuntimeError("CANARY-in-an-exception")


async def _echo(request: web.Request) -> web.Response:
    return web.json_response({"bytes": len(await request.read())})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = application(
        [
            web.get("/v1/local", _local),
            web.get("/v1/refused", _refused),
            web.get("/v1/unknown", _unknown),
            web.get("/v1/broken", _broken),
            web.get("/connect/{flow}", _refused),
            web.post("/v1/echo", _echo),
        ],
        names=NAMES,
        patience=0.3,
    )
    runner = Runner(app, access_log=None, head_time=0.3, most=50)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def ask(port: int, line: str, *fields: str, body: bytes = b"") -> tuple[int, dict[str, str], str]:
    """One raw exchange: clients would tidy up the very headers that are tested."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = [f"{line} HTTP/1.1", *fields, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    writer.write("\r\n".join(head).encode() + body)
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    top, _, rest = raw.decode().partition("\r\n\r\n")
    lines = top.split("\r\n")
    headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in lines[1:])}
    return int(lines[0].split()[1]), headers, rest


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8701",
        "localhost:8701",
        "[::1]:8701",
        "auth.example.com",
        "AUTH.example.com:443",
        "authproxy:8701",
        "agent-connect.agents.svc",
        "x.svc.cluster.local",
        "box.internal",
    ],
)
async def test_own_names_are_answered(port: int, host: str) -> None:
    assert (await ask(port, "GET /v1/local", f"Host: {host}"))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "auth.example.com.evil.example", "127.0.0.1.evil.example", "", "a b"]
)
async def test_a_rebound_name_is_refused(port: int, host: str) -> None:
    status, headers, body = await ask(port, "GET /v1/local", f"Host: {host}")
    assert (status, headers["x-authproxy-error"]) == (400, "bad_request"), body


@pytest.mark.scenario("I05")
@pytest.mark.parametrize(
    ("fields", "local"),
    [
        (("Host: 127.0.0.1:8701",), True),
        (("Host: authproxy:8701",), True),
        (("Host: auth.example.com",), False),
        (("Host: 127.0.0.1:8701", "X-Forwarded-For: 203.0.113.9"), False),
        (("Host: 127.0.0.1:8701", "Forwarded: for=203.0.113.9"), False),
        (("Host: 127.0.0.1:8701", "X-Real-IP: 127.0.0.1"), False),
        (("Host: 127.0.0.1:8701", "Via: 1.1 proxy"), False),
        (("Host: 127.0.0.1:8701", "X-Forwarded-Proto: https"), False),
        (("Host: 127.0.0.1:8701", "X-Envoy-Expected-Rq-Timeout-Ms: 15000"), False),
        (("Host: 127.0.0.1:8701", "CF-Connecting-IP: 203.0.113.9"), False),
        (("Host: evil.local:8701",), False),
        (("Host: box.internal:8701",), False),
        (("Host: 192.0.2.1:8701",), True),
    ],
)
async def test_what_a_reverse_proxy_brings_is_not_local(
    port: int, fields: tuple[str, ...], local: bool
) -> None:
    _, _, body = await ask(port, "GET /v1/local", *fields)
    assert json.loads(body) == {"local": local}


@pytest.mark.scenario("I05")
async def test_nginx_as_it_comes_out_of_the_box_is_not_local(port: int) -> None:
    """`proxy_pass http://127.0.0.1:8701;` and nothing else: HTTP/1.0, our own address as Host, and no other sign."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/local HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert json.loads(raw.partition(b"\r\n\r\n")[2]) == {"local": False}


async def test_refusals_have_one_shape(port: int) -> None:
    status, headers, body = await ask(port, "GET /v1/refused", "Host: localhost", "X-Request-ID: mine-1")
    problem = json.loads(body)
    assert (status, headers["content-type"]) == (503, "application/problem+json; charset=utf-8")
    assert headers["x-authproxy-error"] == problem["code"] == "store_unavailable"
    assert headers["x-request-id"] == problem["request_id"] == "mine-1"
    assert headers["retry-after"] == "2"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


async def test_an_unknown_caller_is_401_here(port: int) -> None:
    status, headers, body = await ask(port, "GET /v1/unknown", "Host: localhost")
    assert (status, json.loads(body)["status"], headers["www-authenticate"]) == (
        401,
        401,
        'Bearer realm="authproxy"',
    )


async def test_a_fault_of_ours_is_internal_and_quotes_nothing(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    status, headers, body = await ask(port, "GET /v1/broken", "Host: localhost")
    assert (status, headers["x-authproxy-error"]) == (500, "internal")
    assert "CANARY" not in body
    assert headers["x-request-id"] == json.loads(body)["request_id"]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("GET /nowhere", 404, "not_found"),
        ("DELETE /v1/local", 405, "bad_request"),
        ("OPTIONS /v1/local", 405, "bad_request"),
    ],
)
async def test_what_the_router_refuses_has_the_same_shape(
    port: int, line: str, status: int, code: str
) -> None:
    got, headers, body = await ask(port, line, "Host: localhost", "Origin: https://evil.example")
    assert (got, headers["x-authproxy-error"], json.loads(body)["code"]) == (status, code, code)
    assert not any(name.startswith("access-control-") for name in headers)


async def test_a_large_body_is_refused(port: int) -> None:
    status, headers, _ = await ask(port, "POST /v1/echo", "Host: localhost", body=b"x" * 70_000)
    assert (status, headers["x-authproxy-error"]) == (413, "body_too_large")


@pytest.mark.scenario("H06")
async def test_a_head_that_drips_is_not_waited_for(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/local HTTP/1.1\r\nHost: ")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


@pytest.mark.scenario("H06")
async def test_a_body_that_drips_is_not_waited_for(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
    top, _, body = (await asyncio.wait_for(reader.readuntil(b"}"), 5)).partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["reason"] == "slow"
    writer.close()


@pytest.mark.scenario("H06")
async def test_a_request_in_two_pieces_on_an_old_connection_is_answered(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(b"GET /v1/local HTTP/1.1\r\n")
        await writer.drain()
        await ask(port, "GET /v1/local", "Host: localhost")  # meanwhile
        writer.write(b"Host: localhost\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.scenario("H06", "I11")
async def test_connections_are_bounded(port: int) -> None:
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
    for _, writer in held:
        writer.write(b"GET /v1/local HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answers = await asyncio.gather(
        *(asyncio.wait_for(reader.read(9), 5) for reader, _ in held), return_exceptions=True
    )
    assert sum(answer == b"HTTP/1.1 " for answer in answers) == 50
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(5):
        while not await answered(port):
            continue  # until the server has seen that they are gone


async def answered(port: int) -> bool:
    try:
        return (await ask(port, "GET /v1/local", "Host: localhost"))[0] == 200
    except (ConnectionError, IndexError):
        return False


async def test_browsers_get_a_page_on_their_paths(port: int) -> None:
    status, headers, body = await ask(port, "GET /connect/flow_1", "Host: localhost")
    assert (status, headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert headers["x-authproxy-error"] == "store_unavailable"
    assert "script" not in headers["content-security-policy"]
    assert "<h1" in body
    assert headers["referrer-policy"] == "no-referrer"


async def test_an_odd_request_id_is_not_taken_over(port: int) -> None:
    _, headers, _ = await ask(port, "GET /v1/local", "Host: localhost", "X-Request-ID: a b\t<c>")
    assert headers["x-request-id"].isalnum()


@pytest.mark.scenario("F02", "F08")
@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"CANARY\r\n\r\n", 400, "bad_request"),
        (b"GET /callback/x HTTP/1.1\r\nHost: a\r\nAuthorization CANARY\r\n\r\n", 400, "bad_request"),
        (
            b"GET /callback/x?code=CANARY" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            431,
            "header_too_large",
        ),
        (b"GET /CANARY HTTP/1.1\r\nHost: a\r\nHost: CANARY\r\n\r\n", 400, "bad_request"),
        (
            b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nCANARY\r\n",
            400,
            "bad_request",
        ),
    ],
)
async def test_what_cannot_be_read_is_quoted_nowhere(
    port: int, raw: bytes, status: int, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith((f"HTTP/1.0 {status} ", f"HTTP/1.1 {status} "))
    assert f"X-Authproxy-Error: {code}\r\n" in answer
    assert "X-Request-ID: " in answer
    told = capfd.readouterr()
    assert "CANARY" not in answer + told.out + told.err


async def test_a_body_that_breaks_off_is_the_senders_fault(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await writer.drain()
    writer.write(b"CANARY\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert " 400 " in answer.splitlines()[0]
    told = capfd.readouterr()
    assert "CANARY" not in answer + told.out + told.err
