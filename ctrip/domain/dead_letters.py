"""Dead letters: messages that will not be tried again by themselves, kept until somebody has looked.

A message dies in a worker (retries, age, poison, unknown_actor, undecodable), or the row that it spoke of is given up
by a rule of the domain (schedule, endpoint_disabled).

open ──replay──> replayed: its message was sent again; where that dies once more, it is another letter
  └────purge───> purged: nobody needs it; what it concerned stays as it is
"""

import json
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum

from ctrip.domain.times import timestamp

TRACEBACK_CHARACTERS = 20_000
NAME_CHARACTERS = 500
"""How much is kept of an actor's name and of an id; the whole message is kept as it was."""
MOST_REPLAYS = 1_000_000
MOST_IDS = 1_000
"""How many letters one filter may name."""
OLDEST = timedelta(days=10 * 365)
"""The greatest age that a filter may ask for."""


class Reason(StrEnum):
    """Why a message died."""

    RETRIES = "retries"
    AGE = "age"
    POISON = "poison"
    UNKNOWN_ACTOR = "unknown_actor"
    UNDECODABLE = "undecodable"
    SCHEDULE = "schedule"
    ENDPOINT_DISABLED = "endpoint_disabled"


class State(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    PURGED = "purged"


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
    purged_at: datetime | None = None
    digest_id: str | None = None

    @property
    def args(self) -> list[object] | None:
        """The message's arguments; None where it cannot be read."""
        if self.reason is Reason.UNDECODABLE:
            return None
        try:
            # NaN and the infinities are no JSON, and whoever reads these arguments as JSON would stumble over them.
            content = json.loads(self.message, parse_constant=str)
        except (ValueError, RecursionError):
            return None
        args = content.get("args") if isinstance(content, dict) else None
        return args if isinstance(args, list) else None

    @property
    def state(self) -> State:
        """What became of it. One whose replay was asked for is open until its message is sent."""
        if self.purged_at is not None:
            return State.PURGED
        return State.OPEN if self.replayed_at is None else State.REPLAYED

    @property
    def is_replayable(self) -> bool:
        """True where a replay can be asked for: not twice, and not for a message that nobody can read."""
        return self.state is State.OPEN and self.replay_requested_at is None and self.reason is not Reason.UNDECODABLE


@dataclass(frozen=True)
class Filter:
    """Which letters are meant: those that match every field that is set.

    `exception` is how it begins, `q` text in exception, arguments or ids. They died at least `older_than` ago, or less
    than `newer_than`. Without a `state` all are meant but those that were purged.
    """

    queue: str | None = None
    actor: str | None = None
    reason: str | None = None
    exception: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    q: str | None = None
    state: State | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Count:
    """How many open letters a bulk action concerned, and how many of them it changed.

    `unreadable` ones match and are never done: they are messages that cannot be read, and so not be sent again.
    """

    matched: int
    done: int
    unreadable: int = 0


@dataclass(frozen=True)
class Forgotten:
    """How many letters were deleted because they died before `before`; `open` of them nobody had looked at."""

    before: datetime
    deleted: int
    open: int


class Action(StrEnum):
    """What is done to letters, as the audit log names it."""

    REPLAY = "dead_letters.replay"
    PURGE = "dead_letters.purge"
    FORGET = "dead_letters.forget"


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


def filter_object(wanted: Filter) -> dict[str, object]:
    """Render what is set of a filter, ages in whole seconds."""
    shown: dict[str, object] = {}
    for field in fields(wanted):
        value = getattr(wanted, field.name)
        if isinstance(value, timedelta):
            shown[field.name] = value // timedelta(seconds=1)
        elif value not in (None, ()):
            shown[field.name] = list(value) if field.name == "ids" else str(value)
    return shown


def dead_letter_object(letter: DeadLetter) -> dict[str, object]:
    """Render a letter as operators see it."""
    return {
        "id": letter.id,
        "object": "dead_letter",
        "queue": letter.queue,
        "actor": letter.actor,
        "args": letter.args,
        "reason": str(letter.reason),
        "state": str(letter.state),
        "exception": letter.exception,
        "traceback": letter.traceback,
        "row_id": letter.row_id,
        "message_id": letter.message_id,
        "first_at": timestamp(letter.first_at),
        "died_at": timestamp(letter.died_at),
        "replays": letter.replays,
        "replay_requested_at": letter.replay_requested_at and timestamp(letter.replay_requested_at),
        "replayed_at": letter.replayed_at and timestamp(letter.replayed_at),
        "purged_at": letter.purged_at and timestamp(letter.purged_at),
        "replayable": letter.is_replayable,
    }
