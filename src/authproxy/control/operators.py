"""The operators' part of the control plane: for everybody else it does not exist."""

from __future__ import annotations

from authproxy.core.errors import NotFound
from authproxy.core.model import Caller


def demand_operator(caller: Caller) -> None:
    """404 rather than 403, and the same whether the thing exists or not (I04); the title says what would help."""
    if not caller.operator:
        raise NotFound(
            "There is nothing here for this caller: the operators' part needs an operator's key "
            "(`agents create --operator`), or `operator: true` on a loopback caller",
            reason="operator_needed",
        )
