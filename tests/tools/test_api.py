"""/v1/tools as programs meet it: the public arcadepy client, and what it would never send."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import arcadepy
import jsonschema
import pytest
from arcadepy import AsyncArcade
from arcadepy.types import ToolDefinition

from authproxy.tools.loading import toolbox
from authproxy.tools.tool import Call, Json
from tests.kit.canaries import hits
from tests.tools.kit import CALLER, House, Reply
from tests.tools.making import READ, made, one_call, parameter, put

PATH = "/gmail/v1/users/me/profile"
TOOL = "Gmail.ListLabels"


@pytest.fixture
async def client(house: House) -> AsyncIterator[AsyncArcade]:
    """Loopback needs no key, but the client insists on one."""
    async with AsyncArcade(base_url=await house.listen(), api_key="none", max_retries=0) as client:
        yield client


async def test_a_program_of_the_public_client(house: House, client: AsyncArcade) -> None:
    """Authorize the tool, show the link, wait, call it: as the client's documentation has it."""
    put(house, made(one_call("GET", PATH)))
    house.answer("GET", PATH, {"address": "bob@example.com"})
    begun = await client.tools.authorize(tool_name="Made.Tool", user_id="bob")
    assert begun.status == "not_started"
    assert begun.scopes == [READ]
    waiting = asyncio.create_task(client.auth.wait_for_completion(begun))
    await house.consent(begun.url)
    ended = await waiting
    assert ended.status == "completed"
    assert ended.context is not None
    assert ended.context.token is None
    done = await client.tools.execute(tool_name="Made.Tool", input={}, user_id="bob")
    assert (done.success, done.status, done.execution_type) == (True, "success", "immediate")
    assert done.output is not None
    assert done.output.value == {"address": "bob@example.com"}
    assert done.output.error is done.output.authorization is None
    assert done.duration is not None
    assert done.run_at is not None
    assert done.finished_at is not None
    assert done.run_at <= done.finished_at
    again = await client.tools.authorize(tool_name="Made.Tool", user_id="bob")
    assert (again.status, again.url) == ("completed", None)


async def test_a_call_without_consent_brings_its_link(house: House, client: AsyncArcade) -> None:
    put(house, made(one_call("GET", PATH)))
    house.answer("GET", PATH, {"ok": True})
    done = await client.tools.execute(tool_name="Made.Tool", user_id="bob")
    assert done.success is False
    assert done.output is not None
    error, authorization = done.output.error, done.output.authorization
    assert error is not None
    assert authorization is not None
    assert (error.kind, error.can_retry) == ("TOOL_REQUIREMENTS_NOT_MET", False)
    assert error.extra == {"code": "connection_required", "connect_url": authorization.url}
    assert str(authorization.url) in str(error.additional_prompt_content)
    waiting = asyncio.create_task(client.auth.wait_for_completion(authorization))
    await house.consent(authorization.url)
    assert (await waiting).status == "completed"
    assert (await client.tools.execute(tool_name="Made.Tool", user_id="bob")).success


async def test_the_javascript_client_is_told_of_a_missing_consent_as_its_helpers_know_it(
    house: House,
) -> None:
    """`executeOrAuthorizeZodTool` of its documentation asks for a link after a 403, and after nothing else."""
    put(house, made(one_call("GET", PATH)))
    async with aiohttp.ClientSession(await house.listen(), headers={"X-Stainless-Lang": "js"}) as session:
        call = {"tool_name": "Made.Tool", "user_id": "bob"}
        async with session.post("/v1/tools/execute", json=call) as answer:
            assert answer.status == 403
            said = await answer.json()
        assert said["name"] == "tool_authorization_required"
        assert said["message"].startswith("authorization required: bob has not connected google")
        assert said["connect_url"] == said["output"]["authorization"]["url"]
        assert said["output"]["error"]["kind"] == "TOOL_REQUIREMENTS_NOT_MET"
        async with session.post("/v1/tools/execute", json=call | {"input": {"none": 1}}) as answer:
            assert answer.status == 200, "all other failures are answers"


async def test_the_list_is_paged(house: House, client: AsyncArcade) -> None:
    shown = [tool.qualified_name for tool in toolbox() if not tool.hidden]
    first = await client.tools.list()
    assert (len(first.items), first.total_count, first.offset) == (25, len(shown), 0)
    assert [tool.qualified_name async for tool in client.tools.list(limit=70)] == shown
    assert (await client.tools.list(limit=1000)).items[99].qualified_name == shown[99]
    assert (await client.tools.list(offset=10_000)).items == []
    slack = [tool.qualified_name async for tool in client.tools.list(toolkit="slack", limit=3)]
    assert slack == [name for name in shown if name.startswith("Slack.")]
    assert (await client.tools.list(toolkit="Nobody")).items == []


