"""What a token endpoint's refusal means: who must act, why in one word, and a sentence for that person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from authproxy.core.secret import Secret


class Verdict(StrEnum):
    """Decides what happens to the grant: only DEAD ends it."""

    DEAD = "dead"
    TRANSIENT = "transient"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class TokenFailure:
    """A refusal, reduced to what may be shown: nothing of the body but codes of a harmless alphabet.

    `code` is the provider's own or one of ours (`not_json`, `http_503`, …); `detail` its subcode
    (`invalid_rapt`, `AADSTS700082`), where it has one; `reason` is a key of `ADVICE`. `doubtful`: it does not say
    that nothing was done: a gateway's word, or a success without its tokens. `rescued` is the new refresh token of a
    success whose access token is of no use: the only good one there is.
    """

    verdict: Verdict
    code: str
    reason: str
    advice: str
    retry_after: int | None = None
    detail: str | None = None
    doubtful: bool = False
    rescued: Secret | None = field(default=None, repr=False)


def failure(
    verdict: Verdict,
    code: str,
    reason: str | None = None,
    *,
    retry_after: int | None = None,
    detail: str | None = None,
    doubtful: bool = False,
    rescued: Secret | None = None,
) -> TokenFailure:
    """A refusal with the advice that belongs to its reason."""
    reason = reason or _GENERAL[verdict]
    return TokenFailure(verdict, code, reason, ADVICE[reason], retry_after, detail, doubtful, rescued)


_GENERAL = {
    Verdict.DEAD: "unknown",
    Verdict.TRANSIENT: "unavailable",
    Verdict.MISCONFIGURED: "request_refused",
}

ADVICE: Mapping[str, str] = MappingProxyType(
    {
        # the grant is dead
        "unknown": "The provider ended the grant without saying why; the user connects again. If it recurs, look for "
        "another sign-in with this client that replaces it.",
        "revoked_or_expired": "Revoked by the user or an administrator, unused for too long, or replaced: another "
        "sign-in with this client may have pushed it out. The user connects again.",
        "not_recognised": "The provider does not know this refresh token for this client; if the client id has "
        "changed, restore it, otherwise the user connects again.",
        "revoked": "The user or an administrator withdrew the app's access, or the password changed; the user "
        "connects again.",
        "rotated_away": "The refresh token was already used or replaced, here or by another copy of it; the user "
        "connects again, and one store alone may hold the grant.",
        "replaced": "A newer sign-in of the same user ended this grant; the user connects again, and environments "
        "need client ids of their own.",
        "session_policy": "An administrator limits how long sign-ins last, so this recurs; the user connects again, "
        "or the administrator exempts the app.",
        "interaction_required": "The provider wants the user to sign in interactively, for a second factor or a "
        "conditional-access rule; the user connects again.",
        "consent_withdrawn": "Consent is missing or was withdrawn; the user, or an administrator for them, consents "
        "again.",
        "account_gone": "The account was deleted, deactivated or frozen; an administrator restores it, then the user "
        "connects again.",
        "idle": "The grant was not used for longer than the provider allows; the user connects again.",
        "lifetime_over": "The grant reached the end of its life, which refreshing does not extend; the user connects "
        "again.",
        "test_mode_expiry": "The app is in test mode, where grants end after seven days; publish it, then the user "
        "connects again.",
        "test_mode_suspected": "The grant died seven days after consent: the app's publishing status was probably "
        "Testing when it was made. Publish the app, then the user connects again; grants made before keep their "
        "seven days.",
        "code_stale": "The authorization code was used already or came too late; the user starts again.",
        "email_unverified": "The user has to verify the e-mail address at the provider, then connects again.",
        # trying again may help
        "unavailable": "The provider could not answer; it is tried again.",
        "rate_limited": "The provider limits how often it is asked; it is tried again later.",
        "busy": "The provider is working on another request with the same token; it is tried again.",
        "migration": "The provider is moving the account; it is tried again.",
        "unreadable": "The answer was not one of a token endpoint; check its URL, and proxies in between, if this "
        "lasts.",
        "empty": "The answer had neither a token nor an error; it is tried again.",
        "malformed_token": "The answer had a token that cannot be sent in a header; it was not kept.",
        # the operator must act
        "request_refused": "The provider refuses the request itself; compare the registration with the settings. No "
        "grant was touched.",
        "client_credentials": "Client id or secret is wrong, expired, or of another environment; put in the current "
        "ones. No grant was touched.",
        "client_secret_expired": "The client secret has expired; make a new one and put it in. No grant was touched.",
        "client_deleted": "The app registration was deleted, disabled or is not present in the tenant. No grant was "
        "touched.",
        "client_not_allowed": "This client may not use the grant: it was issued to another one, or the grant type is "
        "not enabled. No grant was touched.",
        "redirect_uri": "The redirect URI differs from the registered one; register it character for character.",
        "scope": "A scope is misspelt, not enabled for the app, or no longer allowed.",
        "grant_type": "The grant type is not enabled for the app.",
        "request": "The provider finds the request malformed; compare the registration with the settings.",
        "pkce": "The app's PKCE setting and `pkce` in the configuration disagree.",
        "token_type": "The provider issued tokens of a kind other than Bearer, which cannot be injected.",
        "admin_policy": "An administrator of the user's organisation has to allow or install the app.",
        "ip_policy": "The provider accepts the app only from certain addresses; allow this one.",
        "environment": "Test and production keys are mixed.",
        # seen at the authorization endpoint only
        "refused": "The user refused, or is not among those who may use the app.",
        "audience": "The app is internal to another organisation.",
        "browser": "The provider refuses embedded browsers; open the link in an ordinary one.",
    }
)
