"""The pages that a browser sees: plain accessible HTML, no script, no asset from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape

_STYLE = """
:root{color-scheme:light dark;--line:#8886;--go:#0b57d0}
body{font:1rem/1.5 system-ui,sans-serif;margin:0;display:grid;min-height:100vh;place-items:center}
main{max-width:26rem;margin:1rem;padding:1.5rem 2rem;border:1px solid var(--line);border-radius:.75rem}
h1{font-size:1.3rem;line-height:1.3;margin:0 0 .5rem}
fieldset{border:1px solid var(--line);border-radius:.5rem;margin:1rem 0;padding:.5rem 1rem}
label{display:block;padding:.25rem 0}
small,code{opacity:.8;overflow-wrap:anywhere}
button{font:inherit;padding:.5rem 1.5rem;border-radius:.5rem;border:1px solid var(--line);cursor:pointer}
button[value=allow]{background:var(--go);border-color:var(--go);color:#fff}
button:focus-visible,input:focus-visible{outline:3px solid var(--go);outline-offset:2px}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# Browsers hold form-action against every redirect that follows a form, and the client's callback may lead
# anywhere: so it names schemes. Nothing on these pages comes from outside unescaped, and nothing can run.
PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self' http: https:; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def _page(title: str, content: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{content}</main></body></html>\n"
    )


def consent(
    *,
    action: str,
    client: str,
    scopes: Iterable[tuple[str, str]],
    users: Iterable[str],
    chosen: str,
    host: str,
    hidden: Mapping[str, str],
) -> str:
    """Who asks for what, in whose name, and the two buttons."""
    asked = "".join(
        f"<li>{escape(meaning)} <small>(<code>{escape(scope)}</code>)</small></li>"
        if meaning
        else f"<li><code>{escape(scope)}</code></li>"
        for scope, meaning in scopes
    )
    picker = "".join(
        f'<label><input type="radio" name="user" value="{escape(user)}" required'
        f"{' checked' if user == chosen else ''}> {escape(user)}</label>"
        for user in users
    )
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in hidden.items()
    )
    return _page(
        "Allow access? - sandbox provider",
        f"<h1>{escape(client)} asks for access to your sandbox account</h1>"
        f"<p>It wants to:</p><ul>{asked or '<li>See nothing in particular</li>'}</ul>"
        f'<form method="post" action="{escape(action)}">{fields}'
        f"<fieldset><legend>You are</legend>{picker}</fieldset>"
        f"<p><small>You will be sent back to <strong>{escape(host)}</strong>. "
        f"This is a rehearsal: no account of yours is touched.</small></p>"
        f'<button type="submit" name="decision" value="allow">Allow</button> '
        f'<button type="submit" name="decision" value="deny">Deny</button></form>',
    )


def refusal(sentence: str) -> str:
    """A request that cannot be answered by sending the browser back."""
    return _page(
        "Not possible - sandbox provider", f'<h1>This cannot go on</h1><p role="alert">{escape(sentence)}</p>'
    )
