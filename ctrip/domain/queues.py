"""Queues as an operator sees them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from ctrip.domain.times import timestamp

OLD_AFTER = timedelta(seconds=15)
"""The scheduler looks every few seconds: a snapshot so old says nothing of the queue as it is now."""


@dataclass(frozen=True)
class QueueSnapshot:
    """One queue at one moment.

    `ready` messages wait for a worker, `in_flight` ones are with one, `delayed` ones are not due, `dead` ones wait for
    somebody to look. `completed_1h` counts what workers finished in the last hour, `workers` the live processes.
    `oldest_ready_age_seconds` is None where nothing waits.
    """

    queue: str
    ready: int
    in_flight: int
    delayed: int
    dead: int
    completed_1h: int
    oldest_ready_age_seconds: float | None
    workers: int
    taken_at: datetime

    def age_at(self, now: datetime) -> timedelta:
        """Return how long ago this was seen."""
        return now - self.taken_at


def snapshot_object(snapshot: QueueSnapshot) -> dict[str, object]:
    """Render a snapshot as operators see it."""
    return {
        "queue": snapshot.queue,
        "ready": snapshot.ready,
        "in_flight": snapshot.in_flight,
        "delayed": snapshot.delayed,
        "dead": snapshot.dead,
        "completed_1h": snapshot.completed_1h,
        "oldest_ready_age_seconds": snapshot.oldest_ready_age_seconds,
        "workers": snapshot.workers,
        "taken_at": timestamp(snapshot.taken_at),
    }
