"""One broker in a process of its own, which dies or waits where it is told; driven by test_processes.py."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from authproxy.core.errors import Refusal
from authproxy.core.model import Environment
from authproxy.store.sealing import Keyring
from authproxy.store.vault import Vault
from tests.broker.house import Broker, Clock, configuration, key_of


async def main(order: dict[str, Any]) -> dict[str, Any]:
    async def failpoint(point: str) -> None:
        if point == order["die_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    clock = Clock()
    clock.push(order["ahead"])
    vault = await Vault.open(
        f"sqlite:///{Path(order['store'])}",
        keyring=Keyring.parse(order["keys"]),
        environment=Environment.DEVELOPMENT,
        clock=clock.wall,
    )
    broker = Broker(vault, clock, configuration(order["base"]), failpoint)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)  # all begin together
    try:
        usable = await broker.tokens.token(key_of(), scopes=("read",), agent="worker")
        return {"generation": usable.generation}
    except Refusal as refusal:
        return {"code": refusal.code, "reason": refusal.reason}
    finally:
        await broker.close()
        await vault.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.stdin.readline())))), flush=True)
