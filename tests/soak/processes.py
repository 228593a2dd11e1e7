"""Workers and providers as child processes that are spoken to in lines."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds for one line


class Child:
    """A module of ours, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def begin(cls, module: str, *words: str) -> Self:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *words,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 30,
            )
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    async def line(self) -> str:
        """Its next line; empty when it has ended."""
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode().strip()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Provider(Child):
    """tests/soak/provider.py, or foreign.py: one question, one answer."""

    base = ""

    @classmethod
    async def start(cls, life: float, users: int, *, foreign: bool = False) -> Self:
        module = "tests.soak.foreign" if foreign else "tests.soak.provider"
        provider = await cls.begin(module, str(life), str(users))
        provider._turn = asyncio.Lock()
        provider.base = json.loads(await provider.line())["base"]
        return provider

    async def ask(self, do: str, **more: Any) -> dict[str, Any]:
        # Whoever asked may leave, and the next must not get this one's answer.
        return await asyncio.shield(self._ask(do, more))

    async def _ask(self, do: str, more: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            self.say(json.dumps({"do": do, **more}))
            return dict(json.loads(await self.line()))

    _turn: asyncio.Lock


class Worker(Child):
    """tests/soak/worker.py."""

    @classmethod
    async def start(cls, order: dict[str, Any]) -> Self:
        worker = await cls.begin("tests.soak.worker")
        worker.say(json.dumps(order))
        return worker

    async def ready(self) -> bool:
        """False: it has ended before."""
        while (line := await self.line()) != "ready":
            if not line:
                return False
        return True

    def go(self) -> None:
        self.say("go")

    async def told(self) -> Counter[str]:
        """What it has done, in its own last words."""
        last: Counter[str] = Counter()
        while line := await self.line():
            if line.startswith("{"):
                last = Counter(json.loads(line))
        await self.process.wait()
        return last
