"""Queues as operators read them."""

from pydantic import Field

from ctrip.web.schemas import ListOf, Outgoing


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
