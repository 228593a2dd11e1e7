"""What an agent got, in the few words that an agent's author needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

SERVED = "served"
RETRIED = "served after one retry"
NO_ANSWER = "no answer"


class Trouble(Exception):
    """The rehearsal itself cannot go on; the sentence says what stands in its way."""


@dataclass(slots=True)
class Answer:
    """One call's end. `code` is authproxy's own error code, None where the API itself answered; `attempts` is told
    by the audit trail, and 1 until it was `recorded` there."""

    user: str
    status: int
    code: str | None = None
    act: str | None = None
    reason: str | None = None
    retry_after: float | None = None
    link: str | None = None
    request_id: str | None = None
    seconds: float = 0.0
    attempts: int = 1
    recorded: bool = False

    @property
    def kind(self) -> str:
        """What scenes judge by: `served`, `consent:CODE`, `refused:CODE`, `passed:STATUS` or `no answer`."""
        if self.status == 0:
            return NO_ANSWER
        if self.code is None:
            return SERVED if self.status < 400 else f"passed:{self.status}"
        return f"{'consent' if self.act == 'ask_user' else 'refused'}:{self.code}"

    @property
    def words(self) -> str:
        """What people read."""
        kind, _, what = self.kind.partition(":")
        match kind:
            case "consent":
                return f"asked to re-consent ({what})"
            case "refused":
                return f"refused: {what}"
            case "passed":
                return f"the API's own {what}"
            case _:
                return RETRIED if kind == SERVED and self.attempts > 1 else kind


def counted(answers: Iterable[Answer]) -> dict[str, int]:
    """How many got what, most frequent first."""
    return dict(Counter(one.words for one in answers).most_common())


def told(answers: Iterable[Answer]) -> str:
    """The same as a phrase."""
    return ", ".join(f"{count} {words}" for words, count in counted(answers).items()) or "no calls"
