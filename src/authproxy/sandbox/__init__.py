"""A provider that behaves like production, with switches: users rehearse with it, and it is the tests' peer."""

from authproxy.sandbox.app import Sandbox
from authproxy.sandbox.browser import ConsentNotShown, approve
from authproxy.sandbox.grants import digest_of
from authproxy.sandbox.ledger import ApiCall, TokenCall, Violation
from authproxy.sandbox.settings import Registration, Settings
from authproxy.sandbox.switches import SwitchError, Switches, position

__all__ = [
    "ApiCall",
    "ConsentNotShown",
    "Registration",
    "Sandbox",
    "Settings",
    "SwitchError",
    "Switches",
    "TokenCall",
    "Violation",
    "approve",
    "digest_of",
    "position",
]
