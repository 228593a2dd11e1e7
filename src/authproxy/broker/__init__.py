"""Turns "this user at this provider" into a usable token: consent, refresh, revocation."""
