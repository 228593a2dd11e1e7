"""The operator's rules for calls of tools: refused, held to what arguments and results may be, or kept for a yes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from authproxy.control.approvals import Approvals, TooLong
from authproxy.control.redaction import Redaction
from authproxy.control.tools import Asked
from authproxy.core.model import Approval, ApprovalStatus, Caller
from authproxy.core.tool_rules import (
    FieldRefused,
    FieldRule,
    Rewrite,
    Subject,
    ToolRule,
    concerned,
    held,
    offered,
    ruling,
)
from authproxy.core.toolbox import Tools as Settings
from authproxy.tools.arguments import checked
from authproxy.tools.tool import Input, Json, Kind, Tool, ToolError

Grant = Callable[[Asked], Awaitable[str | None]]

AGAIN_MS = 5000
"""Milliseconds after which a call that waits for a yes may be tried again."""


class ToolPolicy:
    """A gate of all calls. `settings` are asked with each, so that another configuration is heeded at once; `grant`
    says which grant a call will be made with, and raises ToolError where the user has to consent first."""

    def __init__(self, settings: Callable[[], Settings], approvals: Approvals, grant: Grant) -> None:
        self._settings = settings
        self._approvals = approvals
        self._grant = grant

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
        given, rewrite = asked.input, Redaction(whole=False)
        for hook in concerned(settings.hooks, subject):
            given = self._held(asked.tool, given, hook.input, rewrite)
        if given is not asked.input:
            given = self._still_whole(asked.tool, given)
        if rule.approve is not None:
            approval = await self._approval(asked, given, rule)
            if await self._waited(asked, approval):
                return await self.before(replace(asked, patience=0.0))  # by the rules of now
            await self._demand(asked, approval)
        return given

    async def after(self, asked: Asked, value: Json) -> Json:
        """The result as the caller may see it. Raises ToolError: the call was made all the same."""
        rewrite = Redaction(whole=True)
        for hook in concerned(self._settings().hooks, _subject(asked.caller, asked.tool, asked.user)):
            try:
                value = held(value, hook.output, rewrite)
            except FieldRefused as refused:
                made = "" if asked.tool.marks.read_only else " The call itself was made: do not repeat it."
                raise _denied(
                    asked.tool,
                    f"A rule of the operator withholds the result: {refused} is not allowed.{made}",
                ) from None
        return value

    def told(self, asked: Asked, error: ToolError) -> ToolError:
        """The failure as the caller may see it. It may quote what a result would have held, and there are no fields in
        it: all is held to what any is held to, and choices are left out where some fields may not be seen."""
        hooks = concerned(self._settings().hooks, _subject(asked.caller, asked.tool, asked.user))
        rules = [rule for hook in hooks for rule in hook.output]
        if not rules or error.connect_url is not None:
            return error
        words = {"message": error.message, "developer_message": error.developer_message, "hint": error.hint}
        if any(rule.allow or rule.drop for rule in rules):
            words["hint"] = None
        everywhere = [replace(rule, field="**", allow=(), drop=False) for rule in rules]
        try:
            words = held(words, everywhere, Redaction(whole=True))
        except FieldRefused:
            said = f"{asked.tool.qualified_name} failed, and a rule of the operator withholds what it says."
            words = {"message": said, "developer_message": None, "hint": None}
        for name, text in words.items():
            setattr(error, name, text)
        return error

    async def _approval(self, asked: Asked, given: Input, rule: ToolRule) -> Approval:
        assert rule.approve is not None
        grant = await self._grant(asked)
        try:
            return await self._approvals.ask(
                asked.caller,
                user=asked.user,
                account=asked.account,
                grant=grant,
                tool=asked.tool.qualified_name,
                version=asked.tool.version,
                given=given,
                approver=rule.approve,
            )
        except TooLong:
            raise _denied(
                asked.tool,
                "This call needs somebody's approval, and its arguments are more than anybody could read.",
            ) from None

    async def _waited(self, asked: Asked, approval: Approval) -> bool:
        """Whether somebody has decided while the call waited."""
        if approval.status is not ApprovalStatus.PENDING or asked.patience <= 0:
            return False
        with asked.aside() as may_wait:
            if not may_wait:
                return False
            approval = await self._approvals.wait(
                asked.caller, approval.id, asked.patience, there=asked.there
            )
        # Where nobody is there, the yes is for the call that they will make again.
        return approval.status is not ApprovalStatus.PENDING and asked.there()

    async def _demand(self, asked: Asked, approval: Approval) -> None:
        """The yes, taken for this call."""
        good = approval.status is ApprovalStatus.APPROVED
        if good and await self._approvals.use(asked.caller, approval, asked.call):
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
    def _held(tool: Tool, given: Input, rules: tuple[FieldRule, ...], rewrite: Rewrite) -> Input:
        if not rules:
            return given
        try:
            found: Input = held(given, rules, rewrite)
        except FieldRefused as refused:
            raise _denied(tool, f"A rule of the operator does not allow this value of {refused}.") from None
        return found

    @staticmethod
    def _still_whole(tool: Tool, given: Input) -> Input:
        """What the tool's function can be given still: defaults in place of what was taken out."""
        try:
            return checked(tool, given)
        except ToolError:
            raise _denied(
                tool, "A rule of the operator takes out what this call cannot be without."
            ) from None


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
