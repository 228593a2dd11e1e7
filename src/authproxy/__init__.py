"""authproxy: a sidecar forward proxy that injects each user's OAuth credentials.

An agent sends an unauthenticated call with the user's id; authproxy finds the route, attaches that user's
fresh bearer token, refreshes and replays once on a 401, streams the answer and writes an audit record.
"""

__version__ = "0.1.0"
