"""The back desk: codes, refresh, rotation, reuse, ends of grants, revocation, introspection, identity."""

from __future__ import annotations

import asyncio
import base64
from urllib.parse import quote_plus

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from authproxy.sandbox import Registration, digest_of
from tests.sandbox.app import CALLBACK, DEMO_SECRET, VERIFIER, App, Clock


async def test_code_gives_tokens_that_work(app: App) -> None:
    got = await app.connect("bob", "openid read")
    assert got["token_type"] == "Bearer"
    assert got["expires_in"] == 3600
    assert got["scope"] == "openid read"
    me = await app.get("/api/me", got["access_token"])
    assert me.json["user"] == "bob"


async def test_code_is_single_use_and_reuse_revokes(app: App) -> None:
    back = await app.consent()
    first = (await app.exchange(back["code"])).json
    again = await app.exchange(back["code"])
    assert (again.status, again.json["error"]) == (400, "invalid_grant")
    assert not await app.works(first["access_token"])
    assert (await app.refresh(first["refresh_token"])).json["error"] == "invalid_grant"


async def test_code_expires(app: App, clock: Clock) -> None:
    back = await app.consent()
    clock.now += 121
    assert (await app.exchange(back["code"])).json["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "other",
    [
        {"redirect_uri": CALLBACK + "/"},
        {"code_verifier": VERIFIER[:-1] + "x"},
        {"code_verifier": ""},
        {"code_verifier": "short"},
        {"code": "unknown"},
    ],
)
async def test_code_needs_its_own_request(app: App, other: dict[str, str]) -> None:
    back = await app.consent()
    reply = await app.exchange(**{"code": back["code"], **other})
    assert (reply.status, reply.json["error"]) == (400, "invalid_grant")
    assert (await app.exchange(back["code"])).status == 200, "a wrong request does not burn the code"


async def test_code_belongs_to_its_client(app: App, demo: App) -> None:
    back = await app.consent()
    assert (await demo.exchange(back["code"])).json["error"] == "invalid_grant"


async def test_refresh_rotates(app: App) -> None:
    first = await app.connect()
    second = (await app.refresh(first["refresh_token"])).json
    assert second["refresh_token"] != first["refresh_token"]
    assert await app.works(second["access_token"])
    assert await app.works(first["access_token"]), "older access tokens live on unless switched"
    assert app.sandbox.live_refresh_digests("alice") == {digest_of(second["refresh_token"])}


async def test_reuse_revokes_the_family(app: App) -> None:
    first = await app.connect()
    other = await app.connect("bob")
    second = (await app.refresh(first["refresh_token"])).json
    again = await app.refresh(first["refresh_token"])
    assert (again.status, again.json["error"]) == (400, "invalid_grant")
    assert not await app.works(second["access_token"])
    assert (await app.refresh(second["refresh_token"])).json["error"] == "invalid_grant"
    assert app.sandbox.live_refresh_digests("alice") == set()
    assert await app.works(other["access_token"])


async def test_reuse_without_family_revocation(app: App) -> None:
    app.sandbox.switches.revoke_family_on_reuse = False
    first = await app.connect()
    second = (await app.refresh(first["refresh_token"])).json
    assert (await app.refresh(first["refresh_token"])).status == 400
    assert (await app.refresh(second["refresh_token"])).status == 200


async def test_parallel_refresh_has_one_winner(app: App) -> None:
    first = await app.connect()
    replies = await asyncio.gather(*(app.refresh(first["refresh_token"]) for _ in range(5)))
    assert sorted(reply.status for reply in replies) == [200, 400, 400, 400, 400]


async def test_without_rotation_nothing_is_spent(app: App) -> None:
    app.sandbox.switches.rotate = False
    first = await app.connect()
    for _ in range(3):
        again = await app.refresh(first["refresh_token"])
        assert again.status == 200
        assert "refresh_token" not in again.json
    app.sandbox.switches.rotate = True
    assert (await app.refresh(first["refresh_token"])).json["refresh_token"]
    assert (await app.refresh(first["refresh_token"])).status == 400
    kinds = [one.kind for one in app.sandbox.violations()]
    assert kinds == ["double_spend"], "a token that was not spent may come again"


