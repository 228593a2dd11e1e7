"""What a soak has shown: the provider's ledger held against the store's timeline, token by token."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from authproxy.core.model import Event, State
from authproxy.core.secret import Secret
from authproxy.store.vault import Vault
from authproxy.store.verify import verify
from tests.broker.house import key_of

MOST = 6  # sends of one token; each but the last unanswered, or its sender killed before it wrote the answer down


@dataclass
class Report:
    """The numbers, and everything that must not be."""

    seconds: float
    served: Mapping[str, int]
    kills: Mapping[str, int]
    refreshes: int = 0
    presented: int = 0
    again: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    double_spent: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    audit_records: int = 0

    @property
    def sound(self) -> bool:
        return not self.double_spent and not self.faults

    def __str__(self) -> str:
        lines = [
            f"seconds                {self.seconds:.0f}",
            f"refreshes saved        {self.refreshes}",
            f"token calls            {self.presented}",
            *(f"{what:<22} {count}" for what, count in sorted(self.kills.items())),
            f"callers served         {self.served.get('served', 0)}",
            *(f"  refused {what:<20} {n}" for what, n in sorted(self.served.items()) if what != "served"),
            f"grants lost            {sum(self.lost.values())}",
            *(f"  {why:<34} {count}" for why, count in sorted(self.lost.items())),
            *(f"tokens {what:<15} {count}" for what, count in self.again.items()),
            f"tokens double-spent    {len(self.double_spent)}",
            f"audit records          {self.audit_records}",
            *(f"DOUBLE SPEND {one}" for one in self.double_spent),
            *(f"FAULT {one}" for one in self.faults),
        ]
        return "\n".join(lines)


async def judged(vault: Vault, told: dict[str, Any], names: Sequence[str], soak: Any) -> Report:
    """Holds one against the other."""
    report = Report(soak.plan.seconds, soak.served, soak.kills)
    # The store names a token by eight characters of its own digest, the provider by its own: here is who is who.
    ours = {named: vault.digest(Secret(token))[:8] for token, named in told["tokens"].items()}
    calls: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for call in told["calls"]:
        report.presented += 1
        calls[call["user"], ours[call["digest"]]].append(call)
    for user in names:
        timeline = await vault.timeline(key_of(user))
        _judge(report, user, timeline, {d: c for (u, d), c in calls.items() if u == user})
        await _judge_row(report, vault, user, {ours[d]: d in told["live"] for d in told["tokens"].values()})
    _judge_violations(report, told["violations"])
    proof = await verify(vault)
    report.audit_records = proof.records
    report.faults += [f"audit: {fault}" for fault in proof.faults]
    return report


def _judge(
    report: Report, user: str, timeline: Sequence[Event], calls: Mapping[str, list[dict[str, Any]]]
) -> None:
    saved = Counter(str(e.data["digest"]) for e in timeline if e.kind == "refresh.succeeded")
    report.refreshes += saved.total()
    for digest, times in saved.items():
        if times > 1:
            report.faults.append(f"{user}: {digest} was redeemed {times} times by the timeline")
        if not any(call["spent"] for call in calls.get(digest, [])):
            report.faults.append(f"{user}: {digest} was saved as redeemed, and the provider has not seen it")
    for digest, sent in calls.items():
        spending = [number for number, call in enumerate(sent) if call["spent"]]
        if saved[digest] and spending and spending[0] + 1 < len(sent):
            report.double_spent.append(f"{user}: {digest}, though its successor was on disk")
        if len(sent) > 1:
            report.again["sent again, as no answer was saved"] += 1
        if len(sent) > MOST:
            report.faults.append(f"{user}: {digest} was sent {len(sent)} times")
    _judge_ends(report, user, timeline, saved, calls)


def _judge_ends(
    report: Report,
    user: str,
    timeline: Sequence[Event],
    saved: Mapping[str, int],
    calls: Mapping[str, list[dict[str, Any]]],
) -> None:
    """Every end of a grant is explained by what the provider did and the disk has not."""
    last = ""
    for event in timeline:
        if event.kind == "refresh.failed":
            last = str(event.data["digest"])
        elif event.kind == "connection.rotation_lost":
            sent = calls.get(last, [])
            if saved.get(last):
                report.faults.append(f"{user}: {last} is told as lost, and was saved")
            elif any(call["spent"] for call in sent):
                report.lost["rotated, and the answer not saved"] += 1
            else:
                report.lost["given up though not rotated"] += 1
                report.faults.append(f"{user}: {last} is told as lost, and was good: {sent}")
        elif event.kind in ("connection.needs_reauth", "connection.misconfigured"):
            report.faults.append(f"{user}: {event.kind} {dict(event.data)}")


async def _judge_row(report: Report, vault: Vault, user: str, live: Mapping[str, bool]) -> None:
    found = await vault.find(key_of(user))
    if found is None:
        report.faults.append(f"{user}: the connection is gone")
        return
    (row,) = await vault.backend.read("SELECT refresh_digest FROM connections WHERE id = ?", found.id)
    if found.state is State.ACTIVE and not live.get(row["refresh_digest"][:8]):
        report.faults.append(f"{user}: active, and its refresh token is not good")
    generations = [
        e.data["generation"] for e in await vault.timeline(found.id) if e.kind == "refresh.succeeded"
    ]
    if generations != sorted(set(generations)):
        report.faults.append(f"{user}: a generation was written twice or fell")


def _judge_violations(report: Report, kinds: Sequence[str]) -> None:
    """The provider's own rules. It cannot know that whom it answered was dead by then, so that a token that comes
    again after that breaks `double_spend` or `dead_again` to it; these are judged above, by what is on disk. Two at a
    time are too many, whatever became of them."""
    report.double_spent += [f"two at a time ({kind})" for kind in kinds if kind == "concurrent_spend"]
