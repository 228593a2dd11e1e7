"""The pages: everything from outside is escaped, nothing comes from elsewhere, every state has words."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re

import pytest

from authproxy.core.errors import BadRequest, every_refusal
from authproxy.core.model import ConnectionKey, Flow, FlowStatus
from authproxy.faces import pages

EVIL = "<script>alert(1)</script>\"'&"
FLOW = Flow(
    id="flow_1",
    key=ConnectionKey("acme", "alice", "google", "work"),
    agent="mailer",
    scopes=("https://www.googleapis.com/auth/gmail.readonly", "openid"),
    status=FlowStatus.NOT_STARTED,
    reason=None,
    client_id="client",
    redirect_uri="https://auth.example.com/callback/google",
    next_uri=None,
    created_at=1000,
    expires_at=1900,
)
FORM = pages.Form("/connect/flow_1", "token", "Go on to Google")


def test_the_consent_page_names_who_asks_for_what() -> None:
    text = pages.consent(FLOW, "Google", FORM)
    for word in ("acme", "alice", "work", "mailer", "Google", *FLOW.scopes):
        assert word in text
    assert text.count("<form") == 1
    assert 'method="post"' in text
    assert '<html lang="en">' in text
    only = dataclasses.replace(FLOW, key=ConnectionKey("default", "alice", "google", "default"))
    assert "<dt>Organisation</dt><dd>default</dd>" in pages.consent(only, "Google", FORM), (
        "it always names it"
    )


@pytest.mark.scenario("H04")
def test_everything_from_outside_is_escaped() -> None:
    flow = dataclasses.replace(
        FLOW,
        key=ConnectionKey(EVIL, EVIL, EVIL, EVIL),
        agent=EVIL,
        scopes=(EVIL,),
        reason=EVIL,
        next_uri=EVIL,
    )
    shown = [pages.consent(flow, EVIL, pages.Form(EVIL, EVIL, EVIL)), pages.refused(BadRequest(EVIL), EVIL)]
    for status in FlowStatus:
        one = dataclasses.replace(flow, status=status)
        shown.append(pages.ended(one, EVIL, form=FORM, link=pages.Link(EVIL, EVIL)))
    for text in shown:
        assert "<script" not in text
        assert "alert(1)" in text
        assert "\"'&" not in text


@pytest.mark.scenario("H01")
def test_a_name_cannot_speak_for_the_page() -> None:
    worded = "alice\u201d. Your administrator asks you to press the button below at once. Do not wait"
    flow = dataclasses.replace(FLOW, key=ConnectionKey("acme", worded, "google"))
    text = pages.consent(flow, "Google", FORM)
    assert text.count("<bdi>&ldquo;alice&#x27;. Your administrator") == 3
    assert text.count("\u201d") == 0
    assert text.count("Do not wait") == 1, "cut in our sentences, whole among the facts"
    endless = dataclasses.replace(FLOW, key=ConnectionKey("acme", "a" * 2000, "google"))
    assert "a" * 400 not in pages.consent(endless, "Google", FORM)


@pytest.mark.scenario("F08")
def test_nothing_is_loaded_from_anywhere_and_the_style_is_the_one_allowed() -> None:
    text = pages.consent(FLOW, "Google", FORM)
    assert not re.search(r"(?:src|url|@import|<link|<img|<script|javascript:)", text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in pages.policy()
    assert "default-src 'none'" in pages.policy()


def test_every_end_and_every_refusal_has_words() -> None:
    titles = set()
    for status in FlowStatus:
        text = pages.ended(dataclasses.replace(FLOW, status=status, reason="exchange_failed"), "Google")
        titles.add(re.search(r"<h1[^>]*>(.*?)</h1>", text)[1])  # type: ignore[index]
    assert len(titles) >= 6
    for kind in every_refusal():
        assert "<h1" in pages.refused(kind("A sentence"), "r-1")