async def test_grace_gives_the_same_successor(app: App, clock: Clock) -> None:
    app.sandbox.switches.grace_s = 30
    first = await app.connect()
    second = (await app.refresh(first["refresh_token"])).json
    clock.now += 29
    replay = (await app.refresh(first["refresh_token"])).json
    assert replay["refresh_token"] == second["refresh_token"]
    assert replay["access_token"] != second["access_token"]
    clock.now += 1
    assert (await app.refresh(first["refresh_token"])).status == 400
    assert not await app.works(second["access_token"]), "late: the family is gone"


async def test_grace_gives_siblings(app: App) -> None:
    app.sandbox.switches.update({"grace_s": 30, "grace_mode": "sibling"})
    first = await app.connect()
    second = (await app.refresh(first["refresh_token"])).json
    replay = (await app.refresh(first["refresh_token"])).json
    assert replay["refresh_token"] not in (first["refresh_token"], second["refresh_token"])
    assert (await app.refresh(second["refresh_token"])).status == 200
    assert (await app.refresh(replay["refresh_token"])).status == 200


async def test_refresh_can_kill_the_older_access_token(app: App) -> None:
    app.sandbox.switches.revoke_old_access = True
    first = await app.connect()
    second = (await app.refresh(first["refresh_token"])).json
    assert not await app.works(first["access_token"])
    assert await app.works(second["access_token"])


async def test_access_token_ends(app: App, clock: Clock) -> None:
    app.sandbox.switches.access_token_life = 5
    got = await app.connect()
    assert got["expires_in"] == 5
    clock.now += 4.9
    assert await app.works(got["access_token"])
    clock.now += 0.1
    refused = await app.get("/api/me", got["access_token"])
    assert refused.status == 401
    assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    assert "expired" in refused.headers["WWW-Authenticate"]


async def test_idle_end_moves_with_use(app: App, clock: Clock) -> None:
    app.sandbox.switches.update({"refresh_idle_s": 10, "rotate": False})
    got = await app.connect()
    for _ in range(3):
        clock.now += 9
        assert (await app.refresh(got["refresh_token"])).status == 200
    clock.now += 10
    assert (await app.refresh(got["refresh_token"])).json["error"] == "invalid_grant"


async def test_absolute_end_is_inherited(app: App, clock: Clock) -> None:
    app.sandbox.switches.refresh_absolute_s = 60
    got = await app.connect()
    clock.now += 59
    got = (await app.refresh(got["refresh_token"])).json
    clock.now += 1
    assert (await app.refresh(got["refresh_token"])).json["error"] == "invalid_grant"
    assert app.sandbox.stats()["grants"]["ended"] == {"refresh_absolute_expired": 1}


async def test_test_mode_sticks_to_the_grant(app: App, clock: Clock) -> None:
    app.sandbox.switches.test_mode_s = 604800
    testing = await app.connect()
    app.sandbox.switches.test_mode_s = 0  # published: older grants keep their end
    published = await app.connect("bob")
    clock.now += 604799
    testing = (await app.refresh(testing["refresh_token"])).json
    clock.now += 1
    assert (await app.refresh(testing["refresh_token"])).json["error"] == "invalid_grant"
    assert not await app.works(testing["access_token"])
    assert (await app.refresh(published["refresh_token"])).status == 200


async def test_oldest_grant_is_dropped_silently(app: App) -> None:
    app.sandbox.switches.max_grants = 2
    one, two, three = [await app.connect() for _ in range(3)]
    other = await app.connect("bob")
    assert (await app.refresh(one["refresh_token"])).json["error"] == "invalid_grant"
    for got in (two, three, other):
        assert (await app.refresh(got["refresh_token"])).status == 200


async def test_password_change_and_revocation_by_the_user(app: App) -> None:
    alice, bob = await app.connect("alice"), await app.connect("bob")
    assert app.sandbox.change_password("alice") == 1
    assert app.sandbox.revoke_user("bob") == 1
    for got in (alice, bob):
        assert not await app.works(got["access_token"])
        assert (await app.refresh(got["refresh_token"])).json["error"] == "invalid_grant"


