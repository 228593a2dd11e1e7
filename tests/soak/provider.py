"""The provider of a soak, as a process of its own: the sandbox, told what to do line by line on its standard input.

Rotation, reuse detection, no grace. It gives grants without a browser, and tells at the end all that it has seen.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from authproxy.sandbox import Sandbox, Settings, digest_of
from tests.broker.house import CLIENT_ID, registration


def users(count: int) -> tuple[str, ...]:
    """The users' names."""
    return tuple(f"user{number}" for number in range(count))


async def main(life: float, count: int) -> None:
    sandbox = Sandbox(
        Settings(
            clients=(registration(),),
            users=users(count),
            access_token_life=life,
            switches={"rotate": True, "revoke_family_on_reuse": True, "grace_s": 0},
            ledger_size=10_000_000,
        )
    )
    await sandbox.start(port=0)
    _say({"base": sandbox.base_url})
    while line := await asyncio.to_thread(sys.stdin.readline):
        order: dict[str, Any] = json.loads(line)
        match order["do"]:
            case "give":
                _say(sandbox.give(order["user"], client_id=CLIENT_ID))
            case "switch":
                sandbox.switches.update(order["switches"])
                _say({})
            case "hold":
                sandbox.hold(after=order.get("after", False))
                _say({})
            case "release":
                sandbox.release()
                _say({})
            case "arrived":
                await sandbox.arrived(order["count"])
                _say({})
            case "count":
                _say({"refreshes": len(sandbox.refreshes()), "presented": sandbox.ledger.presented})
            case "tell":
                _say(_told(sandbox))
    await sandbox.close()


def _told(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "calls": [
            {
                "digest": call.digest,
                "user": call.user,
                "outcome": call.outcome,
                "spent": call.spent,
                "delivered": call.delivered,
                "why": call.why,
                "at": call.at,
                "ended_at": call.ended_at,
            }
            for call in sandbox.refreshes()
        ],
        "violations": [violation.kind for violation in sandbox.violations()],
        "live": sorted(sandbox.live_refresh_digests()),
        "tokens": {token: digest_of(token) for token in sandbox.issued_tokens()},
    }


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
