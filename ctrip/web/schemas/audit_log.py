"""What operators did, as operators read it."""

from typing import Any, Literal

from pydantic import Field

from ctrip.web.schemas import AFTER, ULID, ListOf, Outgoing, Page, Text


class AuditLogQuery(Page):
    """Which entries, newest first."""

    starting_after: str | None = Field(default=None, pattern=f"^aud_{ULID}$", description=AFTER)
    by: Text | None = Field(
        default=None, max_length=200, description="Who did it: an API key's id, `cli:USER`, or `scheduler`."
    )
    action: Text | None = Field(
        default=None, max_length=100, description="What was done, or how it begins: `dead_letters.replay`, `keys.`."
    )


class AuditLogEntry(Outgoing):
    """What somebody did."""

    id: str = Field(description="Its id.", pattern=f"^aud_{ULID}$")
    object: Literal["audit_log_entry"] = Field(description="Always `audit_log_entry`.")
    at: str = Field(description="When (RFC 3339, UTC).")
    by: str = Field(description="Who: an API key's id, `cli:USER`, or `scheduler` for a rule that was configured.")
    action: str = Field(description="What was done, such as `dead_letters.replay`.")
    target: str | None = Field(description="To what: an id or a name; null where it was a filter's letters.")
    detail: dict[str, Any] = Field(description="How; what it holds depends on the action.")


class AuditLogList(ListOf[AuditLogEntry]):
    """A page of the audit log."""