async def test_a_definition_has_the_public_client_s_fields(client: AsyncArcade) -> None:
    tool = await client.tools.get("Gmail.ListEmailsByHeader", user_id="alice")
    again = ToolDefinition.model_validate(tool.model_dump())  # the client itself does not look
    assert again.fully_qualified_name == "Gmail.ListEmailsByHeader@8.9.1"
    assert (again.qualified_name, again.name) == ("Gmail.ListEmailsByHeader", "ListEmailsByHeader")
    assert (again.toolkit.name, again.toolkit.version) == ("Gmail", "8.9.1")
    parameters = {one.name: one for one in again.input.parameters or []}
    assert parameters["sender"].value_schema.val_type == "array"
    assert parameters["sender"].value_schema.inner_val_type == "string"
    assert "last_7_days" in (parameters["date_range"].value_schema.enum or [])
    assert parameters["max_results"].value_schema.val_type == "integer"
    needs = again.requirements
    assert needs is not None
    assert needs.met is True
    assert needs.authorization is not None
    assert (needs.authorization.provider_id, needs.authorization.status) == ("google", "active")
    assert needs.authorization.token_status == "completed"
    assert needs.authorization.oauth2 is not None
    assert needs.authorization.oauth2.to_dict() == {"scopes": [READ], "toolkit_scopes": [READ]}
    assert needs.secrets == []
    bob = await client.tools.get("Gmail.ListEmailsByHeader", user_id="bob")
    assert bob.requirements is not None
    assert bob.requirements.met is False
    assert bob.requirements.authorization is not None
    assert bob.requirements.authorization.token_status == "not_started"
    nobody = await client.tools.get("Gmail.ListEmailsByHeader")
    assert nobody.requirements is not None
    assert nobody.requirements.met is None


async def test_every_tool_has_a_schema_for_models(client: AsyncArcade) -> None:
    names = set()
    formats: list[Any] = ["openai", "anthropic", "arcade"]
    async for tool in client.tools.list(limit=100, include_format=formats):
        assert tool.formatted_schema is not None
        both: dict[str, Any] = dict(tool.formatted_schema)
        function = both["openai"]["function"]
        assert both["anthropic"]["name"] == function["name"]
        assert both["anthropic"]["input_schema"] == function["parameters"]
        assert both["arcade"]["qualified_name"] == tool.qualified_name
        jsonschema.Draft202012Validator.check_schema(function["parameters"])
        assert len(function["name"]) <= 64
        names.add(function["name"])
    assert len(names) == len([tool for tool in toolbox() if not tool.hidden])
    openai: Any = await client.tools.formatted.get(TOOL, format="openai")
    assert openai == {"type": "function", "function": {**openai["function"], "name": "Gmail_ListLabels"}}
    page = await client.tools.formatted.list(format="anthropic", toolkit="Slack", limit=2)
    assert [set(dict(one)) for one in page.items if isinstance(one, dict)] == [
        {"name", "description", "input_schema"}
    ] * 2
    arcade: Any = await client.tools.formatted.get(TOOL, format="arcade")
    assert arcade["qualified_name"] == TOOL
    unsaid: Any = await client.tools.formatted.get(TOOL)
    assert unsaid == openai


async def test_a_model_s_name_for_a_tool_calls_it(house: House, client: AsyncArcade) -> None:
    house.answer("GET", "/gmail/v1/users/me/labels", {"labels": []})
    for name in ("Gmail_ListLabels", "Gmail.ListLabels@8.9.1"):
        done = await client.tools.execute(tool_name=name, user_id="alice")
        assert done.success, done
    older = await client.tools.authorize(tool_name="Google.SendEmail", user_id="alice")
    assert older.status == "completed"


