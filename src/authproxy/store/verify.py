"""The trail proved: every chain adds up, ends where its seal says, and is where others have seen it.

What this finds, and what it cannot, is said in `audit.py`. It may run while records are being written.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from authproxy.store.base import Row
from authproxy.store.chain import ANCHORING, START, Head, hashed, indexed, stored
from authproxy.store.vault import Vault

_PAGE: Final = 1000
_CHAINS: Final = "SELECT DISTINCT chain FROM audit UNION SELECT chain FROM chains ORDER BY chain"
_RECORDS: Final = "SELECT * FROM audit WHERE chain = ? AND seq > ? ORDER BY seq LIMIT ?"


class Fault(NamedTuple):
    """The first thing that is wrong with a chain; `seq` None where it is about the whole chain."""

    chain: str
    seq: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found."""

    chains: int
    records: int
    faults: tuple[Fault, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


class _Anchor(NamedTuple):
    chain: str
    seq: int
    hash: str
    seen_in: str


async def verify(vault: Vault) -> Report:
    """Walks all chains of the store."""
    chains = [row["chain"] for row in await vault.backend.read(_CHAINS)]
    records, faults, anchors = 0, [], []
    for chain in chains:
        walk = _Walk(chain)
        fault = await _walked(vault, walk)
        records += walk.head.seq
        anchors += walk.anchors
        if fault is not None:
            faults.append(fault)
    faults += await _missing(vault, anchors, {fault.chain for fault in faults})
    return Report(len(chains), records, tuple(faults))


async def _walked(vault: Vault, walk: _Walk) -> Fault | None:
    chain = walk.head.chain
    while True:
        while rows := await vault.backend.read(_RECORDS, chain, walk.head.seq, _PAGE):
            fault = await asyncio.to_thread(walk.step, rows)
            if fault is not None:
                return fault
        # Read after the records: a head is committed together with its records, so it can be ahead, never behind.
        heads = await vault.backend.read("SELECT seq, hash, seal FROM chains WHERE chain = ?", chain)
        if not heads:
            return Fault(chain, None, "the chain's sealed head is gone")
        head = Head(chain, heads[0]["seq"], heads[0]["hash"])
        if not hmac.compare_digest(heads[0]["seal"].encode(), vault.mark("audit head", head.text).encode()):
            return Fault(chain, None, "the chain's head was not sealed by this store")
        if head[:3] == walk.head[:3]:
            return None
        if head.seq <= walk.head.seq:
            return Fault(chain, head.seq, "the records do not end as the sealed head says")
        if not await vault.backend.read(_RECORDS, chain, walk.head.seq, 1):
            return Fault(
                chain, walk.head.seq + 1, f"the end is missing: the sealed head says {head.seq} records"
            )


class _Walk:
    """One chain, as far as it has been walked."""

    def __init__(self, chain: str) -> None:
        self.head = Head(chain, 0, "")
        self.anchors: list[_Anchor] = []

    def step(self, rows: Sequence[Row]) -> Fault | None:
        for row in rows:
            what = self._wrong(row)
            if what is not None:
                return Fault(self.head.chain, self.head.seq + 1, what)
            self.head = Head(self.head.chain, row["seq"], row["hash"])
        return None

    def _wrong(self, row: Row) -> str | None:
        chain, seq, prev, _ = self.head
        if row["seq"] != seq + 1:
            return f"missing: the next record is {row['seq']}"
        try:
            if hashed(prev, row["record"]) != row["hash"]:
                return "the record does not match its hash and the one before it"
            record: dict[str, Any] = json.loads(row["record"])
            if (record["chain"], record["seq"], record["prev"]) != (chain, seq + 1, prev):
                return "the record belongs elsewhere"
            if indexed(record) != stored(row):
                return "the columns that the record is found by do not match it"
            if record["kind"] in ANCHORING:
                self.anchors += [
                    _Anchor(name, number, seen, chain) for name, number, seen in record["anchors"]
                ]
        except (ValueError, TypeError, KeyError):
            return "the record is not one that was written here"
        if seq == 0 and record["kind"] != START:
            return "the chain does not begin with its start"
        return None


async def _missing(vault: Vault, anchors: Sequence[_Anchor], known: set[str]) -> list[Fault]:
    faults: dict[str, Fault] = {}
    for anchor in anchors:
        if anchor.chain in known or anchor.chain in faults:
            continue
        rows = await vault.backend.read(
            "SELECT hash FROM audit WHERE chain = ? AND seq = ?", anchor.chain, anchor.seq
        )
        if not rows:
            what = f"gone, though chain {anchor.seen_in} has seen it"
            faults[anchor.chain] = Fault(anchor.chain, anchor.seq, what)
        elif rows[0]["hash"] != anchor.hash:
            what = f"not the record that chain {anchor.seen_in} has seen"
            faults[anchor.chain] = Fault(anchor.chain, anchor.seq, what)
    return list(faults.values())
