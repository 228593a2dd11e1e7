"""The front door: parses arguments, builds an App, speaks to its Control."""

from authproxy.cli.door import main

__all__ = ["main"]
