"""GitHub's tools for files, branches and code search, over their real path."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from authproxy.tools.tool import Kind
from tests.tools.kit import House, Reply, Seen

PATH = "/repos/octo/hello/contents"
HERE = {"owner": "octo", "repo": "hello"}
SHA = "5" * 40


def file(text: str | bytes, path: str = "a.txt", **more: Any) -> dict[str, Any]:
    data = text.encode() if isinstance(text, str) else text
    coded = base64.encodebytes(data).decode()  # GitHub breaks its lines
    return {
        "type": "file",
        "encoding": "base64",
        "size": len(data),
        "name": path.rpartition("/")[2],
        "path": path,
        "content": coded,
        "sha": SHA,
        "html_url": f"https://github.com/octo/hello/blob/main/{path}",
        "download_url": f"https://raw.invalid/{path}?token=abc",
        **more,
    }


def written(seen: Seen) -> str:
    return base64.b64decode(seen.json["content"]).decode()


async def test_a_file_is_read_by_lines(house: House) -> None:
    house.answer("GET", f"{PATH}/docs/%C3%BC%20b%23.md", file("one\ntwo\u2028x\r\nthree\n", "docs/ü b#.md"))
    given = {**HERE, "path": "/docs/ü b#.md"}
    found = await house.value("Github.GetFileContents", **given, ref="feature/x?y")
    assert house.seen[0].query == {"ref": "feature/x?y"}
    assert found == {
        "path": "docs/ü b#.md",
        "type": "file",
        "size": 19,
        "sha": SHA,
        "url": "https://github.com/octo/hello/blob/main/docs/ü b#.md",
        "total_lines": 3,
        "content": "one\ntwo\u2028x\r\nthree\n",
    }
    found = await house.value("Github.GetFileContents", **given, start_line=2, end_line=99)
    assert house.seen[1].query == {}
    assert (found["content"], found["start_line"], found["end_line"]) == ("two\u2028x\r\nthree\n", 2, 3)
    for wrong in ({"start_line": 4}, {"start_line": 0}, {"start_line": 3, "end_line": 2}):
        error = await house.error("Github.GetFileContents", **given, **wrong)
        assert error.kind is Kind.BAD_INPUT


async def test_a_long_file_comes_in_parts(house: House) -> None:
    text = "".join(f"{number:05d} {'x' * 93}\n" for number in range(1, 1001))
    house.answer("GET", f"{PATH}/long.txt", file(text, "long.txt"))
    read, start = "", 1
    for _ in range(5):
        found = await house.value("Github.GetFileContents", **HERE, path="long.txt", start_line=start)
        read += found["content"]
        start = found.get("next_start_line")
        if start is None:
            break
    assert read == text
    house.answer("GET", f"{PATH}/emoji.txt", file("\U0001f600" * 30 * 1000 + "\n" + "x\n", "emoji.txt"))
    found = await house.value("Github.GetFileContents", **HERE, path="emoji.txt")
    assert (len(found["content"]), found["next_start_line"]) == (30_001, 2)
    assert "truncated" not in found
    house.answer("GET", f"{PATH}/wide.txt", file("y" * 50_000, "wide.txt"))
    found = await house.value("Github.GetFileContents", **HERE, path="wide.txt")
    assert found["content"].endswith("(10000 more characters)")


async def test_what_is_no_small_text_file(house: House) -> None:
    house.answer("GET", f"{PATH}/empty", file("", "empty"))
    found = await house.value("Github.GetFileContents", **HERE, path="empty")
    assert (found["content"], found["total_lines"]) == ("", 0)
    house.answer("GET", f"{PATH}/x.png", file(b"\x89PNG\r\n\x00\xff", "x.png"))
    found = await house.value("Github.GetFileContents", **HERE, path="x.png")
    assert found["binary"] is True
    assert "content" not in found

    def big(seen: Seen) -> Any:
        if seen.headers["accept"] == "application/vnd.github.raw+json":
            return b"a\nb\n"
        return file("", "big.txt", encoding="none", content="", size=2_000_000)

    house.answer("GET", f"{PATH}/big.txt", big)
    found = await house.value("Github.GetFileContents", **HERE, path="big.txt", ref="v1")
    assert found["content"] == "a\nb\n"
    assert house.seen[-1].query == {"ref": "v1"}
    raw = Reply(
        body=b'{"errors": [{"message": "of a file"}]}',
        headers={"Content-Type": "application/vnd.github.raw+json; charset=utf-8"},
    )

    def graph(seen: Seen) -> Any:
        return raw if "raw" in seen.headers["accept"] else file("", encoding="none", content="")

    house.answer("GET", f"{PATH}/log.json", graph)
    found = await house.value("Github.GetFileContents", **HERE, path="log.json")
    assert found["content"] == '{"errors": [{"message": "of a file"}]}'
    entries = [{"name": "src", "type": "dir", "size": 0}, {"name": "a.txt", "type": "file", "size": 3}]
    house.answer("GET", PATH, entries)
    assert await house.value("Github.GetFileContents", **HERE, path="/") == {
        "type": "directory",
        "entries": [{"name": "src", "type": "dir"}, {"name": "a.txt", "type": "file", "size": 3}],
    }
    house.answer(
        "GET", f"{PATH}/lib", {"type": "submodule", "path": "lib", "submodule_git_url": "git://x", "sha": SHA}
    )
    found = await house.value("Github.GetFileContents", **HERE, path="lib")
    assert (found["type"], found["submodule"]) == ("submodule", "git://x")
    assert (await house.error("Github.GetFileContents", **HERE, path="no")).kind is Kind.NOT_FOUND


def saved(path: str = "a.txt") -> dict[str, Any]:
    return {
        "content": {"path": path, "sha": "6" * 40, "html_url": "https://f"},
        "commit": {"sha": "7" * 40, "message": "m", "verification": {}},
    }


async def test_a_file_is_created_and_never_by_accident_replaced(house: House) -> None:
    house.answer("PUT", f"{PATH}/a%20b.txt", Reply(201, saved("a b.txt")))
    given = {**HERE, "path": "a b.txt", "content": "grüß\n", "message": "Add", "branch": "feature/x"}
    found = await house.value("Github.CreateFile", **given)
    assert found == {
        "path": "a b.txt",
        "branch": "feature/x",
        "created": True,
        "sha": "6" * 40,
        "commit_sha": "7" * 40,
        "url": "https://f",
    }
    [seen] = house.seen
    assert seen.json == {
        "message": "Add",
        "branch": "feature/x",
        "content": base64.b64encode("grüß\n".encode()).decode(),
    }
    there = {"message": 'Invalid request.\n\n"sha" wasn\'t supplied.'}
    house.answer("PUT", f"{PATH}/a%20b.txt", Reply(422, there), Reply(200, saved("a b.txt")))
    error = await house.error("Github.CreateFile", **given)
    assert error.kind is Kind.BAD_INPUT
    assert "overwrite" in (error.hint or "")
    house.answer("GET", f"{PATH}/a%20b.txt", file("old", "a b.txt"))
    found = await house.value("Github.CreateFile", **given, mode="overwrite")
    assert "created" not in found
    assert house.seen[-1].json["sha"] == SHA
    assert house.seen[-2].query == {"ref": "feature/x"}
    house.answer("PUT", f"{PATH}/a%20b.txt", Reply(409, {"message": "a b.txt does not match 555"}))
    error = await house.error("Github.CreateFile", **given, mode="overwrite")
    assert (error.kind, error.can_retry) == (Kind.RETRY, True)
    house.answer("GET", f"{PATH}/a%20b.txt", [])
    assert (await house.error("Github.CreateFile", **given, mode="overwrite")).kind is Kind.BAD_INPUT
    house.upstream.given.pop(("GET", f"{PATH}/a%20b.txt"))
    house.answer("PUT", f"{PATH}/a%20b.txt", Reply(201, saved()))
    assert (await house.value("Github.CreateFile", **given, mode="overwrite"))["created"] is True
    for wrong in ({"path": "a/../b"}, {"path": "/"}, {"branch": "a..b"}, {"message": " "}):
        error = await house.error("Github.CreateFile", **{**given, **wrong})
        assert error.kind is Kind.BAD_INPUT
    house.answer("PUT", f"{PATH}/a%20b.txt", Reply(404, {"message": "Branch feature/x not found"}))
    assert "Branch feature/x not found" in (await house.error("Github.CreateFile", **given)).message


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ("a\nb\nc\n", {"new_content": "B", "start_line": 2, "end_line": 2}, "a\nB\nc\n"),
        ("a\nb\nc\n", {"new_content": "X\nY\n", "start_line": 1, "end_line": 2}, "X\nY\nc\n"),
        ("a\nb\nc", {"new_content": "C", "start_line": 3, "end_line": 3}, "a\nb\nC"),
        ("a\nb\nc\n", {"new_content": "", "start_line": 2, "end_line": 3}, "a\n"),
        ("a\r\nb\r\n", {"new_content": "B\nC", "start_line": 2, "end_line": 2}, "a\r\nB\r\nC\r\n"),
        ("a\nb", {"new_content": "c", "mode": "append"}, "a\nb\nc\n"),
        ("", {"new_content": "c\n", "mode": "append", "start_line": 9}, "c\n"),
        ("ü\n", {"new_content": "é", "start_line": 1, "end_line": 1}, "é\n"),
    ],
)
async def test_lines_are_changed(house: House, before: str, change: dict[str, Any], after: str) -> None:
    house.answer("GET", f"{PATH}/a.txt", file(before))
    house.answer("PUT", f"{PATH}/a.txt", saved())
    given = {**HERE, "path": "a.txt", "branch": "dev", "message": "Change"}
    found = await house.value("Github.UpdateFileLines", **given, **change)
    assert (found["changed"], found["commit_sha"]) == (True, "7" * 40)
    assert house.seen[0].query == {"ref": "dev"}
    assert written(house.seen[1]) == after
    assert (house.seen[1].json["sha"], house.seen[1].json["branch"]) == (SHA, "dev")


async def test_lines_that_cannot_be_changed(house: House) -> None:
    house.answer("GET", f"{PATH}/a.txt", file("a\nb\n"))
    house.answer("PUT", f"{PATH}/a.txt", Reply(409, {"message": "a.txt does not match 555"}))
    given = {**HERE, "path": "a.txt", "branch": "dev", "message": "Change", "new_content": "x"}
    error = await house.error("Github.UpdateFileLines", **given, start_line=1, end_line=1)
    assert (error.kind, error.can_retry, error.status) == (Kind.RETRY, True, 409)
    assert "changed by somebody else" in error.message
    house.seen.clear()
    same = {**given, "new_content": "a"}
    assert (await house.value("Github.UpdateFileLines", **same, start_line=1, end_line=1))["changed"] is False
    for wrong in (
        {},
        {"start_line": 1},
        {"start_line": 0, "end_line": 1},
        {"start_line": 2, "end_line": 1},
        {"start_line": 1, "end_line": 3},
    ):
        error = await house.error("Github.UpdateFileLines", **given, **wrong)
        assert error.kind is Kind.BAD_INPUT
    house.answer("GET", f"{PATH}/a.txt", file(b"\xff\xfe"))
    assert "not text" in (await house.error("Github.UpdateFileLines", **given, mode="append")).message
    house.answer("GET", f"{PATH}/a.txt", [])
    assert "no file" in (await house.error("Github.UpdateFileLines", **given, mode="append")).message
    assert all(seen.method == "GET" for seen in house.seen)


async def test_a_branch_begins_at_another(house: House) -> None:
    tip = {"ref": "refs/heads/main", "object": {"sha": "c" * 40, "type": "commit"}}
    house.answer("GET", "/repos/octo/hello", {"default_branch": "main"})
    house.answer("GET", "/repos/octo/hello/git/ref/heads/main", tip)
    house.answer("GET", "/repos/octo/hello/git/ref/heads/release/%231", tip)
    house.answer(
        "POST",
        "/repos/octo/hello/git/refs",
        Reply(201, {}),
        Reply(201, {}),
        Reply(422, {"message": "Reference already exists"}),
    )
    found = await house.value("Github.CreateBranch", **HERE, branch="feature/x")
    assert found == {"branch": "feature/x", "from_branch": "main", "sha": "c" * 40}
    assert house.seen[2].json == {"ref": "refs/heads/feature/x", "sha": "c" * 40}
    await house.value("Github.CreateBranch", **HERE, branch="y", from_branch="release/#1")
    assert house.seen[3].path.endswith("/heads/release/%231")
    error = await house.error("Github.CreateBranch", **HERE, branch="feature/x")
    assert (error.kind, error.message) == (Kind.BAD_INPUT, "There is a branch feature/x already.")
    house.answer("POST", "/repos/octo/hello/git/refs", Reply(422, {"message": "Object does not exist"}))
    assert (await house.error("Github.CreateBranch", **HERE, branch="z")).kind is Kind.VALIDATION_ERROR
    error = await house.error("Github.CreateBranch", **HERE, branch="z", from_branch="none")
    assert error.kind is Kind.NOT_FOUND


async def test_code_is_searched_with_its_lines(house: House) -> None:
    def search(seen: Seen) -> Any:
        size, page = int(seen.query["per_page"]), int(seen.query["page"])
        numbers = range((page - 1) * size, min(page * size, 130))
        items = [
            {
                "path": f"f{number}.py",
                "sha": "a" * 40,
                "html_url": f"https://h/{number}",
                "repository": {"full_name": "octo/hello", "id": 1},
                "text_matches": [{"fragment": "y" * 500, "matches": []}],
            }
            for number in numbers
        ]
        return {"total_count": 130, "incomplete_results": False, "items": items}

    house.answer("GET", "/search/code", search)
    found = await house.value("Github.SearchCode", query="def main repo:octo/hello")
    assert house.seen[0].query == {"q": "def main repo:octo/hello", "per_page": "20", "page": "1"}
    assert house.seen[0].headers["accept"] == "application/vnd.github.text-match+json"
    assert [one["path"] for one in found["results"]] == [f"f{number}.py" for number in range(20)]
    assert found["results"][0]["fragments"][0].endswith("(100 more characters)")
    assert (found["total_count"], found["next_offset"]) == (130, 20)
    house.seen.clear()
    found = await house.value("Github.SearchCode", query="x", limit=10, offset=95)  # over the end of a page
    assert [one["path"] for one in found["results"]] == [f"f{number}.py" for number in range(95, 105)]
    assert [seen.query["page"] for seen in house.seen] == ["1", "2"]
    found = await house.value("Github.SearchCode", query="x", limit=50, offset=100)
    assert len(found["results"]) == 30
    assert "next_offset" not in found
    for wrong in (
        {"query": " "},
        {"limit": 0},
        {"limit": 101},
        {"offset": -1},
        {"limit": 100, "offset": 950},
    ):
        error = await house.error("Github.SearchCode", **{"query": "x", **wrong})
        assert error.kind is Kind.BAD_INPUT
    house.answer("GET", "/search/code", {"total_count": 0, "items": []})
    assert await house.value("Github.SearchCode", query="x") == {"results": [], "total_count": 0}
