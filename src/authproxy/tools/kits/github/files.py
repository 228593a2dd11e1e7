"""Files and branches: reading lines, writing them by the version that was read, searching code."""

from __future__ import annotations

import base64
import binascii
from json import dumps
from typing import Any, NamedTuple

from authproxy.tools.kits.github.asking import (
    RAW,
    ask,
    branch_name,
    encoded,
    file_path,
    read,
    repository,
    unless_refused,
)
from authproxy.tools.kits.github.shaping import cut, lean
from authproxy.tools.tool import Answer, Call, Json, Kind, ToolError, bad_input

SHOWN = 40_000  # bytes of a file in one answer: a result may not be much longer
_MOST_ENTRIES = 500  # of a directory
_MOST_FOUND = 1_000  # what GitHub's search gives at most, whatever it has found
_MOST_AT_ONCE = 100
_WITH_MATCHES = "application/vnd.github.text-match+json"


class File(NamedTuple):
    """A file as it is at one version; `text` is None where it is no UTF-8."""

    sha: str
    size: int
    text: str | None


async def get_file_contents(call: Call) -> Json:
    """A file's text, or lines of it; of a directory its entries."""
    place, query = _place(call), lean(ref=(call.get("ref") or "").strip())
    found = await read(call, place, **query)
    if isinstance(found, list):
        return _directory(found)
    told = lean(
        path=found.get("path"),
        type=found.get("type"),
        size=found.get("size"),
        sha=found.get("sha"),
        url=found.get("html_url"),
    )
    if found.get("type") != "file":
        return {**told, **lean(target=found.get("target"), submodule=found.get("submodule_git_url"))}
    text = (await _file(call, place, query, found)).text
    if text is None:
        return {**told, "binary": True}
    return {**told, **_shown(text, call.get("start_line"), call.get("end_line"))}


def _place(call: Call, *, root: bool = True) -> str:
    path = file_path(call.input["path"], root=root)
    return f"{repository(call)}/contents" + (f"/{path}" if path else "")


def _directory(entries: list[Any]) -> Json:
    shown = [
        lean(name=item.get("name"), type=item.get("type"), size=item.get("size") or None)
        for item in entries[:_MOST_ENTRIES]
    ]
    return {
        "type": "directory",
        "entries": shown,
        **lean(entries_left_out=len(entries) - len(shown) or None),
    }


async def _file(call: Call, place: str, query: dict[str, Any], found: Json) -> File:
    """The file's text. GitHub gives no content with the metadata of one above 1 MB: that is asked for by itself."""
    if found.get("encoding") == "base64":
        try:
            data = base64.b64decode(found.get("content") or "")
        except (binascii.Error, ValueError):
            raise ToolError(Kind.BAD_OUTPUT, "GitHub sent a file that cannot be decoded.") from None
    else:
        data = (await ask(call, "GET", place, query=query, accept=RAW)).body
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return File(found["sha"], len(data), None)
    return File(found["sha"], len(data), None if "\0" in text else text)


def _lines(text: str) -> list[str]:
    """The lines with their ends, as editors count them: only a line feed ends one."""
    return [line + "\n" for line in text.split("\n")[:-1]] + (
        [last] if (last := text.rpartition("\n")[2]) else []
    )


def _shown(text: str, start: int | None, end: int | None) -> dict[str, Any]:
    lines = _lines(text)
    first, last = _range(start, end, len(lines))
    part: list[str] = []
    used = 0
    for line in lines[first - 1 : last]:
        size = len(dumps(line, ensure_ascii=False).encode())
        if part and used + size > SHOWN:
            break
        part.append(line)
        used += size
    shown = first + len(part) - 1
    told: dict[str, Any] = {"total_lines": len(lines), "content": cut("".join(part), SHOWN) or ""}
    if (first, shown) != (1, len(lines)) and part:
        told |= {"start_line": first, "end_line": shown}
    if shown < last:
        told["next_start_line"] = shown + 1
    return told


def _range(start: int | None, end: int | None, total: int) -> tuple[int, int]:
    """Lines from 1, both inclusive; what lies beyond the end of the file is its end."""
    first = 1 if start is None else int(start)
    last = total if end is None else int(end)
    if first < 1 or (end is not None and last < first):
        raise bad_input("start_line must be 1 or more, and end_line not before it.")
    if first > max(total, 1):
        raise bad_input(f"The file has {total} lines: start_line is behind its end.")
    return first, min(last, total)


# --- writing -------------------------------------------------------------------------------------------------------


async def create_file(call: Call) -> Json:
    """A new file; with mode `overwrite` the file as it shall be, whether it is there or not."""
    place, branch = _place(call, root=False), branch_name(call.input["branch"])
    overwrite = call.get("mode", "create") == "overwrite"
    sha = None
    if overwrite:

        async def before() -> Json:
            return await read(call, place, ref=branch)

        found, _ = await unless_refused(before, 404)
        if isinstance(found, list):
            raise bad_input("path is a directory.")
        sha = found["sha"] if found else None
    try:
        return await _write(call, place, branch, call.input["content"], sha)
    except ToolError as error:
        # Without a sha GitHub writes new files only, and says so of one that is there.
        if overwrite or error.status != 422 or '"sha"' not in error.message:
            raise
        raise bad_input(
            "There is a file of that path already, and it was left as it is.",
            hint="Use mode overwrite to replace it, or Github.UpdateFileLines to change lines of it.",
        ) from error


