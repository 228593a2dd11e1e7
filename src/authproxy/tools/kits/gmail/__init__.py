"""Gmail: messages found, read, written, sorted and thrown away."""

from __future__ import annotations

from authproxy.tools.kits.gmail.account import who_am_i
from authproxy.tools.kits.gmail.batches import triage_emails
from authproxy.tools.kits.gmail.drafts import (
    deleted_draft,
    list_draft_emails,
    update_draft_email,
    write_draft_email,
    write_draft_reply_email,
)
from authproxy.tools.kits.gmail.labels import (
    change_email_labels,
    create_label,
    delete_label,
    list_labels,
    update_label,
)
from authproxy.tools.kits.gmail.listing import list_emails, list_emails_by_header, search_emails_by_query
from authproxy.tools.kits.gmail.messages import (
    archived,
    get_email,
    list_email_attachment_metadata,
    reported_spam,
    trashed,
)
from authproxy.tools.kits.gmail.sending import forward_email, reply_to_email, send_draft_email, send_email
from authproxy.tools.kits.gmail.threads import (
    change_thread_labels,
    get_thread,
    list_threads,
    search_threads,
    set_thread_trash_status,
)
from authproxy.tools.kits.gmail.unsubscribing import unsubscribe_from_email
from authproxy.tools.kits.google_errors import error_words

__all__ = [
    "archived",
    "change_email_labels",
    "change_thread_labels",
    "create_label",
    "delete_label",
    "deleted_draft",
    "error_words",
    "forward_email",
    "get_email",
    "get_thread",
    "list_draft_emails",
    "list_email_attachment_metadata",
    "list_emails",
    "list_emails_by_header",
    "list_labels",
    "list_threads",
    "reply_to_email",
    "reported_spam",
    "search_emails_by_query",
    "search_threads",
    "send_draft_email",
    "send_email",
    "set_thread_trash_status",
    "trashed",
    "triage_emails",
    "unsubscribe_from_email",
    "update_draft_email",
    "update_label",
    "who_am_i",
    "write_draft_email",
    "write_draft_reply_email",
]
