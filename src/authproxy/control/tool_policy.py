"""The operator's rules for calls of tools: refused, held to what arguments and results may be, or kept for a yes."""

from __future__ import annotations

from collections.abc import Callable

from authproxy.control.approvals import Approvals
from authproxy.control.tools import Asked
from authproxy.core.model import Approval, ApprovalStatus, Caller
from authproxy.core.tool_rules import FieldRefused, FieldRule, Subject, concerned, held, offered, ruling
from authproxy.core.toolbox import Tools as Settings
from authproxy.tools.tool import Input, Json, Kind, Tool, ToolError

AGAIN_MS = 5000
"""Milliseconds after which a call that waits for a yes may be tried again."""


class ToolPolicy:
    """A gate of all calls. `settings` are asked with each, so that another configuration is heeded at once."""

    def __init__(self, settings: Callable[[], Settings], approvals: Approvals) -> None:
        self._settings = settings
        self._approvals = approvals

    def offers(self, caller: Caller, tool: Tool) -> bool:
        """Whether a call could succeed for some user that this caller may speak for."""
        return offered(self._settings().rules, _subject(caller, tool, caller.bound_user))

    async def before(self, asked: Asked) -> Input:
        """The arguments as they may be. Raises ToolError, with the code `policy_denied`, `approval_required` or
        `approval_denied`."""
        settings, subject = self._settings(), _subject(asked.caller, asked.tool, asked.user)
        rule = ruling(settings.rules, subject)
        if rule is None or rule.effect == "deny":
            raise _denied(asked.tool, "A rule of the operator does not allow this call.")
        given: Input = asked.input
        for hook in concerned(settings.hooks, subject):
            given = self._held(asked.tool, given, hook.input)
        if rule.approve is not None:
            approval = await self._approvals.ask(
                asked.caller,
                user=asked.user,
                account=asked.account,
                tool=asked.tool.qualified_name,
                version=asked.tool.version,
                given=given,
                approver=rule.approve,
            )
            await self._demand(asked, approval)
        return given

    async def after(self, asked: Asked, value: Json) -> Json:
        """The result as the caller may see it. Raises ToolError: the call was made all the same."""
        for hook in concerned(self._settings().hooks, _subject(asked.caller, asked.tool, asked.user)):
            try:
                value = held(value, hook.output)
            except FieldRefused as refused:
                made = "" if asked.tool.marks.read_only else " The call itself was made: do not repeat it."
                raise _denied(
                    asked.tool,
                    f"A rule of the operator withholds the result: {refused} is not allowed.{made}",
                ) from None
        return value

    async def _demand(self, asked: Asked, approval: Approval) -> None:
        """The yes, taken for this call."""
        if approval.status is ApprovalStatus.PENDING and asked.patience > 0:
            approval = await self._approvals.wait(asked.caller, approval.id, asked.patience)
        if approval.status is ApprovalStatus.APPROVED and await self._approvals.use(asked.caller, approval):
            return
        if approval.status is ApprovalStatus.DENIED:
            raise ToolError(
                Kind.REQUIREMENTS_NOT_MET,
                f"The {approval.approver} has refused this call of {approval.tool}. Do not try it again.",
                code="approval_denied",
                approval=approval.id,
            )
        raise ToolError(
            Kind.REQUIREMENTS_NOT_MET,
            f"This call of {approval.tool} waits for the {approval.approver}'s approval ({approval.id}). "
            "Call it again with the very same arguments once it is given; other arguments need another approval.",
            developer_message=f"GET /v1/approvals/{approval.id}?wait=59 ends when it is decided",
            can_retry=True,
            retry_after_ms=AGAIN_MS,
            code="approval_required",
            approval=approval.id,
        )

    @staticmethod
    def _held(tool: Tool, given: Input, rules: tuple[FieldRule, ...]) -> Input:
        try:
            found: Input = held(given, rules)
        except FieldRefused as refused:
            raise _denied(tool, f"A rule of the operator does not allow this value of {refused}.") from None
        return found


def _denied(tool: Tool, why: str) -> ToolError:
    return ToolError(
        Kind.REQUIREMENTS_NOT_MET,
        why,
        developer_message=f"tools.rules or tools.hooks in routes.yaml decide on {tool.qualified_name}",
        code="policy_denied",
    )


def _subject(caller: Caller, tool: Tool, user: str | None) -> Subject:
    marks = tool.marks
    return Subject(
        tool.qualified_name, marks.read_only, marks.destructive, marks.idempotent, caller.agent, user
    )
