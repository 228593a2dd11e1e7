"""A browser small enough to trust: cookies by origin, forms, redirects followed one by one."""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit


@dataclass
class Page:
    """One answer, as the browser has it before it."""

    url: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Form:
    """A form with what it would send."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = {key: value or "" for key, value in attrs}
        if tag == "form":
            self.found.append(Form(have.get("action", ""), have.get("method", "get").upper()))
        elif tag in ("input", "button") and self.found and "name" in have:
            if have.get("type") in ("checkbox", "radio") and "checked" not in have:
                return
            self.found[-1].fields.setdefault(have["name"], have.get("value", ""))


def forms(page: Page) -> list[Form]:
    parser = _Forms()
    parser.feed(page.text)
    return [
        Form(urljoin(page.url, form.action or page.url), form.method, form.fields) for form in parser.found
    ]


class Browser:
    """Keeps cookies, and every page it saw, so that they can be searched afterwards."""

    def __init__(self) -> None:
        self.cookies: dict[str, dict[str, str]] = {}
        self.seen: list[Page] = []

    def open(self, url: str, *, method: str = "GET", form: dict[str, str] | None = None) -> Page:
        """One exchange, redirects not followed."""
        parts = urlsplit(url)
        assert parts.scheme == "http", url
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        headers = {"Accept": "text/html"}
        jar = self.cookies.setdefault(parts.netloc, {})
        if jar:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        body = None
        if form is not None:
            body = urlencode(form)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            headers["Origin"] = f"{parts.scheme}://{parts.netloc}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            page = Page(url, answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()
        for key, value in page.headers:
            if key.lower() == "set-cookie":
                for name, morsel in SimpleCookie(value).items():
                    jar[name] = morsel.value
        self.seen.append(page)
        return page

    def follow(self, page: Page, *, until: str | None = None) -> Page:
        """Goes where the answers send it; stops before a URL that begins with `until`."""
        for _ in range(10):
            where = page.header("Location") if page.status in (301, 302, 303, 307, 308) else None
            if where is None or (until is not None and urljoin(page.url, where).startswith(until)):
                return page
            page = self.open(urljoin(page.url, where))
        raise AssertionError("redirected for ever")

    def submit(self, form: Form, **fields: str) -> Page:
        return self.follow(self.open(form.action, method=form.method, form={**form.fields, **fields}))

    def consent(self, url: str) -> Page:
        """Opens a connect link, presses its button, and goes wherever that leads."""
        page = self.follow(self.open(url))
        assert page.status == 200, (page.status, page.text[:500])
        return self.submit(forms(page)[0])
