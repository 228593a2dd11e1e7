"""Ends and forgets what is over time: consents, sessions and approvals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from authproxy.broker.flows import Flows
from authproxy.core.errors import StoreUnavailable
from authproxy.store.vault import Vault

log = structlog.get_logger()

EVERY = 60.0  # seconds between two looks


async def sweep(flows: Flows, vault: Vault, clock: Callable[[], float]) -> None:
    """Again and again, until cancelled."""
    while True:
        try:
            await flows.sweep()
            await vault.sweep_sessions(int(clock()))
            await vault.sweep_approvals(int(clock()))
        except StoreUnavailable as error:
            log.warning("flows_not_swept", reason=error.reason)
        await asyncio.sleep(EVERY)