async def test_arguments_are_told_apart_from_mistakes(house: House, client: AsyncArcade) -> None:
    async def run(call: Call) -> Json:
        return dict(call.input)

    tool = made(
        run,
        parameters=(
            parameter("text", required=True),
            parameter("count", "integer", default=5),
            parameter("share", "number"),
            parameter("flag", "boolean"),
            parameter("names", "array", items="string"),
            parameter("kinds", "array", items="string", enum=("a", "b")),
            parameter("mode", enum=("plain", "html")),
            parameter("any", "json"),
        ),
    )
    put(house, tool)

    async def call(**given: Any) -> Any:
        done = await client.tools.execute(tool_name="Made.Tool", input=given, user_id="alice")
        assert done.output is not None
        return done.output.value if done.success else done.output.error

    assert await call(text="x") == {"text": "x", "count": 5}
    for given, read in [
        ({"text": 5}, {"text": "5"}),
        ({"count": "12"}, {"count": 12}),
        ({"count": 5.0}, {"count": 5}),
        ({"count": None}, {"count": 5}),
        ({"share": "0.5"}, {"share": 0.5}),
        ({"flag": "True"}, {"flag": True}),
        ({"names": "one"}, {"names": ["one"]}),
        ({"names": '["a", "b,c"]'}, {"names": ["a", "b,c"]}),
        ({"names": [1, "x"]}, {"names": ["1", "x"]}),
        ({"kinds": ["A"]}, {"kinds": ["a"]}),
        ({"mode": "HTML"}, {"mode": "html"}),
        ({"any": '{"a": [1]}'}, {"any": {"a": [1]}}),
        ({"any": "text"}, {"any": "text"}),
    ]:
        assert await call(**{"text": "x", **given}) == {"text": "x", "count": 5, **read}
    for given in [
        {},
        {"text": None},
        {"text": True},
        {"text": ["x"]},
        {"text": "x", "count": "5.5"},
        {"text": "x", "count": 5.5},
        {"text": "x", "count": True},
        {"text": "x", "count": 10**30},
        {"text": "x", "share": "nan"},
        {"text": "x", "share": "1e999"},
        {"text": "x", "flag": 1},
        {"text": "x", "names": "a, b"},
        {"text": "x", "names": {"a": 1}},
        {"text": "x", "kinds": ["c"]},
        {"text": "x", "mode": "CANARY-mode"},
        {"text": "x", "tex": "y"},
    ]:
        error = await call(**given)
        assert (error.kind, error.can_retry) == ("TOOL_RUNTIME_BAD_INPUT_VALUE", True), given
        assert "CANARY" not in repr(error)
    assert (await house.error("Made.Tool", text="\ud800")).kind == "TOOL_RUNTIME_BAD_INPUT_VALUE"
    error = await call(text="x", tetx="y", mode="nope")
    assert "did you mean text?" in error.message
    assert "mode must be a string: plain or html" in error.message
    assert "text (required): a string" in error.additional_prompt_content


async def test_what_is_scheduled(client: AsyncArcade) -> None:
    with pytest.raises(arcadepy.APIStatusError) as refused:
        await client.tools.execute(tool_name=TOOL, user_id="alice", run_at="2999-01-01T00:00:00")
    assert refused.value.status_code == 501
    with pytest.raises(arcadepy.BadRequestError):
        await client.tools.execute(tool_name=TOOL, user_id="alice", run_at="soon")
    done = await client.tools.execute(tool_name=TOOL, user_id="alice", run_at="2001-01-01T00:00:00Z")
    assert done.execution_type == "immediate"
    assert (await client.tools.scheduled.list()).items == []
    with pytest.raises(arcadepy.NotFoundError):
        await client.tools.scheduled.get("x")


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("Nobody.Nothing", 404, "not_found"),
        ("Gmail.ListLabels@1.0.0", 404, "not_found"),
        ("execute", 404, "not_found"),
    ],
)
async def test_unknown_tools(client: AsyncArcade, name: str, status: int, code: str) -> None:
    with pytest.raises(arcadepy.APIStatusError) as refused:
        await client.tools.get(name)
    assert refused.value.status_code == status
    body: Any = refused.value.body
    assert body["code"] == code


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/tools/execute", {}, 400),
        ("/v1/tools/execute", {"tool_name": TOOL}, 400),
        ("/v1/tools/execute", {"tool_name": 5, "user_id": "alice"}, 400),
        ("/v1/tools/execute", {"tool_name": TOOL, "user_id": "alice", "input": []}, 400),
        ("/v1/tools/execute", {"tool_name": TOOL, "user_id": "a\nb"}, 400),
        ("/v1/tools/execute", {"tool_name": TOOL, "user_id": "alice", "account": "a,b"}, 400),
        ("/v1/tools/execute", b"{", 400),
        ("/v1/tools/execute", b"[" * 100_000, 400),
        ("/v1/tools/execute", b"[]", 400),
        ("/v1/tools/authorize", {"tool_name": TOOL}, 400),
        ("/v1/tools/authorize", {"user_id": "alice"}, 400),
        (
            "/v1/tools/authorize",
            {"tool_name": TOOL, "user_id": "alice", "next_uri": "https://evil.example/"},
            400,
        ),
    ],
)
async def test_requests_that_make_no_sense(house: House, path: str, body: Any, status: int) -> None:
    url = await house.listen()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, data=data, headers={"Content-Type": "application/json"}) as answer,
    ):
        problem = await answer.json(content_type=None)
        if "next_uri" in str(body):  # the standing connection serves: nobody is sent anywhere
            assert answer.status == 200
        else:
            assert answer.status == status, problem
            assert problem["act"] == "fix_request"
    assert house.seen == []