async def test_access_tokens_can_be_ended_at_once(app: App) -> None:
    alice, bob = await app.connect("alice"), await app.connect("bob")
    assert app.sandbox.expire_access_tokens("alice") == 1
    assert not await app.works(alice["access_token"])
    assert await app.works(bob["access_token"])
    assert app.sandbox.expire_access_tokens() == 1
    again = (await app.refresh(alice["refresh_token"])).json
    assert await app.works(again["access_token"])


async def test_refresh_narrows_and_never_widens(app: App) -> None:
    got = await app.connect(scope="read")
    assert (await app.refresh(got["refresh_token"], scope="read write")).json["error"] == "invalid_scope"
    app.sandbox.switches.narrow_scopes_at_refresh = ()
    assert (await app.refresh(got["refresh_token"])).json["scope"] == ""


async def test_a_refresh_token_belongs_to_its_client(app: App, demo: App) -> None:
    got = await app.connect()
    assert (await demo.refresh(got["refresh_token"])).json["error"] == "invalid_grant"
    assert (await app.refresh(got["refresh_token"])).status == 200


async def test_grants_are_given_without_a_browser(demo: App) -> None:
    got = demo.sandbox.give("bob", ["read"])
    assert got["scope"] == "read"
    assert (await demo.get("/api/me", got["access_token"])).json["user"] == "bob"
    assert (await demo.refresh(got["refresh_token"])).status == 200
    for number in range(2000):
        demo.sandbox.give(f"user-{number}")
    assert demo.sandbox.stats()["grants"]["live"] == 2001


# Who may call


def basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


async def test_confidential_client_by_basic_and_post(demo: App) -> None:
    got = await demo.connect()
    got = (await demo.refresh(got["refresh_token"], auth=basic(demo.client_id, DEMO_SECRET))).json
    assert (await demo.refresh(got["refresh_token"])).status == 200


@pytest.mark.parametrize(
    "auth",
    [
        basic("authproxy-demo", "wrong"),
        basic("nobody", "wrong"),
        basic("authproxy-dev", ""),
        "Basic ???",
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "none",
    ],
)
async def test_wrong_clients_are_refused(demo: App, auth: str) -> None:
    got = await demo.connect()
    refused = await demo.refresh(got["refresh_token"], auth=auth)
    assert (refused.status, refused.json["error"]) == (401, "invalid_client")
    assert ("WWW-Authenticate" in refused.headers) == auth.startswith("Basic")
    assert (await demo.refresh(got["refresh_token"])).status == 200


async def test_refused_authentication_can_spend_the_token(demo: App) -> None:
    got = await demo.connect()
    demo.sandbox.switches.update({"require_auth": "post", "spend_on_refusal": True})
    assert (await demo.refresh(got["refresh_token"], auth=basic(demo.client_id, DEMO_SECRET))).status == 401
    assert (await demo.refresh(got["refresh_token"])).json["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("decoding", "encoded", "literal"), [("rfc6749", 200, 401), ("raw", 401, 200), ("lenient", 200, 200)]
)
async def test_basic_credentials_are_decoded_as_switched(
    demo: App, decoding: str, encoded: int, literal: int
) -> None:
    client_id, secret = "odd+client", "a+b/c%d$e f"
    demo.sandbox.register(Registration(client_id, "Odd", secret))
    demo.sandbox.switches.update({"basic_decoding": decoding, "rotate": False})
    odd = App(demo.sandbox, demo.base, demo.session, client_id, secret)
    token = (await odd.connect())["refresh_token"]
    assert (await odd.refresh(token, auth=basic(quote_plus(client_id), quote_plus(secret)))).status == encoded
    assert (await odd.refresh(token, auth=basic(client_id, secret))).status == literal


async def test_malformed_requests(app: App) -> None:
    assert (await app.token(grant_type="password")).json["error"] == "unsupported_grant_type"
    assert (await app.token()).json["error"] == "invalid_request"
    assert (await app.token(grant_type="refresh_token")).json["error"] == "invalid_request"
    assert (await app.refresh("unknown")).json["error"] == "invalid_grant"
    for body, content_type in (
        (b"{}", "application/json"),
        (b"a=1&a=2", "application/x-www-form-urlencoded"),
        (b"\xff\xfe=1", "application/x-www-form-urlencoded"),
        (b"a=" + b"x" * 70000, "application/x-www-form-urlencoded"),
    ):
        reply = await app.call("POST", "/token", data=body, headers={"Content-Type": content_type})
        assert (reply.status, reply.json["error"]) == (400, "invalid_request")


