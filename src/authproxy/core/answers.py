"""What a resource API's answer says about the token that was sent: nothing, expired, not curable, too narrow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from authproxy.core.challenge import Challenge, read_challenges
from authproxy.core.evidence import Evidence, gather, read_document, status_in
from authproxy.core.providers import Provider

# what may hold our token's challenge; a Basic or Negotiate challenge beside it speaks of something else
_BEARER = frozenset({"bearer", "oauth", "oauth2"})


class ApiSign(StrEnum):
    """What to do about it: nothing; refresh and replay once; hand it on, no refresh cures it; ask for scopes."""

    NONE = "none"
    EXPIRED = "expired"
    NOT_CURABLE = "not_curable"
    SCOPE = "scope"


def peeks(provider: Provider, status: int, content_type: str) -> bool:
    """Whether the first bytes of this answer's body are needed to know."""
    kind = content_type.partition(";")[0].strip().lower()
    if status < 400:
        return provider.facts.answer.ok_field is not None and status == 200 and "json" in kind
    if "json" not in kind and not kind.startswith("text/"):
        return False
    errors = provider.facts.api_errors
    # a 401 is EXPIRED anyway; a row that says the same needs no look
    rows = (*errors.not_curable, *errors.scope, *(errors.expired if status != 401 else ()))
    return any(status_in(status, row.status) and (row.code or row.text) for row in rows)


def read_api_answer(
    provider: Provider, *, status: int, content_type: str, www_authenticate: Sequence[str], body: bytes | None
) -> ApiSign:
    """Reads what the answer says; never raises. `body` is a peek at its beginning, or None where none was taken.

    A 401 means expired and a 403 means nothing, unless the provider's data or a challenge says otherwise: a
    403 is a matter of permission or of a rate limit, and no refresh changes it (D09, D11).
    """
    if status < 400:
        evidence = _hidden_failure(provider, status, content_type, body)
        return ApiSign.NONE if evidence is None else _sign(provider, evidence) or ApiSign.NONE
    challenges = [c for c in read_challenges(www_authenticate) if c.scheme in _BEARER]
    evidence = _open_failure(status, body, challenges)
    sign = _sign(provider, evidence)
    if sign is not None:
        return sign
    narrow = "insufficient_scope" in (*(c.params.get("error") for c in challenges), *evidence.codes)
    if status in (401, 403) and narrow:
        return ApiSign.SCOPE
    return ApiSign.EXPIRED if status == 401 else ApiSign.NONE


def _sign(provider: Provider, evidence: Evidence) -> ApiSign | None:
    errors = provider.facts.api_errors
    groups = (
        (ApiSign.NOT_CURABLE, errors.not_curable),
        (ApiSign.SCOPE, errors.scope),
        (ApiSign.EXPIRED, errors.expired),
    )
    return next((sign for sign, rows in groups if any(evidence.shows(row) for row in rows)), None)


def _hidden_failure(
    provider: Provider, status: int, content_type: str, body: bytes | None
) -> Evidence | None:
    """The failure in a 200, where this provider hides failures so: its flag must be false at the top level."""
    flag = provider.facts.answer.ok_field
    if flag is None or not body or "json" not in content_type.lower():
        return None
    # every good answer comes by here: looked at as bytes first, parsed only if the flag may be false
    if not re.search(rb'"' + re.escape(flag.encode()) + rb'"\s*:\s*false', body):
        return None
    document = read_document("application/json", body)
    if not isinstance(document, dict) or document.get(flag) is not False:
        return None
    code = document.get("error")
    return Evidence(status, codes=(code,)) if isinstance(code, str) else None


def _open_failure(status: int, body: bytes | None, challenges: Sequence[Challenge]) -> Evidence:
    names = {name for challenge in challenges for name in challenge.params}
    document: Any = read_document("application/json", body) if body else None
    if document is None and body and not body.lstrip().startswith(b"<"):
        # plain words, as Salesforce's identity service sends them, whatever it calls them
        return Evidence(status, texts=(body.decode("utf-8", "replace"),), challenge=frozenset(names))
    return gather(status, document, challenge=names)