async def update_file_lines(call: Call) -> Json:
    """Replaces lines of a file, or adds some at its end, if nobody has changed it meanwhile."""
    place, branch = _place(call, root=False), branch_name(call.input["branch"])
    query = {"ref": branch}
    found = await read(call, place, **query)
    if not isinstance(found, dict) or found.get("type") != "file":
        raise bad_input("path is no file.")
    file = await _file(call, place, query, found)
    if file.text is None:
        raise bad_input("The file is not text: its lines cannot be changed.")
    text = _changed(call, file.text)
    if text == file.text:
        return {"path": found.get("path"), "branch": branch, "changed": False, "sha": file.sha}
    written = await _write(call, place, branch, text, file.sha)
    return {**written, "changed": True, "total_lines": len(_lines(text))}


def _changed(call: Call, text: str) -> str:
    """The file with its lines replaced, with the line ends that it has."""
    lines, windows = _lines(text), text.count("\r\n")
    ends = "\r\n" if windows and windows == text.count("\n") else "\n"
    new = call.input["new_content"].replace("\r\n", "\n").replace("\n", ends)
    if call.get("mode", "replace") == "append":
        gap = ends if text and not text.endswith("\n") else ""
        return f"{text}{gap}{_ended(new, ends)}" if new else text
    start, end = call.get("start_line"), call.get("end_line")
    if start is None or end is None:
        raise bad_input("start_line and end_line are needed where mode is replace.")
    if not 1 <= start <= end or end > len(lines):
        raise bad_input(
            f"The file has {len(lines)} lines: start_line and end_line must lie among them, in that order."
        )
    # The last line of a file that has no line end gets none.
    if new and lines[end - 1].endswith("\n"):
        new = _ended(new, ends)
    return f"{''.join(lines[: start - 1])}{new}{''.join(lines[end:])}"


def _ended(text: str, ends: str) -> str:
    return text if text.endswith(ends) or not text else text + ends


async def _write(call: Call, place: str, branch: str, text: str, sha: str | None) -> Json:
    if not call.input["message"].strip():
        raise bad_input("message must not be empty.")
    content = base64.b64encode(text.encode()).decode("ascii")
    body = lean(message=call.input["message"], branch=branch, sha=sha)
    try:
        done = (await ask(call, "PUT", place, json={**body, "content": content})).json
    except ToolError as error:
        if error.status != 409:
            raise
        raise ToolError(
            Kind.RETRY,
            "The file, or its branch, was changed by somebody else meanwhile. Nothing was written.",
            hint="Read the file again with Github.GetFileContents: its lines may have moved.",
            can_retry=True,
            status=409,
        ) from error
    written, commit = done.get("content") or {}, done.get("commit") or {}
    return lean(
        path=written.get("path"),
        branch=branch,
        created=True if sha is None else None,
        sha=written.get("sha"),
        commit_sha=commit.get("sha"),
        url=written.get("html_url"),
    )


async def create_branch(call: Call) -> Json:
    """A new branch, at the tip of another one."""
    target, name = repository(call), branch_name(call.input["branch"])
    if call.get("from_branch"):
        base = branch_name(call.input["from_branch"], "from_branch")
    else:
        base = (await read(call, target))["default_branch"]
    sha = (await read(call, f"{target}/git/ref/heads/{encoded(base)}"))["object"]["sha"]
    try:
        await ask(call, "POST", f"{target}/git/refs", json={"ref": f"refs/heads/{name}", "sha": sha})
    except ToolError as error:
        if error.status != 422 or "already exists" not in error.message:
            raise
        raise bad_input(f"There is a branch {name} already.") from error
    return {"branch": name, "from_branch": base, "sha": sha}


# --- searching -----------------------------------------------------------------------------------------------------


async def search_code(call: Call) -> Json:
    """Code that matches a query of GitHub's code search, with the lines that matched."""
    words = call.input["query"].strip()
    limit, offset = int(call.get("limit", 20)), int(call.get("offset", 0))
    if not words:
        raise bad_input("query must not be empty.")
    if not 1 <= limit <= _MOST_AT_ONCE or not 0 <= offset <= _MOST_FOUND - limit:
        raise bad_input("limit must be 1 to 100, and offset and limit together at most 1000.")
    # GitHub has pages: of one size where the offset is at the beginning of one, else those that hold the window.
    size = limit if offset % limit == 0 else _MOST_AT_ONCE
    first, last = offset // size, (offset + limit - 1) // size
    found: list[Any] = []
    answer: Answer | None = None
    for page in range(first, last + 1):
        query = {"q": words, "per_page": size, "page": page + 1}
        answer = await ask(call, "GET", "/search/code", query=query, accept=_WITH_MATCHES)
        found += answer.json["items"]
        if len(answer.json["items"]) < size:
            break
    assert answer is not None  # a window has a page
    shown = found[offset - first * size :][:limit]
    total = answer.json.get("total_count") or 0
    following = offset + limit
    return {
        "results": [_code(item) for item in shown],
        "total_count": total,
        **lean(
            next_offset=following if following < min(total, _MOST_FOUND) and len(shown) == limit else None,
            incomplete=answer.json.get("incomplete_results") or None,
        ),
    }


def _code(item: Json) -> dict[str, Any]:
    matches = item.get("text_matches") or []
    return lean(
        path=item.get("path"),
        repository=(item.get("repository") or {}).get("full_name"),
        sha=item.get("sha"),
        url=item.get("html_url"),
        fragments=[cut(match.get("fragment"), 400) for match in matches[:3] if match.get("fragment")],
    )
