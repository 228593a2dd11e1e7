"""HTML as the plain text that a reader would see, and text cut to a length: for models, and for mail's text part."""

from __future__ import annotations

import re
import unicodedata
from html import unescape
from html.parser import HTMLParser

MOST_MARKUP = 200_000
"""Characters of HTML that are read at all; what follows is left out."""

_LONGEST_LINK = 200
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_SILENT = frozenset({"script", "style", "head", "title", "template", "noscript", "svg", "object"})
_VOID = frozenset(
    {"br", "hr", "img", "input", "meta", "link", "col", "area", "base", "embed", "source", "wbr"}
)
_LINES = frozenset(
    {"div", "tr", "table", "section", "article", "header", "footer", "address", "dt", "dd", "form"}
)
_PARAGRAPHS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "pre", "blockquote"})
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_BREAKING = frozenset({"Cc", "Zl", "Zp", "Cs"})
_TAG = re.compile(r"<[^<>]*>")


def from_html(markup: str) -> str:
    """The visible text of `markup`: no scripts, no hidden elements, links behind their text, quotes with `> `."""
    reader = _Reader()
    reader.feed(markup[:MOST_MARKUP])
    # Not closed: what the parser still holds is one unfinished construct, and to force it open takes quadratic time.
    reader.handle_data(unescape(_TAG.sub("", reader.rawdata)) if not reader.silent else "")
    return tidy("".join(reader.out))


def tidy(text: str) -> str:
    """Without invisible characters, spaces at the ends of lines, and more than one empty line in a row."""
    lines: list[str] = []
    for line in _INVISIBLE.sub("", text).replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        kept = line.rstrip()
        if kept or (lines and lines[-1]):
            lines.append(kept)
    return "\n".join(lines).strip("\n")


def one_line(text: str) -> str:
    """Without control characters, line breaks of any script, and runs of spaces."""
    return " ".join("".join(" " if unicodedata.category(c) in _BREAKING else c for c in text).split())


def cut(text: str, most: int) -> str:
    """At most `most` characters of `text`, with a word that says how much was left out."""
    if len(text) <= most:
        return text
    return f"{text[:most].rstrip()}\n[{len(text) - most} more characters left out]"


def looks_like_html(text: str) -> bool:
    """Whether somebody who wrote `text` meant it as HTML: it opens an element of a page, or closes one."""
    return _MEANT_AS_HTML.search(text) is not None


_MEANT_AS_HTML = re.compile(
    r"<!doctype\s+html|<(?:html|body)[\s>]|<(?:br|hr)\s*/?>"
    r"|</(?:p|div|ul|ol|li|table|tr|td|h[1-6]|a|b|i|u|strong|em|span|blockquote|pre|code)>",
    re.IGNORECASE,
)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.silent = ""  # the element that is open and not shown
        self._depth = 0  # of elements of this name inside it
        self._quotes = 0
        self._pre = 0
        self._link: tuple[str, int] | None = None  # of the open one: its target, and where its text begins

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.silent:
            self._depth += tag == self.silent
            return
        given = dict(attrs)
        if tag in _SILENT or _HIDDEN.search(given.get("style") or ""):
            self.silent = "" if tag in _VOID else tag
            return
        if tag == "br":
            self._line()
        elif tag == "hr":
            self._write("\n---\n")
        elif tag == "img":
            self.handle_data(given.get("alt") or "")
        elif tag == "li":
            self._line()
            self._write("- ")
        elif tag in {"td", "th"}:
            self._space()
        elif tag == "a":
            self._end_link()
            self._link = (given.get("href") or "", len(self.out))
        else:
            self._open(tag)

    def _open(self, tag: str) -> None:
        if tag == "blockquote":
            self._quotes += 1
        if tag == "pre":
            self._pre += 1
        if tag in _PARAGRAPHS:
            self._write("\n")
        if tag in _PARAGRAPHS or tag in _LINES:
            self._line()

    def handle_endtag(self, tag: str) -> None:
        if self.silent:
            if tag == self.silent and self._depth:
                self._depth -= 1
            elif tag == self.silent:
                self.silent = ""
            return
        if tag == "a":
            self._end_link()
        if tag in _PARAGRAPHS or tag in _LINES:
            self._line()
        if tag == "blockquote":
            self._quotes = max(0, self._quotes - 1)
        if tag == "pre":
            self._pre = max(0, self._pre - 1)
        if tag in _PARAGRAPHS:
            self._line(always=True)

    def handle_data(self, data: str) -> None:
        if self.silent or not data:
            return
        if self._pre:
            self._write(data)
            return
        words = " ".join(data.split())
        if not words:
            self._space()
            return
        if data[0].isspace():
            self._space()
        self._write(words)
        if data[-1].isspace():
            self._write(" ")

    def _end_link(self) -> None:
        """Links do not nest: the next one ends the one before."""
        if self._link is None:
            return
        (target, start), self._link = self._link, None
        shown = "".join(self.out[start:]).strip()
        plain = target.removeprefix("mailto:")
        if (
            target.startswith(("http://", "https://", "mailto:"))
            and plain != shown
            and len(plain) <= _LONGEST_LINK
        ):
            self._write(f" <{plain}>" if shown else f"<{plain}>")

    def _space(self) -> None:
        if self.out and not self.out[-1].endswith((" ", "\n")):
            self._write(" ")

    def _line(self, *, always: bool = False) -> None:
        if always or (self.out and not self.out[-1].endswith("\n")):
            self._write("\n")

    def _write(self, text: str) -> None:
        mark = "> " * min(self._quotes, 5)
        if mark and text.strip("\n") and (not self.out or self.out[-1].endswith("\n")):
            self.out.append(mark)
        self.out.append(text.replace("\n", f"\n{mark}") if mark and text.strip("\n") else text)
