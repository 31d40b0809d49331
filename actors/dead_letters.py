"""Dead messages on their way from Redis to Postgres, and replayed ones on their way back."""

import traceback
from dataclasses import replace
from datetime import UTC, datetime

from dramatiq.broker import Broker
from dramatiq.errors import DecodeError
from dramatiq.message import Message
from redis import RedisError

from actors.messages import read_message
from actors.middleware.dead_letters import Death
from actors.queues import DeadMessage, Queues
from ctrip.context import Context
from ctrip.domain.dead_letters import DeadLetter, Reason
from ctrip.errors import Unavailable
from ctrip.log import get_logger
from ctrip.services import dead_letters

log = get_logger()

COLLECT_BATCH = 100
COLLECT_BATCHES = 20
HEAD_START_MS = 5_000
"""A worker that sees a message die knows more of it than Redis does, and is given the time to record it."""
_OF_ONE_LIFE = ("retries", "traceback", "requeue_timestamp", "eta", "due_at", "redis_message_id")
"""Options that a message gathers until it dies; its next life begins without them."""


def record(ctx: Context, queues: Queues, death: Death) -> None:
    """Record a death in Postgres, and take the message out of Redis, whose own copy would expire unseen.

    Where either is away the message stays in Redis, and `collect` finds it later.
    """
    try:
        dead = queues.dead_message(death.queue, death.redis_id)
        if dead is None:
            return
        letter = letter_of(dead)
        if death.exception is not None:
            lines = traceback.format_exception(death.exception, limit=-30)
            text = f"{type(death.exception).__name__}: {death.exception}"
            letter = replace(letter, exception=text, traceback="".join(lines))
        dead_letters.record(ctx, replace(letter, reason=Reason(death.reason)))
        queues.forget_dead(dead)
    except (Unavailable, RedisError) as error:
        log.warning("death_not_recorded", queue=death.queue, redis_id=death.redis_id, error=str(error))


def collect(
    ctx: Context, queues: Queues, *, queue: str, known_actors: set[str], older_than_ms: int = HEAD_START_MS
) -> int:
    """Record the dead messages that no worker could record when they died. Returns how many were recorded.

    One that cannot be stored stays in Redis, is logged, and keeps no other from being recorded.
    """
    recorded = left = 0
    for _ in range(COLLECT_BATCHES):
        batch = queues.dead_messages(queue, older_than_ms=older_than_ms, limit=COLLECT_BATCH, skip=left)
        for dead in batch:
            if _store(ctx, dead, known_actors):
                queues.forget_dead(dead)
                recorded += 1
            else:
                left += 1
        if len(batch) < COLLECT_BATCH:
            break
    return recorded


def resend(broker: Broker, letter: DeadLetter) -> None:
    """Send a dead letter's message again, its arguments untouched. Raises BrokerConnectionError.

    Raises DecodeError where the message cannot be read: no replay can help such a letter.
    """
    # Read and written in Python alone: Redis' own JSON library makes {} of [] and rounds integers above 2**53.
    message = read_message(letter.message.encode())
    options = {name: value for name, value in message.options.items() if name not in _OF_ONE_LIFE}
    options |= {"replays": letter.replays, "first_at": int(letter.first_at.timestamp() * 1000)}
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    broker.enqueue(replace(message, queue_name=letter.queue, options=options, message_timestamp=now_ms))


def letter_of(dead: DeadMessage) -> DeadLetter:
    """Read what a dead message says of itself."""
    text = dead.content.decode("utf-8", errors="backslashreplace")
    try:
        return _read(dead, read_message(dead.content), text)
    except (DecodeError, AttributeError, TypeError, ValueError, OverflowError) as error:
        # It may be JSON, and still not what Dramatiq writes.
        return _unreadable(dead, text, error)


def _store(ctx: Context, dead: DeadMessage, known_actors: set[str]) -> bool:
    """Record a dead message; False where it cannot be stored. Raises Unavailable."""
    try:
        dead_letters.record(ctx, _collected(dead, known_actors))
    except Unavailable:
        raise
    except Exception:  # whoever can write to Redis may think of what nobody here did
        log.exception("dead_message_not_stored", queue=dead.queue, redis_id=dead.redis_id)
        return False
    return True


def _collected(dead: DeadMessage, known_actors: set[str]) -> DeadLetter:
    letter = letter_of(dead)
    is_unknown = letter.reason is Reason.RETRIES and letter.actor not in known_actors
    return replace(letter, reason=Reason.UNKNOWN_ACTOR) if is_unknown else letter


def _read(dead: DeadMessage, message: Message[object], text: str) -> DeadLetter:
    if not isinstance(message.actor_name, str) or not isinstance(message.message_id, str):
        raise TypeError("neither an actor's name nor an id is anything but text")
    last_words = str(message.options.get("traceback") or "").strip()
    return DeadLetter(
        queue=dead.queue,
        actor=message.actor_name,
        message=text,
        message_id=message.message_id,
        reason=Reason.RETRIES,
        exception=last_words.splitlines()[-1] if last_words else None,
        traceback=last_words or None,
        row_id=str(message.args[0]) if message.args else None,
        first_at=_moment(message.options.get("first_at", message.message_timestamp)),
        died_at=_moment(dead.died_at_ms),
        replays=int(message.options.get("replays", 0)),
    )


def _unreadable(dead: DeadMessage, text: str, error: Exception) -> DeadLetter:
    return DeadLetter(
        queue=dead.queue,
        actor="",
        message=text,
        message_id=dead.redis_id,
        reason=Reason.UNDECODABLE,
        exception=f"{type(error).__name__}: {error}",
        traceback=None,
        row_id=None,
        first_at=_moment(dead.died_at_ms),
        died_at=_moment(dead.died_at_ms),
    )


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
