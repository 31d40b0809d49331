"""Dead letters: messages that will not be tried again by themselves, kept until somebody has looked.

A message dies in a worker (retries, age, poison, unknown_actor, undecodable), or the row that it spoke of is given up
by a rule of the domain (schedule, endpoint_disabled). A replay sends the message again and closes the letter; where it
dies once more, that is another letter.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ctrip.domain.times import timestamp

TRACEBACK_CHARACTERS = 20_000


class Reason(StrEnum):
    """Why a message died."""

    RETRIES = "retries"
    AGE = "age"
    POISON = "poison"
    UNKNOWN_ACTOR = "unknown_actor"
    UNDECODABLE = "undecodable"
    SCHEDULE = "schedule"
    ENDPOINT_DISABLED = "endpoint_disabled"


@dataclass(frozen=True)
class DeadLetter:
    """A dead message. `message` is its JSON, byte for byte; `row_id` is the row that it spoke of, its first argument.

    `exception` is the last one's class and text. `first_at` is when the message was first sent. `replays` counts how
    often it had been replayed before it died this time, and is one more once this letter was. The `id` is empty until
    the letter is stored.
    """

    queue: str
    actor: str
    message: str
    message_id: str
    reason: Reason
    exception: str | None
    traceback: str | None
    row_id: str | None
    first_at: datetime
    died_at: datetime
    replays: int = 0
    id: str = ""
    replay_requested_at: datetime | None = None
    replayed_at: datetime | None = None

    @property
    def args(self) -> list[object] | None:
        """The message's arguments; None where it cannot be read."""
        try:
            content = json.loads(self.message)
        except ValueError:
            return None
        args = content.get("args") if isinstance(content, dict) else None
        return args if isinstance(args, list) else None


@dataclass(frozen=True)
class Filter:
    """Which letters are meant: those that match every field that is set. `q` is text in exception, arguments or ids."""

    queue: str | None = None
    actor: str | None = None
    reason: str | None = None
    exception: str | None = None
    q: str | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Count:
    """How many letters a bulk action concerned, and how many of them it changed."""

    matched: int
    done: int


def row_died(
    *, queue: str, actor: str, row_id: str, reason: Reason, exception: str | None, first_at: datetime, died_at: datetime
) -> DeadLetter:
    """Make the letter of a row that a rule of the domain gave up: its message is the one that would wake it again."""
    content = {
        "queue_name": queue,
        "actor_name": actor,
        "args": [row_id],
        "kwargs": {},
        "options": {},
        "message_id": row_id,
        "message_timestamp": int(first_at.timestamp() * 1000),
    }
    return DeadLetter(
        queue=queue,
        actor=actor,
        message=json.dumps(content, separators=(",", ":")),
        message_id=row_id,
        reason=reason,
        exception=exception,
        traceback=None,
        row_id=row_id,
        first_at=first_at,
        died_at=died_at,
    )


def dead_letter_object(letter: DeadLetter) -> dict[str, object]:
    """Render a letter as operators see it."""
    return {
        "id": letter.id,
        "object": "dead_letter",
        "queue": letter.queue,
        "actor": letter.actor,
        "args": letter.args,
        "reason": str(letter.reason),
        "exception": letter.exception,
        "traceback": letter.traceback,
        "row_id": letter.row_id,
        "first_at": timestamp(letter.first_at),
        "died_at": timestamp(letter.died_at),
        "replays": letter.replays,
        "replay_requested_at": letter.replay_requested_at and timestamp(letter.replay_requested_at),
        "replayed_at": letter.replayed_at and timestamp(letter.replayed_at),
    }
