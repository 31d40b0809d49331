"""Dead letters."""

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database import pages, work
from ctrip.database.batches import batch
from ctrip.database.models import dead_letters
from ctrip.domain.dead_letters import (
    MOST_REPLAYS,
    NAME_CHARACTERS,
    TRACEBACK_CHARACTERS,
    DeadLetter,
    Filter,
    Forgotten,
    Reason,
    State,
)
from ctrip.log import redact


def add(session: Connection, letter: DeadLetter, *, letter_id: str) -> DeadLetter | None:
    """Store a letter under this id, its secrets struck out.

    Returns the letter as it is stored; None where the same death is stored already.
    """
    stored = replace(_storable(letter), id=letter_id)
    statement = (
        pg.insert(dead_letters)
        .values(**asdict(stored))
        .on_conflict_do_nothing(index_elements=["message_id", "died_at"])
    )
    return None if session.scalar(statement.returning(dead_letters.c.id)) is None else stored


def find(session: Connection, letter_id: str) -> DeadLetter | None:
    """Return one letter."""
    row = session.execute(sa.select(dead_letters).where(dead_letters.c.id == letter_id)).one_or_none()
    return None if row is None else _letter(row)


def matching(session: Connection, wanted: Filter, *, limit: int, after: str | None = None) -> list[DeadLetter]:
    """Return letters, newest first, those after the letter `after` where one is given.

    States, queues and actors are found by an index. Of letters that match nothing else of the filter all are read.
    """
    conditions = _conditions(wanted)
    if after is not None:
        conditions.append(pages.after(session, dead_letters, after, time="died_at"))
    lists = [[*conditions, *kind] for kind in _kinds(session, wanted)]
    if not lists:
        return []
    query = pages.newest(dead_letters, lists, limit=limit, time="died_at")
    return [_letter(row) for row in session.execute(query)]


def count(session: Connection, wanted: Filter) -> tuple[int, int]:
    """Count the letters that a bulk action on this filter concerns; and those of them that nobody can read."""
    of = dead_letters.c
    unreadable = sa.func.count().filter(of.reason == Reason.UNDECODABLE)
    query = sa.select(sa.func.count(), unreadable).where(*_conditions(wanted), *_is_untouched())
    row = session.execute(query.select_from(dead_letters)).one()
    return row[0], row[1]


def request_replay(session: Connection, wanted: Filter, *, after: str, limit: int) -> list[str]:
    """Mark up to `limit` readable letters for replay, oldest first, from the id `after` on, and ring.

    Returns their ids; none is marked twice.
    """
    marked = _close(session, wanted, {"replay_requested_at": sa.func.now()}, after=after, limit=limit, readable=True)
    work.ring(session)
    return marked


def purge(session: Connection, wanted: Filter, *, after: str, limit: int) -> list[str]:
    """Close up to `limit` letters whose replay nobody asked for, oldest first, from the id `after` on.

    Returns their ids; none is purged twice.
    """
    return _close(session, wanted, {"purged_at": sa.func.now()}, after=after, limit=limit, readable=False)


def take_requested(session: Connection, *, limit: int) -> list[DeadLetter]:
    """Close up to `limit` letters whose replay was asked for and return them: whoever gets a letter sends it."""
    query = sa.select(dead_letters.c.id).where(dead_letters.c.replay_requested_at.is_not(None), _is_state(State.OPEN))
    taken = batch(query.order_by(dead_letters.c.id), of=dead_letters, limit=limit)
    rows = session.execute(
        sa.update(dead_letters)
        .where(dead_letters.c.id.in_(sa.select(taken.c.id)))
        .values(replayed_at=sa.func.now(), replays=dead_letters.c.replays + 1)
        .returning(dead_letters)
    )
    return [_letter(row) for row in rows]


def give_back(session: Connection, letter_ids: Collection[str]) -> None:
    """Undo `take_requested` for letters that could not be sent."""
    of = dead_letters.c
    values = {"replayed_at": None, "replays": of.replays - 1}
    session.execute(sa.update(dead_letters).where(of.id.in_(letter_ids), _is_state(State.REPLAYED)).values(values))


def close_rows(session: Connection, row_ids: Collection[str]) -> None:
    """Close the open letters of work rows that are made due again without them: they count as replayed."""
    of = dead_letters.c
    values = {
        "replay_requested_at": sa.func.coalesce(of.replay_requested_at, sa.func.now()),
        "replayed_at": sa.func.now(),
        "replays": of.replays + 1,
    }
    session.execute(sa.update(dead_letters).where(of.row_id.in_(row_ids), _is_state(State.OPEN)).values(values))


def count_open(session: Connection) -> dict[tuple[str, str], int]:
    """Count the open letters by (queue, actor)."""
    of = dead_letters.c
    query = sa.select(of.queue, of.actor, sa.func.count().label("n")).where(_is_state(State.OPEN))
    return {(row.queue, row.actor): row.n for row in session.execute(query.group_by(of.queue, of.actor))}


