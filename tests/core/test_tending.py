"""Webhooks as they are configured and signed, and what is known about keeping grants alive."""

from __future__ import annotations

import base64

import pytest

from authproxy.core import config
from authproxy.core.causes import advice
from authproxy.core.providers import provider_of
from authproxy.core.secret import Secret
from authproxy.core.signature import signed
from authproxy.core.strict import ConfigFaults, read_config


def read(text: str) -> config.Config:
    return read_config(
        f"version: 1\n{text}", file="routes.yaml", environ={"HOOK": "s3cret"}, read_file=lambda _path: ""
    )


def faults(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigFaults) as caught:
        read(text)
    return [(one.path, one.message) for one in caught.value.faults if one.severity == "error"]


def test_a_webhook_is_a_url_a_secret_and_kinds() -> None:
    (hook,) = read("webhooks: [{url: 'https://hooks.example/x?k=1', secret: env:HOOK}]").webhooks
    assert (hook.url, hook.secret.reveal()) == ("https://hooks.example/x?k=1", "s3cret")
    assert hook.kinds == ("connection.*", "provider.*")


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("webhooks: [{url: 'https://a.example/'}]", "webhooks[0].secret", "is missing"),
        ("webhooks: [{secret: env:HOOK}]", "webhooks[0].url", "is missing"),
        ("webhooks: [{url: 'http://a.example/', secret: env:HOOK}]", "webhooks[0].url", "must be https"),
        ("webhooks: [{url: 'https://u@a.example/', secret: env:HOOK}]", "webhooks[0].url", "must be a URL"),
        ("webhooks: [{url: 'https://a.example/', secret: s3cret}]", "webhooks[0].secret", "env:"),
        (
            "webhooks: [{url: 'https://a.example/', secret: env:HOOK, kinds: ['*']}]",
            "webhooks[0].kinds[0]",
            "must be a kind",
        ),
        (
            "webhooks: [{url: 'https://a.example/', secret: env:HOOK}, {url: 'https://a.example/', secret: env:HOOK}]",
            "webhooks[1].url",
            "already",
        ),
    ],
)
def test_what_is_wrong_with_a_webhook_is_said_at_its_key(text: str, path: str, said: str) -> None:
    found = faults(text)
    assert [one for one, _ in found] == [path]
    assert said in found[0][1]
    assert "s3cret" not in found[0][1]


def test_signatures_are_those_of_the_specification() -> None:
    """The example of the Standard Webhooks libraries."""
    headers = signed(
        Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        message="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_plain_secret_stands_for_itself() -> None:
    encoded = "whsec_" + base64.b64encode(b"plain").decode()
    one, other = (signed(Secret(text), message="m", at=1, body=b"{}") for text in ("plain", encoded))
    assert one == other
    assert one != signed(Secret("plain"), message="m", at=2, body=b"{}")


@pytest.mark.scenario("B15", "B26")
def test_policies_come_from_the_catalogue_unless_the_operator_knows_better() -> None:
    def known(name: str, **fields: object) -> tuple[bool, int | None, int | None]:
        one = provider_of(name, config.ProviderChoice(client_id="x", **fields))  # type: ignore[arg-type]
        return one.early, one.idle_expiry, one.absolute_expiry

    assert known("google") == (True, 180 * 86400, None)
    assert known("google", environment="testing") == (True, 180 * 86400, 7 * 86400)
    assert known("asana") == (False, None, None)
    assert known("asana", refresh="ahead", idle_expiry=60, absolute_expiry=90) == (True, 60, 90)
    assert known("google", refresh="reactive")[0] is False


def test_reasons_of_ours_have_advice() -> None:
    for reason in ("test_mode_suspected", "rotation_lost", "no_refresh_token", "reused_elsewhere_suspected"):
        assert advice(reason)
    assert advice("something new") is None
