"""Every path of the control plane: the faces, put side by side."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web

from authproxy.broker.flows import Flows
from authproxy.control.panel import Control
from authproxy.core.config import Config
from authproxy.faces.api import Api
from authproxy.faces.approvals import Approvals
from authproxy.faces.connect import Connect
from authproxy.faces.health import Health
from authproxy.faces.inquiry import Inquiries
from authproxy.faces.mcp import Mcp
from authproxy.faces.sessions import Sessions
from authproxy.faces.tools import Tools
from authproxy.faces.users import Users


def doors(
    control: Control,
    flows: Flows,
    inquiries: Inquiries,
    config: Callable[[], Config],
    stack: AsyncExitStack,
) -> list[web.AbstractRouteDef]:
    """All of them, open until the stack is unwound."""
    mcp = Mcp(inquiries, control, config)
    stack.push_async_callback(mcp.end)
    now = config()
    connect = Connect(flows, public_url=now.public_url, cookie_life=now.flows.lifetime, clock=control.clock)
    return [
        *Api(control, inquiries).routes(),
        *Sessions(control, inquiries).routes(),
        *Tools(control, inquiries, lambda: config().tools).routes(),
        *Approvals(control, inquiries).routes(),
        *Users(control, inquiries).routes(),
        *connect.routes(),
        *mcp.routes(),
        *Health(control).routes(),
    ]