def forget(session: Connection, *, older_than: timedelta, limit: int) -> Forgotten:
    """Delete up to `limit` letters that died longer ago than that, the oldest first, whatever became of them.

    `before` is a whole second, so that it can be told as it is.
    """
    of = dead_letters.c
    before = session.execute(sa.select(sa.func.date_trunc("second", sa.func.now() - older_than))).scalar_one()
    query = sa.select(of.id).where(of.died_at < before).order_by(of.died_at)
    oldest = batch(query, of=dead_letters, limit=limit)
    is_open = _is_state(State.OPEN).label("is_open")
    deleted = session.scalars(sa.delete(dead_letters).where(of.id.in_(sa.select(oldest.c.id))).returning(is_open)).all()
    return Forgotten(before=before, deleted=len(deleted), open=sum(deleted))


def _close(
    session: Connection, wanted: Filter, change: dict[str, Any], *, after: str, limit: int, readable: bool
) -> list[str]:
    conditions = [*_conditions(wanted), *_is_untouched(), dead_letters.c.id > after]
    if readable:
        conditions.append(dead_letters.c.reason != Reason.UNDECODABLE)
    query = sa.select(dead_letters.c.id).where(*conditions).order_by(dead_letters.c.id)
    closing = batch(query, of=dead_letters, limit=limit)
    closed = sa.update(dead_letters).where(dead_letters.c.id.in_(sa.select(closing.c.id))).values(change)
    return sorted(session.scalars(closed.returning(dead_letters.c.id)))


def _kinds(session: Connection, wanted: Filter) -> Iterator[tuple[sa.ColumnElement[bool], ...]]:
    """Yield conditions whose lists together are the one wanted, each of which an index has in its order."""
    of = dead_letters.c
    if wanted.ids:
        yield ()
        return
    for state in (State.OPEN, State.REPLAYED) if wanted.state is None else (wanted.state,):
        is_such = _is_state(state)
        for queue in pages.values(session, of.queue, is_such) if wanted.queue is None else (wanted.queue,):
            its = (is_such, of.queue == queue)
            actors = pages.values(session, of.actor, *its) if wanted.actor is None else (wanted.actor,)
            yield from ((*its, of.actor == actor) for actor in actors)


def _is_untouched() -> tuple[sa.ColumnElement[bool], ...]:
    """Say that a letter is open, and that no replay of it is on its way: a purge must not overtake one."""
    return _is_state(State.OPEN), dead_letters.c.replay_requested_at.is_(None)


def _is_state(state: State | None) -> sa.ColumnElement[bool]:
    of = dead_letters.c
    if state is State.PURGED:
        return of.purged_at.is_not(None)
    if state is None:
        return of.purged_at.is_(None)
    is_replayed = of.replayed_at.is_not(None) if state is State.REPLAYED else of.replayed_at.is_(None)
    return sa.and_(is_replayed, of.purged_at.is_(None))


def _conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    of = dead_letters.c
    conditions = [_is_state(wanted.state)]
    conditions += [of[name] == value for name in ("queue", "actor", "reason") if (value := getattr(wanted, name))]
    if wanted.exception is not None:
        conditions.append(of.exception.startswith(wanted.exception, autoescape=True))
    if wanted.older_than is not None:
        conditions.append(of.died_at <= sa.func.now() - wanted.older_than)
    if wanted.newer_than is not None:
        conditions.append(of.died_at > sa.func.now() - wanted.newer_than)
    if wanted.q is not None:
        conditions.append(sa.or_(*_says(wanted.q)))
    if wanted.ids:
        conditions.append(of.id.in_(wanted.ids))
    return conditions


def _says(text: str) -> Iterator[sa.ColumnElement[bool]]:
    of = dead_letters.c
    for place in (of.exception, of.message, of.message_id, of.row_id, of.id):
        yield place.icontains(text, autoescape=True)
    # A message is JSON, which writes other letters than ASCII as \u00fc and a quote as \".
    yield of.message.icontains(json.dumps(text)[1:-1], autoescape=True)


def _storable(letter: DeadLetter) -> DeadLetter:
    """Strike secrets out of what an exception said, and what Postgres' text cannot hold out of everything.

    Whoever can write to Redis chooses the names and ids of a message: they are cut to what an index takes.
    """
    return replace(
        letter,
        actor=_plain(letter.actor)[:NAME_CHARACTERS],
        message_id=_plain(letter.message_id)[:NAME_CHARACTERS],
        replays=min(max(0, letter.replays), MOST_REPLAYS),
        message=_plain(letter.message),
        exception=None if letter.exception is None else _plain(redact(letter.exception))[:TRACEBACK_CHARACTERS],
        # The end of a traceback says what happened; its beginning is the same every time.
        traceback=None if letter.traceback is None else _plain(redact(letter.traceback))[-TRACEBACK_CHARACTERS:],
        row_id=None if letter.row_id is None else _plain(letter.row_id)[:NAME_CHARACTERS],
    )


def _plain(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _letter(row: sa.Row[Any]) -> DeadLetter:
    values = dict(row._mapping)
    return DeadLetter(**values | {"reason": Reason(row.reason)})