# Revocation, introspection, identity


async def test_revocation(app: App) -> None:
    got = await app.connect()
    send = {"client_id": app.client_id}
    assert (await app.call("POST", "/revoke", data={**send, "token": "unknown"})).status == 200
    await app.call("POST", "/revoke", data={**send, "token": got["access_token"]})
    assert not await app.works(got["access_token"])
    got = (await app.refresh(got["refresh_token"])).json
    await app.call("POST", "/revoke", data={**send, "token": got["refresh_token"]})
    assert not await app.works(got["access_token"])
    assert (await app.refresh(got["refresh_token"])).status == 400
    assert (await app.call("POST", "/revoke", data={"token": "x"})).status == 401
    assert (await app.call("POST", "/revoke", data=send)).status == 400


async def test_another_client_revokes_nothing(app: App, demo: App) -> None:
    got = await app.connect()
    form = {"client_id": demo.client_id, "client_secret": DEMO_SECRET, "token": got["refresh_token"]}
    assert (await demo.call("POST", "/revoke", data=form)).status == 200
    assert await app.works(got["access_token"])


async def test_introspection(app: App, demo: App, clock: Clock) -> None:
    got = await demo.connect("bob", "openid read")
    form = {"client_id": demo.client_id, "client_secret": DEMO_SECRET}
    told = (await demo.call("POST", "/introspect", data={**form, "token": got["access_token"]})).json
    assert told["active"] is True
    assert (told["username"], told["scope"], told["client_id"]) == ("bob", "openid read", demo.client_id)
    assert told["exp"] == int(clock.now) + 3600
    refresh = (await demo.call("POST", "/introspect", data={**form, "token": got["refresh_token"]})).json
    assert refresh["active"] is True
    demo.sandbox.revoke_user("bob")
    for token in (got["access_token"], got["refresh_token"], "unknown"):
        assert (await demo.call("POST", "/introspect", data={**form, "token": token})).json == {
            "active": False
        }
    public = await app.call("POST", "/introspect", data={"client_id": app.client_id, "token": "x"})
    assert public.status == 401


async def test_id_token_verifies_with_the_published_key(app: App) -> None:
    got = await app.connect("carol", "openid email read", nonce="the-nonce")
    about = (await app.call("GET", "/.well-known/openid-configuration")).json
    keys = KeySet.import_key_set((await app.call("GET", about["jwks_uri"].removeprefix(app.root))).json)
    claims = jwt.decode(got["id_token"], keys, algorithms=["ES256"]).claims
    assert claims["iss"] == about["issuer"] == app.base
    assert (claims["aud"], claims["nonce"]) == (app.client_id, "the-nonce")
    info = (await app.get("/userinfo", got["access_token"])).json
    assert (info["sub"], info["email"]) == (claims["sub"], claims["email"])
    assert (
        "nonce"
        not in jwt.decode(
            (await app.refresh(got["refresh_token"])).json["id_token"], keys, algorithms=["ES256"]
        ).claims
    )


async def test_without_openid_there_is_no_id_token(app: App) -> None:
    assert "id_token" not in await app.connect(scope="read")


async def test_metadata_names_real_endpoints(app: App) -> None:
    paths = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
    one, two = [(await app.call("GET", path)).json for path in paths]
    assert one == two
    assert one["code_challenge_methods_supported"] == ["S256"]
    assert one["authorization_response_iss_parameter_supported"] is True
    slack = (await app.call("GET", "/.well-known/oauth-authorization-server/slack")).json
    assert slack["issuer"] == f"{app.base}/slack"
    assert slack["token_endpoint"] == f"{app.base}/slack/token"


async def test_userinfo_needs_a_token_and_can_fail(app: App) -> None:
    got = await app.connect()
    assert (await app.get("/userinfo", None)).status == 401
    assert (await app.get("/userinfo", "unknown")).status == 401
    app.sandbox.switches.userinfo_status = 403
    assert (await app.get("/userinfo", got["access_token"])).status == 403
