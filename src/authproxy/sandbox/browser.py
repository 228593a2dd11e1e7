"""Plays the browser and the person before it: opens an authorization URL, reads the page, presses a button."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Literal
from urllib.parse import urljoin

import aiohttp


class ConsentNotShown(Exception):
    """The provider did not show a consent page, or did not send the browser back."""


class _Form(HTMLParser):
    """The action and the hidden fields of the page's form."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and given.get("method") == "post":
            self.action = given.get("action")
        elif tag == "input" and given.get("type") == "hidden" and given.get("name"):
            self.fields[given["name"] or ""] = given.get("value") or ""


async def approve(
    session: aiohttp.ClientSession,
    authorization_url: str,
    user: str = "alice",
    decision: Literal["allow", "deny"] = "allow",
) -> str:
    """The callback URL that the browser would be sent to; it is not opened. Needs no help from the page: what it
    does is what a person does, so the checks of the page hold for it too."""
    async with session.get(authorization_url, allow_redirects=False) as shown:
        if shown.status in (302, 303):  # refused by way of the client
            return shown.headers["Location"]
        page = _Form()
        page.feed(await shown.text())
        if shown.status != 200 or page.action is None:
            raise ConsentNotShown(f"status {shown.status} instead of a consent page")
        # The caller's cookie jar may refuse cookies of bare addresses, so they are carried by hand.
        cookies = {name: morsel.value for name, morsel in shown.cookies.items()}
    form = {**page.fields, "user": user, "decision": decision}
    target = urljoin(authorization_url, page.action)
    async with session.post(target, data=form, cookies=cookies, allow_redirects=False) as answered:
        location = answered.headers.get("Location")
        if answered.status != 303 or location is None:
            raise ConsentNotShown(f"status {answered.status} instead of a redirect")
        return location
