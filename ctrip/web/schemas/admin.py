"""What operators write and read."""

from typing import Any, Literal

from pydantic import Field

from ctrip.domain.dead_letters import Filter
from ctrip.domain.merchants import Scope
from ctrip.web.schemas import ULID, Incoming, ListOf, Moment, Outgoing, Page, Path, Text

_MERCHANT_ID = f"^mer_{ULID}$"
_KEY_ID = f"^key_{ULID}$"
_LETTER_ID = f"^dlt_{ULID}$"
# The domain's Reason, written out: the document has another one, that of a transfer.
DeathReason = Literal["retries", "age", "poison", "unknown_actor", "undecodable", "schedule", "endpoint_disabled"]
_AFTER = "The `next_cursor` of the page before."


class CreateMerchant(Incoming):
    """A merchant to be."""

    name: Text = Field(min_length=1, max_length=200, description="What people call it.", examples=["A shop"])
    email: Text | None = Field(
        default=None, max_length=254, description="Where its mail goes.", examples=["owner@shop.example"]
    )
    underpayment_tolerance: int = Field(
        default=0,
        ge=0,
        le=9_999,
        description="Basis points of an amount that may be missing, unless a payment says so.",
    )


class CreatedMerchant(Outgoing):
    """A new merchant, with what is shown this once."""

    id: str = Field(description="Its id.")
    webhook_secret: str = Field(description="Verifies its webhooks (Standard Webhooks). It is not shown again.")


class CreateKey(Incoming):
    """A key to be."""

    merchant_id: str | None = Field(
        default=None, pattern=_MERCHANT_ID, description="Whose key it is; null or absent: an operator's."
    )
    scopes: list[Literal["payments:read", "payments:write", "webhooks:read", "webhooks:write", "admin"]] = Field(
        min_length=1,
        max_length=8,
        description="What it may do. `admin` is an operator's alone, and an operator's only one.",
        examples=[["admin"]],
    )
    expires_at: Moment | None = Field(default=None, description="When it stops working; null or absent: never.")


class CreatedKey(Outgoing):
    """A new key, with what is shown this once."""

    id: str = Field(description="Its id.")
    key: str = Field(description="Send it as `Authorization: Bearer sk_…`. It is not shown again.")


class ApiKey(Outgoing):
    """A key without its secret."""

    id: str = Field(description="Its id.")
    object: Literal["api_key"] = Field(description="Always `api_key`.")
    merchant_id: str | None = Field(description="Whose key it is; null: an operator's.")
    scopes: list[Scope] = Field(description="What it may do.")
    created_at: str = Field(description="When it was made (RFC 3339, UTC).")
    expires_at: str | None = Field(description="When it stops working.")
    revoked_at: str | None = Field(description="When it was revoked.")
    last_used_at: str | None = Field(description="When it was last used, within five minutes.")


class ApiKeyList(ListOf[ApiKey]):
    """A page of keys."""


class KeyPath(Path):
    """Which key."""

    key_id: str = Field(pattern=_KEY_ID, description="The key's id.")


class KeyQuery(Page):
    """Which keys, newest first."""

    starting_after: str | None = Field(default=None, pattern=_KEY_ID, description=_AFTER)
    merchant_id: str | None = Field(default=None, pattern=_MERCHANT_ID, description="Only keys of this merchant.")


class Loop(Outgoing):
    """Work on a chain that is done over and over."""

    name: str = Field(description="Its kind and its chain's id.")
    every_ms: int = Field(description="The time between two runs.")
    enabled: bool = Field(description="Whether it runs.")
    next_run_at: str = Field(description="When it is due (RFC 3339, UTC).")
    last_tick_at: str | None = Field(description="When it last ended a run.")
    lease_until: str | None = Field(description="Until when the run at hand owns it.")
    fence: int = Field(description="The number of the newest claim.")


class LoopList(ListOf[Loop]):
    """All loops."""


class Queue(Outgoing):
    """A queue as the scheduler last saw it."""

    queue: str = Field(description="Its name.")
    ready: int = Field(description="Messages that wait for a worker.")
    in_flight: int = Field(description="Messages that are with one.")
    delayed: int = Field(description="Messages that are not due.")
    dead: int = Field(description="Dead letters that nobody replayed.")
    completed_1h: int = Field(description="Messages that were finished in the last hour.")
    oldest_ready_age_seconds: float | None = Field(description="How long the oldest one waits; null where none does.")
    workers: int = Field(description="Live worker processes.")
    taken_at: str = Field(description="When this was seen (RFC 3339, UTC): with Redis away it stays what it was.")


class QueueList(ListOf[Queue]):
    """All queues."""


class DeadLetterFilter(Incoming):
    """Which dead letters: those that match every field that is given."""

    queue: Text | None = Field(default=None, max_length=100, description="The queue it died in.")
    actor: Text | None = Field(default=None, max_length=100, description="The actor it was for.")
    reason: DeathReason | None = Field(default=None, description="Why it died.")
    exception: Text | None = Field(default=None, max_length=200, description="The exception's class, or its beginning.")
    q: Text | None = Field(default=None, max_length=200, description="Text in its exception, arguments or ids.")

    def wanted(self, ids: tuple[str, ...] = ()) -> Filter:
        """Return it as the service takes it."""
        return Filter(
            queue=self.queue, actor=self.actor, reason=self.reason, exception=self.exception, q=self.q, ids=ids
        )


class DeadLetterQuery(DeadLetterFilter, Page):
    """Which dead letters, newest first."""

    starting_after: str | None = Field(default=None, pattern=_LETTER_ID, description=_AFTER)


class DeadLetterPath(Path):
    """Which dead letter."""

    letter_id: str = Field(pattern=_LETTER_ID, description="The dead letter's id.")


class Replay(Incoming):
    """What to send again."""

    filter: DeadLetterFilter = Field(
        description="Which dead letters; an empty object: all of them.", examples=[{"queue": "webhook"}]
    )
    dry_run: bool = Field(default=False, description="Only say how many match.", examples=[True])


class Replayed(Outgoing):
    """How many dead letters a replay concerns."""

    matched: int = Field(description="How many match and were not replayed yet.")
    done: int = Field(description="How many of them will be sent again.")


class DeadLetter(Outgoing):
    """A message that will not be tried again by itself."""

    id: str = Field(description="Its id.")
    object: Literal["dead_letter"] = Field(description="Always `dead_letter`.")
    queue: str = Field(description="The queue it died in.")
    actor: str = Field(description="The actor it was for.")
    args: list[Any] | None = Field(description="Its arguments; null where the message cannot be read.")
    reason: DeathReason = Field(description="Why it died.")
    exception: str | None = Field(description="The last exception.")
    traceback: str | None = Field(description="Where it came from.")
    row_id: str | None = Field(description="The row that the message spoke of.")
    first_at: str = Field(description="When it was first sent (RFC 3339, UTC).")
    died_at: str = Field(description="When it died.")
    replays: int = Field(description="How often it was replayed.")
    replay_requested_at: str | None = Field(description="When a replay was asked for.")
    replayed_at: str | None = Field(description="When it was sent again.")


class DeadLetterList(ListOf[DeadLetter]):
    """A page of dead letters."""
