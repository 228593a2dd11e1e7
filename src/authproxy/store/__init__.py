"""Disk: connections, flows and agents as sealed rows, the outbox of events, and the audit trail."""
