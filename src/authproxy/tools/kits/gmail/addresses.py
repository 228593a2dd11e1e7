"""Addresses of mail: read from headers that strangers wrote, and checked before they are written into our own."""

from __future__ import annotations

import quopri
import re
from base64 import b64decode
from binascii import Error as Garbled
from collections.abc import Iterable
from dataclasses import dataclass

from authproxy.tools.kits.plain_text import one_line
from authproxy.tools.tool import bad_input

MOST = 500
"""Recipients of one message; Gmail refuses more."""

_LONGEST_NAME = 200
_LONGEST_HEADER = 40_000  # characters that are looked at
_LOCAL = re.compile(r"[^\s@<>()\[\]\\,;:\"\x00-\x1f\x7f]{1,64}")
_DOMAIN = re.compile(r"(?:[^\W_]|[^\W_][\w-]{0,61}[^\W_])(?:\.(?:[^\W_]|[^\W_][\w-]{0,61}[^\W_]))+")
_WORD = re.compile(r"=\?([A-Za-z0-9_.:*-]{1,60})\?([bBqQ])\?([^?\s]{0,4000})\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)\s+(?==\?)")
_IGNORES_DOTS = frozenset({"gmail.com", "googlemail.com"})


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox: `email` as it is sent, and the person's name, which may be empty."""

    email: str
    name: str = ""

    def __str__(self) -> str:
        if not self.name:
            return self.email
        plain = all(c.isalnum() or c in " -'_" or ord(c) > 127 for c in self.name)
        quoted = self.name if plain else '"' + self.name.replace("\\", "").replace('"', "'") + '"'
        return f"{quoted} <{self.email}>"

    @property
    def key(self) -> str:
        """Equal for two spellings of one mailbox, as far as that is known."""
        local, _at, domain = self.email.casefold().rpartition("@")
        if domain in _IGNORES_DOTS:
            return f"{local.partition('+')[0].replace('.', '')}@gmail.com"
        return f"{local}@{domain}"


def decoded(value: str) -> str:
    """A header's value as text on one line: encoded words (RFC 2047) read, control characters gone."""
    text = value[:_LONGEST_HEADER]
    if "=?" in text:
        text = _WORD.sub(_decode_word, _BETWEEN_WORDS.sub(r"\1", text))
    return one_line(text)


def _decode_word(match: re.Match[str]) -> str:
    charset, data = match[1].partition("*")[0], match[3]
    try:
        if match[2] in "bB":
            return b64decode(data + "=" * (-len(data) % 4)).decode(charset)
        return quopri.decodestring(data.encode(), header=True).decode(charset)
    except (LookupError, UnicodeError, Garbled):
        return match[0]  # as it stands: a reader sees that it is no text


def read(header: str) -> list[Address]:
    """The mailboxes of a header that somebody else wrote; what is no address is left out."""
    found = []
    for piece in split(header[:_LONGEST_HEADER]):
        address = _read_one(piece)
        if address is not None:
            found.append(address)
    return found[:MOST]


def split(header: str) -> list[str]:
    """At the commas and semicolons that stand between mailboxes: in no quotes, comment or brackets."""
    pieces: list[str] = []
    piece: list[str] = []
    quoted = escaped = False
    depth = 0
    for c in header:
        if escaped:
            escaped = False
        elif c == "\\":
            escaped = True
        elif c == '"' and not depth:
            quoted = not quoted
        elif not quoted and c in "(<":
            depth += 1
        elif not quoted and c in ")>":
            depth = max(0, depth - 1)
        elif not quoted and not depth and c in ",;":
            pieces.append("".join(piece))
            piece = []
            continue
        piece.append(c)
    pieces.append("".join(piece))
    return [one.strip() for one in pieces if one.strip()]


def _read_one(piece: str) -> Address | None:
    before, bracket, rest = piece.rpartition("<")
    email = rest.partition(">")[0].strip() if bracket else piece.strip()
    name = before.rpartition(":")[2] if bracket and '"' not in before else before  # a group's name goes
    if not bracket:
        email = email.rpartition(":")[2].partition("(")[0].strip()
    if not is_email(email):
        return None
    plain = decoded(name).strip()
    if len(plain) > 1 and plain[0] == plain[-1] == '"':
        plain = plain[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return Address(email, plain.strip().strip('"').strip()[:_LONGEST_NAME])


def is_email(text: str) -> bool:
    """Whether `text` is one plain address: `local@domain.example`, nothing around it."""
    local, _at, domain = text.rpartition("@")
    return (
        len(text) <= 320
        and _LOCAL.fullmatch(local) is not None
        and _DOMAIN.fullmatch(domain) is not None
        and ".." not in local
        and not local.startswith(".")
        and not local.endswith(".")
    )


def given(values: str | Iterable[str] | None, parameter: str) -> list[Address]:
    """The mailboxes that a caller named, each as `a@b.example` or `Name <a@b.example>`, several with commas.

    Raises ToolError for one that is no address: nothing is sent to a guess.
    """
    found: list[Address] = []
    for value in [values] if isinstance(values, str) else values or ():
        if any(c in "\r\n\x00" for c in value.strip()):
            raise bad_input(f"{parameter} holds a line break, which no address has")
        for piece in split(value):
            address = _read_one(piece)
            if address is None or not _is_whole(piece):
                raise bad_input(
                    f"{parameter} has a value that is no e-mail address: {piece[:80]!r}",
                    hint="Write addresses as name@example.com or Name <name@example.com>.",
                )
            found.append(sendable(address))
    if len(found) > MOST:
        raise bad_input(f"{parameter} names {len(found)} addresses; a message takes at most {MOST}")
    return found


def _is_whole(piece: str) -> bool:
    """With a bracket, nothing follows it; without one, nothing stands around the address."""
    _before, bracket, rest = piece.rpartition("<")
    if bracket:
        return rest.rstrip().endswith(">") and piece.count("<") == 1
    return is_email(piece)


def sendable(address: Address) -> Address:
    """As it goes over the wire: the domain as IDNA.

    Raises ToolError for a local part in another script, which would need SMTPUTF8 all the way.
    """
    local, _at, domain = address.email.rpartition("@")
    try:
        if local.isascii():
            return Address(f"{local}@{domain.encode('idna').decode()}", address.name)
    except UnicodeError:
        pass
    raise bad_input(f"{address.email[:80]!r} cannot be written as an address in ASCII")


def without(addresses: Iterable[Address], *others: Iterable[Address]) -> list[Address]:
    """Each mailbox once, in order, and none that is among `others`."""
    seen = {one.key for group in others for one in group}
    kept: list[Address] = []
    for one in addresses:
        if one.key not in seen:
            seen.add(one.key)
            kept.append(one)
    return kept
