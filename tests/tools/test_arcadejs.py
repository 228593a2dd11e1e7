"""The public JavaScript client, where node and the package are: `npm i @arcadeai/arcadejs zod` in a folder, and the
folder's name in ARCADEJS."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from authproxy.tools.loading import toolbox
from tests.tools.kit import House

HOME = os.environ.get("ARCADEJS", "")
FOLDER = str(Path(HOME).resolve())
PROGRAM = Path(__file__).with_name("program.mjs")


@pytest.mark.skipif(
    not HOME or shutil.which("node") is None,
    reason="ARCADEJS names no folder with the package, or there is no node",
)
async def test_a_program_of_the_javascript_client(house: House) -> None:
    house.answer("GET", "/gmail/v1/users/me/labels", {"labels": []})
    url = await house.listen()
    program = await asyncio.create_subprocess_exec(
        "node",
        str(PROGRAM),
        FOLDER,
        url,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    said: list[Any] = []
    try:
        async with asyncio.timeout(40):
            async for line in program.stdout:
                one = json.loads(line)
                if "open" in one:
                    await house.consent(one["open"])
                else:
                    said.append(one)
            assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    value = said[8].pop("value")
    assert said == [
        {"items": 2, "total": 30},
        {"count": len([tool for tool in toolbox() if not tool.hidden])},
        {"met": True, "name": "Gmail_ListLabels"},
        {"formatted": ["name", "description", "input_schema"]},
        {"status": 403, "kind": "TOOL_REQUIREMENTS_NOT_MET", "link": True},
        {"authorization_required": True},
        {"same": True, "status": "not_started"},
        {"status": "completed", "token": None},
        {"success": True, "status": "success"},
        {"status": "completed"},
        {"error": "NotFoundError", "status": 404, "code": "not_found"},
        {"healthy": True},
    ]
    assert "labels" in value