async def test_an_input_may_be_larger_than_other_bodies_and_is_bounded(house: House) -> None:
    async def run(call: Call) -> Json:
        return len(call.input["text"])

    put(house, made(run, parameters=(parameter("text"),)))
    url = await house.listen()

    async def execute(size: int, **headers: str) -> tuple[int, Any]:
        body = {"tool_name": "Made.Tool", "user_id": "alice", "input": {"text": "x" * size}}
        fields = {"Content-Type": "application/json", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{url}/v1/tools/execute", data=io.BytesIO(json.dumps(body).encode()), headers=fields
            ) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    status, done = await execute(3_000_000)
    assert (status, done["output"]["value"]) == (200, 3_000_000)
    status, problem = await execute(17_000_000)
    assert (status, problem["code"]) == (413, "body_too_large")
    # Whom nobody knows is refused before the body is read.
    status, problem = await execute(3_000_000, Authorization="Bearer apx_" + "A" * 43)
    assert (status, problem["code"]) == (401, "caller_unknown")


async def test_a_key_for_one_user_speaks_for_nobody_else(house: House) -> None:
    async def run(call: Call) -> Json:
        return (await call.api.call("GET", PATH)).json

    put(house, made(run))
    house.answer("GET", PATH, {"ok": True})
    maker = await house.app.control.agents.create(
        CALLER, name="bound", may_act_for=("alice",), operator=False
    )
    url = await house.listen()
    async with AsyncArcade(base_url=url, api_key=maker.key, max_retries=0) as client:
        for refused in (
            client.tools.execute(tool_name="Made.Tool", user_id="bob"),
            client.tools.authorize(tool_name="Made.Tool", user_id="bob"),
            client.tools.get("Made.Tool", user_id="bob"),
        ):
            with pytest.raises(arcadepy.PermissionDeniedError) as error:
                await refused
            body: Any = error.value.body
            assert body["code"] == "user_not_allowed"
        assert house.seen == []
        done = await client.tools.execute(tool_name="Made.Tool")  # the key says who it is for
        assert done.success
    (*_, record) = await house.records("tool.call")
    assert (record["agent"], record["user"], record["outcome"]) == ("bound", "alice", "success")


@pytest.mark.parametrize("fields", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_web_pages_call_no_tools(house: House, fields: dict[str, str]) -> None:
    url = await house.listen()
    body = {"tool_name": TOOL, "user_id": "alice"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/tools/execute", json=body, headers=fields) as answer,
    ):
        assert answer.status == 400
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{url}/v1/tools/execute", data=json.dumps(body), headers={"Content-Type": "text/plain"}
        ) as answer,
    ):
        assert answer.status == 400
    assert house.seen == []


@pytest.mark.parametrize(
    "path", ["/v1/tools?include_format=xml", "/v1/formatted_tools?format=xml", "/v1/tools?limit=0"]
)
async def test_odd_queries_are_refused(house: House, path: str) -> None:
    url = await house.listen()
    async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
        assert answer.status == 400


async def test_nothing_that_is_said_or_kept_holds_a_secret(
    house: House, client: AsyncArcade, capfd: pytest.CaptureFixture[str]
) -> None:
    put(house, made(one_call("GET", PATH)))
    house.answer(
        "GET",
        PATH,
        lambda seen: {"echo": seen.headers["authorization"]},
        Reply(400, {"message": "with a token"}),
        Reply(500),
    )
    kept = []
    for turn in range(4):
        if turn == 3:
            house.upstream.good.clear()
        said = await client.tools.with_raw_response.execute(tool_name="Made.Tool", user_id="alice")
        kept.append(await said.text())
    kept.append(json.dumps(await house.records()))
    kept += capfd.readouterr()
    assert "****" in kept[0]
    assert hits(house.upstream.secrets, {str(n): text.encode() for n, text in enumerate(kept)}) == []
