"""Dead letters: recorded as they happen, looked at, and sent again when somebody asks for it."""

from collections.abc import Sequence
from dataclasses import replace

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import dead_letters
from ctrip.domain.dead_letters import TRACEBACK_CHARACTERS, Count, DeadLetter, Filter
from ctrip.domain.ids import Prefix
from ctrip.errors import NotFound
from ctrip.log import get_logger, redact

REQUEST_BATCH = 500
REPLAY_BATCH = 100
log = get_logger()


def record(ctx: Context, letter: DeadLetter) -> bool:
    """Store a dead message, and let the work row that it spoke of wait for a replay.

    Returns False where this death is stored already: the worker that saw it and the scheduler that finds its trace in
    Redis may both tell of it.
    """
    letter_id, letter = ctx.new_id(Prefix.DEAD_LETTER), _storable(letter)
    with ctx.sessions.begin() as session:
        is_new = dead_letters.add(session, letter, letter_id=letter_id)
        if is_new and letter.row_id is not None:
            dead_letters.fail_row(session, letter.row_id)
    if is_new:
        metrics.DEAD_LETTERS.labels(queue=letter.queue, actor=letter.actor, reason=letter.reason).inc()
        log.error(
            "message_died",
            dead_letter_id=letter_id,
            queue=letter.queue,
            actor=letter.actor,
            reason=str(letter.reason),
            row_id=letter.row_id,
        )
    return is_new


def matching(ctx: Context, wanted: Filter, *, limit: int, after: str | None = None) -> list[DeadLetter]:
    """Return letters, newest first, those older than the id `after` where one is given."""
    with ctx.sessions.begin() as session:
        return dead_letters.matching(session, wanted, limit=limit, after=after)


def show(ctx: Context, letter_id: str) -> DeadLetter:
    """Return one letter. Raises NotFound."""
    with ctx.sessions.begin() as session:
        letter = dead_letters.find(session, letter_id)
    if letter is None:
        raise NotFound(f"no dead letter {letter_id}")
    return letter


def request_replay(ctx: Context, wanted: Filter, *, dry_run: bool) -> Count:
    """Ask for the replay of every letter that matches and was not replayed yet; the scheduler sends them.

    Marks in bounded batches. A letter that two operators ask for at once is marked, and sent, once: the second one's
    `done` does not count it. A dry run says how many match and marks nothing.
    """
    with ctx.sessions.begin() as session:
        matched = dead_letters.count_replayable(session, wanted)
    if dry_run:
        return Count(matched=matched, done=0)
    done = 0
    while True:
        with ctx.sessions.begin() as session:
            marked = dead_letters.request_replay(session, wanted, limit=REQUEST_BATCH)
        done += marked
        if marked < REQUEST_BATCH:
            break
    log.info("replay_requested", matched=matched, done=done)
    return Count(matched=matched, done=done)


def take_requested(ctx: Context) -> Sequence[DeadLetter]:
    """Close a batch of letters whose replay was asked for, make their rows due, and return them to be sent.

    Exactly one scheduler gets each. A crash before the sending loses the message, not the work: the relay sends for
    the row that is due again.
    """
    with ctx.sessions.begin() as session:
        letters = dead_letters.take_requested(session, limit=REPLAY_BATCH)
        dead_letters.revive_rows(session, [letter.row_id for letter in letters if letter.row_id is not None])
    if letters:
        metrics.DEAD_LETTERS_REPLAYED.inc(len(letters))
    for letter in letters:
        log.info("dead_letter_replayed", dead_letter_id=letter.id, actor=letter.actor, row_id=letter.row_id)
    return letters


def _storable(letter: DeadLetter) -> DeadLetter:
    """Strike secrets out of what an exception said, and what Postgres' text cannot hold out of everything."""
    return replace(
        letter,
        message=_plain(letter.message),
        exception=None if letter.exception is None else _plain(redact(letter.exception))[:TRACEBACK_CHARACTERS],
        # The end of a traceback says what happened; its beginning is the same every time.
        traceback=None if letter.traceback is None else _plain(redact(letter.traceback))[-TRACEBACK_CHARACTERS:],
        row_id=None if letter.row_id is None else _plain(letter.row_id),
    )


def _plain(text: str) -> str:
    return text.replace("\0", "�").encode(errors="replace").decode()
