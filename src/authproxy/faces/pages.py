"""The pages that a user sees on the way to a provider and back: plain HTML without assets or scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from authproxy.core.errors import Act, Refusal
from authproxy.core.model import DEFAULT_ACCOUNT, Flow, FlowStatus
from authproxy.store.admission import USER_DISABLED

_STYLE = """
:root{color-scheme:light dark;--ink:#16202c;--soft:#566375;--line:#d9dfe7;--page:#f3f5f8;--card:#fff;--act:#0b5fd7;
--good:#0d7a4a;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf3;--soft:#a3afbf;--line:#333d4a;--page:#10151b;--card:#1a212a;
--act:#5b9dff;--good:#4cc38a;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--page);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{width:100%;max-width:31rem;background:var(--card);border:1px solid var(--line);border-radius:14px;padding:2rem;
overflow-wrap:anywhere}
h1{font-size:1.35rem;line-height:1.3;margin:0 0 .75rem}
h1.good{color:var(--good)}h1.bad{color:var(--bad)}
p{margin:.6rem 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.4rem 1rem;margin:1.2rem 0;padding:1rem 0;
border:solid var(--line);border-width:1px 0}
dt{color:var(--soft)}dd{margin:0;font-weight:600}
dd ul{margin:0;padding:0;list-style:none;font-weight:400}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,monospace}
button,a.button{display:inline-block;width:100%;margin-top:.8rem;padding:.75rem 1rem;border:0;border-radius:9px;
background:var(--act);color:var(--card);font:inherit;font-weight:600;text-align:center;text-decoration:none;cursor:pointer}
button:focus-visible,a:focus-visible{outline:3px solid var(--ink);outline-offset:2px}
.note{color:var(--soft);font-size:.875rem}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


class Form(NamedTuple):
    """A button that posts. `token` proves that the page which holds it was shown to this very browser."""

    action: str
    token: str
    label: str


class Link(NamedTuple):
    """A button that only leads somewhere."""

    href: str
    label: str


