"""Dead letters: recorded as they happen, looked at, and sent again when somebody asks for it."""

from collections.abc import Callable, Sequence

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import audit_log, dead_letters, work
from ctrip.domain.dead_letters import Action, Count, DeadLetter, Filter, Reason, filter_object
from ctrip.domain.ids import Prefix
from ctrip.errors import NotFound
from ctrip.log import get_logger

BATCH = 500
REPLAY_BATCH = 100
Progress = Callable[[int, int], None]
"""Told of long work: how many letters are done, and of how many."""
log = get_logger()


def record(ctx: Context, letter: DeadLetter) -> bool:
    """Store a dead message, and let the work row that it spoke of wait for a replay.

    Returns False where this death is stored already: the worker that saw it and the scheduler that finds its trace in
    Redis may both tell of it.
    """
    with ctx.sessions.begin() as session:
        stored = dead_letters.add(session, letter, letter_id=ctx.new_id(Prefix.DEAD_LETTER))
        if stored is not None and stored.row_id is not None:
            work.fail(session, stored.row_id, killed=stored.reason is Reason.POISON)
    if stored is None:
        return False
    metrics.DEAD_LETTERS.labels(queue=stored.queue, actor=stored.actor, reason=stored.reason).inc()
    log.error(
        "message_died",
        dead_letter_id=stored.id,
        queue=stored.queue,
        actor=stored.actor,
        reason=str(stored.reason),
        row_id=stored.row_id,
    )
    return True


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


def request_replay(
    ctx: Context,
    wanted: Filter,
    *,
    by: str,
    dry_run: bool,
    at_most: int | None = None,
    on_progress: Progress = lambda _done, _of: None,
) -> Count:
    """Ask for the replay of the open letters that match; the scheduler sends them, each once.

    A letter that two operators ask for at once is marked, and sent, once: the second one's `done` does not count it.
    A dry run says how many match and marks nothing. See `_in_batches` for the rest.
    """
    return _in_batches(ctx, wanted, Action.REPLAY, by=by, dry_run=dry_run, at_most=at_most, on_progress=on_progress)


def purge(
    ctx: Context,
    wanted: Filter,
    *,
    by: str,
    dry_run: bool,
    at_most: int | None = None,
    on_progress: Progress = lambda _done, _of: None,
) -> Count:
    """Close the open letters that match, because somebody has looked at them. What they concerned stays as it is.

    One whose replay was asked for already is left to it. A purged letter can be read until it is forgotten.
    """
    return _in_batches(ctx, wanted, Action.PURGE, by=by, dry_run=dry_run, at_most=at_most, on_progress=on_progress)


def take_requested(ctx: Context) -> Sequence[DeadLetter]:
    """Close a batch of letters whose replay was asked for, make their rows due, and return them to be sent.

    Exactly one scheduler gets each. One that is killed before the sending loses the messages: the relay sends for the
    rows that are due again, but a letter that spoke of no such row says that it was replayed and was not.
    """
    with ctx.sessions.begin() as session:
        letters = dead_letters.take_requested(session, limit=REPLAY_BATCH)
        work.revive(session, [letter.row_id for letter in letters if letter.row_id is not None])
    if letters:
        metrics.DEAD_LETTERS_REPLAYED.inc(len(letters))
    for letter in letters:
        log.info("dead_letter_replayed", dead_letter_id=letter.id, actor=letter.actor, row_id=letter.row_id)
    return letters


def give_back(ctx: Context, letters: Sequence[DeadLetter]) -> None:
    """Let letters that were taken and could not be sent wait for their replay as before.

    Their rows stay due: where the relay is faster, the message that comes second finds nothing to do.
    """
    with ctx.sessions.begin() as session:
        dead_letters.give_back(session, [letter.id for letter in letters])
    log.warning("dead_letters_given_back", count=len(letters))


def _in_batches(
    ctx: Context, wanted: Filter, action: Action, *, by: str, dry_run: bool, at_most: int | None, on_progress: Progress
) -> Count:
    """Do it to as many letters as match now, BATCH in a transaction, and to `at_most` of them.

    Each transaction notes in the audit log what it did: after a crash in the middle the log says neither more nor less
    than what happened. Letters that die meanwhile are not concerned: a replay that fails at once would never end.
    """
    act = dead_letters.request_replay if action is Action.REPLAY else dead_letters.purge
    with ctx.sessions.begin() as session:
        matched, unreadable = dead_letters.count(session, wanted)
    unreadable = unreadable if action is Action.REPLAY else 0
    goal = 0 if dry_run else min(matched - unreadable, matched if at_most is None else at_most)
    done, last_id = 0, ""
    while done < goal:
        limit = min(BATCH, goal - done)
        with ctx.sessions.begin() as session:
            ids = act(session, wanted, after=last_id, limit=limit)
            if ids:
                detail = {"filter": filter_object(wanted), "matched": matched, "done": len(ids)}
                audit_log.add(session, by=by, action=action, target=None, detail=detail, new_id=ctx.new_id)
        done += len(ids)
        on_progress(done, goal)
        if len(ids) < limit:  # another operator had the rest
            break
        last_id = ids[-1]
    if not dry_run:
        log.info("dead_letters_acted_on", action=str(action), by=by, matched=matched, done=done)
    return Count(matched=matched, done=done, unreadable=unreadable)
