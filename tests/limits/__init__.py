"""Limits, pauses that providers ask for, and ends of what lasts."""
