"""What an upstream's answer says about the token that was sent with the request."""

from __future__ import annotations

from authproxy.core.answers import ApiSign, peeks, read_api_answer
from authproxy.core.providers import Provider
from authproxy.proxy.upstream import Answer

PEEK = 64 * 1024  # bytes of an answer that may be looked at to recognise an expired token


def silent(provider: Provider, answer: Answer) -> bool:
    """Whether the answer says nothing of the token for certain, which most do."""
    return answer.status < 400 and provider.facts.answer.ok_field is None


async def sign_of(provider: Provider, answer: Answer) -> tuple[ApiSign, bytes]:
    """What the answer says about the token, and the bytes of its body that were looked at for it."""
    content_type = answer.value(b"content-type").decode("latin-1")
    peeked: bytes | None = None
    if peeks(provider, answer.status, content_type):
        pieces: list[bytes] = []
        size = 0
        while not answer.ended and size < PEEK and (piece := await answer.read()):
            pieces.append(piece)
            size += len(piece)
        peeked = b"".join(pieces)
    elif answer.status < 400:
        return ApiSign.NONE, b""
    sign = read_api_answer(
        provider,
        status=answer.status,
        content_type=content_type,
        www_authenticate=[value.decode("latin-1") for value in answer.named.get(b"www-authenticate", ())],
        body=peeked,
    )
    return sign, peeked or b""