def policy(*, plain_http: bool = False) -> str:
    """The Content-Security-Policy of a page.

    Browsers hold a form's redirects against `form-action` too, and a provider redirects as it likes, so hosts
    cannot be named; plain http is let through only where authproxy itself is reached over it (development).
    """
    schemes = "https: http:" if plain_http else "https:"
    return (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self' {schemes}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )


def consent(flow: Flow, provider: str, form: Form) -> str:
    """Asks the user to start: names who asks for what, and for whom, before anything leaves for the provider."""
    key = flow.key
    facts: list[tuple[str, str]] = [
        ("Account at", _text(provider)),
        ("For the user", _name(key.user, 400)),
        ("Organisation", _text(key.tenant)),
        ("Asked by", _text(flow.agent)),
    ]
    if key.account != DEFAULT_ACCOUNT:
        facts.append(("Named", _name(key.account, 400)))
    facts.append(("Access", _list(flow.scopes) if flow.scopes else "what the provider grants by default"))
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    body = (
        f"<p>The agent <strong>{_text(flow.agent)}</strong> asks to act on your {_text(provider)} account, "
        f"as the user <strong>{_name(key.user)}</strong>.</p><dl>{rows}</dl>"
        f"<p>Go on only if <strong>you</strong> are {_name(key.user)} and expected this. "
        f"If somebody else sent you this link, close the page: what you connect here becomes theirs to use.</p>"
        f"{_form(form)}"
        f'<p class="note">You will be taken to {_text(provider)} to decide there. The agent never sees your '
        f"password or a token, and you can disconnect at any time.</p>"
    )
    return _page(f"Connect {provider}", body)


def notice(
    title: str,
    lines: Iterable[str],
    *,
    tone: str = "",
    form: Form | None = None,
    link: Link | None = None,
) -> str:
    """A short page that says how something ended, with at most one thing to do."""
    body = "".join(f"<p>{_text(line)}</p>" for line in lines)
    if form is not None:
        body += _form(form)
    if link is not None:
        body += f'<a class="button" rel="noreferrer" href="{_text(link.href)}">{_text(link.label)}</a>'
    return _page(title, body, tone=tone)


def ended(flow: Flow, provider: str, *, form: Form | None = None, link: Link | None = None) -> str:
    """How a flow stands or ended, in the user's words."""
    title, tone, lines = _words(flow, provider)
    return notice(title, lines, tone=tone, form=form, link=link)


def refused(refusal: Refusal, request_id: str) -> str:
    """A refusal on a browser's path."""
    own = {
        "other_browser": "Each link is bound to the browser that began with it.",
        "no_cookie": "authproxy uses one cookie, to know that it is still you who comes back.",
        "bad_form": "A page that was open for long is not believed any more.",
        USER_DISABLED: "Only an operator can change that.",
    }
    advice = (
        own.get(refusal.reason or refusal.code)
        or {
            Act.FIX_REQUEST: "Ask for a new link where you got this one.",
            Act.ASK_USER: "Ask for a new link where you got this one.",
            Act.TELL_OPERATOR: "Please tell whoever runs this service, and give the number below.",
            Act.RETRY_LATER: "Please try again in a moment.",
        }[refusal.act]
    )
    return _page(
        "That did not work",
        f"<p>{_text(refusal.title[:1].upper() + refusal.title[1:])}.</p><p>{advice}</p>"
        f'<p class="note">Request <code>{_text(request_id)}</code></p>',
        tone="bad",
    )


def _words(flow: Flow, provider: str) -> tuple[str, str, Sequence[str]]:
    user = flow.key.user
    again = "Nothing was stored. You can try again."
    match flow.status:
        case FlowStatus.COMPLETED:
            return (
                f"{provider} is connected",
                "good",
                (f"{flow.agent} can now act on this account for {user}.", "You can close this page."),
            )
        case FlowStatus.DENIED:
            return (f"{provider} was not connected", "", ("You declined, and nothing was stored.",))
        case FlowStatus.EXPIRED:
            return ("This link has expired", "", ("Links are good for a short time only.", again))
        case FlowStatus.SUPERSEDED:
            return ("This link was replaced", "", ("A newer link or connection took its place.",))
        case FlowStatus.FAILED if flow.reason == USER_DISABLED:
            barred = (f"{user} has been disabled by an operator.", "Nothing was stored.")
            return (f"{provider} was not connected", "bad", barred)
        case FlowStatus.FAILED:
            return (f"{provider} was not connected", "bad", (_why(flow.reason, provider), again))
        case FlowStatus.CONFIRMING:
            return ("Almost done", "", ("Your application is confirming who you are.",))
        case FlowStatus.NOT_STARTED | FlowStatus.PENDING | FlowStatus.EXCHANGING:
            return (
                "One moment",
                "",
                (f"The connection to {provider} is being made.", "Reload this page to look."),
            )


def _why(reason: str | None, provider: str) -> str:
    known = {
        "account_mismatch": f"You signed in at {provider} with another account than the one connected before. "
        "Sign in there with that one, or have the old connection removed first.",
        "account_unknown": f"{provider} did not say whose account this is, so it could not be compared with the one "
        "connected before.",
        "user_mismatch": "This link was made for another user than the one who opened it.",
        "no_refresh_token": f"{provider} gave no lasting access.",
        "provider_unreachable": f"{provider} could not be reached.",
        "provider_silent": f"{provider} did not answer in time.",
        "client_changed": "The app registration has changed since this link was made.",
        "interrupted": "It was interrupted.",
        None: f"{provider} did not accept the request.",
    }
    return known.get(reason) or f"The connection could not be made ({str(reason).replace('_', ' ')})."


def _form(form: Form) -> str:
    return (
        f'<form method="post" action="{_text(form.action)}">'
        f'<input type="hidden" name="token" value="{_text(form.token)}">'
        f'<button type="submit">{_text(form.label)}</button></form>'
    )


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li><code>{_text(item)}</code></li>" for item in items) + "</ul>"


def _text(value: str) -> str:
    return escape(value, quote=True)


def _name(value: str, longest: int = 60) -> str:
    """A name that an agent chose, set apart from our own words: quoted, so that it cannot go on as one of our
    sentences, kept from turning the line's direction, and cut before it fills the page."""
    plain = "".join(
        "'" if c in '\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"' else c for c in value
    )
    cut = plain if len(plain) <= longest else plain[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return f"<bdi>&ldquo;{_text(cut)}&rdquo;</bdi>"


def _page(title: str, body: str, *, tone: str = "") -> str:
    shown = f' class="{tone}"' if tone else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="robots" content="noindex">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1{shown}>{_text(title)}</h1>{body}</main></body></html>"
    )
