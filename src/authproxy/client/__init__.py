"""The client of a running authproxy: start a consent, show its link, wait for its end; and no token in any of it.

```python
from authproxy.client import Client

client = Client(key="apx_…")
flow = client.start("alice", "google")
print(flow.url)  # show it to alice
client.wait(flow)
```
"""

from authproxy.client.asynchronous import AsyncClient
from authproxy.client.blocking import Client
from authproxy.client.door import Door
from authproxy.client.hooks import aiohttp_hook, httpx_async_hook, httpx_hook, requests_hook
from authproxy.client.refusals import (
    AuthproxyError,
    BadRequest,
    CallerUnknown,
    ConnectionExpired,
    ConnectionRequired,
    DeadlinePassed,
    Denied,
    Expired,
    Failed,
    FixRequest,
    NotConnected,
    NotFound,
    PolicyDenied,
    Refused,
    RetryLater,
    ScopeMissing,
    Superseded,
    TellOperator,
    ToolFailed,
    Unexpected,
    Unreachable,
    UserDisabled,
    UserNotAllowed,
    raise_for_refusal,
    refusal_of,
)
from authproxy.client.values import Authorization, Connection, NewSession, Session, Tool, ToolResult

__all__ = [
    "AsyncClient",
    "Authorization",
    "AuthproxyError",
    "BadRequest",
    "CallerUnknown",
    "Client",
    "Connection",
    "ConnectionExpired",
    "ConnectionRequired",
    "DeadlinePassed",
    "Denied",
    "Door",
    "Expired",
    "Failed",
    "FixRequest",
    "NewSession",
    "NotConnected",
    "NotFound",
    "PolicyDenied",
    "Refused",
    "RetryLater",
    "ScopeMissing",
    "Session",
    "Superseded",
    "TellOperator",
    "Tool",
    "ToolFailed",
    "ToolResult",
    "Unexpected",
    "Unreachable",
    "UserDisabled",
    "UserNotAllowed",
    "aiohttp_hook",
    "httpx_async_hook",
    "httpx_hook",
    "raise_for_refusal",
    "refusal_of",
    "requests_hook",
]
