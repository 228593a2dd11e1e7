"""A missing consent, as each kind of client learns of it, and the call that goes on after it."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mcp import MCPError, types

from authproxy.core.errors import UserMismatch
from authproxy.core.model import Caller
from tests.kit.browser import Browser, forms
from tests.mcp.conftest import GIVEN, TOOL, Place, Start

VERIFIER = "http://127.0.0.1:1/verify"
CALLER = Caller("default", "kit", "loopback", ("*",))


class Person:
    """Who sits before the client: shown a link, does as told."""

    def __init__(self, place: Place, action: str = "accept", consents: bool = True) -> None:
        self.place = place
        self.action = action
        self.consents = consents
        self.links: list[str] = []
        self.asked = asyncio.Event()

    async def __call__(self, _context: Any, params: Any) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestURLParams)
        assert "alice" in params.message
        self.links.append(params.url)
        self.asked.set()
        if self.consents:
            await self.place.consent(params.url)
        return types.ElicitResult(action=self.action)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_shows_no_links_is_given_it_for_its_model(start: Start, mode: str) -> None:
    place = await start()
    async with place.client(mode) as client:
        result = await client.call_tool(TOOL, GIVEN)
        assert result.is_error
        told = result.structured_content
        assert told.keys() == {"message", "llm_instructions", "authorization_url"}
        assert told["message"].startswith("alice has not connected github")
        assert result.content[0].text == f"{told['message']}\n{told['authorization_url']}"
        assert "call the tool again" in told["llm_instructions"]
        await place.consent(told["authorization_url"])
        again = await client.call_tool(TOOL, GIVEN)
    assert not again.is_error
    assert len(place.github.requests) == 1
    place.assert_clean(result, again)


async def test_the_newer_generation_is_asked_for_input_and_goes_on_by_itself(start: Start) -> None:
    place = await start()
    person = Person(place)
    async with place.client("auto", elicitation_callback=person) as client:
        result = await client.call_tool(TOOL, GIVEN)
    assert not result.is_error, result
    assert len(person.links) == 1
    place.assert_clean(result, person.links)


async def test_it_waits_for_the_user_to_finish(start: Start) -> None:
    place = await start()
    person = Person(place, consents=False)
    async with place.client("auto", elicitation_callback=person) as client:
        call = asyncio.create_task(client.call_tool(TOOL, GIVEN))
        await person.asked.wait()
        await place.consent(person.links[0])
        result = await call
    assert not result.is_error, result
    assert len(person.links) == 1


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_who_does_not_want_to_see_the_link_is_not_asked_again(start: Start, action: str) -> None:
    place = await start()
    person = Person(place, action, consents=False)
    async with place.client("auto", elicitation_callback=person) as client:
        result = await client.call_tool(TOOL, GIVEN)
    assert result.is_error
    assert "did not agree" in result.content[0].text
    assert len(person.links) == 1


async def test_the_wait_ends_and_the_link_stays_good(start: Start) -> None:
    place = await start(timing={"wait": 0.05})
    person = Person(place, consents=False)
    async with place.client("auto", elicitation_callback=person) as client:
        result = await client.call_tool(TOOL, GIVEN)
        assert result.is_error
        assert result.structured_content["authorization_url"] == person.links[0]
        assert "not finished" in result.content[0].text
        await place.consent(person.links[0])
        assert not (await client.call_tool(TOOL, GIVEN)).is_error
    assert len(person.links) == 1


@pytest.mark.scenario("H04")
async def test_a_refusal_at_the_provider_ends_the_call(start: Start) -> None:
    place = await start()

    class Refusing(Person):
        async def __call__(self, context: Any, params: Any) -> types.ElicitResult:
            done = await super().__call__(context, params)
            await asyncio.to_thread(refuse, params.url)
            return done

    def refuse(url: str) -> None:
        browser = Browser()
        page = browser.follow(browser.open(url))
        form = forms(page)[0]
        there = browser.open(form.action, method="POST", form=form.fields).header("Location") or ""
        state = parse_qs(urlsplit(there).query)["state"][0]
        browser.open(f"{place.url.removesuffix('/mcp')}/callback/github?error=access_denied&state={state}")

    person = Refusing(place, consents=False)
    async with place.client("auto", elicitation_callback=person) as client:
        result = await client.call_tool(TOOL, GIVEN)
    assert result.is_error
    assert "was declined" in result.content[0].text
    assert "authorization_url" not in result.structured_content


async def test_the_older_generation_is_told_by_an_error_of_its_own(start: Start) -> None:
    place = await start()
    person = Person(place)
    async with place.client("legacy", elicitation_callback=person) as client:
        with pytest.raises(MCPError) as told:
            await client.call_tool(TOOL, GIVEN)
        assert told.value.code == types.URL_ELICITATION_REQUIRED
        (one,) = told.value.data["elicitations"]
        assert one["mode"] == "url"
        assert one["elicitationId"] == one["url"].rpartition("/")[2]
        # The client opens it and asks again at once; the user takes a moment longer.
        again = asyncio.create_task(client.call_tool(TOOL, GIVEN))
        await place.consent(one["url"])
        result = await again
    assert not result.is_error, result
    place.assert_clean(result, told.value.data)


async def test_who_is_at_it_is_waited_for_whatever_the_client_knows(start: Start) -> None:
    place = await start()
    async with place.client("legacy") as client:
        first = await client.call_tool(TOOL, GIVEN)
        url = first.structured_content["authorization_url"]
        browser = Browser()
        page = await asyncio.to_thread(lambda: browser.follow(browser.open(url)))
        form = forms(page)[0]
        gone = await asyncio.to_thread(browser.open, form.action, method="POST", form=form.fields)
        call = asyncio.create_task(client.call_tool(TOOL, GIVEN))
        await asyncio.to_thread(browser.follow, gone)
        result = await call
    assert not result.is_error, result


async def test_what_was_forgotten_since_does_no_harm(start: Start) -> None:
    place = await start()
    async with place.client("legacy") as client:
        first = (await client.call_tool(TOOL, GIVEN)).structured_content["authorization_url"]
        await place.app.vault.backend.write(_without_flows)
        again = (await client.call_tool(TOOL, GIVEN)).structured_content["authorization_url"]
        assert again != first
        await place.consent(again)
        assert not (await client.call_tool(TOOL, GIVEN)).is_error


async def _without_flows(tx: Any) -> None:
    await tx.run("DELETE FROM flows")


@pytest.mark.scenario("I04")
async def test_a_state_that_is_not_ours_is_refused(start: Start) -> None:
    place = await start()
    await place.agent("bob", name="other")
    async with place.client("auto", elicitation_callback=Person(place, consents=False)) as client:
        first = await client.session.call_tool(TOOL, GIVEN, allow_input_required=True)
        assert isinstance(first, types.InputRequiredResult)
        accepted = {"connect": types.ElicitResult(action="accept")}
        with pytest.raises(MCPError, match="requestState"):
            await client.session.call_tool(
                TOOL, GIVEN, input_responses=accepted, request_state="nobody-s", allow_input_required=True
            )
    key = await place.agent("bob", name="bobs")
    async with place.client("auto", user="bob", key=key) as client:
        with pytest.raises(MCPError, match="requestState"):  # alice's flow is none of theirs
            await client.session.call_tool(
                TOOL,
                GIVEN,
                input_responses=accepted,
                request_state=first.request_state,
                allow_input_required=True,
            )


@pytest.mark.scenario("H01")
async def test_somebody_elses_browser_cannot_complete_it_where_users_are_confirmed(start: Start) -> None:
    """The link was made for alice; mallory opens it, and consents with an account of their own."""
    place = await start(
        identity={
            "verifier_url": VERIFIER,
            "callers": [{"kind": "loopback", "agent": "kit"}, {"kind": "api_key"}],
        },
        timing={"wait": 0.1},
    )

    def visit(url: str) -> str:
        browser = Browser()
        form = forms(browser.follow(browser.open(url)))[0]
        page = browser.open(form.action, method="POST", form=form.fields)
        return browser.follow(page, until=VERIFIER).header("Location") or ""

    async with place.client("auto") as client:
        url = (await client.call_tool(TOOL, GIVEN)).structured_content["authorization_url"]
        ticket = parse_qs(urlsplit(await asyncio.to_thread(visit, url)).query)["flow_id"][0]
        # What mallory's consent gave is held back, and nothing goes upstream with it.
        waiting = await client.call_tool(TOOL, GIVEN)
        assert waiting.is_error
        assert "not finished" in waiting.content[0].text
        # The application knows from its own session who that was.
        with pytest.raises(UserMismatch):
            await place.app.control.consent.confirm_user(CALLER, ticket, "mallory")
        after = await client.call_tool(TOOL, GIVEN)
        assert after.is_error
        assert after.structured_content["authorization_url"] != url
        assert place.github.requests == []
        # And the right one, confirmed, may go on.
        ticket = parse_qs(
            urlsplit(await asyncio.to_thread(visit, after.structured_content["authorization_url"])).query
        )["flow_id"][0]
        call = asyncio.create_task(client.call_tool(TOOL, GIVEN))
        await place.app.control.consent.confirm_user(CALLER, ticket, "alice")
        assert not (await call).is_error


async def test_another_browser_cannot_end_what_one_began(start: Start) -> None:
    place = await start(timing={"wait": 0.05})
    async with place.client("auto") as client:
        url = (await client.call_tool(TOOL, GIVEN)).structured_content["authorization_url"]

    def begun() -> str:
        browser = Browser()
        form = forms(browser.follow(browser.open(url)))[0]
        page = browser.open(form.action, method="POST", form=form.fields)
        callback = f"{place.url.removesuffix('/mcp')}/callback/"
        return browser.follow(page, until=callback).header("Location") or ""

    callback = await asyncio.to_thread(begun)
    stolen = await asyncio.to_thread(Browser().open, callback)
    assert stolen.status == 400
    assert "bound to the browser" in stolen.text
    async with place.client("auto") as client:
        assert (await client.call_tool(TOOL, GIVEN)).is_error
